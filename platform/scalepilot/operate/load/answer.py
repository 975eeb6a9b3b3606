"""One HTTP/1.1 answer, read from bytes as they come; its body is only counted."""

from __future__ import annotations

import h11

# Of an answer's head.
_MOST_HEAD_BYTES = 65_536
_ASKED = [("host", "service")]


class BadAnswerError(Exception):
    """It is not HTTP."""


class Answer:
    """Takes bytes until the answer is complete.

    Args:
        has_body: False for HEAD.
    """

    def __init__(self, *, has_body: bool = True) -> None:
        self.status = 0
        self.has_begun = self._is_closed = False
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEAD_BYTES)
        # What was really sent is ours to know; this much decides how the answer ends.
        self._http.send(h11.Request(method="GET" if has_body else "HEAD", target="/", headers=_ASKED))
        self._http.send(h11.EndOfMessage())

    @property
    def keeps_open(self) -> bool:
        """Whether the connection may be used again, once the answer is complete."""
        return self._http.their_state is h11.DONE and not self._is_closed

    def feed(self, data: bytes) -> bool:
        """Take what came; returns whether the answer is complete.

        Raises:
            BadAnswerError: it is not HTTP, or more than one answer.
        """
        self.has_begun = self.has_begun or bool(data)
        try:
            self._http.receive_data(data)
            return self._is_complete()
        except h11.RemoteProtocolError:
            raise BadAnswerError from None

    def closed(self) -> bool:
        """The connection has ended; returns whether the answer is complete."""
        self._is_closed = True
        try:
            return self.feed(b"")
        except BadAnswerError:
            return False

    def _is_complete(self) -> bool:
        while (event := self._http.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Response):
                self.status = event.status_code
            elif isinstance(event, h11.EndOfMessage):
                if self._http.trailing_data[0]:
                    raise BadAnswerError
                return True
            elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                # Nothing is read behind the end of an answer.
                return False
        return False


__all__ = ["Answer", "BadAnswerError"]
