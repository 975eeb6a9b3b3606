"""Connections to one service: a request takes whichever is free first, and none waits for one that is still being made."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from itertools import islice

from scalepilot.operate.load.answer import Answer, BadAnswerError
from scalepilot.operate.load.tally import NO_TIME
from scalepilot.operate.load.target import Request

# Made at the same time. A service that stands still takes a few; the other requests wait here, for whichever is free first.
_MOST_CONNECTING = 64
# One that has been idle longer may be closed by the service just as we send.
_MOST_IDLE_SECONDS = 1.5
_CONNECT_SECONDS = 5.0
TIMEOUT, CLOSED, BAD, REFUSED = "timeout", "connection closed", "not HTTP", "connection refused"


class Waiting:
    """A request and its moment.

    Args:
        moment: seconds since the beginning, when it should be sent.
    """

    __slots__ = ("is_sent", "moment")

    def __init__(self, moment: float) -> None:
        self.moment = moment
        self.is_sent = False


class Connections:
    """Sends requests in the order in which they come.

    Args:
        request: what is sent.
        addresses: of the service, tried in turn.
        most_open: connections, and so requests on their way at a time.
        clock: seconds since the beginning.
        sent: told of a request that goes out, and when.
        answered: told of an answer in full, when, and its status.
        failed: told of a request that has no answer, and why.
    """

    def __init__(
        self,
        request: Request,
        addresses: list[str],
        most_open: int,
        clock: Callable[[], float],
        sent: Callable[[Waiting, float], None],
        answered: Callable[[Waiting, float, int], None],
        failed: Callable[[Waiting, str], None],
    ) -> None:
        self.request, self.data = request, request.encoded()
        self.clock, self.answered, self.failed = clock, answered, failed
        self.queue: deque[Waiting] = deque()
        self.busy: dict[Waiting, Connection] = {}
        self._addresses, self._most_open, self._sent = deque(addresses), most_open, sent
        self._idle: deque[tuple[Connection, float]] = deque()
        self._making: set[asyncio.Task[None]] = set()
        self._open: set[Connection] = set()
        self._loop = asyncio.get_running_loop()
        self._tls: ssl.SSLContext | None = None
        if request.is_tls:
            self._tls = ssl.create_default_context(cafile=None if request.ca_file is None else str(request.ca_file))

    def send(self, waiting: Waiting) -> None:
        """Send it as soon as a connection is free."""
        self.queue.append(waiting)
        self._serve()

    def release(self, connection: Connection) -> None:
        """A connection is free again."""
        if self.queue:
            self._start(connection, self.queue.popleft())
        else:
            connection.may_be_stale = True
            self._idle.append((connection, self.clock()))

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self._open.discard(connection)
        self._idle = deque(each for each in self._idle if each[0] is not connection)
        self._serve()

    def repeat(self, waiting: Waiting) -> None:
        """Send it again, before all others: the service closed the connection before it saw the request."""
        self.queue.appendleft(waiting)

    def expire(self, before: float) -> None:
        """Give up what should have been sent before a moment."""
        while self.queue and self.queue[0].moment < before:
            waiting = self.queue.popleft()
            self.failed(waiting, TIMEOUT if waiting.is_sent else NO_TIME)
        while self.busy and (waiting := next(iter(self.busy))).moment < before:
            self.busy[waiting].give_up(TIMEOUT)
        while self._idle and self._idle[0][1] < self.clock() - _MOST_IDLE_SECONDS:
            self._idle.popleft()[0].close()

    def oldest(self) -> float | None:
        """Moment of the oldest request without an answer; None without any."""
        return min((waiting.moment for waiting in (*self.busy, *islice(self.queue, 1))), default=None)

    async def close(self) -> None:
        """Let everything go."""
        for task in self._making:
            task.cancel()
        for connection in list(self._open):
            connection.close()
        await asyncio.gather(*self._making, return_exceptions=True)

    async def probe(self) -> str | None:
        """Open one connection to each address and keep those that answer; why not, where none does."""
        problems: list[str] = []
        for address in list(self._addresses):
            try:
                connection = await asyncio.wait_for(self._connect(address), _CONNECT_SECONDS)
            except (OSError, TimeoutError) as error:
                problems.append(_problem(error))
                self._addresses.remove(address)
            else:
                self.release(connection)
        return None if self._addresses else problems[0]

    def _serve(self) -> None:
        while self.queue and self._idle:
            self._start(self._idle.pop()[0], self.queue.popleft())
        room = self._most_open - len(self._open) - len(self._making)
        for _ in range(min(room, _MOST_CONNECTING - len(self._making), len(self.queue) - len(self._making))):
            task = self._loop.create_task(self._make())
            self._making.add(task)

    async def _make(self) -> None:
        """One more connection, for whichever request is first when it is there."""
        self._addresses.rotate(-1)
        connection, problem = None, ""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                connection = await self._connect(self._addresses[0])
        except TimeoutError:
            # The requests have their own time.
            pass
        except OSError as error:
            problem = _problem(error)
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._making.discard(task)
        if connection is not None:
            self.release(connection)
        elif problem and self.queue:
            self.failed(self.queue.popleft(), problem)
        self._serve()

    async def _connect(self, address: str) -> Connection:
        name = self.request.host if self._tls else None
        _, connection = await self._loop.create_connection(
            lambda: Connection(self), address, self.request.port, ssl=self._tls, server_hostname=name
        )
        self._open.add(connection)
        return connection

    def _start(self, connection: Connection, waiting: Waiting) -> None:
        if not waiting.is_sent:
            waiting.is_sent = True
            self._sent(waiting, self.clock())
        self.busy[waiting] = connection
        connection.start(waiting)


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, owner: Connections) -> None:
        self._owner = owner
        self._waiting: Waiting | None = None
        self._answer: Answer | None = None
        self._transport: asyncio.Transport | None = None
        # Idle for a while: the service may have closed it, and we do not know yet.
        self.may_be_stale = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def start(self, waiting: Waiting) -> None:
        """Send a request."""
        self._waiting, self._answer = waiting, Answer(has_body=self._owner.request.method != "HEAD")
        assert self._transport is not None
        self._transport.write(self._owner.data)

    def data_received(self, data: bytes) -> None:
        """Part of an answer."""
        if self._answer is None:
            self.close()
            return
        try:
            if self._answer.feed(data):
                self._done(keep=self._answer.keeps_open)
        except BadAnswerError:
            self.give_up(BAD)

    def connection_lost(self, error: Exception | None) -> None:
        """The service closed it, or we did."""
        if self._answer is not None and self._answer.closed():
            self._done(keep=False)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            del self._owner.busy[waiting]
            begun = self._answer is not None and self._answer.has_begun
            # Each repetition costs a connection that has answered before, so there is an end to them.
            if self.may_be_stale and not begun and self._owner.request.may_repeat:
                self._owner.repeat(waiting)
            else:
                self._owner.failed(waiting, CLOSED)
        self._owner.forget(self)

    def give_up(self, kind: str) -> None:
        """Its request will not be answered."""
        # What is still read, or how it ends, is no answer any more.
        waiting, self._waiting, self._answer = self._waiting, None, None
        if waiting is not None:
            del self._owner.busy[waiting]
            self._owner.failed(waiting, kind)
        self.close()

    def close(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    def _done(self, *, keep: bool) -> None:
        waiting, answer = self._waiting, self._answer
        assert waiting is not None
        assert answer is not None
        self._waiting, self._answer, self.may_be_stale = None, None, True
        del self._owner.busy[waiting]
        self._owner.answered(waiting, self._owner.clock(), answer.status)
        if keep:
            self._owner.release(self)
        else:
            self.close()


def _problem(error: BaseException) -> str:
    """A kind of error in a few words, without what changes from one to the next."""
    if isinstance(error, ConnectionRefusedError):
        return REFUSED
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    if isinstance(error, TimeoutError):
        return "connection timed out"
    return (error.strerror if isinstance(error, OSError) else None) or "connection failed"
