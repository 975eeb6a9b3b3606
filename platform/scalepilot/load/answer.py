"""One HTTP/1.1 answer, read from bytes as they come; its body is only measured."""

from __future__ import annotations

_MOST_HEAD_BYTES = 65_536
_BODILESS = (204, 304)


class BadAnswerError(Exception):
    """It is not HTTP."""


class Answer:
    """Takes bytes until the answer is complete.

    Args:
        has_body: False for HEAD.
    """

    def __init__(self, *, has_body: bool = True) -> None:
        self.status = 0
        self.keeps_open = True
        self.has_begun = False
        self._has_body = has_body
        self._buffer = b""
        # Bytes of the body still to come; None where it ends with the connection.
        self._left: int | None = 0
        self._in_head, self._is_chunked, self._in_trailer = True, False, False

    def feed(self, data: bytes) -> bool:
        """Take what came; returns whether the answer is complete.

        Raises:
            BadAnswerError: it is not HTTP.
        """
        self.has_begun = True
        if self._in_head:
            self._buffer += data
            if not self._read_heads():
                return False
            data, self._buffer = self._buffer, b""
        if self._is_chunked:
            return self._feed_chunks(data)
        if self._left is None:
            return False
        self._left -= len(data)
        if self._left < 0:
            raise BadAnswerError
        return self._left == 0

    def closed(self) -> bool:
        """The connection has ended; returns whether the answer is complete."""
        return not self._in_head and self._left is None and not self._is_chunked

    def _read_heads(self) -> bool:
        """The answer's own head, after those that only announce it; returns whether it is there in full."""
        while True:
            head, mark, rest = self._buffer.partition(b"\r\n\r\n")
            if not mark:
                if len(self._buffer) > _MOST_HEAD_BYTES:
                    raise BadAnswerError
                return False
            self._buffer = rest
            self._read_head(head)
            if self.status >= 200:
                self._in_head = False
                return True

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        words = first.split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit() or len(words[1]) != 3:
            raise BadAnswerError
        self.status = int(words[1])
        headers = {name.strip().lower(): value.strip().lower() for name, _, value in (line.partition(b":") for line in lines)}
        connection = headers.get(b"connection", b"")
        self.keeps_open = b"close" not in connection and (words[0] != b"HTTP/1.0" or b"keep-alive" in connection)
        if not self._has_body or self.status in _BODILESS:
            self._left = 0
        elif b"chunked" in headers.get(b"transfer-encoding", b""):
            self._is_chunked = True
        elif (length := headers.get(b"content-length")) is not None:
            if not length.isdigit():
                raise BadAnswerError
            self._left = int(length)
        else:
            self._left, self.keeps_open = None, False

    def _feed_chunks(self, data: bytes) -> bool:
        assert self._left is not None
        data = self._buffer + data
        while True:
            if self._left:
                # Of a chunk, and the line end after it.
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
                if self._left:
                    self._buffer = b""
                    return False
            line, mark, rest = data.partition(b"\r\n")
            if not mark:
                self._buffer = data
                if len(data) > _MOST_HEAD_BYTES:
                    raise BadAnswerError
                return False
            data = rest
            if self._in_trailer:
                if not line:
                    return True
                continue
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError:
                raise BadAnswerError from None
            self._in_trailer = size == 0
            self._left = size + 2 if size else 0
