"""Asks the server in the same container for a decision of every policy it has; run by check.sh. Standard library only."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path

URL = "http://127.0.0.1:8000"
KEYS = Path("/run/secrets/api_keys")
SECONDS = 10


def ask(path: str, body: object = None, *, key: str = "") -> tuple[int, dict]:
    """Status and JSON of an answer."""
    # Loopback, not what somebody else names.
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data=data, headers={"X-API-Key": key} if key else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def main() -> None:
    """Ask without a key, with a wrong one, and with the right one."""
    for wrong in ("", "x" * 32):
        status, answer = ask("/v1/policies", key=wrong)
        assert status == HTTPStatus.UNAUTHORIZED, (status, answer)
    key = KEYS.read_text(encoding="utf-8").split()[0]
    policies = ask("/v1/policies", key=key)[1]["policies"]
    assert policies
    for policy in policies:
        described = ask(f"/v1/policies/{policy['name']}", key=key)[1]
        status, answer = ask(described["decide_url"], {"observation": described["example"]}, key=key)
        assert status == HTTPStatus.OK, (status, answer)
        assert "action" in answer or "desired_replicas" in answer, answer
        print(f"      {policy['name']}: {json.dumps(answer)}")


if __name__ == "__main__":
    main()
