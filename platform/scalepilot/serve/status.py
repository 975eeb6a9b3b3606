"""What a running server says of itself, for a person: health, policies, and the counts of /metrics."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from scalepilot.errors import RunError

_SECONDS = 5.0


def read_status(url: str, key: str | None = None) -> dict[str, Any]:
    """Ask a server.

    Args:
        url: where it listens.
        key: where it needs one.

    Raises:
        RunError: nobody answers, or the key is refused.
    """
    ready, _ = _get(f"{url}/health/ready", key)
    status, body = _get(f"{url}/v1/policies", key)
    if status != 200:
        problem = json.loads(body).get("error", "") if body.startswith(b"{") else ""
        raise RunError(f"{url}: answers {status} {problem}".rstrip())
    status, text = _get(f"{url}/metrics", key)
    counts = _counts(text.decode()) if status == 200 else {}
    policies = [
        {
            "name": policy["name"],
            "version": policy["version"],
            "default": policy["default"],
            "kind": policy["kind"],
            "route": policy["route"],
            "requests": counts.get((policy["name"], policy["version"]), 0),
        }
        for policy in json.loads(body)["policies"]
    ]
    return {"url": url, "ready": ready == 200, "policies": policies}


def status_text(status: dict[str, Any]) -> str:
    """The same as a few lines."""
    lines = [f"{status['url']}  {'ready' if status['ready'] else 'NOT READY'}"]
    width = max((len(f"{p['name']}@{p['version']}") for p in status["policies"]), default=0)
    for policy in status["policies"]:
        words = ["default"] if policy["default"] else []
        route = policy["route"] or {}
        if route.get("canary"):
            words.append(f"canary {route['canary']['policy']} {route['canary']['share']:.0%}")
        if route.get("shadow"):
            words.append(f"shadow {route['shadow']}")
        reference = f"{policy['name']}@{policy['version']}"
        lines.append(
            f"  {reference:<{width}}  {policy['kind']:<7}  {policy['requests']:>10,} requests  {', '.join(words)}".rstrip()
        )
    return "\n".join(lines)


def _get(url: str, key: str | None) -> tuple[int, bytes]:
    if not url.startswith(("http://", "https://")):
        raise RunError(f"url: {url[:80]!r} is not allowed; allowed: http://HOST:PORT")
    request = urllib.request.Request(url, headers={} if key is None else {"X-API-Key": key})  # noqa: S310 - checked above
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (OSError, ValueError) as error:
        raise RunError(f"{url}: no answer ({getattr(error, 'reason', error)})") from None


def _counts(text: str) -> dict[tuple[str, str], int]:
    """(name, version) → requests."""
    counts: dict[tuple[str, str], int] = {}
    for family in text_string_to_metric_families(text):
        if family.name != "scalepilot_serve_requests":
            continue
        for sample in family.samples:
            at = (sample.labels["policy"], sample.labels["version"])
            counts[at] = counts.get(at, 0) + int(sample.value)
    return counts
