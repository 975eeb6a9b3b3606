"""What answers JSON over HTTP: a dashboard, a gateway. One request, one answer or one line that says why there is none."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

from scalepilot.errors import InputError, printable
from scalepilot.operate.targets import Written
from scalepilot.operate.telemetry.asking import Asking, Problem

SECONDS = 2.0
_LONGEST_TOLD, _MOST_ANSWER_BYTES = 240, 5_000_000


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        status: of HTTP; 0 where nobody answered.
        body: parsed; None where it is empty, or no JSON.
        problem: "" where it was done, else one line.
        retry_after_seconds: how long the server wants to be left alone.
    """

    status: int
    body: Any = None
    problem: str = ""
    retry_after_seconds: float = 1.0

    @property
    def done(self) -> bool:
        """Whether it was, as far as the answer tells."""
        return 200 <= self.status < 300 and not self.problem


class JsonDoor:
    """Asks one server, and never twice.

    Args:
        url: up to the paths that are asked for.
        authorisation: makes the Authorization header of each request; "" for none. It may raise `InputError`.
        verify: of TLS.
    """

    def __init__(self, url: str, authorisation: Callable[[], str], verify: Any = True) -> None:
        self._authorisation = authorisation
        self._url, self._verify, self._asking = url, verify, Asking()
        self._client = self._made()

    def _made(self) -> httpx2.Client:
        # Neither proxies nor .netrc of whoever started us: what is sent where is what the configuration says.
        return httpx2.Client(base_url=self._url, timeout=SECONDS, verify=self._verify, trust_env=False)

    def ask(self, method: str, path: str, body: Any = None, parameters: Mapping[str, str] | None = None) -> Answer:
        """One request."""

        def asked(seconds: float) -> Answer:
            return self._asked(time.monotonic() + seconds, method, path, body, parameters)

        found = self._asking.ask({"": asked}, SECONDS)[""]
        if not isinstance(found, Problem):
            assert isinstance(found, Answer)
            return found
        # Whoever sends a little now and then would keep the connection, and us, for ever.
        self._client.close()
        self._client, self._asking = self._made(), Asking()
        return _failed(0, found.reason)

    def _asked(self, deadline: float, method: str, path: str, body: Any, parameters: Mapping[str, str] | None) -> Answer:
        def not_late(event: str, info: Any) -> None:
            # A name that resolves at last must not send a decision of long ago.
            if event.endswith(("send_request_headers.started", "send_request_body.started")) and time.monotonic() >= deadline:
                raise httpx2.PoolTimeout("the time was up before anything was sent")

        client, sent = self._client, {"json": body, "params": parameters, "extensions": {"trace": not_late}}
        try:
            headers = {"Authorization": header} if (header := self._authorisation()) else {}
            with client.stream(method, path, headers=headers, **sent) as answer:
                content = bytearray()
                for part in answer.iter_bytes():
                    content += part
                    if len(content) > _MOST_ANSWER_BYTES:
                        return _failed(0, f"answered more than {_MOST_ANSWER_BYTES // 1_000_000} MB")
        except InputError as error:
            return Answer(0, problem=str(error))
        except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, OSError) as error:
            return _failed(0, f"{type(error).__name__}: {error}")
        try:
            # Of what is done an answer need not say anything.
            found, is_json = json.loads(content) if content or method == "GET" else None, True
        except (ValueError, RecursionError):
            found, is_json = None, False
        code = answer.status_code
        if answer.is_success:
            # A page to log in at, or of a proxy, says nothing of what was asked for.
            return Answer(code, found) if is_json else _failed(code, f"HTTP {code}: answered no JSON: {_text(content)}")
        said = found.get("error") if isinstance(found, dict) else _text(content)
        told = f"HTTP {code}: {said or answer.reason_phrase}"
        return _failed(code, told, _seconds(answer.headers.get("retry-after")))

    def close(self) -> None:
        """Let the connection go."""
        self._asking.close()
        self._client.close()


def _failed(status: int, told: str, retry_after_seconds: float = 1.0) -> Answer:
    return Answer(status, None, printable(" ".join(told.split()))[:_LONGEST_TOLD], retry_after_seconds)


def _text(content: bytearray) -> str:
    return content[: 4 * _LONGEST_TOLD].decode("utf-8", errors="replace")


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


def check_address(url: str) -> None:
    """Refuse what is no http://HOST:PORT or https://…, or holds a user or a password.

    Raises:
        ValueError: for a `Section`.
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        # The client would leave the last two out.
        known = known and url.isprintable() and " " not in url and not parts.query and not parts.fragment
    except ValueError:
        known = False
    if "@" in url:
        raise ValueError("url: holds a user or a password; allowed: http://HOST:PORT or https://…")
    if not known:
        raise ValueError(f"url: {printable(url)!r} is not allowed; allowed: http://HOST:PORT or https://…")


def whole(value: Any) -> int | None:
    """A whole number from 0 as JSON has it; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9 or value != int(value):
        return None
    return int(value)


def _seconds(text: str | None) -> float:
    return float(text) if text is not None and text.isascii() and text.isdigit() and int(text) <= 3600 else 1.0
