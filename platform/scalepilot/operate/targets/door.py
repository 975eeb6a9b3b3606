"""What answers JSON over HTTP: a dashboard, a gateway. One request, one answer or one line that says why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

from scalepilot.errors import InputError
from scalepilot.operate.targets import Written

SECONDS = 2.0
_LONGEST_TOLD = 240


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        status: of HTTP; 0 where nobody answered.
        body: parsed; None where it is no JSON.
        problem: "" where it was done, else one line.
        retry_after_seconds: how long the server wants to be left alone.
    """

    status: int
    body: Any = None
    problem: str = ""
    retry_after_seconds: float = 1.0

    @property
    def done(self) -> bool:
        """Whether it was."""
        return 200 <= self.status < 300


class JsonDoor:
    """Asks one server, and never twice.

    Args:
        url: up to the paths that are asked for.
        authorisation: makes the Authorization header of each request; "" for none. It may raise `InputError`.
        verify: of TLS.
    """

    def __init__(self, url: str, authorisation: Callable[[], str], verify: Any = True) -> None:
        self._authorisation = authorisation
        # Neither proxies nor .netrc of whoever started us: what is sent where is what the configuration says.
        self._client = httpx2.Client(base_url=url, timeout=SECONDS, verify=verify, trust_env=False)

    def ask(self, method: str, path: str, body: Any = None, parameters: Mapping[str, str] | None = None) -> Answer:
        """One request."""
        try:
            headers = {"Authorization": header} if (header := self._authorisation()) else {}
            answer = self._client.request(method, path, json=body, params=parameters, headers=headers)
        except InputError as error:
            return Answer(0, problem=str(error))
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            return Answer(0, problem=" ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_TOLD])
        try:
            found = answer.json()
        except ValueError:
            found = None
        if answer.is_success:
            return Answer(answer.status_code, found)
        said = found.get("error") if isinstance(found, dict) else answer.text
        told = " ".join(f"HTTP {answer.status_code}: {said or answer.reason_phrase}".split())[:_LONGEST_TOLD]
        return Answer(answer.status_code, found, told, _seconds(answer.headers.get("retry-after")))

    def close(self) -> None:
        """Let the connection go."""
        self._client.close()


def not_written(answer: Answer) -> Written:
    """What an answer that is not `done` says of a write."""
    match answer.status:
        case 401 | 403 | 412:
            return Written("forbidden", detail=answer.problem)
        case 429:
            return Written("throttled", detail=answer.problem, retry_after_seconds=answer.retry_after_seconds)
        case code if 300 <= code < 500:
            return Written("refused", detail=answer.problem)
        case _:
            return Written("unknown", detail=answer.problem)


def is_address(url: str) -> bool:
    """Whether a text is http://HOST:PORT or https://…, without a user in it."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username and parts.port != 0
    except ValueError:
        return False


def whole(value: Any) -> int | None:
    """A whole number from 0 as JSON has it; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9 or value != int(value):
        return None
    return int(value)


def _seconds(text: str | None) -> float:
    return float(text) if text is not None and text.isascii() and text.isdigit() and int(text) <= 3600 else 1.0
