"""One object in Kubernetes, read and scaled."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from scalepilot.operate.snapshot import Replicas
from scalepilot.operate.targets import WARNING, TargetContext, Written
from scalepilot.operate.targets.kubernetes import status
from scalepilot.operate.targets.kubernetes.access import missing_rights
from scalepilot.operate.targets.kubernetes.api import JSON_PATCH, REQUEST_SECONDS, Answer, Api
from scalepilot.operate.targets.kubernetes.events import Events
from scalepilot.operate.targets.kubernetes.lease import Lease, LeaseTiming
from scalepilot.operate.targets.kubernetes.owners import Owners, claimed_by, find_owners
from scalepilot.operate.targets.kubernetes.resource import Resource, discover
from scalepilot.operate.targets.kubernetes.settings import KubernetesSettings

_READ_SECONDS = 3.5
_OWNERS_SECONDS = 60.0
# A loop that has not read for so many intervals hangs, and must not keep others from leading.
_PATIENCE_INTERVALS, _LEAST_PATIENCE_SECONDS = 3, 30.0
_FIELD_MANAGER = "scalepilot"


@dataclass(frozen=True)
class _Object:
    """What was last known beside the scale. Kept where it cannot be read for once: a ban is not lifted by a time-out."""

    paused: frozenset[str] = frozenset()
    rolling_out: bool = False
    claims: tuple[str, ...] = ()


class KubernetesTarget:
    """Replicas of one object.

    Args:
        settings: which.
        context: of this process.
        api: of the cluster.
        timing: of the Lease.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: KubernetesSettings,
        context: TargetContext,
        api: Api,
        *,
        timing: LeaseTiming | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._api, self._clock = settings, api, clock
        self._dry_run, self._feeds = context.dry_run, context.feeds
        patience = max(_PATIENCE_INTERVALS * context.interval_seconds, _LEAST_PATIENCE_SECONDS)
        self._lease = Lease(
            api, settings.namespace, settings.lease, context.identity, patience_seconds=patience, timing=timing, clock=clock
        )
        self._events = Events(api, context.identity, context.interval_seconds, clock)
        self._resource: Resource | None = None
        self._uid, self._read_at = "", 0.0
        self._object = _Object()
        self._owners, self._owners_at = Owners(problem="not asked yet"), float("-inf")

    @property
    def name(self) -> str:
        """As people write it."""
        kind = self._resource.kind.lower() if self._resource else self._settings.resource
        return f"{kind} {self._settings.namespace}/{self._settings.name}"

    def read(self, now: float) -> Replicas:
        """Its scale, then what rights and time allow: the object, its pods, who else scales it."""
        deadline = self._clock() + _READ_SECONDS
        if not self._dry_run:
            self._lease.alive()
        resource = self._find()
        if isinstance(resource, str):
            return self._unknown(resource)
        answer = self._api.ask("GET", resource.scale_path, seconds=self._left(deadline))
        if answer.status == 404:
            # It may be served in another version now, after an upgrade.
            self._resource = None
        if answer.problem:
            return self._unknown(f"get {resource.plural}/scale: {answer.problem}")
        scale = answer.body
        self._uid, self._read_at = str((scale.get("metadata") or {}).get("uid", "")), answer.date or now
        spec = _asked_for(scale)
        problems: list[str] = []
        ready = self._read_object(resource, deadline, problems)
        ages: tuple[float, ...] | None = ()
        created = int((scale.get("status") or {}).get("replicas") or 0)
        if not ready == spec == created:
            counted, ages = self._read_pods(resource, scale, answer.date or now, deadline, problems)
            ready = counted if ready is None else ready
        if self._clock() - self._owners_at >= _OWNERS_SECONDS and self._clock() < deadline:
            self._ask_owners(resource, deadline)
        problems = [line for line in (self._lease_problem(), *problems, self._owners.problem, self._events.problem) if line]
        return Replicas(
            spec,
            ready,
            ages,
            rolling_out=self._object.rolling_out,
            paused=self._object.paused,
            owners=self._all_owners(),
            leading=self._leading(),
            problem="; ".join(problems),
        )

    def write(self, replicas: int, expected: int) -> Written:
        """Patch its scale, on condition that it is still what was decided on."""
        if self._dry_run or self._feeds:
            return Written("forbidden", detail=f"{'dry run' if self._dry_run else 'a feed'}: nothing is written")
        if not self._lease.held():
            return Written("refused", detail=self._lease_problem() or "the lease is not held")
        resource = self._find()
        if isinstance(resource, str):
            return Written("refused", detail=resource)
        if not self._owners.known:
            self._ask_owners(resource)
        if not self._owners.known:
            return Written("refused", detail=f"nothing was written before it is known who else scales it: {self._owners.problem}")
        answer = self._patch(resource, replicas, expected)
        return self._outcome(answer, resource, replicas, expected)

    def _outcome(self, answer: Answer, resource: Resource, replicas: int, expected: int) -> Written:
        detail, wait = answer.problem, answer.retry_after_seconds
        match answer.status:
            case 200 | 201:
                found = _asked_for(answer.body)
                return Written("written", found, "" if found == replicas else f"{replicas} asked for, {found} answered")
            case 409 | 422:
                return self._refused(resource, expected, detail)
            case 401 | 403:
                return Written("forbidden", detail=f"patch {resource.plural}/scale: {detail}")
            case 429:
                return Written("throttled", detail=detail, retry_after_seconds=max(1.0, wait))
            case code if 400 <= code < 500:
                return Written("refused", detail=detail)
            case _:
                return Written("unknown", detail=detail, retry_after_seconds=wait)

    def _refused(self, resource: Resource, expected: int, detail: str) -> Written:
        """A refusal, with what the object has now and who wrote it: the server itself only says that a test failed."""
        scale = self._api.ask("GET", resource.scale_path)
        if scale.problem:
            return Written("refused", detail=detail)
        found = _asked_for(scale.body)
        if found == expected:
            return Written("refused", found, detail)
        writer = status.writer_since(self._api.ask("GET", resource.path).body, self._read_at)
        by = f" (set by {writer})" if writer else ""
        return Written("refused", found, f"{detail[: len('HTTP 422')]}: /spec/replicas is {found}, not {expected}{by}")

    def tell(self, reason: str, message: str) -> None:
        """An event on the object."""
        resource = self._resource
        if not self._dry_run and resource is not None and self._uid and self._lease.held():
            self._events.tell(resource, self._uid, reason, message)

    def share(self, text: str) -> None:
        """With the next renewal of the lease."""
        self._lease.shared = text

    def shared(self) -> str:
        """With the lease as it was last seen."""
        return self._lease.told

    def check(self, *, dry_run: bool) -> list[str]:
        """Reach it, ask for each right, look who else scales it, and let the server try a write without doing it."""
        resource = self._find()
        if isinstance(resource, str):
            return [resource]
        lines = missing_rights(self._api, resource, self._settings.lease, dry_run=dry_run, feeds=self._feeds)
        scale = self._api.ask("GET", resource.scale_path)
        if scale.problem:
            return [*lines, f"get {resource.plural}/scale {self._settings.name}: {scale.problem}"]
        found = self._api.ask("GET", resource.path)
        if not found.problem:
            self._note_object(found.body)
            if tool := status.gitops(found.body):
                line = f"{tool} applies it with spec.replicas, and would undo each move: leave replicas out of the manifest"
                lines.append(f"{WARNING}{line}, or let {tool} ignore the difference")
            if self._object.paused:
                directions = " and ".join(sorted(self._object.paused))
                lines.append(f"{WARNING}paused: an annotation {status.PREFIX}paused… forbids scaling {directions}")
        self._ask_owners(resource)
        if not self._owners.known:
            lines.append(self._owners.problem)
        owners = self._object.claims if self._feeds else self._all_owners()
        lines += [f"it is scaled by {owner}: remove one of the two" for owner in owners]
        if self._feeds and self._owners.known and not self._owners.names:
            lines.append(f"{WARNING}no HPA or ScaledObject scales it yet: nothing follows the feed")
        if not dry_run and not self._feeds:
            have = _asked_for(scale.body)
            tried = self._patch(resource, have, have, pretend=True)
            if tried.problem and tried.status != 422:
                lines.append(f"a trial write (dryRun=All) is refused: {tried.problem}")
        return lines

    def close(self) -> None:
        """Give the lease back."""
        self._lease.close()
        self._api.close()

    def _find(self) -> Resource | str:
        if self._resource is None:
            settings = self._settings
            found = discover(self._api, settings.resource, settings.namespace, settings.name)
            if isinstance(found, str):
                return found
            self._resource = found
        return self._resource

    def _patch(self, resource: Resource, replicas: int, expected: int, *, pretend: bool = False) -> Answer:
        # A 0 is left out by the API, so that it cannot be tested for, only its absence.
        test: dict[str, Any] = {"op": "test", "path": "/spec/replicas", "value": expected}
        if expected == 0:
            test = {"op": "test", "path": "/spec", "value": {}}
        change = {"op": "replace" if expected else "add", "path": "/spec/replicas", "value": replicas}
        params = {"fieldManager": _FIELD_MANAGER, **({"dryRun": "All"} if pretend else {})}
        return self._api.ask("PATCH", resource.scale_path, body=[test, change], content_type=JSON_PATCH, params=params)

    def _read_object(self, resource: Resource, deadline: float, problems: list[str]) -> int | None:
        answer = self._api.ask("GET", resource.path, seconds=self._left(deadline))
        if answer.problem:
            problems.append(f"get {resource.plural}: {answer.problem}")
            return None
        problem = self._note_object(answer.body)
        if problem:
            problems.append(problem)
        return status.ready_replicas(answer.body)

    def _note_object(self, body: Mapping[str, Any]) -> str:
        annotations = (body.get("metadata") or {}).get("annotations") or {}
        rolling, problem = status.rolling_out(body)
        self._object = _Object(status.paused(annotations), rolling, claimed_by(annotations, self._settings.owner))
        return problem

    def _read_pods(
        self, resource: Resource, scale: Mapping[str, Any], now: float, deadline: float, problems: list[str]
    ) -> tuple[int | None, tuple[float, ...] | None]:
        """Ready pods, and seconds since each other was made; both None where the pods cannot be listed."""
        selector = self._settings.pods_selector or (scale.get("status") or {}).get("selector")
        if not selector:
            problems.append("its scale names no selector of pods: set target.pods_selector")
            return None, None
        params = {"labelSelector": str(selector), "limit": "500"}
        pods: list[status.Pod] = []
        while True:
            answer = self._api.ask(
                "GET",
                f"/api/v1/namespaces/{resource.namespace}/pods",
                params=params,
                seconds=self._left(deadline),
                decoder=status.POD_LIST,
            )
            if answer.problem:
                problems.append(f"list pods: {answer.problem}")
                return None, None
            page: status.PodList = answer.body["decoded"]
            pods += page.items
            if not page.metadata.next_page:
                return status.ready_and_ages(pods, now)
            params["continue"] = page.metadata.next_page

    def _ask_owners(self, resource: Resource, deadline: float | None = None) -> None:
        deadline = self._clock() + _READ_SECONDS if deadline is None else deadline
        found = find_owners(self._api, resource, lambda: self._left(deadline))
        # Who was seen to own it owns it until the opposite is known.
        self._owners = found if found.known else replace(found, names=self._owners.names, known=self._owners.known)
        if found.known:
            self._owners_at = self._clock()

    def _all_owners(self) -> tuple[str, ...]:
        return (*self._owners.names, *self._object.claims)

    def _leading(self) -> bool:
        return self._dry_run or self._lease.held()

    def _lease_problem(self) -> str:
        if self._leading():
            return ""
        return self._lease.problem or f"another leads: lease {self._lease.name} is held by {self._lease.holder or 'nobody yet'}"

    def _left(self, deadline: float) -> float:
        return max(0.05, min(REQUEST_SECONDS, deadline - self._clock()))

    def _unknown(self, problem: str) -> Replicas:
        """Nothing is known now, but what people forbade and who owned it still holds."""
        known = self._object
        return Replicas(
            None,
            rolling_out=known.rolling_out,
            paused=known.paused,
            owners=self._all_owners(),
            leading=self._leading(),
            problem="; ".join(line for line in (self._lease_problem(), problem) if line),
        )


def _asked_for(scale: Mapping[str, Any]) -> int:
    """Replicas that a Scale asks for. The API leaves a 0 out."""
    return int((scale.get("spec") or {}).get("replicas") or 0)


__all__ = ["KubernetesTarget"]
