"""What a client may know of a served policy."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from scalepilot.serve.schema import DecideRequest, decide
from scalepilot.serve.store import PolicyStore, ServedPolicy

# A served observation is numbers only: an image's keys have no place here.
_FIELD_KEYS = ("name", "unit", "low", "high", "description", "promql")


def describe(served: ServedPolicy) -> dict[str, Any]:
    """One entry of `GET /v1/policies`."""
    spec = served.spec
    return {
        "name": spec.name,
        "version": spec.version,
        "kind": spec.kind,
        "env_id": spec.env_id,
        "decide_url": decide_path(spec.name),
        "observation_fields": [{name: getattr(field, name) for name in _FIELD_KEYS} for field in spec.observation_fields],
        "actions": [asdict(action) for action in spec.actions],
        "decision_rule": spec.decision_rule,
        "replicas": dict(zip(("min", "max"), served.replica_bounds, strict=True)),
        "state": None if served.state_shapes is None else {name: list(shape) for name, shape in served.state_shapes.items()},
        "evaluation": spec.evaluation,
    }


def describe_one(served: ServedPolicy) -> dict[str, Any]:
    """The answer of `GET /v1/policies/{name}`: the same, how it was made, and an observation to try."""
    return describe(served) | {"provenance": served.spec.provenance, "example": served.example}


def describe_all(store: PolicyStore) -> dict[str, Any]:
    """The answer of `GET /v1/policies`."""
    return {"policies": [describe(served) for served in store]}


def decide_path(name: str) -> str:
    """Where a policy decides; names are URL-safe by their pattern."""
    return f"/v1/policies/{name}:decide"


def example_answer(served: ServedPolicy) -> dict[str, Any]:
    """What the policy really says to its example."""
    answer = decide(served, DecideRequest([served.example], [None], many=False))
    assert isinstance(answer, dict)
    return answer
