"""What goes back over HTTP, whoever answers: a replica, or the door of Serve's own proxy."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from scalepilot.serve.http.body import Headers, has_body
from scalepilot.serve.http.errors import RequestError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
# Status, headers but for those that `send_reply` adds, body.
Reply = tuple[int, Headers, bytes]

JSON_TYPE = (b"content-type", b"application/json")
_CLOSE, _NOSNIFF = (b"connection", b"close"), (b"x-content-type-options", b"nosniff")


def to_bytes(value: Any) -> bytes:
    """JSON in UTF-8 on one line.

    Raises:
        ValueError: a number that JSON does not have.
    """
    # A client's field name may hold half a surrogate pair: it goes back escaped, as it came.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


def refusal(error: RequestError) -> Reply:
    """The reply to a request that is not answered with a 200."""
    headers = [(name.encode(), value.encode("latin-1")) for name, value in error.headers]
    return error.status, [JSON_TYPE, *headers], to_bytes(error.to_json())


async def send_reply(
    scope: Scope, send: Send, reply: Reply, more: Sequence[tuple[bytes, bytes]] = (), *, body_was_read: bool = False
) -> None:
    """Send a reply.

    Args:
        scope: of the request.
        send: as ASGI gives it.
        reply: what to send.
        more: headers beside the reply's own.
        body_was_read: of the request; whoever was refused before need not be listened to any longer.
    """
    status, headers, body = reply
    headers = [*headers, (b"content-length", str(len(body)).encode()), _NOSNIFF, *more]
    if not body_was_read and has_body(scope["headers"]) and _CLOSE not in headers:
        headers.append(_CLOSE)
    before = "websocket." if scope["type"] == "websocket" else ""
    await send({"type": before + "http.response.start", "status": status, "headers": headers})
    await send({"type": before + "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})


async def refuse_websocket(scope: Scope, send: Send) -> None:
    """Answer a websocket's handshake as any other request that is not allowed, where the server in front lets us."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1003})
        return
    await send_reply(scope, send, refusal(RequestError(400, "upgrade: websocket is not allowed; allowed: HTTP/1.1 requests")))
