"""The short way into a replica: an ASGI middleware that Ray Serve puts in front of its own handling of a request.

Serve wraps every request in tasks, metadata and metrics of its own, which cost more than the decision. What it would do for a
stateless service is done elsewhere: HAProxy bounds and queues requests, `asgi.py` counts them, times out and drains.
Serve's own health check (`/-/…`) goes the long way, so that HAProxy hears of a replica that Serve is stopping.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import uvicorn.config
from starlette.middleware import Middleware

from scalepilot.serve.config import serve_config
from scalepilot.serve.http.asgi import PolicyApi, Receive, Scope, Send
from scalepilot.serve.http.keys import ApiKeys
from scalepilot.serve.ingress.door import Door

_OWN_PATHS = "/-/"
# The configuration of the door in Serve's own proxy, as JSON; said by `ingress.py`.
DOOR_VARIABLE, SECONDS_VARIABLE = "SCALEPILOT_SERVE_DOOR", "SCALEPILOT_SERVE_REQUEST_SECONDS"
_replicas: list[PolicyApi] = []


def register(api: PolicyApi) -> None:
    """Make an application the one that this process answers with. A process has one replica."""
    _replicas[:] = [api]


class DirectAnswers:
    """Hands requests to this process's application, if it has one; Serve's proxies have none.

    Args:
        app: Serve's own handling.
    """

    def __init__(self, app: object) -> None:
        self._serve = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if not _replicas or scope["type"] != "http" or scope["path"].startswith(_OWN_PATHS):
            await self._serve(scope, receive, send)  # type: ignore[operator]
            return
        await _replicas[0](scope, receive, send)


def middlewares() -> list[Middleware]:
    """What `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names; Serve calls it in every process that answers HTTP."""
    install_protocol(float(os.environ.get(SECONDS_VARIABLE, "10")))
    return [Middleware(DirectAnswers)]


def plain_middlewares() -> list[Middleware]:
    """The same without HAProxy: the door is in Serve's proxy."""
    config = serve_config(msgspec.json.decode(os.environ[DOOR_VARIABLE]), DOOR_VARIABLE)
    install_protocol(config.limits.request_seconds)
    keys = None if config.api_key_file is None else ApiKeys(Path(config.api_key_file))
    return [Middleware(Door, config=config, keys=keys)]


def install_protocol(seconds: float) -> None:
    """Have every uvicorn of this process speak HTTP within bounds; without httptools it stays as it is.

    Args:
        seconds: for headers to arrive, and for an answer to be read.
    """
    try:
        from scalepilot.serve.http.protocol import BoundedProtocol
    except ImportError:
        return
    BoundedProtocol.seconds = max(1.0, seconds)
    uvicorn.config.HTTP_PROTOCOLS["auto"] = "scalepilot.serve.http.protocol:BoundedProtocol"
