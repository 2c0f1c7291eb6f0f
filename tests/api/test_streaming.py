"""One stream by itself: pings, cuts and the end, over a socket, with a clock that hurries."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from starlette.types import Message, Receive, Scope, Send

from model_training.access.principals import Principal, PrincipalKind
from model_training.api.deadlines import DeadlineProtocol
from model_training.api.rechecks import Permit, Rechecks
from model_training.api.shares import Shares
from model_training.api.streaming import ABORT, Cut, FollowedEvents, Streamed, Streams
from model_training.errors import AccessUnavailable, Forbidden, TooManyRequests
from tests.api import lab
from tests.waiting import until

pytestmark = pytest.mark.anyio


class Hasty(FollowedEvents):
    quiet_s = 0.1


LOCAL = Principal(PrincipalKind.LOCAL, "local")


async def yes() -> None:
    """It is permitted."""


def new_streams(stopping: asyncio.Event, recheck_s: float = 60.0) -> Streams:
    shares = Shares(rate=1, followers=2)
    return Streams(stopping, max_followers=10, shares=shares, rechecks=Rechecks(recheck_s))


@asynccontextmanager
async def serving(
    make: type[Streamed],
    frames: AsyncGenerator[bytes],
    *,
    who: Principal = LOCAL,
    ask: Callable[[], Awaitable[None]] = yes,
    recheck_s: float = 60.0,
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter, asyncio.Event, Streams]]:
    """An application that answers with one stream, and a client that asked for it."""
    stopping = asyncio.Event()
    streams = new_streams(stopping, recheck_s)
    permit = Permit(who, "job", ask) if issubclass(make, FollowedEvents) else None

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if permit:
            streams.admit_follower(who)
        answer = make(streams, frames, {"Content-Type": "text/plain"}, permit=permit)
        await answer(scope, receive, send)

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

    streams = new_streams(asyncio.Event())
    streams.admit_follower(LOCAL)
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

    answer = Hasty(streams, soon_over(), {}, permit=Permit(LOCAL, "job", yes))
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


async def no_longer() -> None:
    raise Forbidden


async def nobody_to_ask() -> None:
    raise AccessUnavailable


@pytest.mark.parametrize(
    ("ask", "reason"), [(no_longer, b"refused"), (nobody_to_ask, b"unavailable")]
)
async def test_follower_who_may_no_longer_is_told_and_sent_away(ask, reason: bytes) -> None:
    async with (
        serving(Hasty, silence(), ask=ask, recheck_s=0.2) as (reader, _, _, streams),
        asyncio.timeout(5),
    ):
        text = await reader.readuntil(b"0\r\n\r\n")
        assert b'event: access_ended\ndata: {"reason":"%s"}' % reason in text
        await until(lambda: streams.followers == 0, 5)


async def test_follower_who_still_may_stays() -> None:
    asked = asyncio.Queue[None]()

    async def still() -> None:
        asked.put_nowait(None)

    async with (
        serving(Hasty, silence(), ask=still, recheck_s=0.1) as (reader, _, _, streams),
        asyncio.timeout(5),
    ):
        await reader.readuntil(b"first")
        for _ in range(3):
            await asked.get()
        assert streams.followers == 1


async def test_follower_whose_credential_ends_is_sent_away_then() -> None:
    who = Principal(PrincipalKind.USER, "corp/lea", expires_at=time.time() + 0.5)
    async with serving(Hasty, silence(), who=who) as (reader, _, _, _), asyncio.timeout(5):
        assert b'{"reason":"expired"}' in await reader.readuntil(b"0\r\n\r\n")


async def test_nobody_follows_more_than_their_share() -> None:
    streams, lea = new_streams(asyncio.Event()), Principal(PrincipalKind.USER, "corp/lea")
    ben = Principal(PrincipalKind.USER, "corp/ben")
    for _ in range(2):
        streams.admit_follower(lea)
    with pytest.raises(TooManyRequests, match="You follow 2 logs already"):
        streams.admit_follower(lea)
    streams.admit_follower(ben)
    streams.dismiss_follower(lea)
    streams.admit_follower(lea)
    assert streams.followers == 3
