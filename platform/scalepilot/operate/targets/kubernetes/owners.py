"""Who else scales the object: autoscalers that point at it, and people who say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scalepilot.operate.targets.kubernetes.api import Answer, Api
from scalepilot.operate.targets.kubernetes.resource import Resource
from scalepilot.operate.targets.kubernetes.status import PREFIX

# Every server has v1, and it says what an autoscaler points at; v2 for one that drops it some day.
_HPA_VERSIONS = ("v1", "v2")
_KEDA = "/apis/keda.sh/v1alpha1"
_PAGE = {"limit": "500"}


@dataclass(frozen=True)
class Owners:
    """What was found.

    Attributes:
        names: "HorizontalPodAutoscaler web".
        known: everything that must be asked was answered; where not, nothing may be written.
        problem: why not, or what else is not known.
    """

    names: tuple[str, ...] = ()
    known: bool = False
    problem: str = ""


def find_owners(api: Api, resource: Resource, left: Callable[[], float]) -> Owners:
    """Horizontal pod autoscalers and KEDA's ScaledObjects that point at the object.

    Args:
        api: of the cluster.
        resource: the object.
        left: seconds that there still are for an answer.
    """
    names: list[str] = []
    for version in _HPA_VERSIONS:
        root = f"/apis/autoscaling/{version}/namespaces/{resource.namespace}/horizontalpodautoscalers"
        problem = _collect(api, root, resource, "HorizontalPodAutoscaler", names, left)
        if problem is None or problem.status != 404:
            break
    if problem is not None:
        return Owners(known=False, problem=f"list horizontalpodautoscalers: {problem.problem}")
    root = f"{_KEDA}/namespaces/{resource.namespace}/scaledobjects"
    problem = _collect(api, root, resource, "ScaledObject", names, left)
    # Without KEDA there is none (404). Where we may not look, the autoscaler that KEDA makes for each was seen above.
    missing = "" if problem is None or problem.status == 404 else f"list scaledobjects.keda.sh: {problem.problem}"
    return Owners(tuple(names), True, missing)


def _collect(api: Api, root: str, resource: Resource, kind: str, names: list[str], left: Callable[[], float]) -> Answer | None:
    """Add those that point at the object; the answer that failed, if one did."""
    params = dict(_PAGE)
    while True:
        answer = api.ask("GET", root, params=params, seconds=left())
        if answer.problem:
            return answer
        names += [f"{kind} {name}" for name in _pointing(answer.body, resource, kind)]
        following = (answer.body.get("metadata") or {}).get("continue")
        if not following:
            return None
        params["continue"] = following


def _pointing(body: Mapping[str, Any], resource: Resource, kind: str) -> Iterator[str]:
    for item in body.get("items") or ():
        meta, spec = item.get("metadata") or {}, item.get("spec") or {}
        if resource.is_named(spec.get("scaleTargetRef")) and not (
            kind == "ScaledObject" and _rests(meta.get("annotations") or {})
        ):
            yield str(meta.get("name"))


def _rests(annotations: Mapping[str, Any]) -> bool:
    """Whether KEDA has been told to leave the object alone. `paused-replicas` is not that: it holds a number."""
    return annotations.get("autoscaling.keda.sh/paused") == "true" and "autoscaling.keda.sh/paused-replicas" not in annotations


def claimed_by(annotations: Mapping[str, Any], ours: str) -> tuple[str, ...]:
    """What the annotation `scalepilot.io/owner` says, if it is not us."""
    claim = annotations.get(f"{PREFIX}owner")
    return () if claim is None or claim == ours else (f"{claim} (annotation {PREFIX}owner)",)


__all__ = ["Owners", "claimed_by", "find_owners"]
