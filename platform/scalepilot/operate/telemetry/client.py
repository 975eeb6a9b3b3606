"""The HTTP API of a Prometheus, or of what speaks like one: an answer within a time, or one line that says why there is none."""

from __future__ import annotations

import json
import math
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlsplit

import numpy as np

from scalepilot.config.checks import Section
from scalepilot.errors import ConfigError, InputError, RunError, printable
from scalepilot.operate.credentials import secret_line, trusted
from scalepilot.operate.telemetry.counters import Samples

if TYPE_CHECKING:
    import httpx2

Read = TypeVar("Read")
# As Python's objects it takes some eight times as much.
_MOST_ANSWER_BYTES = 12_000_000
# Of a secret: a service account's token is replaced about once an hour, in its file.
_SECRET_SECONDS = 60.0
# Longer ones do not fit into every proxy's URL.
_LONGEST_GET = 1500
_LONGEST_TOLD = 200
# Annotations of an expression, not of what it was computed from.
_ABOUT_EXPRESSIONS = "PromQL "


class PrometheusError(RunError):
    """No answer, or none that can be used; `str()` is one line."""


class QueryError(PrometheusError):
    """A question that Prometheus does not understand: what was given, and not what failed."""

    exit_code = 2


class TooLargeError(PrometheusError):
    """An answer that is too much, or takes too long: a smaller one may do."""


@dataclass(frozen=True)
class Connection(Section):
    """Where a Prometheus is, and what it wants to see.

    Attributes:
        url: up to its /api/v1: http://prometheus:9090, https://mimir/prometheus.
        token_file: file with a bearer token; it is read again as it is replaced.
        user: of HTTP Basic.
        password_file: file with that user's password.
        ca_file: certificates that its own is checked against; null for those of the system.
        headers: sent with every question, such as X-Scope-OrgID: shop.
    """

    url: str
    token_file: str | None = None
    user: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or port == 0:
            raise ValueError(f"url: {printable(self.url)!r} is not allowed; allowed: such as http://prometheus:9090")
        if "/api/v1" in parts.path:
            raise ValueError(
                f"url: {printable(self.url)!r} is not allowed; allowed: {self.url.partition('/api/v1')[0]}, up to its /api/v1"
            )
        if parts.username is not None or parts.password is not None:
            raise ValueError("url: holds a user or a password; allowed: user and password_file beside it")
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user, password_file: one without the other is not allowed; allowed: both or neither")
        if self.user is not None and self.token_file is not None:
            raise ValueError("token_file: is not allowed beside user; allowed: one of them")
        if self.ca_file is not None and parts.scheme != "https":
            raise ValueError(f"ca_file: is not used by {self.url}; allowed: with https://")


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        result: of a question about series: the vector or the matrix; else `data`.
        server_time: Unix seconds by the server's clock; None where it does not say.
        warnings: what it was not sure of.
    """

    result: Any
    server_time: float | None
    warnings: tuple[str, ...]


class Client(Protocol):
    """Who answers questions about series; see `PrometheusClient`."""

    @property
    def url(self) -> str:
        """Where it is."""
        ...

    def ranges(self, query: str, now: float, seconds: float) -> list[Samples]:
        """Raw samples."""
        ...

    def vector(self, query: str, now: float, seconds: float) -> list[tuple[dict[str, str], float]]:
        """An expression at one moment."""
        ...

    def ask(self, path: str, asked: Mapping[str, str], seconds: float) -> Answer:
        """Anything else."""
        ...

    def close(self) -> None:
        """Let connections go."""
        ...


class PrometheusClient:
    """Asks a Prometheus; may be used by several threads.

    Args:
        connection: where it is.
        source: names the settings, in messages.

    Raises:
        InputError: a secret or the CA file cannot be read, or is within reach of others; the client library is not installed.
    """

    def __init__(self, connection: Connection, source: str = "telemetry") -> None:
        try:
            import httpx2
        except ImportError:
            raise InputError("Prometheus: needs httpx2; allowed: pip install 'scalepilot[operate]'") from None
        self._httpx, self._connection, self._source = httpx2, connection, source
        self._authorisation: tuple[float, str | None] = (-math.inf, None)
        self._authorised()
        # Without TLS there is nothing to load certificates for; redirects are not followed.
        verify: Any = urlsplit(connection.url).scheme == "https"
        if connection.ca_file is not None:
            verify = ssl.create_default_context(cadata=trusted(connection.ca_file, f"{source}.ca_file"))
        try:
            # Neither proxies nor .netrc of whoever started us: what is sent where is what the configuration says.
            self._http: httpx2.Client = httpx2.Client(
                headers=dict(connection.headers), verify=verify, trust_env=False, follow_redirects=False
            )
        except (ValueError, TypeError, UnicodeError) as error:
            raise ConfigError(f"{source}.headers: {error}; allowed: names and values of HTTP headers") from None

    @property
    def url(self) -> str:
        """Where it is."""
        return self._connection.url.rstrip("/")

    def close(self) -> None:
        """Let connections go."""
        self._http.close()

    def ranges(self, query: str, now: float, seconds: float) -> list[Samples]:
        """The raw samples of a range selector, such as `http_requests_total[5m]`, each at its own time.

        Args:
            query: with the range.
            now: Unix seconds of its end.
            seconds: for an answer.

        Raises:
            PrometheusError: none, or one that cannot be used.
        """
        return _samples(self.ask("query", {"query": query, "time": f"{now:.3f}"}, seconds), query)

    def range_query(self, query: str, start: float, end: float, step: float, seconds: float) -> list[Samples]:
        """An expression at regular moments; at most 11,000 of them.

        Raises:
            PrometheusError: as `ranges`.
        """
        asked = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        return _samples(self.ask("query_range", asked, seconds), query)

    def vector(self, query: str, now: float, seconds: float) -> list[tuple[dict[str, str], float]]:
        """An expression at one moment: labels and value of each series; a scalar has no labels.

        Raises:
            PrometheusError: as `ranges`.
        """
        answer = self.ask("query", {"query": query, "time": f"{now:.3f}"}, seconds)
        _refuse_partial(answer)
        try:
            if len(answer.result) == 2 and isinstance(answer.result[1], str):
                return [({}, float(answer.result[1]))]
            return [(dict(one["metric"]), float(one["value"][1])) for one in answer.result]
        except (LookupError, TypeError, ValueError):
            raise PrometheusError(f"{query[:_LONGEST_TOLD]}: gives no numbers at one moment") from None

    def ask(self, path: str, asked: Mapping[str, str], seconds: float) -> Answer:
        """Anything below /api/v1.

        Args:
            path: such as "query" or "metadata".
            asked: parameters.
            seconds: for an answer; whatever takes longer is broken off.

        Raises:
            PrometheusError: no answer, or a refusal.
        """
        parameters = dict(asked)
        if path.startswith("query"):
            # Nobody waits for the answer by then: it need not be computed to its end.
            parameters["timeout"] = f"{max(100.0, 1000 * seconds):.0f}ms"
        long = sum(map(len, parameters.values())) > _LONGEST_GET
        sent: dict[str, Any] = {"data": parameters} if long else {"params": parameters}
        return self._fetched("POST" if long else "GET", f"{self.url}/api/v1/{path}", seconds, _read, **sent)

    def page(self, seconds: float) -> str:
        """The page at the address itself, such as an exporter's /metrics.

        Raises:
            PrometheusError: no answer, or a refusal.
        """
        return self._fetched("GET", self._connection.url, seconds, _text)

    def _fetched(
        self, method: str, address: str, seconds: float, read: Callable[[httpx2.Response, bytes], Read], **sent: Any
    ) -> Read:
        deadline, authorisation, httpx = time.monotonic() + seconds, self._authorised(), self._httpx
        try:
            with self._http.stream(
                method,
                address,
                headers={"authorization": authorisation} if authorisation else {},
                timeout=httpx.Timeout(seconds, connect=min(seconds, 1.0)),
                **sent,
            ) as response:
                return read(response, _within(response, deadline, seconds))
        except httpx.TimeoutException:
            raise TooLargeError(f"no answer from {self.url} within {seconds:.1f} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            reason = str(error) or type(error).__name__
            raise PrometheusError(f"{self.url} cannot be reached ({printable(reason)[:_LONGEST_TOLD]})") from None
        except RuntimeError as error:
            # Closed by another thread that no longer waits for us.
            raise PrometheusError(f"{self.url}: {error}") from None

    def _authorised(self) -> str | None:
        """The Authorization header, of files read not long ago."""
        connection, (read_at, known) = self._connection, self._authorisation
        if time.monotonic() - read_at < _SECRET_SECONDS:
            return known
        header: str | None = None
        if connection.token_file is not None:
            header = f"Bearer {secret_line(connection.token_file, f'{self._source}.token_file')}"
        elif connection.user is not None and connection.password_file is not None:
            import base64

            pair = f"{connection.user}:{secret_line(connection.password_file, f'{self._source}.password_file')}"
            header = f"Basic {base64.b64encode(pair.encode()).decode()}"
        self._authorisation = time.monotonic(), header
        return header


def _within(response: httpx2.Response, deadline: float, seconds: float) -> bytes:
    """The whole body, or an error at the deadline: a server that sends a little now and then would keep us for ever."""
    parts, size = [], 0
    for part in response.iter_bytes():
        parts.append(part)
        size += len(part)
        if size > _MOST_ANSWER_BYTES:
            raise TooLargeError(f"more than {_MOST_ANSWER_BYTES // 1_000_000} MB; allowed: fewer series, by a recording rule")
        if time.monotonic() > deadline:
            raise TooLargeError(f"no whole answer within {seconds:.1f} s")
    return b"".join(parts)


def _read(response: httpx2.Response, body: bytes) -> Answer:
    try:
        parsed = json.loads(body)
        status = parsed["status"]
    except (ValueError, LookupError, TypeError, RecursionError):
        what = {401: ": it wants token_file, or user and password_file", 403: ": these credentials may not ask"}
        if response.is_redirect:
            what[response.status_code] = f": put {printable(response.headers.get('location', '?'))[:_LONGEST_TOLD]} in url"
        told = ": it fails" if response.status_code >= 500 else ": this is not the API of a Prometheus"
        hint = what.get(response.status_code, told)
        raise PrometheusError(f"HTTP {response.status_code} from {response.url.copy_with(query=None)}{hint}") from None
    if status != "success":
        told = printable(str(parsed.get("error") or parsed.get("errorType") or "no reason given"))
        too_large = response.status_code in (422, 503) and re.search(r"too many samples|timed out|limit|exceed", told)
        kind = TooLargeError if too_large else QueryError if parsed.get("errorType") == "bad_data" else PrometheusError
        raise kind(f"HTTP {response.status_code}: {told[:_LONGEST_TOLD]}")
    data = parsed.get("data")
    result = data.get("result") if isinstance(data, dict) and "resultType" in data else data
    warnings = tuple(printable(str(text)) for text in parsed.get("warnings") or ())
    return Answer(result, _date(response.headers.get("date")), warnings)


def _text(response: httpx2.Response, body: bytes) -> str:
    if response.status_code != 200:
        raise PrometheusError(f"HTTP {response.status_code} from {response.url.copy_with(query=None)}")
    return body.decode("utf-8", errors="replace")


def _date(text: str | None) -> float | None:
    try:
        return None if text is None else parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError):
        return None


def _refuse_partial(answer: Answer) -> None:
    """What a store that did not answer would have added is unknown, and a sum without it too low."""
    about_data = [text for text in answer.warnings if not text.startswith(_ABOUT_EXPRESSIONS)]
    if about_data:
        raise PrometheusError(f"the answer may be partial: {about_data[0][:_LONGEST_TOLD]}")


def _samples(answer: Answer, query: str) -> list[Samples]:
    _refuse_partial(answer)
    found = []
    try:
        for one in answer.result:
            if "values" not in one:
                raise PrometheusError(f"{query[:_LONGEST_TOLD]}: is a native histogram; allowed: classic ones, with buckets")
            times = np.array([moment for moment, _ in one["values"]], dtype=np.float64)
            values = np.array([float(text) for _, text in one["values"]], dtype=np.float64)
            if not (np.diff(times) > 0).all():
                raise PrometheusError(f"{query[:_LONGEST_TOLD]}: its samples are not in the order of time")
            # A sample may be NaN, where an exporter says so.
            finite = np.isfinite(values)
            if not finite.all():
                times, values = times[finite], values[finite]
            if len(values):
                found.append(Samples(dict(one["metric"]), times, values))
    except (LookupError, TypeError, ValueError):
        raise PrometheusError(f"{query[:_LONGEST_TOLD]}: gives no series of numbers") from None
    return found


__all__ = ["Answer", "Client", "Connection", "PrometheusClient", "PrometheusError", "QueryError", "TooLargeError"]
