"""What an endpoint is: one record, and what its handler is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.catalogue.store import Catalogue
from scalepilot.serve.config import OPENABLE
from scalepilot.serve.http.body import Headers

if TYPE_CHECKING:
    from scalepilot.serve.http.asgi import PolicyApi


@dataclass(slots=True)
class Call:
    """What a handler is given.

    Attributes:
        server: who answers: its configuration, metrics and state.
        catalogue: what is served at this moment.
        endpoint: that is asked.
        path: of the request.
        named: parts of the path, by their names in the record's.
        served: the policy that the path names, or its canary; None where it names none.
        shadow: decides the same for the metrics alone.
        headers: of the request.
        body: whole, unpacked and within its limits; empty for a GET.
    """

    server: PolicyApi
    catalogue: Catalogue
    endpoint: Endpoint
    path: str
    named: Mapping[str, str]
    served: ServedPolicy | None = None
    shadow: ServedPolicy | None = None
    headers: Headers = field(default_factory=list)
    body: bytes = b""

    @property
    def policy(self) -> ServedPolicy:
        """The policy that the path names."""
        assert self.served is not None
        return self.served


@dataclass(frozen=True)
class Endpoint:
    """One thing that the server answers.

    Attributes:
        name: of the operation in the document.
        path: `{name}` in it is a policy, as name or name@version, found before the handler is called; `{version}` its version.
        answer: handler: gives plain data (sent as JSON), bytes of JSON, or a whole `Reply`; raises `RequestError`.
        response: what the answer is, as `openapi_schemas.py` reads it: a type, a mapping of keys to types, the name of a schema
            that the policies make, or a media type where it is no JSON.
        summary: a line for a person.
        tag: group in the document; empty for what is neither in the document nor in the 404's text.
        method: GET, with which HEAD comes, or POST, whose body is read within the limits.
        request: what the body is, likewise; None without one.
        label: `endpoint` in the metrics.
        key: where keys are set: needed, never, or needed unless the configuration's `open` has this name.
        kept: the answer is the same until the policies change.
        examples: what is sent and answered, as OpenAPI's `example` or `examples`; None asks for what a GET is answered.
        refusals: statuses in the document beside those that follow from path and method.
        description: more than a line.
    """

    name: str
    path: str
    answer: Callable[[Call], Any]
    response: Any
    summary: str
    tag: str = ""
    method: Literal["GET", "POST"] = "GET"
    request: Any = None
    label: str = "page"
    key: str = "needed"
    kept: bool = False
    examples: Callable[[Call], tuple[dict[str, Any], dict[str, Any]]] | None = None
    refusals: tuple[int, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        for key, value, allowed in (("method", self.method, ("GET", "POST")), ("key", self.key, ("needed", "never", *OPENABLE))):
            if value not in allowed:
                raise ValueError(f"{self.name}: {key}: {value!r} is not allowed; allowed: {', '.join(allowed)}")
        if not self.path.startswith("/"):
            raise ValueError(f"{self.name}: path: {self.path!r} is not allowed; allowed: a path that begins with /")
        if self.kept and ("{" in self.path.replace("{name}", "").replace("{version}", "") or self.method != "GET"):
            raise ValueError(f"{self.name}: kept: strangers would fill the memory; allowed: a GET of fixed paths and policies")
