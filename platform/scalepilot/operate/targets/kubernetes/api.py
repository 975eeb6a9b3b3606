"""The API server, asked in JSON: every answer or its absence within the time given, nothing sent late, nothing sent twice."""

from __future__ import annotations

import email.utils
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import msgspec

from scalepilot.operate.targets.kubernetes.connection import AuthError, Connection

REQUEST_SECONDS = 2.0
JSON_PATCH, MERGE_PATCH = "application/json-patch+json", "application/merge-patch+json"
_MAX_BYTES = 32 * 1024**2
_LONGEST_MESSAGE = 240


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        status: of HTTP; 0 where no answer came, and what was asked for may or may not have been done.
        body: the JSON object; empty where there is none.
        problem: one line: why it is of no use; "" after success.
        retry_after_seconds: as the server asks for.
        date: Unix seconds of the server's clock.
    """

    status: int
    body: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    retry_after_seconds: float = 0.0
    date: float | None = None


class _TooLateError(Exception):
    """The time was up before anything was sent."""


class Api:
    """A connection to one cluster, for several threads.

    Args:
        connection: where it is and who asks.
        clock: monotonic seconds.
    """

    def __init__(self, connection: Connection, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._client = httpx2.Client(
            base_url=connection.server,
            verify=connection.verify,
            auth=connection.auth,
            # The next look is an interval away, and a handshake costs more than the question.
            limits=httpx2.Limits(keepalive_expiry=90),
            headers={"User-Agent": "scalepilot-operate", "Accept": "application/json"},
        )

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content_type: str = "application/json",
        params: Mapping[str, str] | None = None,
        seconds: float = REQUEST_SECONDS,
        decoder: msgspec.json.Decoder[Any] | None = None,
    ) -> Answer:
        """One request, one answer; raises nothing.

        A request runs on a thread of its own: the client's time-outs hold for each of its steps and leave out the look-up of the
        server's name, but who asks must be free again in time.

        Args:
            method: of HTTP.
            path: under the server.
            body: as JSON, if any.
            content_type: of the body.
            params: of the query.
            seconds: after which nobody waits any longer, and nothing is sent any more.
            decoder: of the body where it is large; its result is `Answer.body["decoded"]`.
        """
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        deadline = self._clock() + seconds

        def not_late(event: str, info: Any) -> None:
            # A name that resolves at last must not send a decision of long ago.
            if event.endswith(("send_request_headers.started", "send_request_body.started")) and self._clock() >= deadline:
                raise _TooLateError

        request = self._client.build_request(
            method,
            path,
            params=params,
            content=None if body is None else msgspec.json.encode(body),
            headers={} if body is None else {"Content-Type": content_type},
            timeout=seconds,
            extensions={"trace": not_late},
        )
        thread = threading.Thread(
            target=lambda: answers.put(self._send(request, deadline, decoder)), name="kubernetes-request", daemon=True
        )
        thread.start()
        try:
            return answers.get(timeout=seconds)
        except queue.Empty:
            return Answer(0, problem=f"no answer within {seconds:g} s")

    def _send(self, request: httpx2.Request, deadline: float, decoder: msgspec.json.Decoder[Any] | None) -> Answer:
        try:
            response = self._client.send(request, stream=True)
            try:
                data = self._read(response, deadline)
            finally:
                response.close()
        except (_TooLateError, httpx2.TimeoutException):
            return Answer(0, problem="no answer in time")
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, AuthError, OSError, ValueError, RuntimeError) as error:
            return Answer(0, problem=_one_line(f"{type(error).__name__}: {error}"))
        return _answer(response, data, decoder)

    def _read(self, response: httpx2.Response, deadline: float) -> bytes:
        parts, size = [], 0
        for part in response.iter_bytes():
            size += len(part)
            if size > _MAX_BYTES:
                raise ValueError(f"more than {_MAX_BYTES} bytes")
            if self._clock() >= deadline:
                raise _TooLateError
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()


def _answer(response: httpx2.Response, data: bytes, decoder: msgspec.json.Decoder[Any] | None) -> Answer:
    status, date = response.status_code, _date(response.headers.get("Date"))
    good = 200 <= status < 300
    try:
        body = {"decoded": decoder.decode(data)} if decoder is not None and good else msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = None
    if good:
        if isinstance(body, dict):
            return Answer(status, body, date=date)
        return Answer(0, problem=f"HTTP {status}, but not a JSON object of the Kubernetes API", date=date)
    said = body.get("message") if isinstance(body, dict) else None
    message = _one_line(str(said or response.reason_phrase))
    return Answer(
        status,
        body if isinstance(body, dict) else {},
        f"HTTP {status}: {message}",
        _seconds(response.headers.get("Retry-After")),
        date,
    )


def _date(text: str | None) -> float | None:
    try:
        return None if text is None else email.utils.parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None


def _seconds(text: str | None) -> float:
    """Of a Retry-After, which a proxy in between may give as a date."""
    if text is None:
        return 0.0
    if text.isascii() and text.isdigit():
        return float(text[:9])
    until = _date(text)
    return 0.0 if until is None else max(0.0, until - time.time())


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_MESSAGE else line[: _LONGEST_MESSAGE - 1] + "…"


__all__ = ["JSON_PATCH", "MERGE_PATCH", "REQUEST_SECONDS", "Answer", "Api"]
