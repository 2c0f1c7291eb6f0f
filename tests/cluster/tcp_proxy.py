"""A network between us and the API server that can be cut, held and slowed down."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Self
from urllib.parse import urlsplit


class TcpProxy:
    """Passes connections on to one server, on its own port of this machine.

    ``delay_s``: so much later does everything arrive, in both directions.
    """

    def __init__(self, url: str) -> None:
        self.delay_s = 0.0
        self._to = urlsplit(url)
        self._held = asyncio.Event()
        self._held.set()
        self._answers_held = asyncio.Event()
        self._answers_held.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0

    async def __aenter__(self) -> Self:
        await self.restore()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    async def restore(self) -> None:
        """Take connections (again)."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Reset all connections, and refuse new ones."""
        self._server.close()
        self.reset()
        await self._server.wait_closed()

    def reset(self) -> None:
        """Reset all connections; new ones are taken."""
        for writer in self._writers:
            writer.transport.abort()

    def hold(self) -> None:
        """Let nothing through, and keep all connections open: packets are lost."""
        self._held.clear()

    def hold_answers(self) -> None:
        """Pass on what is asked, and nothing of what is answered."""
        self._answers_held.clear()

    def release(self) -> None:
        """End of ``hold`` and ``hold_answers``; what waited arrives."""
        self._held.set()
        self._answers_held.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(task := asyncio.current_task())
        with suppress(OSError):
            async with self._closing(writer):
                there = await asyncio.open_connection(self._to.hostname, self._to.port)
                async with self._closing(there[1]):
                    await asyncio.gather(
                        self._pass_on(reader, there[1], self._held),
                        self._pass_on(there[0], writer, self._held, self._answers_held),
                    )
        self._tasks.discard(task)

    @asynccontextmanager
    async def _closing(self, writer: asyncio.StreamWriter) -> AsyncGenerator[None]:
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *gates: asyncio.Event
    ) -> None:
        try:
            while chunk := await reader.read(256 * 1024):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                for gate in gates:
                    await gate.wait()
                writer.write(chunk)
                await writer.drain()
        finally:
            writer.close()
