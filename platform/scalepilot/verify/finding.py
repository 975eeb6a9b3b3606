"""What a check found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        severity: "error": do not rely on it; "warning": worth knowing.
        where: the file or part.
        what: is wrong with it, in one line.
        mend: what to do.
    """

    severity: Severity
    where: str
    what: str
    mend: str


@dataclass(frozen=True)
class Verdict:
    """All that was found of one run or policy.

    Attributes:
        path: of its folder.
        kind: "run" or "policy".
        checks: names of what was checked, in order.
        findings: what was wrong.
    """

    path: Path
    kind: Literal["run", "policy"]
    checks: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """No finding is an error."""
        return all(f.severity != "error" for f in self.findings)


def error(where: str, what: str, mend: str) -> Finding:
    """Do not rely on it."""
    return Finding("error", where, _line(what), mend)


def warning(where: str, what: str, mend: str) -> Finding:
    """Worth knowing."""
    return Finding("warning", where, _line(what), mend)


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
