"""Who may ask: API keys from a file that may change while the server runs."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import time
from pathlib import Path

from scalepilot.errors import InputError
from scalepilot.files.atomic import write_bytes
from scalepilot.files.ownership import read_own
from scalepilot.serve.http.errors import RequestError
from scalepilot.serve.http.logs import LOGGER

_MIN_LENGTH, _MAX_LENGTH = 16, 512
_MAX_FILE_BYTES = 1_000_000
_LOOK_SECONDS = 1.0
_CHALLENGE = [("www-authenticate", 'Bearer realm="scalepilot"')]
_HOW = "allowed: Authorization: Bearer KEY, or X-API-Key: KEY"
_logger = logging.getLogger(LOGGER)


class ApiKeys:
    """Keys, kept as SHA-256 and compared in constant time; read again when the file changes.

    A file that became unfit changes nothing: the keys read last go on, and the log says why.

    Args:
        path: one key a line, 16 to 512 visible ASCII characters; empty lines and those that begin with # do not count.
        look_seconds: the file is looked at no more often.
        remembered_in: a private folder where the digests read last are kept, so that a process started after the file became
            unfit goes on like the others; None keeps none.

    Raises:
        InputError: unreadable, open to other users, without a key, or with an unfit one.
    """

    def __init__(self, path: Path, look_seconds: float = _LOOK_SECONDS, *, remembered_in: Path | None = None) -> None:
        self._path = path
        self._look_seconds = look_seconds
        self._remembered = None if remembered_in is None else remembered_in / "keys"
        try:
            self._digests = _digests(path)
        except InputError as error:
            self._digests = self._recall()
            if not self._digests:
                raise
            _logger.error("keys cannot be read; the previous ones stay", extra={"event": "keys_unfit", "reason": str(error)})
        self._remember()
        self._seen = _stamp(path)
        self._looked = time.monotonic()

    def __len__(self) -> int:
        return len(self._digests)

    def check(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Let a request pass.

        Args:
            headers: names in lower case, as ASGI gives them.

        Raises:
            RequestError: 401: no key, several, a malformed one, or a wrong one.
        """
        if time.monotonic() - self._looked >= self._look_seconds:
            self._look_again()
        given = [value for name, value in headers if name in (b"authorization", b"x-api-key")]
        if len(given) != 1:
            what = "is missing" if not given else "is given several times"
            raise RequestError(401, f"API key: {what}; {_HOW}", headers=_CHALLENGE)
        value = given[0]
        if any(name == b"authorization" for name, _ in headers):
            scheme, _, value = value.partition(b" ")
            if scheme.lower() != b"bearer":
                raise RequestError(401, f"authorization: is not a bearer token; {_HOW}", headers=_CHALLENGE)
        digest = hashlib.sha256(value.strip()).digest()
        # Every key is compared, whichever fits: the time says nothing about them.
        if not sum(hmac.compare_digest(digest, known) for known in self._digests):
            raise RequestError(401, f"API key: is not valid; {_HOW}", headers=_CHALLENGE)

    def _look_again(self) -> None:
        self._looked = time.monotonic()
        seen = _stamp(self._path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._digests = _digests(self._path)
        except InputError as error:
            _logger.error("keys not reloaded; the previous ones stay", extra={"event": "keys_unfit", "reason": str(error)})
        else:
            self._remember()
            _logger.info("keys reloaded", extra={"event": "keys_read", "keys": len(self._digests)})

    def _remember(self) -> None:
        # A full disk is no reason to answer nobody.
        if self._remembered is not None:
            with contextlib.suppress(OSError):
                write_bytes(self._remembered, b"".join(self._digests))

    def _recall(self) -> list[bytes]:
        if self._remembered is None or not self._remembered.exists():
            return []
        data = read_own(self._remembered, "keys", most_bytes=_MAX_FILE_BYTES)
        size = hashlib.sha256().digest_size
        return [data[at : at + size] for at in range(0, len(data), size)]


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode, found.st_uid


def _digests(path: Path) -> list[bytes]:
    return [hashlib.sha256(key.encode()).digest() for key in read_keys(path)]


def read_keys(path: Path) -> list[str]:
    """The keys of a file.

    Args:
        path: one key a line, as `ApiKeys` takes it.

    Raises:
        InputError: unreadable, open to other users, without a key, or with an unfit one.
    """
    try:
        text = read_own(path, "api_key_file", most_bytes=_MAX_FILE_BYTES, secret=True).decode("ascii")
    except UnicodeDecodeError:
        raise InputError(f"api_key_file: {path}: is not ASCII text; allowed: one key per line") from None
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if not (_MIN_LENGTH <= len(key) <= _MAX_LENGTH and key.isprintable() and " " not in key):
            raise InputError(
                f"api_key_file: {path}:{number}: a key of {len(key)} characters is not allowed;"
                f" allowed: {_MIN_LENGTH} to {_MAX_LENGTH} visible characters without spaces"
            )
        keys.append(key)
    if not keys:
        raise InputError(f"api_key_file: {path}: holds no key; allowed: one key per line")
    return keys
