"""The line a person watches: how far, how fast, how long still, and the number that matters."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_REFRESH_SECONDS = 0.2
_PIPED_SECONDS = 10.0


def duration(seconds: float) -> str:
    """Seconds for a person: "42 s", "3 min 05 s", "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def steps_text(env_steps: int) -> str:
    """Environment steps for a person: "500", "80 k", "4.0 M"."""
    if env_steps >= 1_000_000:
        return f"{env_steps / 1e6:.1f} M"
    return f"{env_steps / 1e3:.0f} k" if env_steps >= 1000 else str(env_steps)


class Progress:
    """Redraws one line on a terminal, prints one every ten seconds elsewhere.

    Args:
        label: what is going on.
        unit: what is counted.
        stream: standard error by default, so that results can be piped.
        value_label: what `value` and `kept` are.
    """

    def __init__(
        self, label: str, unit: str = "steps", stream: TextIO | None = None, value_label: str = "validation J/h"
    ) -> None:
        self.label, self.unit, self.value_label = label, unit, value_label
        self.stream = stream or sys.stderr
        self._live = self.stream.isatty()
        self._total = 1
        self._began = self._drawn = 0.0
        self._from = 0

    def begin(self, total: int, done: int = 0) -> None:
        """Start counting to `total`, from `done`."""
        self._total, self._from = max(1, total), done
        self._began = time.monotonic()
        # Piped output speaks first after its interval; a terminal at once.
        self._drawn = 0.0 if self._live else self._began

    def update(self, done: int, rate: float | None = None, value: float | None = None, kept: float | None = None) -> None:
        """Show `done`, and where given the rate a second, the latest value and that of the policy kept so far."""
        now = time.monotonic()
        if now - self._drawn < (_REFRESH_SECONDS if self._live else _PIPED_SECONDS) and done < self._total:
            return
        self._drawn = now
        parts = [
            f"{self.label} {100 * done / self._total:3.0f} %",
            f"{self._count(done)} of {self._count(self._total)} {self.unit}",
        ]
        if rate:
            parts.append(f"{self._count(rate)} {self.unit}/s")
        if done > self._from:
            parts.append(f"{duration((now - self._began) * (self._total - done) / (done - self._from))} left")
        if value is not None and kept is not None:
            parts.append(f"{self.value_label} {value:.2f} (kept {kept:.2f})")
        self._write(" · ".join(parts))

    def note(self, text: str) -> None:
        """A line of its own that stays."""
        self._write(text)
        if self._live:
            self.stream.write("\n")
            self.stream.flush()

    def end(self) -> None:
        """Leave the last line standing."""
        if self._live and self._drawn:
            self.stream.write("\n")
            self.stream.flush()

    def _write(self, text: str) -> None:
        self.stream.write(f"\r\x1b[2K{text}" if self._live else f"{text}\n")
        self.stream.flush()

    @staticmethod
    def _count(value: float) -> str:
        for size, suffix in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
            if value >= size:
                return f"{value / (1e3 if suffix == ' k' else size):.3g}{suffix}"
        return f"{value:.0f}"
