"""The gateway of OpenFaaS: who asks it, and what it says of a function."""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from scalepilot.config.checks import Section
from scalepilot.operate.credentials import secret_line, trusted
from scalepilot.operate.targets.door import Answer, JsonDoor, check_address, whole

_MIN, _MAX, _FACTOR = (f"com.openfaas.scale.{name}" for name in ("min", "max", "factor"))
# Of OpenFaaS Pro's own autoscaler and idler; the community edition looks at none of them.
_PRO = tuple(f"com.openfaas.scale.{name}" for name in ("type", "target", "target-proportion", "zero"))
# Served replicas of the community edition, whatever is asked for.
COMMUNITY = (1, 5)


@dataclass(frozen=True)
class GatewaySettings(Section):
    """Where a gateway is, and who asks it.

    Attributes:
        url: of the gateway.
        namespace: of the functions.
        user: of HTTP Basic; null for admin.
        password_file: file with that user's password; OpenFaaS keeps it in the secret `basic-auth`.
        token_file: file with a bearer token, in place of user and password.
        ca_file: certificates that the gateway's own is checked against; null for those of the system.
    """

    url: str = "http://127.0.0.1:8080"
    namespace: str = "openfaas-fn"
    user: str | None = None
    password_file: str | None = None
    token_file: str | None = None
    ca_file: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_address(self.url)
        if not self.namespace:
            raise ValueError("namespace: is empty; allowed: its name, such as openfaas-fn")
        if self.user is not None and self.password_file is None:
            raise ValueError("user: is not used without password_file; allowed: both or neither")
        if self.password_file is not None and self.token_file is not None:
            raise ValueError("token_file: is not allowed beside password_file; allowed: one of them")
        if self.ca_file is not None and not self.url.startswith("https://"):
            raise ValueError(f"ca_file: is not used by {self.url}; allowed: with https://")


@dataclass(frozen=True)
class Function:
    """What the gateway says of a function.

    Attributes:
        name: of it.
        replicas: asked for; None where it does not say.
        available: that serve.
        labels: its own.
        age_seconds: since it was deployed; None where it does not say.
    """

    name: str
    replicas: int | None
    available: int | None
    labels: Mapping[str, str]
    age_seconds: float | None = None


class Gateway:
    """Asks one gateway.

    Args:
        settings: which.
        where: they stand in the configuration, for messages.

    Raises:
        InputError: a secret or the CA file cannot be read, or is within reach of others.
    """

    def __init__(self, settings: GatewaySettings, where: str = "target") -> None:
        self._settings, self._where = settings, where
        verify: Any = settings.url.startswith("https://")
        if settings.ca_file is not None:
            verify = ssl.create_default_context(cadata=trusted(settings.ca_file, f"{where}.ca_file"))
        self._authorisation()
        self._door = JsonDoor(settings.url, self._authorisation, verify)

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """One request below /system, in the functions' namespace."""
        answer = self._door.ask(method, f"/system/{path}", body, {"namespace": self._settings.namespace})
        if answer.status == 401 and self._settings.password_file is None and self._settings.token_file is None:
            return Answer(401, None, f"{answer.problem} (allowed: user and password_file, or token_file)")
        return answer

    def call(self, name: str, payload: Any) -> Answer:
        """Call a function without waiting for what it answers."""
        return self._door.ask("POST", f"/async-function/{quote(name, safe='')}.{self._settings.namespace}", payload)

    def function(self, name: str) -> Function | Answer:
        """What it says of one; the answer where it says nothing of use."""
        answer = self.ask("GET", f"function/{quote(name, safe='')}")
        found = parsed(answer.body) if answer.done else None
        if found is None:
            return Answer(answer.status, None, answer.problem or "answered no function")
        return found

    def close(self) -> None:
        """Let the connection go."""
        self._door.close()

    def _authorisation(self) -> str:
        s = self._settings
        if s.token_file is not None:
            return f"Bearer {secret_line(s.token_file, f'{self._where}.token_file')}"
        if s.password_file is None:
            return ""
        pair = f"{s.user or 'admin'}:{secret_line(s.password_file, f'{self._where}.password_file')}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"


def parsed(body: Any) -> Function | None:
    """A function as the gateway shows it."""
    if not isinstance(body, dict) or not isinstance(body.get("name"), str):
        return None
    labels = body.get("labels")
    known = {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}
    return Function(body["name"], whole(body.get("replicas")), whole(body.get("availableReplicas", 0)), known, _age(body))


def _age(body: Mapping[str, Any]) -> float | None:
    try:
        return max(0.0, time.time() - datetime.fromisoformat(str(body["createdAt"])).timestamp())
    except (KeyError, ValueError):
        return None


def owners_of(labels: Mapping[str, str]) -> tuple[str, ...]:
    """Who else scales a function, as far as its labels tell."""
    named = [f"{key}={labels[key]}" for key in _PRO if labels.get(key, "false") != "false"]
    return (f"OpenFaaS's autoscaler (label {', '.join(named)})",) if named else ()


def bounds_told(labels: Mapping[str, str]) -> str:
    """What the labels say of what an alert does to a function."""
    low, high = labels.get(_MIN, "1"), labels.get(_MAX, str(COMMUNITY[1]))
    return f"an alert adds {labels.get(_FACTOR, '10')} % of {high} replicas, and its end sets {low}"
