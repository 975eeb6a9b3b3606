"""Times as a person writes them on a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from scalepilot.errors import InputError

ALLOWED = "2026-11-30, 2026-11-30T07:45Z, 07:45 (of today), Unix seconds, or now-2h; UTC unless a zone is given"
_SPAN_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def moment(text: str, option: str, now: float) -> float:
    """Unix seconds of a time; UTC where it names no zone.

    Args:
        text: as in ALLOWED.
        option: name for the message.
        now: Unix seconds.

    Raises:
        InputError: it is not a time.
    """
    text = text.strip()
    if relative := re.fullmatch(r"now(?:\s*-\s*(\d+(?:\.\d+)?)([mhdw]))?", text):
        return now - (float(relative[1]) * _SPAN_SECONDS[relative[2]] if relative[1] else 0.0)
    if re.fullmatch(r"\d{9,11}(\.\d+)?", text):
        found = float(text)
    else:
        today = datetime.fromtimestamp(now, UTC).date().isoformat()
        try:
            hour = re.fullmatch(r"(\d?\d)(:[\d:.]+(?:Z|[+-]\d\d:\d\d)?)", text)
            read = datetime.fromisoformat(f"{today}T{hour[1]:0>2}{hour[2]}" if hour else text)
        except ValueError:
            raise InputError(f"{option}: {text[:40]!r} is not a time; allowed: {ALLOWED}") from None
        found = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    return found
