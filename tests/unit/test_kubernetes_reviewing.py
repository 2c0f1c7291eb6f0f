"""Reviews by an API server that is away, slow, or talks nonsense: never an answer, soon a 503."""

import asyncio
import logging
import socket
import time
from typing import Any

import msgspec
import pytest
from aiohttp import web

from model_training.errors import AccessUnavailable
from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.cluster import ClusterConfig
from model_training.executors.kubernetes.credentials import FixedCredentials, Grant
from model_training.executors.kubernetes.reviewing import Reviewing
from tests.unit.fake_api_server import Answer, fake_api_server, never, no, text
from tests.unit.fake_reviews import fake_reviews
from tests.waiting import until

pytestmark = pytest.mark.anyio

TOKENS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS = "/apis/authorization.k8s.io/v1/namespaces/training/localsubjectaccessreviews"
SECRET = "s3cret-of-a-caller"
BODY: dict[str, object] = {"kind": "TokenReview", "spec": {"token": SECRET}}
FILLED = text(201, '{"kind": "TokenReview", "status": {"authenticated": true}}')


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def body(content: bytes, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=201, body=content, headers=headers)

    return answer


async def cut(request: web.Request) -> web.StreamResponse:
    """Half of an answer."""
    response = web.StreamResponse(status=201, headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"status": {"authenticated": true}')
    if request.transport:
        request.transport.close()
    return response


async def test_an_answer_is_what_the_api_server_filled_in():
    async with fake_api_server(FILLED) as server, KubernetesApi(server.config()) as api:
        answer = await Reviewing(api)(TOKENS, BODY)
        assert answer == {"kind": "TokenReview", "status": {"authenticated": True}}
        assert api.counts == {("create", "tokenreviews"): 1}


FAULTS = {
    "our credentials are refused": no(401, "Unauthorized", f"{SECRET} is none"),
    "we lack the right": no(403, "Forbidden", f"may not review {SECRET}"),
    "there are no reviews": no(404, "NotFound", SECRET),
    "it wants another body": no(422, "Invalid", SECRET),
    "it has too much to do": no(429, "TooManyRequests", SECRET, Retry_After="7"),
    "it fails": no(500, "InternalError", f"webhook: {SECRET}"),
    "a gateway is before it": text(502, f"<html>{SECRET}</html>"),
    "it leads elsewhere": text(307, "", Location="http://127.0.0.1:1/"),
    "it says nothing": text(204, ""),
    "it answers a page": text(201, f"<html>{SECRET}</html>"),
    "it answers a list": text(201, '[{"authenticated": true}]'),
    "it answers twice": text(201, '{"status": {}, "status": {"authenticated": true}}'),
    "it answers more behind": text(201, '{"status": {}} {"status": {"authenticated": true}}'),
    "it answers no number": text(201, '{"status": NaN}'),
    "it answers too much": text(201, '{"status": {}}' + " " * 256 * 1024),
    "it answers no text": body(b'{"kind": "\xff"}'),
    "it answers what is not packed": body(b"{}", **{"Content-Encoding": "gzip"}),
    "it answers half": cut,
}


@pytest.mark.parametrize("answer", FAULTS.values(), ids=FAULTS)
async def test_a_fault_is_never_an_answer_and_tells_nothing_of_what_was_written(
    answer: Answer, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    async with fake_api_server(answer) as server, KubernetesApi(server.config()) as api:
        with pytest.raises(AccessUnavailable) as caught:
            await Reviewing(api)(TOKENS, BODY)
    said = f"{caught.value}{caught.value!r}{caplog.text}"
    assert SECRET not in said
    assert "t0ken" not in said
    assert server.url not in caught.value.message  # who calls learns no address
    assert f"A review at {TOKENS} failed" in caplog.text


@pytest.mark.parametrize(
    ("path", "right"),
    [
        (TOKENS, "may not create tokenreviews in all namespaces, which it needs to tell whose"),
        (
            ACCESS,
            "may not create localsubjectaccessreviews in the namespace training, which it needs to",
        ),
    ],
)
async def test_the_right_that_is_missing_is_named_in_the_log_once(
    path: str, right: str, caplog: pytest.LogCaptureFixture
):
    answer = no(403, "Forbidden", "no")
    async with fake_api_server(answer) as server, KubernetesApi(server.config()) as api:
        review = Reviewing(api)
        for _ in range(9):  # a missing right is no outage: it may be there the next time
            with pytest.raises(AccessUnavailable, match="refuses it: 403 Forbidden"):
                await review(path, BODY)
        assert len(server.requests) == 9
        server.answers[:] = [FILLED]
        await review(path, BODY)
        server.answers[:] = [answer]
        with pytest.raises(AccessUnavailable):
            await review(path, BODY)
    [first, again] = [record.message for record in caplog.records if "failed" in record.message]
    assert first == again
    assert right in first
    assert "grants the verb create" in first
    assert "docs/reference/rights.md" in first


async def test_a_pause_that_is_asked_for_is_told_to_callers_within_bounds():
    seconds: list[int] = []
    for asked in ("7", "86400"):
        answer = no(429, "TooManyRequests", "wait", Retry_After=asked)
        async with fake_api_server(answer) as server, KubernetesApi(server.config()) as api:
            with pytest.raises(AccessUnavailable) as caught:
                await Reviewing(api)(TOKENS, BODY)
            seconds.append(caught.value.retry_after)
    assert seconds == [7, 30]


async def test_a_connection_that_was_closed_meanwhile_is_no_fault():
    async def closes(request: web.Request) -> web.StreamResponse:
        assert request.transport
        request.transport.abort()
        return web.Response()

    async with fake_api_server(closes, FILLED) as server, KubernetesApi(server.config()) as api:
        assert "status" in await Reviewing(api)(TOKENS, BODY)
        assert len(server.requests) == 2


async def test_an_api_server_that_is_silent_is_given_up_in_2_seconds():
    async with fake_api_server(never) as server, KubernetesApi(server.config()) as api:
        began = time.monotonic()
        with pytest.raises(AccessUnavailable, match="does not answer within 2 s"):
            await Reviewing(api)(TOKENS, BODY)
        assert time.monotonic() - began < 3


async def test_an_api_server_that_is_away_is_left_alone_after_5_failures(
    caplog: pytest.LogCaptureFixture,
):
    clock = Clock()
    answer = no(500, "InternalError", "x")
    async with fake_api_server(answer) as server, KubernetesApi(server.config()) as api:
        review = Reviewing(api, clock)
        for _ in range(9):
            with pytest.raises(AccessUnavailable):
                await review(TOKENS, BODY)
        assert len(server.requests) == 5
        with pytest.raises(AccessUnavailable) as caught:
            await review(TOKENS, BODY)
        assert caught.value.retry_after == 5
        with pytest.raises(AccessUnavailable):
            await review(ACCESS, BODY)  # another kind of review is asked for
        assert len(server.requests) == 6

        clock.seconds += 5.1
        with pytest.raises(AccessUnavailable):
            await review(TOKENS, BODY)
        with pytest.raises(AccessUnavailable):
            await review(TOKENS, BODY)
        assert len(server.requests) == 7  # one was enough to know that it still is

        clock.seconds += 5.1
        server.answers[:] = [FILLED, answer]
        await review(TOKENS, BODY)
        with pytest.raises(AccessUnavailable):
            await review(TOKENS, BODY)
        server.answers[:] = [FILLED]
        await review(TOKENS, BODY)  # it was there in between
    assert caplog.text.count(f"{TOKENS} failed") == 2


def cluster_at(port: int) -> ClusterConfig:
    credentials = FixedCredentials(Grant("t0ken"))
    return ClusterConfig(
        server=f"http://127.0.0.1:{port}", namespace="n", credentials=credentials, origin="a test"
    )


async def test_what_speaks_no_http_is_not_repeated(caplog: pytest.LogCaptureFixture):
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(SECRET.encode())
        writer.write(f"{SECRET}\r\n\r\n".encode())
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with KubernetesApi(cluster_at(port)) as api:
            with pytest.raises(AccessUnavailable, match="gives no whole answer"):
                await Reviewing(api)(TOKENS, BODY)
    assert SECRET not in caplog.text


async def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with KubernetesApi(cluster_at(port)) as api:
        with pytest.raises(AccessUnavailable, match="cannot be reached"):
            await Reviewing(api)(TOKENS, BODY)


async def test_64_are_asked_at_once_and_the_others_wait_their_turn():
    def status(_: dict[str, Any]) -> dict[str, Any]:
        return {"authenticated": True}

    async with fake_reviews(status) as (fake, review):
        fake.may_answer.clear()
        asking = [asyncio.create_task(review(TOKENS, {**BODY, "n": n})) for n in range(80)]
        await until(lambda: len(fake.asked) == 64, within=1)
        fake.may_answer.set()
        answers = await asyncio.gather(*asking)
    assert fake.most_at_once == 64
    assert sorted(str(answer["n"]) for answer in answers) == sorted(map(str, range(80)))


async def test_an_answer_of_256_kib_is_read_whole():
    told = msgspec.json.encode({"fill": "x" * (256 * 1024 - 11)})
    assert len(told) == 256 * 1024
    async with (
        fake_api_server(body(told)) as server,
        KubernetesApi(server.config()) as api,
    ):
        assert await Reviewing(api)(TOKENS, BODY)
