"""A function of OpenFaaS, scaled through the gateway.

The gateway answers 202 and may keep another number: its community edition keeps every function within 1 to 5 replicas. So every
write is read back. There is no condition for a write and no place for a lease: let one process scale a function.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pydantic import TypeAdapter

from scalepilot.config import checked
from scalepilot.operate.snapshot import Replicas
from scalepilot.operate.targets import WARNING, TargetContext, Written
from scalepilot.operate.targets.door import Answer, not_written
from scalepilot.operate.targets.gateway import COMMUNITY, Function, Gateway, GatewaySettings, bounds_told, owners_of
from scalepilot.operate.telemetry.client import Connection, PrometheusClient, PrometheusError

# A provider may take a moment to show what it was told.
_SHOWN_SECONDS = 0.3
_OWNERS_SECONDS, _ASKED_SECONDS = 60.0, 1.0
_NO_REPLICAS = "the gateway does not say how many replicas it has"
# OpenFaaS's own alert, and the label by which its Alertmanager picks what goes to /system/alert.
_OWN_ALERT, _OWN_LABEL = "APIHighInvocationRate", ("service", "gateway")
_ABOUT_FUNCTIONS = re.compile(r"gateway_function_|gateway_service_count|function_name")
_SELECTED = re.compile(r'function_name\s*(=~|!~|!=|=)\s*"((?:\\.|[^"\\])*)"')


@dataclass(frozen=True)
class OpenFaaSSettings(GatewaySettings):
    """Keys of `target` with `kind: openfaas`.

    Attributes:
        function: its name.
        prometheus: OpenFaaS's Prometheus, whose alerts scale functions by way of Alertmanager; null where there is none, or
            nobody knows.
    """

    function: str = ""
    prometheus: Connection | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.function:
            raise ValueError("function: is missing; allowed: its name")


_SETTINGS: TypeAdapter[OpenFaaSSettings] = TypeAdapter(OpenFaaSSettings)


class OpenFaaSTarget:
    """Replicas of one function.

    Args:
        settings: which.
        context: of this process.

    Raises:
        InputError: a secret cannot be read, or is within reach of others.
    """

    def __init__(self, settings: OpenFaaSSettings, context: TargetContext) -> None:
        self._settings, self._dry_run = settings, context.dry_run
        self._gateway = Gateway(settings)
        self._alerts = None if settings.prometheus is None else PrometheusClient(settings.prometheus, "target.prometheus")
        # Asked for and kept, while they differ.
        self._kept: tuple[int, int] | None = None
        self._alerting: tuple[float, tuple[str, ...]] = (float("-inf"), ())

    @property
    def name(self) -> str:
        """As OpenFaaS calls it."""
        return f"function {self._settings.function}.{self._settings.namespace}"

    def read(self, now: float) -> Replicas:
        """What the gateway says of it."""
        found = self._function()
        if isinstance(found, str):
            return Replicas(None, problem=found)
        if self._kept is not None and found.replicas != self._kept[1]:
            self._kept = None
        spec, ready = found.replicas, found.available
        # The gateway does not say when a replica was made.
        ages = None if spec is None or ready is None or ready < spec else ()
        problem = _NO_REPLICAS if spec is None else self._told_kept()
        return Replicas(spec, ready, ages, owners=(*owners_of(found.labels), *self._scaling_alerts()), problem=problem)

    def write(self, replicas: int, expected: int) -> Written:
        """Ask the gateway, if it still has what was decided on a moment ago, and read what it made of it."""
        if self._dry_run:
            return Written("forbidden", detail="dry run: nothing is written")
        before = self._gateway.function(self._settings.function)
        if isinstance(before, Answer):
            # Nothing was asked for yet.
            return Written("forbidden" if before.status in (401, 403) else "refused", detail=self._not_there(before))
        if before.replicas != expected:
            return Written("refused", before.replicas, f"{before.replicas} are asked for, not {expected}")
        s = self._settings
        body = {"serviceName": s.function, "namespace": s.namespace, "replicas": replicas}
        answer = self._gateway.ask("POST", f"scale-function/{quote(s.function, safe='')}", body)
        # Whatever it says beside it: what counts is what it keeps.
        return self._read_back(replicas, expected) if 200 <= answer.status < 300 else not_written(answer)

    def _read_back(self, replicas: int, expected: int) -> Written:
        after = self._gateway.function(self._settings.function)
        if (isinstance(after, Answer) and after.status) or (isinstance(after, Function) and after.replicas != replicas):
            time.sleep(_SHOWN_SECONDS)
            after = self._gateway.function(self._settings.function)
        if isinstance(after, Answer) or after.replicas is None:
            told = self._not_there(after) if isinstance(after, Answer) else _NO_REPLICAS
            return Written("unknown", detail=f"the gateway has accepted it; what it keeps is unknown: {told}")
        if after.replicas == replicas:
            self._kept = None
            return Written("written", replicas)
        self._kept = replicas, after.replicas
        # That nothing has changed is no write.
        refused = after.replicas == expected
        return Written("refused" if refused else "written", after.replicas, self._told_kept() if refused else self._why_kept())

    def _told_kept(self) -> str:
        return "" if self._kept is None else f"the gateway keeps {self._kept[1]} of {self._kept[0]} replicas: {self._why_kept()}"

    def _why_kept(self) -> str:
        assert self._kept is not None
        (asked, kept), (low, high) = self._kept, COMMUNITY
        clamped = kept == min(max(asked, low), high)
        return f"OpenFaaS's community edition allows {low} to {high}" if clamped else "another limit, or another owner"

    def tell(self, reason: str, message: str) -> None:
        """OpenFaaS has no place for notes."""

    def check(self, *, dry_run: bool) -> list[str]:
        """Whether it is there, who else scales it, and what the gateway may keep of what is asked for."""
        found = self._gateway.function(self._settings.function)
        if isinstance(found, Answer):
            return [self._not_there(found)]
        owners = [*owners_of(found.labels), *self._scaling_alerts()]
        lines = [f"it is scaled by {owner}: remove one of the two ({bounds_told(found.labels)})" for owner in owners]
        lines += [WARNING + line for line in self._warnings(found)]
        return lines

    def _warnings(self, found: Function) -> list[str]:
        lines = [self._told_kept()] if self._kept is not None else []
        low, high = COMMUNITY
        if not lines and (found.replicas or 0) <= high:
            lines.append(
                f"OpenFaaS's community edition keeps {low} to {high} replicas, whatever is asked for; the first write tells"
            )
        if self._alerts is None:
            lines.append(
                f"Alertmanager may scale it (/system/alert), which the gateway does not show: {bounds_told(found.labels)};"
                " name OpenFaaS's Prometheus in target.prometheus"
            )
        else:
            lines += self._other_alerts()
        return lines

    def close(self) -> None:
        """Let connections go."""
        self._gateway.close()
        if self._alerts is not None:
            self._alerts.close()

    def _function(self) -> Function | str:
        found = self._gateway.function(self._settings.function)
        return self._not_there(found) if isinstance(found, Answer) else found

    def _not_there(self, answer: Answer) -> str:
        where = f"function {self._settings.function!r} in namespace {self._settings.namespace!r}"
        return f"openfaas: there is no {where}" if answer.status == 404 else f"openfaas: {answer.problem}"

    def _scaling_alerts(self) -> tuple[str, ...]:
        """Alerts that scale this function; asked for once a minute."""
        asked_at, known = self._alerting
        if self._alerts is None or time.monotonic() - asked_at < _OWNERS_SECONDS:
            return known
        try:
            rules = self._rules()
        except PrometheusError:
            return known
        names = sorted({name for name, labels in rules if name == _OWN_ALERT or labels.get(_OWN_LABEL[0]) == _OWN_LABEL[1]})
        known = tuple(f"Alertmanager (alert {name}, /system/alert)" for name in names)
        self._alerting = time.monotonic(), known
        return known

    def _other_alerts(self) -> list[str]:
        try:
            rules = self._rules()
        except PrometheusError as error:
            return [f"target.prometheus: whether its alerts scale the function is unknown: {error}"]
        names = sorted({n for n, labels in rules if n != _OWN_ALERT and labels.get(_OWN_LABEL[0]) != _OWN_LABEL[1]})
        return [f"alert {', '.join(names)} is about it: it must not go to /system/alert"] if names else []

    def _rules(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Name and labels of each alert that may carry this function's name."""
        assert self._alerts is not None
        groups = self._alerts.ask("rules", {"type": "alert"}, _ASKED_SECONDS).result
        try:
            rules = [rule for group in groups["groups"] for rule in group["rules"]]
            return [(str(r["name"]), r.get("labels") or {}) for r in rules if r.get("type") == "alerting" and self._concerns(r)]
        except (LookupError, TypeError, AttributeError):
            raise PrometheusError("its rules cannot be read") from None

    def _concerns(self, rule: Mapping[str, Any]) -> bool:
        query, labels = str(rule.get("query")), rule.get("labels") or {}
        own = (self._settings.function, f"{self._settings.function}.{self._settings.namespace}")
        if "function_name" in labels:
            return labels["function_name"] in own
        if not _ABOUT_FUNCTIONS.search(query):
            return False
        return all(any(_takes(operator, value, name) for name in own) for operator, value in _SELECTED.findall(query))


def _takes(operator: str, value: str, name: str) -> bool:
    """Whether a label's matcher takes a name; what is no expression here takes every one."""
    try:
        found = re.fullmatch(value, name) is not None if "~" in operator else value == name
    except re.error:
        return True
    return found if operator in ("=", "=~") else not found


def make(settings: Mapping[str, Any], context: TargetContext) -> OpenFaaSTarget:
    """The target of these settings.

    Raises:
        ConfigError: a key or value that is not allowed.
        InputError: a secret cannot be read.
    """
    return OpenFaaSTarget(checked(OpenFaaSSettings, _SETTINGS, dict(settings), "target"), context)
