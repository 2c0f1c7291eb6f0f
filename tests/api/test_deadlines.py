"""Slow, half and broken requests, on sockets of our own."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.api.lab import Lab, lab
from tests.api.raw import head, raw
from tests.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def hurried(tmp_path: Path) -> AsyncGenerator[Lab]:
    """The application with short deadlines."""
    async with lab(
        tmp_path, header_timeout=0.4, body_timeout=1.2, trickle_timeout=0.4, unread_timeout=0.5
    ) as one:
        yield one


def problem(answer: bytes) -> tuple[int, str]:
    """Status and kind of a raw problem answer."""
    top, _, body = answer.partition(b"\r\n\r\n")
    document = json.loads(body)
    assert b"application/problem+json" in top
    assert document["request_id"].encode() in top
    return int(top.split()[1]), document["type"]


async def test_connection_that_says_nothing_is_closed(hurried: Lab) -> None:
    async with raw(hurried) as line:
        assert await line.rest(within=2) == b""


@pytest.mark.parametrize("part", [b"GET", b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-A: "])
async def test_half_a_header_is_answered_408(hurried: Lab, part: bytes) -> None:
    async with raw(hurried) as line:
        await line.send(part)
        assert problem(await line.rest(within=2)) == (408, "/problems/request-timeout")


async def test_header_that_trickles_is_answered_408(hurried: Lab) -> None:
    async with raw(hurried) as line:

        async def trickle() -> None:
            for byte in head(hurried, "GET /livez") * 10:
                await line.send(bytes([byte]))
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        answer = await line.rest(within=2)
        trickling.cancel()
        await asyncio.gather(trickling, return_exceptions=True)
        assert problem(answer)[0] == 408


async def test_half_a_body_is_answered_408_and_starts_nothing(hurried: Lab) -> None:
    async with raw(hurried) as line:
        start = head(
            hurried,
            "POST /training-jobs?pipeline=print",
            "Content-Type: application/json",
            "Content-Length: 20",
        )
        await line.send(start + b'{"A": 1')
        assert problem(await line.rest(within=3))[0] == 408
    assert (await hurried.client.get("/training-jobs")).json() == []


async def test_body_that_trickles_is_dropped_before_its_deadline(tmp_path: Path) -> None:
    async with lab(tmp_path, body_timeout=30, trickle_timeout=0.3) as one, raw(one) as line:
        began = time.monotonic()
        await line.send(head(one, "POST /training-jobs?pipeline=print", "Content-Length: 20000"))
        assert problem(await line.rest(within=3))[0] == 408
        assert time.monotonic() - began < 3


async def test_body_at_a_good_pace_may_take_longer_than_the_first_look(hurried: Lab) -> None:
    body = json.dumps({"A": "x" * 3000}).encode()
    async with raw(hurried) as line:
        await line.send(
            head(
                hurried,
                "POST /training-jobs?pipeline=print&dry_run=true",
                "Content-Type: application/json",
                f"Content-Length: {len(body)}",
                "Connection: close",
            )
        )
        for start in range(0, len(body), 500):
            await line.send(body[start : start + 500])
            await asyncio.sleep(0.1)
        assert (await line.rest()).startswith(b"HTTP/1.1 200")


async def test_client_that_disconnects_in_the_body_changes_nothing(hurried: Lab) -> None:
    async with raw(hurried) as line:
        await line.send(
            head(hurried, "POST /training-jobs?pipeline=print", "Content-Length: 9") + b'{"A'
        )
    assert (await hurried.client.get("/training-jobs")).json() == []


async def test_second_request_on_a_connection_has_its_own_deadline(hurried: Lab) -> None:
    async with raw(hurried) as line:
        await line.send(head(hurried, "GET /livez"))
        await line.until(b"ok\n")
        await line.send(b"GET /live")
        assert problem(await line.rest(within=2))[0] == 408


async def test_empty_lines_do_not_keep_a_connection(hurried: Lab) -> None:
    async with raw(hurried) as line:
        await line.send(head(hurried, "GET /livez"))
        await line.until(b"ok\n")
        await line.send(b"\r\n")
        assert await line.rest(within=2) == b""


async def test_idle_connection_is_kept_for_the_next_request(hurried: Lab) -> None:
    async with raw(hurried) as line:
        for _ in range(2):
            await line.send(head(hurried, "GET /livez"))
            await line.until(b"ok\n")
            await asyncio.sleep(0.6)  # longer than any deadline on reading


async def test_headers_without_end_are_answered_431(running: Lab) -> None:
    async with raw(running) as line:
        await line.send(b"GET /livez HTTP/1.1\r\n" + b"X-A: " + b"a" * 100_000)
        assert problem(await line.rest())[0] == 431


@pytest.mark.parametrize(
    "nonsense",
    [b"\x16\x03\x01\x02\x00\x01", b"HELLO\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"\0" * 100],
)
async def test_what_is_no_http_is_answered_400(running: Lab, nonsense: bytes) -> None:
    async with raw(running) as line:
        await line.send(nonsense)
        assert problem(await line.rest()) == (400, "/problems/malformed-request")


async def test_nonsense_behind_a_request_is_not_its_answer(running: Lab) -> None:
    asked = head(running, "GET /training-jobs", "Accept: application/json")
    async with raw(running) as line:
        await line.send(asked + b"\0nonsense\r\n\r\n")
        assert await line.rest() == b""  # cut, as nobody could tell whose answer a 400 is


async def test_client_that_does_not_read_is_dropped(hurried: Lab) -> None:
    name = await hurried.create("import os; os.write(1, b'x' * 30_000_000)")

    await until(lambda: hurried.ended(name))
    with socket.create_connection(("127.0.0.1", hurried.port)) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(head(hurried, f"GET /training-jobs/{name}"))

        async def dropped() -> bool:
            return len(connections(hurried.port)) == 0

        await hurried.client.aclose()
        await until(dropped, within=8)


def connections(port: int) -> list[str]:
    """Established connections to the port, as the kernel lists them."""
    from pathlib import Path

    place = f":{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return [line for line in lines if line.split()[1].endswith(place) and line.split()[3] == "01"]


async def test_large_body_is_refused_by_its_declared_and_its_real_size(running: Lab) -> None:
    limit = 256 * 1024
    async with raw(running) as line:
        await line.send(
            head(running, "POST /training-jobs?pipeline=print", f"Content-Length: {limit + 1}")
        )
        answer = await line.until(b"\r\n\r\n")  # before a byte of the body was sent
        assert answer.startswith(b"HTTP/1.1 413")
    async with raw(running) as line:
        await line.send(
            head(running, "POST /training-jobs?pipeline=print", "Transfer-Encoding: chunked")
        )
        for _ in range(5):
            await line.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
        assert (await line.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
    ten = await running.client.post("/training-jobs?pipeline=print", content=b" " * 10_000_000)
    assert ten.status_code == 413
    assert ten.json()["type"] == "/problems/request-too-large"


async def test_thousand_slow_connections_do_not_slow_others(tmp_path: Path) -> None:
    async with lab(tmp_path, header_timeout=2.0) as one:
        lines = [await asyncio.open_connection("127.0.0.1", one.port) for _ in range(1000)]
        for _, writer in lines:
            writer.write(b"GET /livez HTTP/1.1\r\nX-A: ")
        times: list[float] = []
        for _ in range(50):
            began = time.monotonic()
            assert (await one.client.get("/livez")).status_code == 200
            times.append(time.monotonic() - began)
        assert sorted(times)[48] < 1.0
        async with asyncio.timeout(10):
            answers = [await reader.read() for reader, _ in lines]
        assert all(answer.startswith(b"HTTP/1.1 408") for answer in answers)
        for _, writer in lines:
            writer.close()
