"""What a client may know of a served policy."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from scalepilot.policy.spec import DecisionRule, Kind
from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.catalogue.store import Catalogue
from scalepilot.serve.decide.answers import finite

# A served observation is numbers only: an image's keys have no place here.
_FIELD = {"name": str, "unit": str, "low": float, "high": float, "description": str, "promql": str}
_ACTION = {
    "index": int,
    "kind": Literal["absolute", "relative", "plain"],
    "size": float,
    "label": str,
    "value?": (Any, "The value the environment takes, if it is not the index"),
}
# Keys and types of what is said.
POLICY = {
    "name": str,
    "version": str,
    "default": (bool, "The version used when a request names none"),
    "versions": (list[str], "All served versions of this name"),
    "route": (Any, "Default version, canary and shadow of this name; null if not set"),
    "kind": Kind,
    "env_id": str,
    "decide_url": str,
    "observation_fields": [_FIELD],
    "actions": ([_ACTION], "Empty for rules, which may choose any number of replicas"),
    "moves": (list[str], "Unique label of every action"),
    "components": ([{"name": str, "unit": str, "low": float, "high": float}], "Of a continuous action; empty for all others"),
    "decision_rule": DecisionRule,
    "replicas": (Any, "Smallest and largest replica count, {min, max}; null without replicas"),
    "state": (Any, "Shape of each entry of a rule's state; null without state"),
    "evaluation": dict,
}


def describe(served: ServedPolicy, catalogue: Catalogue) -> dict[str, Any]:
    """One entry of `GET /v1/policies`."""
    spec, bounds, shapes = served.spec, served.replica_bounds, served.state_shapes
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
        "observation_fields": [{key: getattr(field, key) for key in _FIELD} for field in spec.observation_fields],
        "actions": [{key: value for key, value in asdict(action).items() if value is not None} for action in spec.actions],
        "moves": list(served.move_labels),
        "components": [asdict(component) for component in served.components],
        "decision_rule": spec.decision_rule,
        "replicas": None if bounds is None else {"min": finite(bounds[0]), "max": finite(bounds[1])},
        "state": None if shapes is None else {name: list(shape) for name, shape in shapes.items()},
        "evaluation": spec.evaluation,
    }


def decide_path(name: str) -> str:
    """Where a policy decides; names and name@version are URL-safe by their pattern."""
    return f"/v1/policies/{name}:decide"
