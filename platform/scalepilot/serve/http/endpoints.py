"""Everything the server answers: one record an endpoint.

From a record follow routing, HEAD and the methods that a 405 allows, the OpenAPI document, the label of its metrics, whether it
needs a key, and its place in the text of the 404. To add one, write a handler and append its record to `ENDPOINTS`
(docs/develop/add-an-endpoint.md).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from scalepilot.serve.decide import oip
from scalepilot.serve.http.deciding import decide, decide_examples, infer, infer_examples
from scalepilot.serve.http.describe import POLICY, describe
from scalepilot.serve.http.endpoint import Call, Endpoint
from scalepilot.serve.http.errors import RequestError
from scalepilot.serve.http.openapi import openapi_document
from scalepilot.serve.http.replies import Reply
from scalepilot.serve.page import page_files

_SHOWN_CHARACTERS = 80


def _ready(call: Call) -> dict[str, Any]:
    count = len(call.catalogue)
    if not call.server.ready or not count:
        why = "stopping" if not call.server.ready else "no policy is loaded yet"
        raise RequestError(503, f"the server is not ready: {why}", headers=[("retry-after", "1")])
    return {"status": "ready", "ready": True, "policies": count}


def _model_metadata(call: Call) -> dict[str, Any]:
    return oip.model_metadata(call.policy, list(call.catalogue.versions[call.policy.spec.name]))


def _list_policies(call: Call) -> dict[str, Any]:
    return {"policies": [describe(served, call.catalogue) for served in call.catalogue]}


def _get_policy(call: Call) -> dict[str, Any]:
    served = call.policy
    return describe(served, call.catalogue) | {"provenance": served.spec.provenance, "example": served.example}


def _metrics(call: Call) -> Reply:
    return 200, [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")], call.server.metrics_text(call.catalogue)


def _page(call: Call) -> Reply:
    found = page_files().get(call.path)
    if found is None:
        raise unknown_path(call.path)
    return 200, *found


def unknown_path(path: str) -> RequestError:
    """The answer to a path that nobody knows."""
    known = ", ".join(dict.fromkeys(endpoint.path for endpoint in ENDPOINTS if endpoint.tag))
    return RequestError(404, f"path: {path[:_SHOWN_CHARACTERS]!r} is not served; allowed: {known}")


def _of_version(endpoint: Endpoint) -> Endpoint:
    """The same for one version of a model."""
    path = endpoint.path.replace("{name}", "{name}/versions/{version}")
    return replace(endpoint, name=f"{endpoint.name}_of_version", path=path)


_DECIDE = Endpoint(
    name="decide",
    path="/v1/policies/{name}:decide",
    method="POST",
    answer=decide,
    request="Request",
    response="Answers",
    summary="Any policy, by name",
    description="The same for every policy; its fields are in `GET /v1/policies/{name}`.",
    tag="decide",
    label="decide",
    examples=decide_examples,
    refusals=(422,),
)
_INFER = Endpoint(
    name="infer",
    path="/v2/models/{name}/infer",
    method="POST",
    answer=infer,
    request=oip.InferRequest,
    response=oip.INFERRED,
    summary="Decide for rows of observations",
    description="One input, `observation`: the policy's fields in their order. Binary tensors are understood, too.",
    tag="inference",
    label="infer",
    examples=infer_examples,
)
_LIST = Endpoint("list_policies", "/v1/policies", _list_policies, {"policies": [POLICY]}, "All policies", "policies", kept=True)
_POLICY = Endpoint(
    name="get_policy",
    path="/v1/policies/{name}",
    answer=_get_policy,
    response=POLICY | {"provenance": dict, "example": dict[str, float]},
    summary="One policy, with an example",
    tag="policies",
    kept=True,
)
_SERVER = Endpoint("server_metadata", "/v2", lambda _: oip.server_metadata(), oip.SERVER_METADATA, "This server", "inference")
_MODEL = Endpoint(
    "model_metadata", "/v2/models/{name}", _model_metadata, oip.MODEL_METADATA, "Inputs and outputs of a model", "inference"
)
_MODEL_READY = Endpoint(
    name="model_ready",
    path="/v2/models/{name}/ready",
    answer=lambda call: {"name": call.policy.spec.name, "ready": True},
    response={"name": str, "ready": bool},
    summary="Whether a model answers",
    tag="inference",
)
_LIVE = Endpoint(
    name="health_live",
    path="/health/live",
    answer=lambda _: {"status": "live"},
    response={"status": str},
    summary="The process answers",
    tag="health",
    label="health",
    key="never",
)
_READY = replace(
    _LIVE,
    name="health_ready",
    path="/health/ready",
    answer=_ready,
    response={"status": str, "ready": bool, "policies": int},
    summary="Policies are loaded, and the server is not stopping",
    refusals=(503,),
)
_METRICS = Endpoint(
    name="get_metrics",
    path="/metrics",
    answer=_metrics,
    response="text/plain",
    summary="Counts and times, for Prometheus",
    tag="health",
    label="metrics",
    key="metrics",
)
_DOCUMENT = Endpoint(
    name="get_openapi",
    path="/openapi.json",
    answer=lambda call: openapi_document(call, ENDPOINTS),
    response=dict,
    summary="This document as JSON",
    tag="documentation",
    key="docs",
    kept=True,
)
_DOCS = Endpoint("get_docs", "/docs", _page, "text/html", "This document as a page", "documentation", key="docs")
_PAGE = Endpoint("get_page", "/", _page, "text/html", "A page to try the policies on", "documentation", key="page")
ENDPOINTS: tuple[Endpoint, ...] = (
    *(_DECIDE, _LIST, _POLICY),
    *(_SERVER, replace(_SERVER, path="/v2/", tag="")),
    *(_MODEL, _MODEL_READY, _INFER, *map(_of_version, (_MODEL, _MODEL_READY, _INFER))),
    replace(_LIVE, name="server_live", path="/v2/health/live", answer=lambda _: {"live": True}, response={"live": bool}),
    replace(_READY, name="server_ready", path="/v2/health/ready"),
    *(_LIVE, _READY, _METRICS, _DOCUMENT),
    *(_DOCS, replace(_DOCS, path="/docs/{file}", tag="")),
    *(_PAGE, replace(_PAGE, path="/page/{file}", tag="")),
)
