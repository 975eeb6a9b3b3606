"""Compressed bodies, unpacked as far as a body may go: what is small on the wire may be a terabyte inside."""

from __future__ import annotations

import zlib

from scalepilot.serve.http.errors import RequestError

# 16 and 32 more than the window's bits: with a gzip header, or with either of both.
_WINDOW_BITS = {b"gzip": zlib.MAX_WBITS + 16, b"x-gzip": zlib.MAX_WBITS + 16, b"deflate": zlib.MAX_WBITS + 32}
_SHOWN_CHARACTERS = 80


class Unpacker:
    """Unpacks one body.

    Args:
        encoding: value of its Content-Encoding.
        max_bytes: that it may have unpacked.

    Raises:
        RequestError: 415 for an encoding other than gzip and deflate.
    """

    def __init__(self, encoding: bytes, max_bytes: int) -> None:
        bits = _WINDOW_BITS.get(encoding.strip().lower())
        if bits is None:
            shown = encoding.decode("latin-1")[:_SHOWN_CHARACTERS]
            raise RequestError(415, f"content-encoding: {shown!r} is not allowed; allowed: gzip, deflate, identity")
        self._bits, self._max_bytes = bits, max_bytes

    def __call__(self, packed: bytes) -> bytes:
        """The body.

        Raises:
            RequestError: 400 for one that does not unpack, 413 for one that is too large.
        """
        unpacker = zlib.decompressobj(self._bits)
        try:
            body = unpacker.decompress(packed, self._max_bytes + 1)
        except zlib.error as error:
            raise RequestError(
                400, f"body: does not unpack ({str(error)[:_SHOWN_CHARACTERS]}); allowed: gzip or deflate"
            ) from None
        if len(body) > self._max_bytes:
            raise too_large(self._max_bytes)
        if not unpacker.eof or unpacker.unused_data:
            what = "is cut off" if not unpacker.eof else "continues after its end"
            raise RequestError(400, f"body: {what}; allowed: one whole gzip or deflate stream")
        return body


def too_large(max_bytes: int) -> RequestError:
    """The answer to a body of more bytes."""
    return RequestError(
        413,
        f"body: more than {max_bytes} bytes are not allowed; send fewer observations a request",
        headers=[("connection", "close")],
    )
