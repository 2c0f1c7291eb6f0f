"""An HTTP proxy on loopback that knows every name, and takes each for this machine."""

import asyncio
import base64
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit


class HttpProxy:
    """``asked`` holds what it was asked for: ``CONNECT HOST:PORT``, or a method and a URL.

    Args:
        login: NAME:PASSWORD that it wants; None wants none.
        tls: its certificate and key, where it is itself asked over TLS.
    """

    def __init__(self, login: str | None = None, tls: tuple[Path, Path] | None = None) -> None:
        self.login = login
        self.tls = tls
        self.asked: list[str] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        login = f"{self.login}@" if self.login else ""
        if self.tls:
            return f"https://{login}localhost:{self.port}"
        return f"http://{login}127.0.0.1:{self.port}"

    def context(self) -> ssl.SSLContext | None:
        """What it shows of itself."""
        if self.tls is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self.tls)
        return context

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Break off all connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._pass_on(reader, writer)
        finally:
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            line, *fields = head.decode().removesuffix("\r\n\r\n").split("\r\n")
            method, target, _ = line.split(" ")
            self.asked.append(f"{method} {target}")
            if self.login and self._proof() not in fields:
                writer.write(b"HTTP/1.1 407 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
                return
            url = urlsplit(f"//{target}" if method == "CONNECT" else target)
            host = url.hostname or ""
            where = host if host.replace(".", "").isdecimal() else "127.0.0.1"
            up_reader, up_writer = await asyncio.open_connection(where, url.port)
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            else:  # a request a connection, so that each is seen
                kept = [each for each in fields if not each.startswith(("Connection", "Proxy-"))]
                lines = [f"{method} {url.path} HTTP/1.1", *kept, "Connection: close", "", ""]
                up_writer.write("\r\n".join(lines).encode())
            try:
                await asyncio.gather(_copy(reader, up_writer), _copy(up_reader, writer))
            finally:
                up_writer.close()

    def _proof(self) -> str:
        assert self.login
        return "Proxy-Authorization: Basic " + base64.b64encode(self.login.encode()).decode()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while content := await reader.read(65_536):
        writer.write(content)
        await writer.drain()
    with suppress(OSError, NotImplementedError):  # TLS has no half-closed connections
        writer.write_eof()


@asynccontextmanager
async def http_proxy(
    login: str | None = None, tls: tuple[Path, Path] | None = None
) -> AsyncGenerator[HttpProxy]:
    """One that is running."""
    proxy = HttpProxy(login, tls)
    async with await asyncio.start_server(
        proxy.accept, "127.0.0.1", 0, ssl=proxy.context()
    ) as server:
        proxy.port = server.sockets[0].getsockname()[1]
        yield proxy
        await proxy.end()
