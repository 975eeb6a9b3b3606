"""The policies a server knows, by name: loaded once, probed once, never changed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from scalepilot.errors import ArtifactError
from scalepilot.policy import FieldView, Policy, PolicySpec, describe_env, find_policy_folder, load_policy
from scalepilot.serve.errors import RequestError
from scalepilot.serve.example import example_observation

_SHOWN_NAMES = 10
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class ServedPolicy:
    """A policy with what every request to it needs.

    Attributes:
        policy: the loaded artifact.
        folder: where it came from.
        view: named access to columns of its observation.
        move_labels: one for each action; unique.
        state_shapes: key → shape of one observation's state; None where nothing is remembered.
        example: field → value of a plausible observation.
        replica_bounds: fewest and most replicas it may ask for.
    """

    policy: Policy
    folder: Path
    view: FieldView
    move_labels: tuple[str, ...]
    state_shapes: dict[str, tuple[int, ...]] | None
    example: dict[str, float]
    replica_bounds: tuple[int, int]

    @property
    def spec(self) -> PolicySpec:
        """Name, version, fields and provenance."""
        return self.policy.spec

    @classmethod
    def load(cls, path: Path) -> ServedPolicy:
        """Load an artifact and let it decide once, so that a policy that cannot decide is refused before it is served.

        Args:
            path: a policy folder, or a run folder.

        Raises:
            ArtifactError: it does not load, or does not decide.
        """
        folder = find_policy_folder(path).resolve()
        policy = load_policy(folder)
        spec = policy.spec
        example = example_observation(spec)
        row = np.array([[example[f.name] for f in spec.observation_fields]])
        try:
            with np.errstate(all="ignore"):
                decision, state = policy.act(row)
        except ArtifactError:
            raise
        except Exception as error:  # noqa: BLE001 - onnxruntime and numpy raise a dozen types of their own
            raise ArtifactError(f"{folder}: does not decide on an observation within its bounds: {str(error)[:200]}") from None
        env = describe_env(spec, str(folder))
        if decision.desired_replicas is None or not env.commands_targets:
            raise ArtifactError(f"{folder}: decides on no replicas; allowed: policies that scale replicas")
        scores = decision.desired_replicas if decision.scores is None else decision.scores
        if not np.isfinite(scores).all():
            raise ArtifactError(f"{folder}: gives NaN or infinity for an observation within its bounds; allowed: finite scores")
        try:
            json.dumps(asdict(spec), allow_nan=False)
        except ValueError:
            raise ArtifactError(f"{folder}: policy.json holds a number beyond a float; allowed: finite numbers") from None
        return cls(
            policy=policy,
            folder=folder,
            view=FieldView(spec.observation_fields, env.signals),
            move_labels=_unique_labels([action.label for action in spec.actions]),
            state_shapes=None if state is None else {name: column.shape[1:] for name, column in state.items()},
            example=example,
            replica_bounds=(env.params.min_replicas, env.params.max_replicas),
        )


class PolicyStore:
    """Served policies by name.

    Args:
        policies: at least one, names unique.

    Raises:
        ArtifactError: none, or two with the same name.
    """

    def __init__(self, policies: Sequence[ServedPolicy]) -> None:
        if not policies:
            raise ArtifactError("policies: none given; allowed: one or more policy or run folders")
        self._by_name: dict[str, ServedPolicy] = {}
        for served in policies:
            other = self._by_name.setdefault(served.spec.name, served)
            if other is not served:
                raise ArtifactError(
                    f"{served.folder}: the name {served.spec.name} is also that of {other.folder}; allowed: each once"
                )

    @classmethod
    def load(cls, paths: Sequence[Path | str]) -> PolicyStore:
        """Load every artifact.

        Args:
            paths: policy folders or run folders.

        Raises:
            ArtifactError: naming the first that is unfit.
        """
        return cls([ServedPolicy.load(Path(path)) for path in paths])

    def __iter__(self) -> Iterator[ServedPolicy]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> ServedPolicy:
        """The policy of this name.

        Raises:
            RequestError: 404, with the nearest or the known names.
        """
        served = self._by_name.get(name)
        if served is not None:
            return served
        shown = repr(name[:_SHOWN_CHARACTERS])
        near = difflib.get_close_matches(name[:_SHOWN_CHARACTERS], self._by_name, n=1)
        known = list(self._by_name)
        listed = ", ".join(known[:_SHOWN_NAMES]) + (f" and {len(known) - _SHOWN_NAMES} more" if len(known) > _SHOWN_NAMES else "")
        hint = f"; did you mean {near[0]}?" if near else ""
        raise RequestError(404, f"policy: {shown} is not served; allowed: {listed}{hint}")

    def check(self) -> None:
        """Let every policy decide once more.

        Raises:
            Exception: whatever a broken one raises; the process is then replaced.
        """
        for served in self:
            with np.errstate(all="ignore"):
                served.policy.act(np.array([list(served.example.values())]))


def _unique_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Two moves may round to the same words; an answer keyed by them needs each once."""
    return tuple(f"{label} (action {i})" if labels.count(label) > 1 else label for i, label in enumerate(labels))
