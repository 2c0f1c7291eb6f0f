"""A connection without an HTTP client: what goes over the wire is what a test writes."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from tests.api.lab import TOKEN, Lab


class Raw:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def rest(self, within: float = 5.0) -> bytes:
        """All that comes until the other side closes."""
        async with asyncio.timeout(within):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def until(self, mark: bytes, within: float = 5.0) -> bytes:
        async with asyncio.timeout(within):
            return await self.reader.readuntil(mark)


@asynccontextmanager
async def raw(lab: Lab, *, limit: int = 2**16) -> AsyncGenerator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port, limit=limit)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def head(lab: Lab, line: str, *headers: str) -> bytes:
    """The head of a request with credentials."""
    lines = [
        f"{line} HTTP/1.1",
        f"Host: 127.0.0.1:{lab.port}",
        f"Authorization: Bearer {TOKEN}",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
