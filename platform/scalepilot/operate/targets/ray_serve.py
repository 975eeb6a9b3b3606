"""A deployment of Ray Serve, from outside: the dashboard's REST interface for external scalers.

Its application is deployed with `external_scaler_enabled: true`, and without `autoscaling_config`. Serve has no precondition for
a write and no place for a lease: let one process scale a deployment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import TypeAdapter

from scalepilot.config import checked
from scalepilot.config.checks import Section
from scalepilot.files.ownership import read_own
from scalepilot.operate.snapshot import Replicas
from scalepilot.operate.targets import TargetContext, Written
from scalepilot.operate.targets.door import JsonDoor, check_address, not_written

_MAX_TOKEN_BYTES = 4096
_STARTING = ("STARTING", "RECOVERING")


@dataclass(frozen=True)
class RayServeSettings(Section):
    """Keys of `target` with `kind: ray_serve`.

    Attributes:
        application: its name.
        deployment: of the application.
        url: of Ray's dashboard.
        token_file: file with Ray's token; null for where Ray itself looks: the variables `RAY_AUTH_TOKEN` and
            `RAY_AUTH_TOKEN_PATH`, then `~/.ray/auth_token`.
    """

    application: str
    deployment: str
    url: str = "http://127.0.0.1:8265"
    token_file: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_address(self.url)
        for key in ("application", "deployment"):
            if not getattr(self, key):
                raise ValueError(f"{key}: is empty; allowed: its name")


_SETTINGS: TypeAdapter[RayServeSettings] = TypeAdapter(RayServeSettings)


class RayServeTarget:
    """Replicas of one deployment.

    Args:
        settings: which.
        context: of this process.
    """

    def __init__(self, settings: RayServeSettings, context: TargetContext) -> None:
        self._settings, self._dry_run = settings, context.dry_run
        self._door = JsonDoor(settings.url, self._authorisation)

    @property
    def name(self) -> str:
        """As Serve shows it."""
        return f"ray serve {self._settings.application}/{self._settings.deployment}"

    def read(self, now: float) -> Replicas:
        """What the dashboard shows of it."""
        found = self._deployment()
        if isinstance(found, str):
            return Replicas(None, problem=found)
        _, deployment = found
        replicas = deployment.get("replicas") or ()
        states = [str(each.get("state")) for each in replicas]
        ages = [max(0.0, now - float(each.get("start_time_s") or now)) for each in replicas if each.get("state") in _STARTING]
        return Replicas(
            _number(deployment.get("target_num_replicas")),
            states.count("RUNNING"),
            tuple(sorted(ages, reverse=True)),
            rolling_out=deployment.get("status") == "UPDATING" or "UPDATING" in states,
            owners=_owners(deployment),
        )

    def write(self, replicas: int, expected: int) -> Written:
        """Ask Serve, if it still is what was decided on a moment ago."""
        if self._dry_run:
            return Written("forbidden", detail="dry run: nothing is written")
        before = self.read(time.time())
        if before.spec != expected:
            detail = before.problem or f"{before.spec} are asked for, not {expected}"
            return Written("refused", before.spec, detail)
        answer = self._door.ask("POST", f"{self._path()}/scale", {"target_num_replicas": replicas})
        # Carried out by Serve's next turn; what it makes of it is read then.
        return Written("written", replicas) if answer.status == 200 else not_written(answer)

    def tell(self, reason: str, message: str) -> None:
        """Serve has no place for notes."""

    def check(self, *, dry_run: bool) -> list[str]:
        """Whether it is there, and lets itself be scaled from outside."""
        found = self._deployment()
        if isinstance(found, str):
            return [found]
        application, deployment = found
        lines = [f"it is scaled by {owner}: deploy it without autoscaling_config" for owner in _owners(deployment)]
        if not dry_run and not lines and not application.get("external_scaler_enabled"):
            lines.append(f"application {self._settings.application}: external_scaler_enabled is false; allowed: true")
        return lines

    def close(self) -> None:
        """Let the connection go."""
        self._door.close()

    def _path(self) -> str:
        application, deployment = (quote(text, safe="") for text in (self._settings.application, self._settings.deployment))
        return f"/api/v1/applications/{application}/deployments/{deployment}"

    def _deployment(self) -> tuple[Mapping[str, Any], Mapping[str, Any]] | str:
        answer = self._door.ask("GET", "/api/serve/applications/")
        if answer.status != 200 or not isinstance(answer.body, dict):
            return f"ray serve: {answer.problem or 'answered no JSON object'}"
        wanted, name = self._settings, self._settings.application
        applications = answer.body.get("applications") or {}
        if name not in applications:
            return f"ray serve: there is no application {name!r}; there are: {', '.join(applications) or 'none'}"
        deployments = applications[name].get("deployments") or {}
        if wanted.deployment not in deployments:
            there = ", ".join(deployments) or "none"
            return f"ray serve: application {name!r} has no deployment {wanted.deployment!r}; there are: {there}"
        return applications[name], deployments[wanted.deployment]

    def _authorisation(self) -> str:
        token = self._token()
        return f"Bearer {token}" if token else ""

    def _token(self) -> str:
        path = self._settings.token_file
        if path is None:
            # Where Ray itself looks, in its order.
            if token := os.environ.get("RAY_AUTH_TOKEN"):
                return token.strip()
            path = os.environ.get("RAY_AUTH_TOKEN_PATH") or str(Path.home() / ".ray" / "auth_token")
            if not Path(path).exists():
                return ""
        data = read_own(path, "target.token_file", most_bytes=_MAX_TOKEN_BYTES, secret=True)
        return data.decode("ascii", errors="replace").strip()


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _owners(deployment: Mapping[str, Any]) -> tuple[str, ...]:
    own = (deployment.get("deployment_config") or {}).get("autoscaling_config")
    return ("Ray Serve's autoscaler (autoscaling_config)",) if own else ()


def make(settings: Mapping[str, Any], context: TargetContext) -> RayServeTarget:
    """The target of these settings.

    Raises:
        ConfigError: a key or value that is not allowed.
    """
    return RayServeTarget(checked(RayServeSettings, _SETTINGS, dict(settings), "target"), context)
