"""What a client may know of a served policy."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.catalogue.store import Catalogue
from scalepilot.serve.decide.answers import finite
from scalepilot.serve.decide.strict import DecideRequest, decide

# A served observation is numbers only: an image's keys have no place here.
_FIELD_KEYS = ("name", "unit", "low", "high", "description", "promql")


def describe(served: ServedPolicy, catalogue: Catalogue) -> dict[str, Any]:
    """One entry of `GET /v1/policies`."""
    spec = served.spec
    default = catalogue.get(spec.name)
    route = catalogue.routes.get(spec.name) if default is served else None
    return {
        "name": spec.name,
        "version": spec.version,
        "default": default is served,
        "versions": list(catalogue.versions[spec.name]),
        "route": None if route is None else asdict(route),
        "kind": spec.kind,
        "env_id": spec.env_id,
        "decide_url": decide_path(spec.name if default is served else served.reference),
        "observation_fields": [{name: getattr(field, name) for name in _FIELD_KEYS} for field in spec.observation_fields],
        "actions": [{key: value for key, value in asdict(action).items() if value is not None} for action in spec.actions],
        "moves": list(served.move_labels),
        "components": [asdict(component) for component in served.components],
        "decision_rule": spec.decision_rule,
        "replicas": None
        if served.replica_bounds is None
        else dict(zip(("min", "max"), map(finite, served.replica_bounds), strict=True)),
        "state": None if served.state_shapes is None else {name: list(shape) for name, shape in served.state_shapes.items()},
        "evaluation": spec.evaluation,
    }


def describe_one(served: ServedPolicy, catalogue: Catalogue) -> dict[str, Any]:
    """The answer of `GET /v1/policies/{name}`: the same, how it was made, and an observation to try."""
    return describe(served, catalogue) | {"provenance": served.spec.provenance, "example": served.example}


def describe_all(catalogue: Catalogue) -> dict[str, Any]:
    """The answer of `GET /v1/policies`: every version of every name."""
    return {"policies": [describe(served, catalogue) for served in catalogue]}


def decide_path(name: str) -> str:
    """Where a policy decides; names and name@version are URL-safe by their pattern."""
    return f"/v1/policies/{name}:decide"


def example_answer(served: ServedPolicy) -> dict[str, Any]:
    """What the policy really says to its example."""
    answer: dict[str, Any] = decide(served, DecideRequest([served.example], [None], many=False)).answers[0]
    return answer
