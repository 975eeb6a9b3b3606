"""Which rights are needed, and whether we have them: asked of the server itself, verb by verb."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scalepilot.operate.targets import WARNING
from scalepilot.operate.targets.kubernetes.api import Api
from scalepilot.operate.targets.kubernetes.resource import Resource

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass(frozen=True)
class Right:
    """One verb on one resource.

    Attributes:
        verb: of Kubernetes.
        group: of the resource; "" for the core.
        resource: plural, with "/scale" where that is meant.
        name: of the object, where one suffices.
        loss: what is missing without it; "" where nothing works without it.
    """

    verb: str
    group: str
    resource: str
    name: str = ""
    loss: str = ""

    def __str__(self) -> str:
        group = f".{self.group}" if self.group else ""
        plural, _, sub = self.resource.partition("/")
        return f"{self.verb} {plural}{group}{f'/{sub}' if sub else ''}{f' {self.name}' if self.name else ''}"


def needed(resource: Resource, lease: str, *, dry_run: bool, feeds: bool = False) -> Iterator[Right]:
    """The rights to run: eight, seven with a feed, two in dry run, and those that show more.

    Args:
        resource: to scale.
        lease: its name.
        dry_run: nothing is written.
        feeds: others scale it.
    """
    scale = f"{resource.plural}/scale"
    yield Right("get", resource.group, scale, resource.name)
    yield Right("list", "autoscaling", "horizontalpodautoscalers")
    if not dry_run:
        if not feeds:
            yield Right("patch", resource.group, scale, resource.name)
        for verb in ("get", "update"):
            yield Right(verb, "coordination.k8s.io", "leases", lease)
        yield Right("create", "coordination.k8s.io", "leases")
        for verb in ("create", "patch"):
            yield Right(verb, "", "events", loss="it leaves no events")
    yield Right("get", resource.group, resource.plural, resource.name, "pause annotations and rollouts are not seen")
    yield Right("list", "", "pods", loss="how long replicas have been starting is not known")


def missing_rights(api: Api, resource: Resource, lease: str, *, dry_run: bool, feeds: bool = False) -> list[str]:
    """One line for each right that is missing."""
    lines: list[str] = []
    for right in needed(resource, lease, dry_run=dry_run, feeds=feeds):
        plural, _, sub = right.resource.partition("/")
        asked = {"namespace": resource.namespace, "verb": right.verb, "group": right.group, "resource": plural}
        asked |= {"subresource": sub} if sub else {}
        asked |= {"name": right.name} if right.name else {}
        answer = api.ask("POST", _REVIEWS, body={"spec": {"resourceAttributes": asked}})
        if answer.problem:
            return [*lines, f"rights cannot be asked for: {answer.problem}"]
        if not (answer.body.get("status") or {}).get("allowed"):
            line = f"no right to {right} in namespace {resource.namespace}"
            lines.append(f"{WARNING}{line}: {right.loss}" if right.loss else line)
    return lines


__all__ = ["Right", "missing_rights", "needed"]
