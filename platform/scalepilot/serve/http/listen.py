"""Where a server may listen: loopback, or with keys anywhere, on a port that nobody has."""

from __future__ import annotations

import ipaddress
import socket

from scalepilot.errors import InputError


def check_host(host: str, *, with_keys: bool) -> str:
    """The address to listen on.

    Args:
        host: an IP address, or "localhost".
        with_keys: requests need an API key.

    Raises:
        InputError: no address, or one that others reach where nobody needs a key.
    """
    address = "127.0.0.1" if host == "localhost" else host
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        raise InputError(f"host: {host[:80]!r} is not allowed; allowed: an IP address of this machine, or localhost") from None
    if not found.is_loopback and not with_keys:
        raise InputError(
            f"host: {host[:80]!r} is not allowed without API keys; allowed: 127.0.0.1, ::1, or any with --api-key-file"
        )
    return address


def free_port(host: str, port: int) -> int:
    """Check that a port can be had, or find one.

    Ray Serve shares its port with whoever listens there already (SO_REUSEPORT), so it would not notice.

    Args:
        host: an IP address.
        port: 0 for any.

    Raises:
        InputError: it is taken, or not this user's to take.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # With SO_REUSEADDR some systems let two bind; only one may listen.
            probe.listen(1)
        except OSError as error:
            raise InputError(
                f"port: {port} on {host} is not available ({error.strerror}); allowed: a free port, or 0 for any"
            ) from None
        found: int = probe.getsockname()[1]
        return found
