"""Named access to columns of an observation, and its check against bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalepilot.errors import ArtifactError, ObservationError, did_you_mean
from scalepilot.policy.spec import FieldEntry, PolicySpec
from scalepilot_envs.description import MASK_KEY, Signal, is_mask

_SHOWN_PROBLEMS = 3


# Fields in which a service says how many replicas may be asked for.
BOUNDS = ("min_replicas", "max_replicas")


class FieldView:
    """Columns of observations (n, num_fields) by field name, and the physical quantities computed from them.

    Args:
        fields: of the observation, in order.
        signals: quantity → how the environment computes it from its fields.

    Attributes:
        shows_bounds: whether an observation says how many replicas may be asked for.

    Raises:
        ArtifactError: a rule asks for a field or quantity the observation does not have.
    """

    def __init__(self, fields: Sequence[FieldEntry], signals: Mapping[str, Signal] | None = None) -> None:
        self._index = {f.name: i for i, f in enumerate(fields)}
        self._signals = signals or {}
        self.shows_bounds = all(name in self._index for name in BOUNDS)

    def column(self, observation: NDArray[Any], name: str) -> NDArray[np.float64]:
        """(n,) float64 values of one field."""
        if name not in self._index:
            raise ArtifactError(f"observation: field {name} is missing; this rule needs it")
        return observation[:, self._index[name]].astype(np.float64, copy=False)

    def signal(self, name: str, observation: NDArray[Any]) -> NDArray[np.float64]:
        """(n,) float64 values of one quantity: total_replicas, utilisation, backlog_requests, demand and so on."""
        if name not in self._signals:
            raise ArtifactError(f"observation: shows no {name}; this policy needs it")
        return self._signals[name](lambda field: self.column(observation, field))

    def total_of_row(self, row: Sequence[float]) -> float:
        """`total` of one observation as plain numbers: what the signal computes, without arrays."""
        return float(self._signals["total_replicas"](lambda field: row[self._index[field]]))  # type: ignore[arg-type, return-value]

    def bounds_of_row(self, row: Sequence[float]) -> tuple[float, float]:
        """Fewest and most replicas that one observation allows; infinite where it says nothing."""
        if not self.shows_bounds:
            return -math.inf, math.inf
        low, high = (row[self._index[name]] for name in BOUNDS)
        return low, high

    def ready(self, observation: NDArray[Any]) -> NDArray[np.float64]:
        """(n,) replicas that serve."""
        return self.signal("ready_replicas", observation)

    def total(self, observation: NDArray[Any]) -> NDArray[np.float64]:
        """(n,) ready + starting replicas."""
        return self.signal("total_replicas", observation)


def observation_row(
    fields: Sequence[FieldEntry], values: Mapping[str, Any], clipped: list[dict[str, Any]] | None = None
) -> list[float]:
    """Check a client's named fields and put them in order.

    Args:
        fields: the policy's fields.
        values: name → number.
        clipped: finite numbers out of their range are brought into it and appended here, {"field", "value", "used", "unit",
            "low", "high"}; None refuses them.

    Raises:
        ObservationError: missing, unknown, non-numeric or out-of-range fields; the message names field, unit and range.
    """
    problems: list[dict[str, object]] = []
    row: list[float] = []
    num_masked = sum(is_mask(f.name) for f in fields)
    if num_masked:
        values = _with_mask(values, fields[len(fields) - num_masked :], problems)
    for f in fields:
        if f.name not in values:
            problems.append(_problem(f, f"{f.name}: is missing; allowed: {f.low:g} to {f.high:g} {f.unit}"))
            continue
        value = values[f.name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if clipped is not None and number and (value < f.low or value > f.high) and abs(value) != math.inf:
            used = f.low if value < f.low else f.high
            clipped.append({"field": f.name, "value": value, "used": used, "unit": f.unit, "low": f.low, "high": f.high})
            row.append(used)
            continue
        # Both bounds are finite, so NaN and infinity fail the comparison, and an integer beyond a float does not raise.
        if not number or not f.low <= value <= f.high:
            shown = repr(value)[:60]
            problems.append(_problem(f, f"{f.name}: {shown} is not allowed; allowed: {f.low:g} to {f.high:g} {f.unit}"))
            continue
        row.append(float(value))
    if num_masked and not problems and not any(value > 0.5 for value in row[-num_masked:]):
        problems.append(_mask_problem(f"{MASK_KEY}: no action is valid; allowed: at least one"))
    names = [f.name for f in fields]
    for name in values:
        if name not in names:
            hint = did_you_mean(name, names)
            problems.append(
                {"field": name[:80], "problem": f"{name[:80]}: unknown field{hint}", "unit": None, "low": None, "high": None}
            )
    if problems:
        lines = [str(p["problem"]) for p in problems[:_SHOWN_PROBLEMS]]
        if len(problems) > _SHOWN_PROBLEMS:
            lines.append(f"and {len(problems) - _SHOWN_PROBLEMS} more")
        raise ObservationError(" · ".join(lines), problems)
    return row


def _with_mask(values: Mapping[str, Any], fields: Sequence[FieldEntry], problems: list[dict[str, object]]) -> Mapping[str, Any]:
    """The fields of a mask from the list under its name; what is not said to be invalid is valid."""
    given = values.get(MASK_KEY)
    valid: list[Any] = [1.0] * len(fields)
    if given is not None:
        if isinstance(given, list) and len(given) == len(fields) and all(value in (0, 1) for value in given):
            valid = [float(value) for value in given]
        else:
            what = f"a list of {len(given)}" if isinstance(given, list) and len(given) != len(fields) else repr(given)[:60]
            problems.append(
                _mask_problem(f"{MASK_KEY}: {what} is not allowed; allowed: a list of {len(fields)} times true or false")
            )
    named = {f.name: value for f, value in zip(fields, valid, strict=True)}
    rest = {name: value for name, value in values.items() if name != MASK_KEY}
    return {
        **named,
        **{name: float(value) if name in named and isinstance(value, bool) else value for name, value in rest.items()},
    }


def _mask_problem(text: str) -> dict[str, object]:
    return {"field": MASK_KEY, "problem": text, "unit": None, "low": None, "high": None}


def _problem(f: FieldEntry, text: str) -> dict[str, object]:
    return {"field": f.name, "problem": text, "unit": f.unit, "low": f.low, "high": f.high}


def check_shown_fields(policy_name: str, spec: PolicySpec, env_fields: Sequence[FieldEntry]) -> None:
    """Refuse a policy that an environment's observation does not fit.

    A network takes the whole vector. A rule reads its fields by their places: further ones behind them do not matter to it.

    Raises:
        ArtifactError: naming the first field that differs.
    """
    known = spec.observation_fields
    check_same_fields(policy_name, known, env_fields[: len(known)] if spec.kind == "rule" else env_fields)


def check_same_fields(policy_name: str, policy_fields: Sequence[FieldEntry], env_fields: Sequence[FieldEntry]) -> None:
    """Refuse a policy whose observation is not this environment's.

    Raises:
        ArtifactError: naming the first field that differs.
    """
    ours, theirs = [f.name for f in env_fields], [f.name for f in policy_fields]
    if ours == theirs:
        return
    missing = [n for n in theirs if n not in ours]
    extra = [n for n in ours if n not in theirs]
    what = (
        f"it needs {missing[0]}, which this environment does not show"
        if missing
        else f"it does not know {extra[0]}"
        if extra
        else "the same fields in another order"
    )
    raise ArtifactError(f"{policy_name}: made for another observation space ({len(theirs)} fields, here {len(ours)}): {what}")
