"""Where every path leads, for the policies of one moment: made again when they change."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from starlette.routing import Route

from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.catalogue.store import Catalogue
from scalepilot.serve.http import endpoints
from scalepilot.serve.http.endpoint import Endpoint
from scalepilot.serve.http.errors import RequestError
from scalepilot.serve.http.replies import Reply

_SHOWN_CHARACTERS = 80
_PART = re.compile(r"{\w+}")
Methods = Mapping[str, Endpoint]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a path leads.

    Attributes:
        methods: HEAD among them where there is GET.
        named: parts of the path, by name.
        served: the policy it names; None where it names none.
        canary: answers a share of what is posted instead.
        share: of those requests.
        shadow: decides again what is posted, for the metrics alone.
    """

    methods: Methods
    named: Mapping[str, str]
    served: ServedPolicy | None = None
    canary: ServedPolicy | None = None
    share: float = 0.0
    shadow: ServedPolicy | None = None

    def not_allowed(self, method: str) -> RequestError:
        """The answer to another method."""
        shown, allowed = method[:_SHOWN_CHARACTERS], ", ".join(self.methods)
        return RequestError(405, f"method: {shown} is not allowed here; allowed: {allowed}", headers=[("allow", allowed)])

    def draw(self) -> ServedPolicy | None:
        """Who answers this request."""
        return self.canary if self.canary is not None and random.random() < self.share else self.served


class Surface:
    """Paths of a catalogue.

    Args:
        catalogue: what is served.

    Attributes:
        targets: every path that no client can make up, so that most requests need no more than a look here.
        kept: path → answer that stays the same as long as the policies do.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._routes = _routes()
        self.targets: dict[str, Target] = {}
        for route, methods in self._routes:
            for target in self._known(frozenset(route.param_convertors), methods):
                self.targets[route.path_format.format(**target.named)] = target
        self.kept: dict[str, Reply] = {}

    def _known(self, parts: frozenset[str], methods: Methods) -> Iterator[Target]:
        if not parts:
            yield Target(methods, {})
        elif parts == {"name", "version"}:
            for served in self.catalogue:
                yield Target(methods, {"name": served.spec.name, "version": served.spec.version}, served)
        elif parts == {"name"}:
            for served in self.catalogue:
                yield Target(methods, {"name": served.reference}, served)
            for served in self.catalogue.defaults():
                yield self._routed(methods, served)

    def _routed(self, methods: Methods, served: ServedPolicy) -> Target:
        named, find = {"name": served.spec.name}, self.catalogue.find
        route = self.catalogue.routes.get(served.spec.name)
        if route is None:
            return Target(methods, named, served)
        shadow = None if route.shadow is None else find(route.shadow)
        if route.canary is None:
            return Target(methods, named, served, shadow=shadow)
        return Target(methods, named, served, find(route.canary.policy), route.canary.share, shadow)

    def find(self, path: str) -> Target:
        """Where a path leads that is not among the targets.

        Raises:
            RequestError: 404, or 503 while the policy it names is being loaded.
        """
        methods, named = self.match(path)
        served = None
        if "name" in named:
            catalogue, name, version = self.catalogue, named["name"], named.get("version")
            served = catalogue.find(name) if version is None else catalogue.get(name, version)
        return Target(methods, named, served)

    def match(self, path: str) -> tuple[Methods, Mapping[str, str]]:
        """What may be asked of a path and its parts by name, whether or not the policy among them is served.

        Raises:
            RequestError: 404.
        """
        for route, methods in self._routes:
            found = route.path_regex.fullmatch(path)
            if found is not None:
                return methods, found.groupdict()
        raise endpoints.unknown_path(path)


def _routes() -> list[tuple[Route, Methods]]:
    """The records by path, the most letters of its own first: what ends in `:decide` is no policy's name."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints.ENDPOINTS:
        first = by_path.setdefault(endpoint.path, {}).setdefault(endpoint.method, endpoint)
        if first is not endpoint:
            raise ValueError(f"{endpoint.method} {endpoint.path}: {first.name} and {endpoint.name} answer it; allowed: one")
    found: list[tuple[Route, Methods]] = []
    for path in sorted(by_path, key=lambda path: -len(_PART.sub("", path))):
        by_method = by_path[path]
        route = Route(path, next(iter(by_method.values())).answer, methods=list(by_method))
        # Starlette adds HEAD to GET.
        allowed = sorted(route.methods or ())
        found.append((route, {method: by_method["GET" if method == "HEAD" else method] for method in allowed}))
    return found
