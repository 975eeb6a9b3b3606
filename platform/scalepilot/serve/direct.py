"""The short way into a replica: an ASGI middleware that Ray Serve puts in front of its own handling of a request.

Serve wraps every request in tasks, metadata and metrics of its own, which cost more than the decision. What it would do for a
stateless service is done elsewhere: HAProxy bounds and queues requests, `asgi.py` counts them, times out and drains.
Serve's own health check (`/-/…`) goes the long way, so that HAProxy hears of a replica that Serve is stopping.
"""

from __future__ import annotations

from starlette.middleware import Middleware

from scalepilot.serve.asgi import PolicyApi, Receive, Scope, Send

_OWN_PATHS = "/-/"
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
    return [Middleware(DirectAnswers)]
