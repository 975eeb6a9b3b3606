"""Telemetry of a page of metrics, scraped by ourselves: where there is no Prometheus, and for the twin."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from scalepilot.errors import ConfigError, printable
from scalepilot.operate.telemetry import TelemetryContext
from scalepilot.operate.telemetry.client import Connection, PrometheusClient, PrometheusError
from scalepilot.operate.telemetry.counters import Samples
from scalepilot.operate.telemetry.prometheus import PrometheusTelemetry
from scalepilot.operate.telemetry.settings import prometheus_settings

_MATCHER = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"((?:\\.|[^"\\])*)"\s*(?:,|$)')
_RANGED = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)?\{(.*)\}\[(\d+)ms\]", re.DOTALL)
_SCRAPE_SECONDS, _TIMEOUT_SECONDS = 5.0, 2.0
# Raw samples that are kept of a series.
_KEPT_SAMPLES = 2000

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Matcher:
    label: str
    is_equal: bool
    pattern: re.Pattern[str]

    def takes(self, labels: Mapping[str, str]) -> bool:
        found = self.pattern.fullmatch(labels.get(self.label, "")) is not None
        return found == self.is_equal


class ScrapedPage:
    """Keeps the samples of a page, and answers like a Prometheus what telemetry asks of one: ranges of raw samples.

    Args:
        connection: where the page is.
        seconds: between two scrapes, by the clock.
        clock: Unix seconds.
        pace: the clock's seconds in a second of the wall.
    """

    def __init__(self, connection: Connection, seconds: float, clock: Callable[[], float] = time.time, pace: float = 1.0) -> None:
        self._url = connection.url
        self._door = PrometheusClient(connection)
        self._seconds, self._clock, self._pace = seconds, clock, pace
        self._series: dict[tuple[str, Labels], deque[tuple[float, float]]] = {}
        self._problem = "not scraped yet"
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._scrape_on, name="scrape", daemon=True)

    def start(self) -> None:
        """Scrape from now on."""
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the page is."""
        return self._url

    def close(self) -> None:
        """End."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_TIMEOUT_SECONDS)
        self._door.close()

    def _scrape_on(self) -> None:
        while not self._ended.is_set():
            self.scrape()
            self._ended.wait(self._seconds / self._pace)

    def scrape(self) -> None:
        """Read the page once; why it failed is what is answered where no older samples help."""
        try:
            self.take(self._door.page(_TIMEOUT_SECONDS), self._clock())
            problem = ""
        except (PrometheusError, ValueError, KeyError, IndexError) as error:
            problem = printable(str(error))[:200]
        with self._lock:
            self._problem = problem

    def take(self, text: str, moment: float) -> None:
        """Keep the samples of a page as it was at a moment.

        Raises:
            ValueError: it is not in the exposition format.
        """
        from prometheus_client.parser import text_string_to_metric_families

        found = [
            (sample.name, tuple(sorted(sample.labels.items())), float(sample.value))
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]
        with self._lock:
            for name, labels, value in found:
                if np.isfinite(value):
                    self._series.setdefault((name, labels), deque(maxlen=_KEPT_SAMPLES)).append((moment, value))

    def ranges(self, query: str, now: float, seconds: float) -> list[Samples]:
        """The raw samples of a range selector with its range in milliseconds; see `PrometheusClient.ranges`.

        Raises:
            PrometheusError: nothing was scraped yet, or something else was asked for.
        """
        asked = _RANGED.fullmatch(query)
        if asked is None:
            raise PrometheusError(f"{query[:80]}: is not allowed without a Prometheus; allowed: a metric and its labels")
        name, matchers = asked[1], _matchers(asked[2])
        since = now - float(asked[3]) / 1000.0
        found = []
        with self._lock:
            if not self._series:
                raise PrometheusError(f"{self.url}: {self._problem}")
            for (own, labels), samples in self._series.items():
                known = dict(labels)
                if (name not in (None, own)) or not all(matcher.takes({**known, "__name__": own}) for matcher in matchers):
                    continue
                within = np.array([sample for sample in samples if since < sample[0] <= now])
                if len(within):
                    found.append(Samples(known, within[:, 0].copy(), within[:, 1].copy()))
        return found

    def vector(self, query: str, now: float, seconds: float) -> NoReturn:
        """Refused: there is nobody to compute an expression.

        Raises:
            PrometheusError: always.
        """
        raise PrometheusError(f"{query[:80]}: needs a Prometheus to compute it; allowed here: counters, histograms and gauges")

    def ask(self, path: str, asked: Mapping[str, str], seconds: float) -> NoReturn:
        """Refused likewise.

        Raises:
            PrometheusError: always.
        """
        raise PrometheusError(f"{path}: needs a Prometheus")


def _matchers(text: str) -> list[_Matcher]:
    found, at = [], 0
    while at < len(text.rstrip().rstrip(",")):
        one = _MATCHER.match(text, at)
        if one is None:
            raise PrometheusError(f"{text[:80]}: is not a list of labels")
        value = re.sub(r"\\(.)", r"\1", one[3])
        pattern = re.compile(value if "~" in one[2] else re.escape(value))
        found.append(_Matcher(one[1], one[2] in ("=", "=~"), pattern))
        at = one.end()
    return found


def make(settings: Mapping[str, Any], context: TelemetryContext) -> PrometheusTelemetry:
    """The telemetry of these settings: those of `kind: prometheus`, but that `url` is the page's, and `scrape_seconds`.

    Raises:
        ConfigError: a key or value that is not allowed.
    """
    given = dict(settings)
    seconds = given.pop("scrape_seconds", _SCRAPE_SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0.05 <= seconds <= 3600:
        raise ConfigError(f"telemetry.scrape_seconds: {seconds!r} is not allowed; allowed: 0.05 to 3600")
    checked = prometheus_settings(given)
    page = ScrapedPage(checked, float(seconds))
    page.start()
    return PrometheusTelemetry(checked, context, page)


__all__ = ["ScrapedPage", "make"]
