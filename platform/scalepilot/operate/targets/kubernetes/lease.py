"""Who of several may write: a Lease that is renewed on a thread of its own, so that no slow read loses it.

All durations are of this process's monotonic clock, counted from when a change of the Lease was *seen*: no clock of another
machine is believed, and a jump of the wall clock changes nothing. The renewal that counts is the moment it was asked for.
"""

from __future__ import annotations

import datetime as dt
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scalepilot.operate.targets.kubernetes.api import Answer, Api

_SHARED = "scalepilot.io/newest"


@dataclass(frozen=True)
class LeaseTiming:
    """As Kubernetes' own controllers have it.

    Attributes:
        duration_seconds: after which a leader that does not renew is replaced.
        deadline_seconds: after which a leader that could not renew stops writing: what is left is for a write on its way.
        retry_seconds: between two attempts.
    """

    duration_seconds: float = 15.0
    deadline_seconds: float = 10.0
    retry_seconds: float = 2.0


class Lease:
    """A candidate for one Lease.

    Args:
        api: of the cluster.
        namespace: of the Lease.
        name: of the Lease.
        identity: of this process; made unique, so that two of the same name never both lead.
        patience_seconds: without `alive()` for so long, the loop it stands for hangs: it is renewed no more.
        timing: how long, how often.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        *,
        patience_seconds: float,
        timing: LeaseTiming | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._path = api, f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self.name, self.identity = name, f"{identity[:200]}_{secrets.token_hex(4)}"
        self.problem = ""
        # What this process tells the others with each renewal, while it leads.
        self.shared = ""
        self._timing, self._clock, self._patience = timing or LeaseTiming(), clock, patience_seconds
        # As last answered; empty where there is none, or it is not known any more.
        self._record: Mapping[str, Any] = {}
        self._seen: Mapping[str, Any] | None = None
        self._since = self._alive = clock()
        self._renewed = float("-inf")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def alive(self) -> None:
        """The loop is at work. The first call asks for the Lease at once, and goes on asking on a thread."""
        self._alive = self._clock()
        if self._thread is None and not self._stop.is_set():
            self.attempt()
            self._thread = threading.Thread(target=self._run, name=f"lease-{self.name}", daemon=True)
            self._thread.start()

    def held(self) -> bool:
        """Whether a write that begins now ends while nobody else can lead."""
        return self._clock() - self._renewed < self._timing.deadline_seconds

    @property
    def holder(self) -> str:
        """Who leads, as far as is known; "" for nobody."""
        return str((self._record.get("spec") or {}).get("holderIdentity") or "")

    @property
    def told(self) -> str:
        """What the leader tells the others; "" for nothing."""
        return str((_meta(self._record).get("annotations") or {}).get(_SHARED) or "")

    def attempt(self) -> None:
        """Take it, renew it, or see who has it."""
        # Once more where the record was changed in between: its new state says whether it is still ours.
        for _ in range(2):
            asked = self._clock()
            if self.holder != self.identity and not self._look():
                return
            if not self._record:
                answer = self._api.ask("POST", self._path, body=self._body({"metadata": {"name": self.name}}))
            elif self.holder not in ("", self.identity) and self._clock() - self._since < self._their_seconds():
                return
            else:
                answer = self._api.ask("PUT", f"{self._path}/{self.name}", body=self._body(self._record))
            if self._take(answer, asked):
                return

    def _take(self, answer: Answer, asked: float) -> bool:
        """Whether there is nothing more to try now."""
        self.problem = answer.problem and f"lease {self.name}: {answer.problem}"
        if not answer.problem:
            self._observe(answer.body)
            self._renewed = asked
            return True
        self._record = {}
        return answer.status != 409

    def _look(self) -> bool:
        answer = self._api.ask("GET", f"{self._path}/{self.name}")
        self.problem = ""
        if answer.status == 404:
            self._record = {}
            return True
        if answer.problem:
            self.problem = f"lease {self.name}: {answer.problem}"
            return False
        self._observe(answer.body)
        return True

    def _observe(self, body: Mapping[str, Any]) -> None:
        self._record = body
        if body.get("spec") != self._seen:
            self._seen, self._since = body.get("spec"), self._clock()
        if self.holder != self.identity:
            self._renewed = float("-inf")

    def _their_seconds(self) -> float:
        said = (self._seen or {}).get("leaseDurationSeconds")
        return float(said) if isinstance(said, int) and said > 0 else self._timing.duration_seconds

    def _body(self, record: Mapping[str, Any], *, release: bool = False) -> dict[str, Any]:
        spec = record.get("spec") or {}
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = spec.get("holderIdentity") == self.identity
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": _sharing(record["metadata"], "" if release else self.shared),
            "spec": {
                "holderIdentity": "" if release else self.identity,
                "leaseDurationSeconds": 1 if release else max(1, round(self._timing.duration_seconds)),
                "acquireTime": spec.get("acquireTime") if mine else now,
                "renewTime": now,
                "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (bool(spec) and not mine),
            },
        }

    def _run(self) -> None:
        while not self._stop.wait(self._timing.retry_seconds):
            if self._clock() - self._alive < self._patience:
                self.attempt()

    def close(self) -> None:
        """Stop asking, and give it back where it is ours, so that another need not wait."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        if self.held() and self._record:
            self._api.ask("PUT", f"{self._path}/{self.name}", body=self._body(self._record, release=True))
        self._renewed = float("-inf")


def _meta(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return record.get("metadata") or {}


def _sharing(meta: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Metadata with what is told; another's word is not passed on."""
    kept = {name: value for name, value in (meta.get("annotations") or {}).items() if name != _SHARED}
    return {**meta, "annotations": kept | ({_SHARED: text} if text else {})}


__all__ = ["Lease", "LeaseTiming"]
