"""Files that say who asks and whom to trust, as they are read for a connection."""

from __future__ import annotations

import ssl

from scalepilot.errors import ConfigError, InputError
from scalepilot.files.ownership import read_own

_MOST_SECRET_BYTES, _MOST_CA_BYTES = 100_000, 10_000_000


def secret_line(path: str, key: str) -> str:
    """A password or token: a file of one line that only this user can read.

    Args:
        path: of the file.
        key: that names it, for messages.

    Raises:
        InputError: it cannot be read, is within reach of others, or holds something else.
    """
    text = read_own(path, key, most_bytes=_MOST_SECRET_BYTES, secret=True).decode("utf-8", errors="replace").strip()
    if not text or not text.isprintable() or "\ufffd" in text:
        raise InputError(f"{key}: {path}: is not allowed; allowed: one line of text")
    return text


def trusted(path: str, key: str) -> str:
    """Certificates that a server's own is checked against, as PEM.

    Args:
        path: of the file.
        key: that names it, for messages.

    Raises:
        InputError: it cannot be read, or is within reach of others.
        ConfigError: it holds no certificates.
    """
    try:
        text = read_own(path, key, most_bytes=_MOST_CA_BYTES).decode("ascii")
        # Of an empty text it would take those of the system.
        ssl.create_default_context(cadata=text.strip() or "none")
    except (ssl.SSLError, UnicodeDecodeError, ValueError):
        raise ConfigError(f"{key}: {path}: holds no certificates; allowed: PEM") from None
    return text
