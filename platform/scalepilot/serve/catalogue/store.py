"""The policies a server knows, by name and version: each loaded and tried before it is served, none changed afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scalepilot.errors import ArtifactError, ConfigError, did_you_mean
from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.config import RouteConfig
from scalepilot.serve.http.errors import RequestError

_SHOWN_NAMES = 10
_SHOWN_CHARACTERS = 80
Reference = tuple[str, str]


@dataclass(frozen=True)
class Catalogue:
    """What is served at one moment; replaced as a whole, never changed.

    Attributes:
        versions: name → version → policy, versions in rising order.
        routes: name → default version, canary and shadow; only what the policies here can do.
        loading: name and version of what is being loaded just now.
    """

    versions: Mapping[str, Mapping[str, ServedPolicy]]
    routes: Mapping[str, RouteConfig] = field(default_factory=dict)
    loading: frozenset[Reference] = frozenset()

    @classmethod
    def of(cls, policies: Sequence[ServedPolicy], routes: Mapping[str, RouteConfig] | None = None) -> Catalogue:
        """Sort policies by name and version and check the routes against them.

        Raises:
            ArtifactError: one version of one name twice, or versions of one name that take different fields.
            ConfigError: a route to what is not there, or to a policy of another observation.
        """
        by_name: dict[str, dict[str, ServedPolicy]] = {}
        for served in policies:
            versions = by_name.setdefault(served.spec.name, {})
            other = versions.setdefault(served.spec.version, served)
            if other is not served:
                raise ArtifactError(f"{served.folder}: {served.reference} is also in {other.folder}; allowed: each once")
            first = next(iter(versions.values()))
            if _names_of(first) != _names_of(served):
                # Whoever asks by name would be refused from one moment to the next.
                raise ArtifactError(
                    f"{served.folder}: {served.reference} has other observation fields than {first.reference};"
                    " allowed: the same fields under one name, another name for others"
                )
        ordered = {name: dict(sorted(found.items(), key=lambda item: version_order(item[0]))) for name, found in by_name.items()}
        catalogue = cls(ordered, dict(routes or {}))
        for name, route in catalogue.routes.items():
            catalogue._check_route(name, route)
        return catalogue

    def _check_route(self, name: str, route: RouteConfig) -> None:
        try:
            served = self.get(name)
            others = {"shadow": route.shadow, "canary.policy": route.canary.policy if route.canary else None}
            for key, reference in others.items():
                if reference is None:
                    continue
                other = self.find(reference)
                if _fields_of(other) != _fields_of(served):
                    raise ConfigError(
                        f"routes.{name}.{key}: {reference} has other observation fields than {served.reference};"
                        " allowed: policies of the same fields"
                    )
        except RequestError as error:
            raise ConfigError(f"routes.{name}: {error}") from None

    def __iter__(self) -> Iterator[ServedPolicy]:
        for versions in self.versions.values():
            yield from versions.values()

    def __len__(self) -> int:
        return sum(len(versions) for versions in self.versions.values())

    def defaults(self) -> list[ServedPolicy]:
        """The version of every name that answers where none is asked for."""
        return [self.get(name) for name in self.versions]

    def find(self, reference: str) -> ServedPolicy:
        """The policy of a name or name@version.

        Raises:
            RequestError: 404 or 503.
        """
        name, at, version = reference.partition("@")
        return self.get(name, version if at else None)

    def get(self, name: str, version: str | None = None) -> ServedPolicy:
        """The policy of this name.

        Args:
            name: of the policy.
            version: None for the default one.

        Raises:
            RequestError: 404 with the nearest or the known names; 503 while it is being loaded.
        """
        versions = self.versions.get(name)
        if versions is not None:
            if version is None:
                route = self.routes.get(name)
                version = route.default if route and route.default is not None else list(versions)[-1]
            served = versions.get(version)
            if served is not None:
                return served
        if any(at == name and version in (None, of) for at, of in self.loading):
            raise RequestError(503, f"policy: {name} is being loaded; try again", headers=[("retry-after", "1")])
        if versions is None:
            raise RequestError(404, f"policy: {_not_found(name, list(self.versions))}")
        raise RequestError(404, f"version: {_not_found(str(version), list(versions))}")


class PolicyStore:
    """The catalogue of this moment. Readers take `catalogue` once a request; a writer replaces it in one step.

    Args:
        policies: at least one, each version of a name once.
        routes: name → default version, canary, shadow.
        may_be_empty: a watched folder may fill it later.

    Raises:
        ArtifactError: none, or the same name and version twice.
        ConfigError: a route to what is not there.
    """

    def __init__(
        self, policies: Sequence[ServedPolicy], routes: Mapping[str, RouteConfig] | None = None, *, may_be_empty: bool = False
    ) -> None:
        if not policies and not may_be_empty:
            raise ArtifactError("policies: none given; allowed: one or more policy or run folders")
        self.catalogue = Catalogue.of(policies, routes)

    @classmethod
    def load(cls, paths: Sequence[Path | str], routes: Mapping[str, RouteConfig] | None = None) -> PolicyStore:
        """Load every artifact.

        Args:
            paths: policy folders or run folders.
            routes: name → default version, canary, shadow.

        Raises:
            ArtifactError: naming the first that is unfit.
            ConfigError: a route to what is not there.
        """
        return cls([ServedPolicy.load(Path(path)) for path in paths], routes)

    def __iter__(self) -> Iterator[ServedPolicy]:
        return iter(self.catalogue)

    def __len__(self) -> int:
        return len(self.catalogue)

    def get(self, name: str, version: str | None = None) -> ServedPolicy:
        """The policy of this name; see `Catalogue.get`."""
        return self.catalogue.get(name, version)

    def check(self) -> None:
        """Let every policy decide once more.

        Raises:
            Exception: whatever a broken one raises; the process is then replaced.
        """
        for served in self:
            with np.errstate(all="ignore"):
                served.policy.act(served.example_rows(1))


def version_order(version: str) -> list[tuple[int, int, str]]:
    """A key that sorts versions: runs of digits as numbers, 1.10 above 1.9."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"\d+|\D+", version)]


def _not_found(wanted: str, known: list[str]) -> str:
    shown = repr(wanted[:_SHOWN_CHARACTERS])
    listed = ", ".join(known[:_SHOWN_NAMES]) + (f" and {len(known) - _SHOWN_NAMES} more" if len(known) > _SHOWN_NAMES else "")
    hint = did_you_mean(wanted[:_SHOWN_CHARACTERS], known)
    return f"{shown} is not served; allowed: {listed or 'nothing yet'}{hint}"


def _fields_of(served: ServedPolicy) -> list[tuple[str, float, float]]:
    return [(f.name, f.low, f.high) for f in served.spec.observation_fields]


def _names_of(served: ServedPolicy) -> list[str]:
    return [f.name for f in served.spec.observation_fields]
