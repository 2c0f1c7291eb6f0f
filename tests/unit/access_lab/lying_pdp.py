"""A decision point that lies, stalls and stammers, since no real one can be made to.

It speaks AuthZEN (``/access/v1/...``), OPA's data API (``/v1/data/...``) and aiSSEMBLE's
``/api/pdp``, told apart by path. The first segment of a path names how it misbehaves
(``FAULTS``); without one it is honest and decides by ``permits``. Whatever it misbehaves with
would be a yes, had it been said properly. It imports nothing of the product.

As a process of its own, ``python lying_pdp.py PORT`` prints ``ready URL`` once it listens; it
permits everything but what somebody called ``nobody`` asks, or what is done to ``forbidden``.
"""

import asyncio
import gzip
import json
import socket
import struct
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

JSON = "application/json"
TEXT = "text/plain;charset=UTF-8"
MEGABYTE = 1024 * 1024
BOMB = gzip.compress(b" " * (16 * MEGABYTE))


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    """without the name of a fault"""
    headers: list[tuple[str, str]]
    """names in lower case"""
    body: Any

    def header(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each == name]

    @property
    def engine(self) -> str:
        if self.path.endswith("/api/pdp"):
            return "aissemble"
        return "opa" if "/v1/data/" in self.path else "authzen"

    @property
    def questions(self) -> list[dict[str, Any]]:
        """Each thing that is asked, as it was written."""
        if self.engine == "opa":
            return [self.body["input"]]
        if self.engine == "aissemble" or "evaluations" not in self.body:
            return [self.body]
        shared = {name: each for name, each in self.body.items() if name != "evaluations"}
        return [{**shared, **each} for each in self.body["evaluations"]]


@dataclass
class Said:
    """What an honest one would answer."""

    body: bytes
    kind: str

    @classmethod
    def to(cls, asked: Asked, decisions: list[bool]) -> "Said":
        if asked.engine == "aissemble":
            return cls(b"PERMIT" if decisions[0] else b"DENY", TEXT)
        if asked.engine == "opa":
            plain: Any = {"result": decisions[0]}
        elif "evaluations" in asked.body:
            plain = {"evaluations": [{"decision": each} for each in decisions]}
        else:
            plain = {"decision": decisions[0]}
        return cls(json.dumps(plain).encode(), JSON)


Headers = list[tuple[str, str]]


def message(status: str, headers: Headers, body: bytes = b"") -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def whole(said: Said, status: str = "200 OK", more: Headers | None = None) -> bytes:
    """A proper message."""
    length = ("Content-Length", str(len(said.body)))
    return message(status, [("Content-Type", said.kind), length, *(more or [])], said.body)


Fault = Callable[[asyncio.StreamWriter, Said], Awaitable[None]]
"""Writes what it has to say; that the connection ends behind it is part of some."""

FAULTS: dict[str, Fault] = {}
STALLS: dict[str, Fault] = {}
"""those that take all the time they are given"""


def fault(name: str, table: dict[str, Fault] = FAULTS) -> Callable[[Fault], Fault]:
    def keep(function: Fault) -> Fault:
        table[name] = function
        return function

    return keep


def bytes_fault(name: str, made: Callable[[Said], bytes]) -> None:
    async def write(writer: asyncio.StreamWriter, said: Said) -> None:
        writer.write(made(said))

    FAULTS[name] = write


def other(said: Said, body: bytes, kind: str | None = None) -> Said:
    return Said(body, said.kind if kind is None else kind)


# The status is not 200

for _status in (
    "201 Created",
    "202 Accepted",
    "206 Partial Content",
    "300 Multiple Choices",
    "400 Bad Request",
    "401 Unauthorized",
    "403 Forbidden",
    "404 Not Found",
    "405 Method Not Allowed",
    "406 Not Acceptable",
    "413 Content Too Large",
    "429 Too Many Requests",
    "500 Internal Server Error",
    "501 Not Implemented",
    "502 Bad Gateway",
    "503 Service Unavailable",
    "504 Gateway Timeout",
):
    bytes_fault(f"status-{_status[:3]}", lambda said, status=_status: whole(said, status))

for _status in ("301", "302", "303", "307", "308"):
    bytes_fault(
        f"redirect-{_status}",
        lambda said, status=_status: whole(
            said, f"{status} Elsewhere", [("Location", "/elsewhere")]
        ),
    )

bytes_fault("no-content", lambda _: message("204 No Content", []))
bytes_fault(
    "switching",
    lambda said: (
        message("101 Switching Protocols", [("Upgrade", "x"), ("Connection", "upgrade")])
        + whole(said)
    ),
)

# The body is of another kind

bytes_fault("html", lambda said: whole(other(said, b"<html>PERMIT</html>", "text/html")))
bytes_fault("octets", lambda said: whole(other(said, said.body, "application/octet-stream")))
bytes_fault("xml", lambda said: whole(other(said, said.body, "application/xml")))
bytes_fault(
    "other-kind",
    lambda said: whole(other(said, said.body, "text/plain" if said.kind == JSON else JSON)),
)
bytes_fault("utf-16", lambda said: whole(other(said, said.body, f"{said.kind};charset=utf-16")))
bytes_fault(
    "no-kind",
    lambda said: message("200 OK", [("Content-Length", str(len(said.body)))], said.body),
)
bytes_fault("two-kinds", lambda said: whole(said, more=[("Content-Type", "text/html")]))

# The body cannot be read, or in more than one way

bytes_fault("empty", lambda said: whole(other(said, b"")))
bytes_fault("trailing", lambda said: whole(other(said, said.body + b" x")))
bytes_fault("twice", lambda said: whole(other(said, said.body + b"\n" + said.body)))
bytes_fault("half", lambda said: whole(other(said, said.body[: len(said.body) // 2])))
bytes_fault("bom", lambda said: whole(other(said, b"\xef\xbb\xbf" + said.body)))
bytes_fault("not-utf-8", lambda said: whole(other(said, said.body + b"\xff")))
bytes_fault("nul", lambda said: whole(other(said, said.body + b"\0")))
bytes_fault("too-long", lambda said: whole(other(said, said.body + b" " * (256 * 1024))))
bytes_fault(
    "gzip",
    lambda said: whole(other(said, gzip.compress(said.body)), more=[("Content-Encoding", "gzip")]),
)
bytes_fault("gzip-bomb", lambda said: whole(other(said, BOMB), more=[("Content-Encoding", "gzip")]))
bytes_fault("deflate-said", lambda said: whole(said, more=[("Content-Encoding", "deflate")]))

# The message is no message

bytes_fault("garbage", lambda said: b"SSH-2.0-OpenSSH_9.6\r\n" + said.body)
bytes_fault("no-status", lambda said: b"HTTP/1.1 yes\r\n\r\n" + said.body)
bytes_fault("body-alone", lambda said: said.body)
bytes_fault(
    "negative-length", lambda said: message("200 OK", [("Content-Length", "-1")], said.body)
)
bytes_fault(
    "two-lengths",
    lambda said: whole(said, more=[("Content-Length", str(len(said.body) + 3))]),
)
bytes_fault("length-and-chunks", lambda said: whole(said, more=[("Transfer-Encoding", "chunked")]))
bytes_fault(
    "bad-chunk",
    lambda said: (
        message(
            "200 OK", [("Content-Type", said.kind), ("Transfer-Encoding", "chunked")], b"zz\r\n"
        )
        + said.body
    ),
)
bytes_fault("long-header", lambda said: whole(said, more=[("X-Long", "x" * 20_000)]))
bytes_fault("many-headers", lambda said: whole(said, more=[(f"X-{n}", "x") for n in range(2000)]))


@fault("length-too-small")
async def _(writer: asyncio.StreamWriter, said: Said) -> None:
    cut = ("Content-Length", str(len(said.body) - 1))
    writer.write(message("200 OK", [("Content-Type", said.kind), cut], said.body))


@fault("length-too-large")
async def _(writer: asyncio.StreamWriter, said: Said) -> None:
    more = ("Content-Length", str(len(said.body) + 10))
    writer.write(message("200 OK", [("Content-Type", said.kind), more], said.body))
    writer.close()


@fault("chunks-cut")
async def _(writer: asyncio.StreamWriter, said: Said) -> None:
    head = message("200 OK", [("Content-Type", said.kind), ("Transfer-Encoding", "chunked")])
    writer.write(head + f"{len(said.body):x}\r\n".encode() + said.body + b"\r\n")
    writer.close()


@fault("closed")
async def _(writer: asyncio.StreamWriter, said: Said) -> None:
    writer.close()


@fault("closed-after-head")
async def _(writer: asyncio.StreamWriter, said: Said) -> None:
    writer.write(whole(said)[: -len(said.body)])
    writer.close()


@fault("reset")
async def _(writer: asyncio.StreamWriter, said: Said) -> None:
    writer.write(whole(said)[:-1])
    await writer.drain()
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@fault("endless-chunks")
async def _(writer: asyncio.StreamWriter, said: Said) -> None:
    head = [("Content-Type", said.kind), ("Transfer-Encoding", "chunked")]
    writer.write(message("200 OK", head))
    writer.write(f"{len(said.body):x}\r\n".encode() + said.body + b"\r\n")
    for _ in range(64):
        writer.write(b"2000\r\n" + b" " * 0x2000 + b"\r\n")
        await writer.drain()


@fault("endless-headers")
async def _(writer: asyncio.StreamWriter, said: Said) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(10_000):
        writer.write(f"X-{number}: x\r\n".encode())
        await writer.drain()


@fault("slow-head", STALLS)
async def _(writer: asyncio.StreamWriter, said: Said) -> None:
    writer.write(b"HTTP/1.1 200")
    await asyncio.Event().wait()


@fault("silent", STALLS)
async def _(writer: asyncio.StreamWriter, said: Said) -> None:
    await asyncio.Event().wait()


@fault("slow-body", STALLS)
async def _(writer: asyncio.StreamWriter, said: Said) -> None:
    writer.write(whole(said)[:-1])
    await asyncio.Event().wait()


@fault("dribble", STALLS)
async def _(writer: asyncio.StreamWriter, said: Said) -> None:
    head = [("Content-Type", said.kind), ("Transfer-Encoding", "chunked")]
    writer.write(message("200 OK", head))
    while True:
        writer.write(b"1\r\n \r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


@fault("endless-continue", STALLS)
async def _(writer: asyncio.StreamWriter, said: Said) -> None:
    while True:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


# What a JSON answer says is no clear yes. The word for yes is ``decision`` or ``result``.


def nonsense(name: str) -> dict[str, str]:
    """Bodies that say something about ``name``, and nothing clear."""
    return {
        "text-true": f'{{"{name}": "true"}}',
        "text-yes": f'{{"{name}": "yes"}}',
        "one": f'{{"{name}": 1}}',
        "one-point-zero": f'{{"{name}": 1.0}}',
        "null": f'{{"{name}": null}}',
        "list": f'{{"{name}": [true]}}',
        "object": f'{{"{name}": {{"{name}": true}}}}',
        "nan": f'{{"{name}": true, "x": NaN}}',
        "infinite": f'{{"{name}": true, "x": 1e999}}',
        "doubled": f'{{"{name}": false, "{name}": true}}',
        "doubled-true": f'{{"{name}": true, "{name}": true}}',
        "in-a-list": f'[{{"{name}": true}}]',
        "bare": "true",
        "bare-text": '"true"',
        "python": f"{{'{name}': True}}",
        "surrogate": f'{{"{name}": true, "x": "\\ud800"}}',
        "deep": f'{{"{name}": true, "x": ' + "[" * 1000 + "]" * 1000 + "}",
        "comma": f'{{"{name}": true,}}',
        "comment": f'{{"{name}": true /* yes */}}',
    }


class FakePdp:
    """What it was asked, and what it says to it."""

    def __init__(self, permits: Callable[[dict[str, Any]], bool] = lambda _: True) -> None:
        self.permits = permits
        self.instead: bytes | None = None
        """a whole message in place of every answer"""
        self.behind: bytes = b""
        """what comes on a connection behind each answer, a moment later"""
        self.said: Callable[[Asked], Said | None] = lambda _: None
        """another answer to a request, if it gives one"""
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked: list[Asked] = []
        self.connections = 0
        self.at_once = 0
        self.most_at_once = 0
        self.url = ""
        self.seen = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def until_asked(self, number: int) -> None:
        """Wait until so many requests are here."""
        async with self.seen:
            await self.seen.wait_for(lambda: len(self.asked) >= number)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while not writer.is_closing():
                    await self._answer(reader, writer)
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self._tasks.discard(task)
            writer.close()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        misbehave, asked = await self._read(reader)
        async with self.seen:
            self.asked.append(asked)
            self.seen.notify_all()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.may_answer.wait()
        finally:
            self.at_once -= 1
        if misbehave is not None:
            await misbehave(writer, Said.to(asked, [True] * len(asked.questions)))
        elif self.instead is not None:
            writer.write(self.instead)
        else:
            said = self.said(asked) or Said.to(asked, [self.permits(q) for q in asked.questions])
            writer.write(whole(said))
        if not writer.is_closing():
            await writer.drain()
        if self.behind:
            await asyncio.sleep(0.01)  # so that the answer before it is read by itself
            writer.write(self.behind)
            await writer.drain()

    async def _read(self, reader: asyncio.StreamReader) -> tuple[Fault | None, Asked]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = [
            (name.lower(), value.strip())
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        ]
        asked = Asked(method, path, headers, None)
        if length := asked.header("content-length"):
            asked.body = json.loads(await reader.readexactly(int(length[0])))
        first, _, rest = path.removeprefix("/").partition("/")
        misbehave = FAULTS.get(first) or STALLS.get(first)
        if misbehave is not None:
            asked.path = f"/{rest}"
        return misbehave, asked


@asynccontextmanager
async def fake_pdp(
    permits: Callable[[dict[str, Any]], bool] = lambda _: True,
    *,
    port: int = 0,
    ssl: Any = None,
) -> AsyncGenerator[FakePdp]:
    """One that listens on this machine."""
    fake = FakePdp(permits)
    server = await asyncio.start_server(fake.serve, "127.0.0.1", port, ssl=ssl)
    bound = server.sockets[0].getsockname()[1]
    fake.url = f"{'https' if ssl else 'http'}://127.0.0.1:{bound}"
    try:
        yield fake
    finally:
        server.close()
        await fake.stop()


def _by_name(question: dict[str, Any]) -> bool:
    return "nobody" not in json.dumps(question.get("subject", "")) and "forbidden" not in (
        json.dumps(question.get("resource", ""))
    )


async def _main(port: int) -> None:
    async with fake_pdp(_by_name, port=port) as fake:
        print(f"ready {fake.url}", flush=True)  # noqa: T201
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_main(int(sys.argv[1])))
