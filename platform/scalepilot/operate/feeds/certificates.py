"""Certificates of a feed: read from files that are this user's alone, and again when they were renewed."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from scalepilot.errors import ConfigError, InputError
from scalepilot.files.ownership import read_own

_LOG = logging.getLogger("scalepilot.operate")
_MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Pem:
    """What the files hold."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


class Certificates:
    """A server's certificate and key, and who may sign its clients' ones.

    Args:
        cert_file: PEM, its chain included.
        key_file: PEM; no other user can read it.
        client_ca_file: PEM; clients must then show a certificate that it has signed.

    Raises:
        ConfigError: they do not belong together.
        InputError: one is missing, or within reach of others.
    """

    def __init__(self, cert_file: str, key_file: str, client_ca_file: str | None) -> None:
        self._files = (cert_file, key_file, client_ca_file)
        self._seen, self._told = self._state(), ""
        self.pem, self._context = self._loaded()

    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        self.renewed()
        return self._context

    def renewed(self) -> bool:
        """Whether there are new ones since the last call, which are then in use. A renewal that fails leaves the old ones."""
        state = self._state()
        if state == self._seen:
            return False
        try:
            self.pem, self._context = self._loaded()
        except InputError as error:
            # It is tried with each connection; said once.
            if str(error) != self._told:
                _LOG.warning("%s; the certificate of before stays", error)
            self._told = str(error)
            return False
        self._seen, self._told = state, ""
        return True

    def _state(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_state(path) for path in self._files if path is not None)

    def _loaded(self) -> tuple[Pem, ssl.SSLContext]:
        cert_file, key_file, client_ca_file = self._files
        certificate = read_own(cert_file, "feed.cert_file", most_bytes=_MOST_BYTES)
        key = read_own(key_file, "feed.key_file", most_bytes=_MOST_BYTES, secret=True)
        client_ca = None if client_ca_file is None else read_own(client_ca_file, "feed.client_ca_file", most_bytes=_MOST_BYTES)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # Without a password: a key that needs one would wait for a person at the terminal.
            context.load_cert_chain(cert_file, key_file, password="")
        except (ssl.SSLError, OSError, ValueError):
            raise ConfigError(f"feed.cert_file: {cert_file} and key_file {key_file} are no PEM pair; allowed: a pair") from None
        if client_ca is not None:
            try:
                context.load_verify_locations(cadata=client_ca.decode("ascii"))
            except (ssl.SSLError, UnicodeDecodeError, ValueError):
                raise ConfigError(f"feed.client_ca_file: {client_ca_file}: holds no certificates; allowed: PEM") from None
            context.verify_mode = ssl.CERT_REQUIRED
        return Pem(certificate, key, client_ca), context


def _state(path: str) -> tuple[int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def check_pair(cert_file: str | None, key_file: str | None, client_ca_file: str | None) -> None:
    """Refuse one without the other.

    Raises:
        ValueError: for a `Section`.
    """
    if (cert_file is None) != (key_file is None):
        missing = "cert_file" if cert_file is None else "key_file"
        raise ValueError(f"{missing}: none given; allowed: cert_file and key_file together")
    if client_ca_file is not None and cert_file is None:
        raise ValueError("client_ca_file: is of TLS; allowed: with cert_file and key_file")
