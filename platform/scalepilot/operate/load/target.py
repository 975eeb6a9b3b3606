"""Where requests go, and what is sent."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from scalepilot.errors import InputError, printable

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# Sent twice they do what they do once.
_SAFE_TO_REPEAT = ("GET", "HEAD", "PUT", "DELETE", "OPTIONS")
_ALLOWED_URL = "such as http://127.0.0.1:8000/path"
# What the body and the connection need is ours to say.
_OWN_HEADERS = ("host", "content-length", "connection", "transfer-encoding")


@dataclass(frozen=True)
class Request:
    """One request, sent over and over.

    Attributes:
        url: http or https.
        method: of METHODS.
        headers: beside those it needs.
        body: bytes.
        allow_host: the host of the URL, where it is not this machine.
        ca_file: certificates to check the service's own against.
    """

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    allow_host: str | None = None
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            port, host = parts.port, parts.hostname
        except ValueError:
            parts, port, host = urlsplit(""), None, None
        if parts.scheme not in ("http", "https") or not host or port == 0 or re.search(r"[^!-~]", self.url):
            raise InputError(f"--url: {printable(self.url)!r} is not allowed; allowed: {_ALLOWED_URL}")
        if parts.username is not None or parts.password is not None:
            raise InputError("--url: holds a user or a password; allowed: --token-file or --header")
        local = is_loopback(host)
        if self.allow_host is not None and (local or self.allow_host.lower() != host):
            told = f"--url names {host}" + (", which needs no leave" if local else "")
            raise InputError(f"--allow-host: {printable(self.allow_host)} is not used; {told}")
        if not local and self.allow_host is None:
            raise InputError(
                f"--url: {host} is not this machine; allowed: a loopback address, or --allow-host {host}, if it is yours to load"
            )
        if self.ca_file is not None and parts.scheme != "https":
            raise InputError(f"--ca-file: is not used by {self.url}; allowed: with https://")
        for name, value in self.headers.items():
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not re.fullmatch(r"[ -~\xa0-\xff]*", value):
                raise InputError(f"--header: {printable(name)[:80]!r} is not allowed; allowed: a name and one line of text")
            if name.lower() in _OWN_HEADERS:
                raise InputError(f"--header: {name} is not allowed; it is set from the URL and the body")

    @property
    def host(self) -> str:
        """Of the URL."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Of the URL, or the scheme's own."""
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def is_tls(self) -> bool:
        """Whether it is https."""
        return self.url.startswith("https")

    @property
    def may_repeat(self) -> bool:
        """Whether it does no harm where it is not known if it arrived."""
        return self.method in _SAFE_TO_REPEAT

    def encoded(self) -> bytes:
        """As HTTP/1.1 wants it."""
        parts = urlsplit(self.url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Host": parts.netloc, "User-Agent": "scalepilot", "Accept": "*/*"}
        if self.body or self.method in ("POST", "PUT", "PATCH"):
            headers["Content-Length"] = str(len(self.body))
        given = {name.lower() for name in self.headers}
        headers = {name: value for name, value in headers.items() if name.lower() not in given} | dict(self.headers)
        lines = [f"{self.method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + self.body

    def addresses(self) -> list[str]:
        """Addresses of the host; of this machine, loopback alone.

        Raises:
            InputError: it has none.
        """
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise InputError(f"--url: {self.host} is not known ({error.strerror}); allowed: {_ALLOWED_URL}") from None
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        if self.allow_host is None:
            addresses = [address for address in addresses if is_loopback(address)]
        if not addresses:
            raise InputError(f"--url: {self.host} leads elsewhere than to this machine; allowed: http://127.0.0.1:PORT")
        return addresses


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by name or number."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
