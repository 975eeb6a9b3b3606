"""The OpenAPI 3.1 document of the loaded policies, made of the endpoints' records; every example is a real request or answer.

Written in what OpenAPI 3.0 and 3.1 share (no `const`): the Swagger UI in `swagger_ui_bundle` reads 3.0 only, so the page at /docs
hands it this document as 3.0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from scalepilot import __version__
from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.http.endpoint import Call, Endpoint
from scalepilot.serve.http.errors import RequestError
from scalepilot.serve.http.openapi_schemas import Schemas, ref
from scalepilot.serve.http.unpack import Unpacker, too_large

_DESCRIPTION = """Autoscaling policies over HTTP: send the named physical fields of one moment, get the number of replicas to run.

The server keeps nothing between requests. What a rule remembers comes back as `state`; send it with the next observation.
Every error has the body `{"error": "one line", "problems": […]}`."""
_TAGS = [
    {"name": "decide", "description": "An observation in, replicas out"},
    {"name": "inference", "description": "Open Inference Protocol v2, for KServe and Triton clients"},
    {"name": "policies", "description": "Served policies: fields with units and bounds, actions, evaluation"},
    {"name": "health", "description": "For probes"},
    {"name": "documentation", "description": "This document, and pages for people"},
]
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_JSON = "application/json"
_PART = re.compile(r"{(\w+)}")
# What may come of any body, beside what is wrong with what it says.
_BODY_REFUSALS = (400, 408, 413, 415, 503)


def openapi_document(call: Call, endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Describe every endpoint.

    Args:
        call: schemas and examples come from its policies, limits from its server.
        endpoints: what is described.

    Raises:
        RequestError: 503 as long as nothing is served.
    """
    defaults = call.catalogue.defaults()
    if not defaults:
        raise RequestError(503, "no policy is loaded yet; try again", headers=[("retry-after", "1")])
    described = [endpoint for endpoint in endpoints if endpoint.tag]
    schemas = Schemas(call.catalogue)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in described:
        # What the policies make different is there for each of them, too.
        own = [(_of_policy(endpoint, served), served) for served in defaults if isinstance(endpoint.request, str)]
        for record, served in [*own, (endpoint, defaults[0])]:
            item = paths.setdefault(record.path, {})
            if parts := _PART.findall(record.path):
                item["parameters"] = [_parameter(part, call) for part in parts]
            item[record.method.lower()] = _operation(record, replace(call, endpoint=record, served=served), schemas)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Scalepilot", "version": __version__, "description": _DESCRIPTION},
        "tags": _TAGS,
        "paths": paths,
        "components": {"schemas": schemas.components},
    }
    if call.server.with_keys:
        document["components"]["securitySchemes"] = _KEYS
        document["security"] = [{name: []} for name in _KEYS]
    return document


def _of_policy(endpoint: Endpoint, served: ServedPolicy) -> Endpoint:
    """The record of one policy alone, with its own schemas."""
    spec = served.spec
    made_by = f"rule {spec.rule['name']}" if spec.rule else spec.kind
    return replace(
        endpoint,
        name=f"{endpoint.name}_{spec.name}",
        path=endpoint.path.format(name=spec.name),
        summary=f"{spec.name} {spec.version}: {made_by} for {spec.env_id}",
        description=_field_table(served),
        request=f"{endpoint.request}.{spec.name}",
        response=f"{endpoint.response}.{spec.name}",
    )


def _field_table(served: ServedPolicy) -> str:
    rows = [
        f"| `{f.name}` | {f.unit} | {_bound(f.low)} to {_bound(f.high)} | {f.description} |"
        for f in served.spec.observation_fields
    ]
    return "\n".join(["| field | unit | range | what it is |", "|---|---|---|---|", *rows])


def _bound(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:.6g}"


def _parameter(part: str, call: Call) -> dict[str, Any]:
    names = list(call.catalogue.versions)
    known: dict[str, dict[str, Any]] = {
        "name": {"schema": {"type": "string", "enum": names}, "example": names[0]},
        "version": {"schema": {"type": "string"}, "example": min(served.spec.version for served in call.catalogue)},
    }
    return {"name": part, "in": "path", "required": True} | known.get(part, {"schema": {"type": "string"}})


def _operation(endpoint: Endpoint, call: Call, schemas: Schemas) -> dict[str, Any]:
    """What the document says of a record.

    Args:
        endpoint: the record.
        call: with the policy that the examples are of.
        schemas: of its types.
    """
    request, answer = _examples(endpoint, call)
    operation: dict[str, Any] = {"tags": [endpoint.tag], "operationId": endpoint.name, "summary": endpoint.summary}
    if endpoint.description:
        operation["description"] = endpoint.description
    if endpoint.request is not None:
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": schemas.of(endpoint.request)} | request}}
    text = _is_text(endpoint)
    kind, schema = (endpoint.response, {"type": "string"}) if text else (_JSON, schemas.of(endpoint.response))
    operation["responses"] = {"200": {"description": "OK", "content": {kind: {"schema": schema} | answer}}}
    statuses = {*endpoint.refusals, *((404,) if "{name}" in endpoint.path else ())}
    statuses |= {*(_BODY_REFUSALS if endpoint.method == "POST" else ())}
    if call.server.with_keys and endpoint.key == "never":
        operation["security"] = []
    elif call.server.with_keys:
        statuses.add(401)
    operation["responses"] |= {str(status): _refusal(status, endpoint, call) for status in sorted(statuses)}
    return operation


def _is_text(endpoint: Endpoint) -> bool:
    return isinstance(endpoint.response, str) and "/" in endpoint.response


def _examples(endpoint: Endpoint, call: Call) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is sent and what is answered; the latter of a GET by asking for it."""
    if endpoint.examples is not None:
        return endpoint.examples(call)
    parts = {"name": call.policy.spec.name, "version": call.policy.spec.version}
    if endpoint.method == "POST" or _is_text(endpoint) or endpoint.response is dict:
        return {}, {}
    if not set(_PART.findall(endpoint.path)) <= set(parts):
        return {}, {}
    try:
        answer = endpoint.answer(replace(call, path=endpoint.path.format(**parts), named=parts))
    except RequestError:
        # Of a server that is stopping.
        return {}, {}
    return {}, {"example": answer}


def _refusal(status: int, endpoint: Endpoint, call: Call) -> dict[str, Any]:
    """A status with what a request really is answered: the examples of errors are made by the code that makes them."""
    limit = call.server.config.limits.body_bytes

    def wrong_field() -> Any:
        field = call.policy.spec.observation_fields[0]
        observation = call.policy.example | {field.name: field.low - 5}
        return endpoint.answer(replace(call, body=json.dumps({"observation": observation}).encode()))

    said: dict[int, tuple[str, Callable[[], Any]]] = {
        400: ("Not JSON, or not what this endpoint expects", lambda: endpoint.answer(replace(call, body=b'{"observation": {'))),
        401: ("No API key, or a wrong one", lambda: "API key: is missing; allowed: Authorization: Bearer KEY, …"),
        404: ("No policy of this name", lambda: call.catalogue.get("unknown")),
        408: ("The body did not arrive in time", lambda: "body: did not arrive within 10 s; send it faster"),
        413: (f"More than {limit} bytes", lambda: str(too_large(limit))),
        415: ("A compression other than gzip and deflate", lambda: Unpacker(b"br", limit)),
        422: ("A field is missing, unknown or out of its range", wrong_field),
        503: (
            "Stopping, loading, or too many waiting requests: retry; repeating a decision is safe",
            lambda: "the server is stopping; try again",
        ),
    }
    description, make = said[status]
    try:
        told: Any = {"error": make()}
    except RequestError as error:
        told = error.to_json()
    answer = {"description": description, "content": {_JSON: {"schema": ref("Error"), "example": told}}}
    return answer | (
        {"headers": {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}} if status == 503 else {}
    )
