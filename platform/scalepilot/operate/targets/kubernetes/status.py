"""What an object and its pods say, as plain functions of their JSON."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from scalepilot.operate.snapshot import utc

PREFIX = "scalepilot.io/"
_PAUSED = {"paused": frozenset({"in", "out"}), "paused-scale-in": frozenset({"in"}), "paused-scale-out": frozenset({"out"})}
_GITOPS = {
    "Argo CD": ("argocd.argoproj.io/instance", "argocd.argoproj.io/tracking-id"),
    "Flux": ("kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name"),
}
_GITOPS_MANAGERS = ("argocd", "kustomize-controller", "helm-controller", "flux")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class _Condition(msgspec.Struct):
    type: str = ""
    status: str = ""


class _PodStatus(msgspec.Struct):
    phase: str = ""
    conditions: list[_Condition] | None = None


class _PodMeta(msgspec.Struct):
    creationTimestamp: dt.datetime | None = None
    deletionTimestamp: str | None = None


class Pod(msgspec.Struct):
    """The few keys of a pod that count, so that a thousand of them are read in milliseconds."""

    metadata: _PodMeta
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)

    @property
    def counts(self) -> bool:
        """Whether it is, or will be, one of the replicas."""
        return self.metadata.deletionTimestamp is None and self.status.phase not in ("Succeeded", "Failed")

    @property
    def ready(self) -> bool:
        """Whether it gets traffic."""
        return any(each.type == "Ready" and each.status == "True" for each in self.status.conditions or ())


class _ListMeta(msgspec.Struct):
    next_page: str | None = msgspec.field(default=None, name="continue")


class PodList(msgspec.Struct):
    """One page."""

    items: list[Pod]
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)


POD_LIST = msgspec.json.Decoder(PodList)


def ready_and_ages(pods: Iterable[Pod], now: float) -> tuple[int, tuple[float, ...]]:
    """How many are ready, and seconds since each of the others was made, oldest first.

    Args:
        pods: of the object.
        now: Unix seconds of the server's clock.
    """
    live = [pod for pod in pods if pod.counts]
    made = [pod.metadata.creationTimestamp for pod in live if not pod.ready]
    ages = sorted((max(0.0, now - when.timestamp()) for when in made if when is not None), reverse=True)
    return sum(pod.ready for pod in live), tuple(ages)


def paused(annotations: Mapping[str, Any]) -> frozenset[str]:
    """Directions that people have forbidden. Any value but "false" forbids: a misspelt "yes" must not let it run."""
    found: frozenset[str] = frozenset()
    for word, directions in _PAUSED.items():
        value = annotations.get(PREFIX + word)
        if value is not None and str(value).strip().lower() != "false":
            found |= directions
    return found


def ready_replicas(body: Mapping[str, Any]) -> int | None:
    """What the object counts as ready. The API leaves a 0 out, so a missing number is one only where the status was filled in."""
    status = body.get("status") or {}
    if "readyReplicas" in status:
        return int(status["readyReplicas"])
    return 0 if _group(body) == "apps" and "observedGeneration" in status else None


def rolling_out(body: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether replicas of another version are on their way, and what is wrong with it, if anything.

    A rollout that is paused or held at a partition by its owner, or that Kubernetes has given up, is not on its way: it may
    stay like this for weeks.
    """
    status, spec = body.get("status") or {}, body.get("spec") or {}
    generation = (body.get("metadata") or {}).get("generation", 0)
    if status.get("observedGeneration", 0 if _group(body) == "apps" else generation) < generation:
        return True, ""
    have, updated = int(status.get("replicas", 0)), int(status.get("updatedReplicas", 0))
    match _group(body), body.get("kind"):
        case "apps", "Deployment":
            stuck = any(
                each.get("type") == "Progressing" and each.get("reason") == "ProgressDeadlineExceeded"
                for each in status.get("conditions") or ()
            )
            if updated < have and stuck:
                old = f"{have - updated} of {have} replicas are of an old version"
                return False, f"its rollout is stuck (ProgressDeadlineExceeded): {old}"
            return updated < have and not spec.get("paused"), ""
        case "apps", "StatefulSet":
            strategy = spec.get("updateStrategy") or {}
            partition = int((strategy.get("rollingUpdate") or {}).get("partition") or 0)
            moves = strategy.get("type") != "OnDelete" and status.get("updateRevision") != status.get("currentRevision")
            return moves and updated < have - partition, ""
        case _:
            return "updatedReplicas" in status and updated < have, ""


def _group(body: Mapping[str, Any]) -> str:
    return str(body.get("apiVersion", "")).rpartition("/")[0]


def gitops(body: Mapping[str, Any]) -> str:
    """Which tool of Git applies this object with a number of replicas in its manifest; "" if none."""
    meta = body.get("metadata") or {}
    marks = {**(meta.get("labels") or {}), **(meta.get("annotations") or {})}
    tool = next((tool for tool, keys in _GITOPS.items() if any(key in marks for key in keys)), "")
    if not tool:
        return ""
    applied = (meta.get("annotations") or {}).get(_LAST_APPLIED)
    if applied is not None:
        try:
            return tool if "replicas" in (json.loads(applied).get("spec") or {}) else ""
        except (ValueError, AttributeError):
            return tool
    managers = [(str(entry.get("manager")), _holds_replicas(entry)) for entry in meta.get("managedFields") or ()]
    known = [holds for manager, holds in managers if manager.startswith(_GITOPS_MANAGERS)]
    return tool if any(known) or not known else ""


def writer_since(body: Mapping[str, Any], since: float) -> str:
    """Who set the replicas last, and when: "kubectl at 09:12:03Z"; "" where the server does not say.

    Args:
        body: of the object.
        since: Unix seconds. Older entries are of another write: servers before 1.22 keep none of those through the scale.
    """
    entries = [entry for entry in (body.get("metadata") or {}).get("managedFields") or () if _holds_replicas(entry)]
    last: Mapping[str, Any] = max(entries, key=lambda entry: str(entry.get("time")), default={})
    when = str(last.get("time") or "")
    return f"{last.get('manager')} at {when.partition('T')[2]}" if when >= utc(since) else ""


def _holds_replicas(entry: Mapping[str, Any]) -> bool:
    return "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})


__all__ = [
    "POD_LIST",
    "PREFIX",
    "Pod",
    "PodList",
    "gitops",
    "paused",
    "ready_and_ages",
    "ready_replicas",
    "rolling_out",
    "writer_since",
]
