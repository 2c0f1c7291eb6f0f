"""Kept connections on which nothing came that was not asked for.

aiohttp takes a kept connection as it is, also with an answer in it that came after the last one
was read, and gives that to the next question: a yes to something else. So a kept connection on
which anything came, or its end, is dropped and another one taken. One connection a question was
rejected: with TLS it costs more than the decision.
"""

import select
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler

KEPT_S: Final = 15.0  # seconds for which an idle connection is kept


class CleanConnector(aiohttp.TCPConnector):
    """Connections that are kept only while nothing comes on them that was not asked for."""

    def __init__(self) -> None:
        # The caller bounds how many there are.
        super().__init__(  # pyright: ignore[reportUnknownMemberType] - an argument not given
            limit=0, keepalive_timeout=KEPT_S
        )
        self._used: WeakSet[ResponseHandler] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - named so where it is called
    ) -> Connection:
        """A new connection, or a kept one that is as it was left."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            assert protocol is not None  # noqa: S101 - it is until the connection is let go
            if protocol not in self._used:
                self._used.add(protocol)
                return connection
            if not protocol.should_close and not _is_readable(connection):
                return connection
            connection.close()


def _is_readable(connection: Connection) -> bool:
    """Whether something came, or the end; both have no place between two questions."""
    transport = connection.transport
    socket = None if transport is None else transport.get_extra_info("socket")
    if socket is None:
        return True
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN)
    return bool(poll.poll(0))
