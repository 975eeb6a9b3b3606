"""What HAProxy, in front of the replicas, says of itself: what clients were answered, and what never reached a replica."""

from __future__ import annotations

import csv
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from scalepilot.errors import InputError
from scalepilot.files.ownership import check_own

_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx", "other")
# The answer comes in a millisecond; a replica must not wait for a proxy that hangs.
_SECONDS = 0.2
_MAX_BYTES = 1 << 20


def proxy_socket(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Where the HAProxy in front of this replica answers questions; None where there is none.

    Args:
        environment: as Serve gave it to the replica.
    """
    path = environment.get("RAY_SERVE_HAPROXY_SOCKET_PATH")
    if path is None or environment.get("RAY_SERVE_ENABLE_HA_PROXY") != "1":
        return None
    # Serve puts it into a folder named after the node.
    found = [candidate for candidate in (Path(path), *Path(path).parent.glob(f"*/{Path(path).name}")) if candidate.is_socket()]
    return max(found, key=lambda candidate: candidate.stat().st_mtime, default=None)


def proxy_families(path: Path, prefix: str) -> Iterator[Metric]:
    """Families for /metrics; none where HAProxy does not answer at once.

    Args:
        path: of its socket.
        prefix: of their names.
    """
    try:
        # It lies in the run's private folder unless the environment says otherwise.
        check_own(path, "HAProxy's socket")
        rows = list(csv.DictReader(_ask(path, b"show stat\n").lstrip("# ").splitlines()))
    except (InputError, OSError, UnicodeDecodeError, csv.Error):
        return
    frontends = [row for row in rows if row.get("svname") == "FRONTEND"]
    backends = [row for row in rows if row.get("svname") == "BACKEND"]
    if not frontends:
        return
    responses = CounterMetricFamily(
        f"{prefix}proxy_responses", "Responses sent to clients, including the proxy's own.", labels=("status",)
    )
    for name in _CLASSES:
        responses.add_metric([name], _sum(frontends, f"hrsp_{name}"))
    yield responses
    asked_again = _sum(backends, "wretr") + _sum(backends, "wredis")
    yield CounterMetricFamily(f"{prefix}proxy_retries", "Requests retried, on the same or another replica.", value=asked_again)
    queued = _sum(backends, "qcur")
    yield GaugeMetricFamily(f"{prefix}proxy_queued_requests", "Requests currently waiting for a replica.", value=queued)
    open_now = _sum(frontends, "scur")
    yield GaugeMetricFamily(f"{prefix}proxy_connections", "Client connections, including idle ones.", value=open_now)


def _ask(path: Path, question: bytes) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_SECONDS)
        connection.connect(str(path))
        connection.sendall(question)
        text = b""
        while len(text) < _MAX_BYTES and (chunk := connection.recv(65536)):
            text += chunk
    return text.decode("ascii")


def _sum(rows: list[dict[str, str]], column: str) -> float:
    values = (row.get(column) or "0" for row in rows)
    return float(sum(int(value) for value in values if value.isdigit()))
