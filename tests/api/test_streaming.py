"""One stream by itself: pings, cuts and the end, over a socket, with a clock that hurries."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from starlette.types import Message, Receive, Scope, Send

from model_training.api.deadlines import DeadlineProtocol
from model_training.api.streaming import ABORT, Cut, FollowedEvents, Streamed, Streams
from tests.api import lab

pytestmark = pytest.mark.anyio


class Hasty(FollowedEvents):
    quiet_s = 0.1


@asynccontextmanager
async def serving(
    make: type[Streamed], frames: AsyncGenerator[bytes]
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter, asyncio.Event, Streams]]:
    """An application that answers with one stream, and a client that asked for it."""
    stopping = asyncio.Event()
    streams = Streams(stopping, max_followers=10)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if make.is_follower:
            streams.admit_follower()
        await make(streams, frames, {"Content-Type": "text/plain"})(scope, receive, send)

    async with lab.serving(app, DeadlineProtocol, stopping) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            await reader.readuntil(b"\r\n\r\n")
            yield reader, writer, stopping, streams
        finally:
            writer.close()


async def silence() -> AsyncGenerator[bytes]:
    yield b"first\n\n"
    await asyncio.Event().wait()


async def test_quiet_stream_is_kept_alive() -> None:
    async with serving(Hasty, silence()) as (reader, _, _, _), asyncio.timeout(5):
        await reader.readuntil(b"first")
        for _ in range(3):
            await reader.readuntil(b": ping\n\n")


async def test_busy_stream_is_not_pinged() -> None:
    async def busy() -> AsyncGenerator[bytes]:
        for _ in range(20):
            yield b"x"
            await asyncio.sleep(0.03)

    async with serving(Hasty, busy()) as (reader, _, _, _), asyncio.timeout(5):
        assert b"ping" not in await reader.readuntil(b"0\r\n\r\n")


async def test_ping_never_comes_after_the_end() -> None:
    async def soon_over() -> AsyncGenerator[bytes]:
        yield b"x"

    streams = Streams(asyncio.Event(), max_followers=1)
    streams.admit_follower()
    is_read, is_over = asyncio.Event(), asyncio.Event()
    sent: list[bytes] = []

    async def send(message: Message) -> None:
        """As a client takes it that reads the last frame late: no socket can be made to."""
        if message["type"] == "http.response.body":
            assert not is_over.is_set(), "sent after the end"
            sent.append(message["body"])
            if not message["more_body"]:
                await is_read.wait()
                is_over.set()

    async def receive() -> Message:
        await is_over.wait()
        return {"type": "http.disconnect"}

    answer = Hasty(streams, soon_over(), {})
    asyncio.get_running_loop().call_later(0.5, is_read.set)
    async with asyncio.timeout(5):
        await answer({"method": "GET", "extensions": {ABORT: lambda: None}}, receive, send)
    assert sent == [b"x", b""]


async def test_source_that_ends_early_cuts_the_answer() -> None:
    async def cut() -> AsyncGenerator[bytes]:
        yield b"half"
        raise Cut

    async with serving(Streamed, cut()) as (reader, _, _, _), asyncio.timeout(5):
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readuntil(b"0\r\n\r\n")


async def test_source_that_fails_cuts_the_answer_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def failing() -> AsyncGenerator[bytes]:
        yield b"half"
        raise OSError("the disk is gone")

    async with serving(Streamed, failing()) as (reader, _, _, _), asyncio.timeout(5):
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readuntil(b"0\r\n\r\n")
    assert "the disk is gone" in caplog.text


async def test_source_is_closed_when_the_client_goes() -> None:
    closed = asyncio.Event()

    async def watched() -> AsyncGenerator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with serving(FollowedEvents, watched()) as (reader, writer, _, streams):
        async with asyncio.timeout(5):
            await reader.readuntil(b"first")
            assert streams.followers == 1
            writer.close()
            await closed.wait()


@pytest.mark.parametrize("kind", [Streamed, FollowedEvents])
async def test_deaf_client_does_not_delay_the_shutdown(kind: type[Streamed]) -> None:
    async def flood() -> AsyncGenerator[bytes]:
        while True:
            yield b"x" * 1_000_000
            await asyncio.sleep(0)

    async with serving(kind, flood()) as (_, _, stopping, streams), asyncio.timeout(5):
        loop = asyncio.get_running_loop()
        began = loop.time()
        stopping.set()
        while streams._open:
            await asyncio.sleep(0.01)
        assert loop.time() - began < 1
