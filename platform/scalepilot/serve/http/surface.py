"""Every path the server answers, for the policies of one moment: made anew when they change, and pure otherwise."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from scalepilot.policy.artifact import refused_in_a_line
from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.catalogue.store import Catalogue
from scalepilot.serve.decide import oip
from scalepilot.serve.http.describe import describe_all, describe_one
from scalepilot.serve.http.docs_page import docs_files
from scalepilot.serve.http.errors import RequestError
from scalepilot.serve.http.openapi import openapi_document
from scalepilot.serve.page import page_files

JSON = "application/json"
POLICIES, MODELS, DECIDE, INFER, VERSIONS, READY = "/v1/policies/", "/v2/models/", ":decide", "/infer", "/versions/", "/ready"
ENDPOINTS = (
    "/v1/policies, /v1/policies/{name}, /v1/policies/{name}:decide, /v2, /v2/models/{name}, /v2/models/{name}/infer,"
    " /v2/health/live, /v2/health/ready, /metrics, /openapi.json, /docs, /"
)
_SHOWN_CHARACTERS = 80
Page = tuple[str, bytes]


@dataclass(frozen=True)
class Post:
    """Where a request with a body goes.

    Attributes:
        endpoint: "decide" or "infer".
        served: who answers.
        canary: who answers a share of the requests instead.
        share: of the requests.
        shadow: who answers again, for the metrics alone.
    """

    endpoint: str
    served: ServedPolicy
    canary: ServedPolicy | None = None
    share: float = 0.0
    shadow: ServedPolicy | None = None

    def draw(self) -> ServedPolicy:
        """Who answers this request."""
        return self.canary if self.canary is not None and random.random() < self.share else self.served


class Surface:
    """Paths of a catalogue.

    Args:
        catalogue: what is served.
        max_body_bytes: said in the documentation.
        fixed: pages that do not depend on the policies, path → (content type, bytes).
        with_keys: said in the documentation, too.
    """

    def __init__(self, catalogue: Catalogue, max_body_bytes: int, fixed: Mapping[str, Page], *, with_keys: bool = False) -> None:
        self.catalogue = catalogue
        self.posts: dict[str, Post] = {}
        for served in catalogue:
            name, version = served.spec.name, served.spec.version
            self.posts[f"{POLICIES}{name}@{version}{DECIDE}"] = Post("decide", served)
            self.posts[f"{MODELS}{name}{VERSIONS}{version}{INFER}"] = Post("infer", served)
        for served in catalogue.defaults():
            name = served.spec.name
            self.posts[f"{POLICIES}{name}{DECIDE}"] = self._routed("decide", served)
            self.posts[f"{MODELS}{name}{INFER}"] = self._routed("infer", served)
        self._pages: dict[str, Page] = dict(fixed)
        self._made_on_demand: dict[str, Callable[[], Any]] = {
            "/v1/policies": lambda: describe_all(catalogue),
            "/openapi.json": lambda: openapi_document(catalogue, max_body_bytes, with_keys=with_keys),
        }

    def _routed(self, endpoint: str, served: ServedPolicy) -> Post:
        route = self.catalogue.routes.get(served.spec.name)
        if route is None:
            return Post(endpoint, served)
        canary = None if route.canary is None else self.catalogue.find(route.canary.policy)
        shadow = None if route.shadow is None else self.catalogue.find(route.shadow)
        return Post(endpoint, served, canary, route.canary.share if route.canary else 0.0, shadow)

    def page(self, path: str) -> Page | None:
        """The answer of a GET: (content type, bytes); None where that is not for this method to say.

        Raises:
            RequestError: 404, or 503 while a policy is being loaded.
        """
        found = self._pages.get(path)
        if found is not None:
            return found
        make = self._made_on_demand.get(path) or self._of_policy(path)
        if make is None:
            return None
        page = (JSON, to_bytes(make()))
        self._pages[path] = page
        return page

    def _of_policy(self, path: str) -> Callable[[], Any] | None:
        """What is said of one policy; its path must name one that is served, so that strangers fill no memory."""
        catalogue = self.catalogue
        if path.startswith(POLICIES):
            served = self._at(path.removeprefix(POLICIES), "@")
            return partial(describe_one, served, catalogue)
        if path.startswith(MODELS):
            rest = path.removeprefix(MODELS)
            if rest.endswith(READY):
                served = self._at(rest.removesuffix(READY), VERSIONS)
                return lambda: {"name": served.spec.name, "ready": True}
            served = self._at(rest, VERSIONS)
            return lambda: oip.model_metadata(served, list(catalogue.versions[served.spec.name]))
        return None

    def post(self, path: str) -> Post | None:
        """Where a POST goes; None where that path takes none.

        Raises:
            RequestError: 404, or 503 while the policy is being loaded.
        """
        found = self.posts.get(path)
        if found is not None:
            return found
        if path.startswith(POLICIES) and path.endswith(DECIDE):
            return Post("decide", self._at(path[len(POLICIES) : -len(DECIDE)], "@"))
        if path.startswith(MODELS) and path.endswith(INFER):
            return Post("infer", self._at(path[len(MODELS) : -len(INFER)], VERSIONS))
        return None

    def _at(self, reference: str, separator: str) -> ServedPolicy:
        name, found, version = reference.partition(separator)
        return self.catalogue.get(name, version if found else None)

    @staticmethod
    def unknown(path: str) -> RequestError:
        """The answer to a path that nobody knows."""
        return RequestError(404, f"path: {path[:_SHOWN_CHARACTERS]!r} is not served; allowed: {ENDPOINTS}")


def check_pages(served: ServedPolicy) -> None:
    """Make every page that tells of a policy, before anybody asks for one.

    Raises:
        ArtifactError: one of them cannot be made of it.
    """
    with refused_in_a_line(str(served.folder)):
        name, version = served.spec.name, served.spec.version
        surface = Surface(Catalogue.of([served]), 0, {})
        for path in ("/v1/policies", "/openapi.json", f"{POLICIES}{name}@{version}", f"{MODELS}{name}{VERSIONS}{version}"):
            surface.page(path)


def fixed_pages() -> dict[str, Page]:
    """What is the same whatever is served."""
    return {
        "/health/live": (JSON, to_bytes({"status": "live"})),
        "/v2/health/live": (JSON, to_bytes({"live": True})),
        "/v2": (JSON, to_bytes(oip.server_metadata())),
        "/v2/": (JSON, to_bytes(oip.server_metadata())),
        **docs_files(),
        **page_files(),
    }


def to_bytes(value: Any) -> bytes:
    """JSON in UTF-8 on one line.

    Raises:
        ValueError: a number that JSON does not have.
    """
    # A client's field name may hold half a surrogate pair: it goes back escaped, as it came.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"
