"""uvicorn's HTTP protocol with deadlines, for its ``http=`` setting.

uvicorn waits for ever: for the rest of a header or of a body, and for a client that reads no
more. A thousand such connections cost an attacker nothing and us every descriptor. So each
connection has one clock for whatever it is waiting for now:

* from the connection, or the first byte of the next request, to the end of its headers;
* from there to the end of the body, which must also come faster than a trickle;
* while an answer waits to be read: from the last byte that went out.

Between requests uvicorn's own keep-alive timeout holds. Where the client is owed an answer it
gets a problem (408, 431, 400), for these requests reach no application.
"""

import asyncio
import socket
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any, Final
from uuid import uuid4

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from model_training.api.problems import HEADERS_TOO_LARGE, TOO_SLOW, UNREADABLE, Problem
from model_training.api.streaming import ABORT

HEADER_LIMIT: Final = 65_536  # bytes; what h11 and nginx hold to be enough
TRICKLE: Final = 500.0  # bytes a second
LINGER_S: Final = 1.0  # seconds in which a client may read why it was refused
LOOK_AGAIN_S: Final = 0.5
UNREAD_LIMIT: Final = 32 * 2**20  # bytes of a body that are taken and dropped after its answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long a client may take, in seconds."""

    header_timeout: float = 10.0
    """to send the headers of a request"""
    body_timeout: float = 30.0
    """to send the body"""
    trickle_timeout: float = 5.0
    """after which a body must have come at ``TRICKLE`` or faster"""
    unread_timeout: float = 30.0
    """to read something of an answer"""


class _Waiting(Enum):
    FOR_REQUEST = 1
    FOR_HEADERS = 2
    FOR_BODY = 3
    FOR_NOTHING = 4


class DeadlineProtocol(HttpToolsProtocol):
    """One connection. uvicorn makes it; give it the deadlines by ``functools.partial``."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        **deadlines: float,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = Deadlines(**deadlines)
        self._waiting = _Waiting.FOR_REQUEST
        self._since = 0.0  # loop time at which this waiting began
        self._received = 0  # bytes since then
        self._clock: asyncio.TimerHandle | None = None
        self._unread_clock: asyncio.TimerHandle | None = None
        self._is_refused = False

    # What uvicorn and its parser call

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        # uvicorn writes head and body apart, and asyncio leaves Nagle's algorithm on for sockets
        # that were accepted from a listener of ours: 40 ms an answer.
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wait(_Waiting.FOR_REQUEST)
        self._arm(self._limits.header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came; the parser calls the methods below."""
        if self._is_refused:
            return
        super().data_received(data)
        self._received += len(data)
        if self._is_refused or self.transport.is_closing():
            return
        if self._waiting is _Waiting.FOR_HEADERS and self._received > HEADER_LIMIT:
            self._refuse(HEADERS_TOO_LARGE)
        elif self._waiting is _Waiting.FOR_NOTHING and self.cycle.response_complete:
            # An empty line between requests, which has stopped uvicorn's keep-alive timeout.
            self._wait(_Waiting.FOR_REQUEST)
            self._arm(self._limits.header_timeout)
        elif self._waiting is not _Waiting.FOR_NOTHING and self._clock is None:
            self._arm(self._first_look())

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: self.transport.abort}  # type: ignore[typeddict-item]
        self._wait(_Waiting.FOR_HEADERS)

    def on_headers_complete(self) -> None:
        """The headers are there; the application starts."""
        super().on_headers_complete()
        self._wait(_Waiting.FOR_BODY)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        super().on_body(body)
        if self.cycle.response_complete and self._received > UNREAD_LIMIT:
            self.transport.abort()

    def on_message_complete(self) -> None:
        """The whole request is there."""
        super().on_message_complete()
        self._wait(_Waiting.FOR_NOTHING)

    def send_400_response(self, msg: str) -> None:
        """What was sent is no HTTP."""
        del msg
        self._refuse(UNREADABLE)

    # Reading

    def _wait(self, what: _Waiting) -> None:
        self._waiting = what
        self._since = self.loop.time()
        self._received = 0
        self._disarm()

    def _first_look(self) -> float:
        if self._waiting is _Waiting.FOR_BODY:
            return min(self._limits.trickle_timeout, self._limits.body_timeout)
        return self._limits.header_timeout

    def _arm(self, seconds: float) -> None:
        self._clock = self.loop.call_later(seconds, self._look)

    def _disarm(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _look(self) -> None:
        """The clock ran out: end the connection, or look again later."""
        self._clock = None
        if self.transport.is_closing():
            return
        if self._waiting is _Waiting.FOR_REQUEST:
            self.transport.close()
        elif self._is_late():
            self._refuse(TOO_SLOW)
        else:
            self._arm(LOOK_AGAIN_S)

    def _is_late(self) -> bool:
        if self.flow.read_paused:  # it is us who do not read
            return False
        if self._waiting is _Waiting.FOR_HEADERS:
            return not self._is_answering()  # a request sent ahead of its turn may wait
        elapsed = self.loop.time() - self._since
        too_slow = self._received < elapsed * TRICKLE
        return too_slow or elapsed >= self._limits.body_timeout

    def _is_answering(self) -> bool:
        cycle = self.cycle  # None before the first request, whatever its declared type says
        return bool(cycle) and not cycle.response_complete

    def _owes_an_answer(self) -> bool:
        """Whether another answer than ours is due first, or under way."""
        if self._waiting is _Waiting.FOR_BODY:  # the request that is refused is the latest one
            return self.cycle.response_started or bool(self.pipeline)
        return self._is_answering()

    def _refuse(self, problem: Problem) -> None:
        self._disarm()
        if self._owes_an_answer():
            self.transport.abort()  # our words would be taken for that answer, or a part of it
            return
        body = problem.body(request_id := uuid4().hex[:16])
        head = (
            f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
            "content-type: application/problem+json\r\n"
            f"content-length: {len(body)}\r\n"
            f"x-request-id: {request_id}\r\n"
            "x-content-type-options: nosniff\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        # Closing with bytes unread would reset the connection and take the answer back.
        self.transport.write_eof()
        self._is_refused = True
        self._clock = self.loop.call_later(LINGER_S, self.transport.abort)

    # Writing

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        if self._unread_clock is not None:
            self._unread_clock.cancel()
            self._unread_clock = None
        if self.flow:  # not before the connection is made
            super().resume_writing()

    def _expect_reading(self) -> None:
        unread = self.transport.get_write_buffer_size()
        self._unread_clock = self.loop.call_later(
            self._limits.unread_timeout, self._look_again, unread
        )

    def _look_again(self, unread: int) -> None:
        self._unread_clock = None
        if self.transport.get_write_buffer_size() >= unread:
            self.transport.abort()
        else:
            self._expect_reading()
