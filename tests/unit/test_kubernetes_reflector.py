"""Calls, streams and the reflector where a real API server behaves so too seldom; on a fake."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest

from model_training.errors import ExecutorUnavailable
from model_training.executors.kubernetes import api as api_module
from model_training.executors.kubernetes import reflector as reflector_module
from model_training.executors.kubernetes import watch_wire
from model_training.executors.kubernetes.api import ApiError, KubernetesApi
from model_training.executors.kubernetes.credentials import Grant
from model_training.executors.kubernetes.objects import JobRow, decode_job
from model_training.executors.kubernetes.reflector import Reflector
from model_training.executors.kubernetes.row_store import Listener
from tests.unit.fake_api_server import (
    Answer,
    FakeApiServer,
    event,
    fake_api_server,
    job,
    listed,
    never,
    no,
    text,
    watched,
)
from tests.waiting import until

pytestmark = pytest.mark.anyio

PATH = "/apis/batch/v1/namespaces/n/jobs"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Renewed:
    """Credentials that are better the second time."""

    def __init__(self) -> None:
        self.renewals = 0

    async def grant(self) -> Grant:
        return Grant(f"t0ken-{self.renewals}")

    async def renew(self, refused: Grant) -> Grant:
        self.renewals += 1
        return await self.grant()


@asynccontextmanager
async def asked(
    *answers: Answer, credentials: Renewed | None = None
) -> AsyncGenerator[tuple[FakeApiServer, KubernetesApi]]:
    async with (
        fake_api_server(*answers) as server,
        KubernetesApi(server.config(credentials)) as api,
    ):
        yield server, api


class Following(Reflector[JobRow]):
    def __init__(self, api: KubernetesApi) -> None:
        self.told: list[str] = []
        super().__init__(api, PATH, decode_job, listener=Listener(self.note))

    def note(self, before: JobRow | None, after: JobRow | None) -> None:
        row = after or before
        assert row is not None
        self.told.append(("-" if after is None else "+") + row.name)


@asynccontextmanager
async def following(*answers: Answer) -> AsyncGenerator[tuple[FakeApiServer, Following]]:
    async with asked(*answers) as (server, api):
        followed = Following(api)
        task = asyncio.create_task(followed.run())
        try:
            yield server, followed
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


# Calls.


async def test_a_no_is_told_as_kubernetes_says_it() -> None:
    async with asked(no(409, "AlreadyExists", "it is there")) as (_, api):
        with pytest.raises(ApiError) as caught:
            await api.post(PATH, b"{}")
        assert caught.value.status == 409
        assert caught.value.reason == "AlreadyExists"
        assert caught.value.message == "it is there"


@pytest.mark.parametrize(
    ("answer", "after"),
    [
        (no(429, "TooManyRequests", "busy", Retry_After="7"), 7),
        (no(503, "ServiceUnavailable", "away"), 1),
        (text(504, "<html>" + "x" * 9999), 1),
    ],
)
async def test_an_overload_is_worth_another_try(answer: Answer, after: int) -> None:
    async with asked(answer) as (_, api):
        with pytest.raises(ExecutorUnavailable) as caught:
            await api.get(PATH)
        assert caught.value.retry_after == after
        assert isinstance(caught.value.__cause__, ApiError)
        assert len(str(caught.value)) < 500


async def test_a_redirect_is_not_followed() -> None:
    async with asked(text(302, "", Location="/other"), text(200, "stolen")) as (server, api):
        with pytest.raises(ApiError) as caught:
            await api.get(PATH)
        assert caught.value.status == 302
        assert len(server.requests) == 1


async def test_refused_credentials_are_renewed_once() -> None:
    who = Renewed()
    answers = (no(401, "Unauthorized", "no"), text(200, "fine"), no(401, "Unauthorized", "no"))
    async with asked(*answers, credentials=who) as (server, api):
        assert await api.get(PATH) == b"fine"
        assert [r.headers["Authorization"] for r in server.requests] == [
            "Bearer t0ken-0",
            "Bearer t0ken-1",
        ]
        with pytest.raises(ExecutorUnavailable, match="does not accept our credentials") as caught:
            await api.get(PATH)
        assert "t0ken" not in f"{caught.value} {caught.value.__cause__!r}"
        assert len(server.requests) == 4


async def test_an_answer_that_does_not_come_is_an_outage() -> None:
    async with asked(never) as (_, api):
        with pytest.raises(ExecutorUnavailable, match="no answer in time"):
            await api.get(PATH, timeout_s=0.1)
    async with asked(watched(b"half", then="cut")) as (_, api):
        with pytest.raises(ExecutorUnavailable, match="in the middle of an answer"):
            await api.get(PATH)
        assert api.answered_at > 0
    async with asked(never) as (server, _):
        config = server.config()
    async with KubernetesApi(config) as api:
        with pytest.raises(ExecutorUnavailable, match="refused") as caught:
            await api.get(PATH)
    assert caught.value.__cause__ is None


async def test_requests_are_counted_as_kubernetes_names_them() -> None:
    async with asked(text(200, "{}")) as (_, api):
        await api.get(PATH)
        await api.get(f"{PATH}/a")
        await api.post(PATH, b"{}")
        await api.delete(f"{PATH}/a", b"{}")
        await api.get("/api/v1/namespaces/n/pods/p/log")
        await api.get("/api/v1/namespaces")
        await api.get("/version")
        async with api.stream("/apis/batch/v1/jobs", {"watch": "1"}, stall_s=None):
            pass
        assert dict(api.counts) == {
            ("list", "jobs"): 1,
            ("get", "jobs"): 1,
            ("create", "jobs"): 1,
            ("delete", "jobs"): 1,
            ("get", "pods/log"): 1,
            ("list", "namespaces"): 1,
            ("get", "/version"): 1,
            ("watch", "jobs"): 1,
        }


async def test_a_stream_ends_with_its_body_or_raises() -> None:
    assert await read(watched(b"one", b"two", then="close")) == b"onetwo"
    with pytest.raises(ExecutorUnavailable, match="in the middle"):
        await read(watched(b"one", then="cut"))
    with pytest.raises(ExecutorUnavailable, match="no answer in time"):
        await read(watched(b"one"), stall_s=0.1)


async def read(answer: Answer, stall_s: float = 5.0) -> bytes:
    async with asked(answer) as (_, api), api.stream(PATH, stall_s=stall_s) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_taking_a_chunk_may_be_cancelled_and_tried_again() -> None:
    more = asyncio.Event()

    async def answer(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        response = aiohttp.web.StreamResponse()
        await response.prepare(request)
        await more.wait()
        await response.write(b"late")
        return response

    async with asked(answer) as (_, api), api.stream(PATH, stall_s=None) as chunks:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(chunks), 0.05)
        more.set()
        assert await anext(chunks) == b"late"


# The reflector.


async def test_a_watch_refused_with_410_leads_to_a_new_list() -> None:
    async with following(
        listed(5, job("a", 1)), no(410, "Expired", "too old"), listed(9, job("b", 7)), watched()
    ) as (server, followed):
        await until(lambda: followed.told == ["+a", "+b", "-a"] and followed.stale_since is None)
        assert server.requests[-1].query["resourceVersion"] == "9"


async def test_any_error_in_the_stream_leads_to_a_new_list() -> None:
    error = event("ERROR", {"kind": "Status", "code": 500, "message": "lost"})
    async with following(listed(5, job("a", 1)), watched(error), listed(9), watched()) as (
        _,
        followed,
    ):
        await until(lambda: followed.told == ["+a", "-a"] and followed.stale_since is None)


async def test_watches_that_end_without_a_word_lead_to_a_new_list() -> None:
    empty = [watched(then="close")] * reflector_module.EMPTY_WATCHES
    async with following(listed(5, job("a", 1)), *empty, listed(9), watched()) as (
        server,
        followed,
    ):
        await until(lambda: followed.told == ["+a", "-a"])
        kinds = ["watch" in request.query for request in server.requests]
        assert kinds[:7] == [False, *[True] * reflector_module.EMPTY_WATCHES, False]


async def test_a_bookmark_moves_the_version_on() -> None:
    mark = event("BOOKMARK", {"metadata": {"resourceVersion": "77"}})
    async with following(listed(5), watched(mark, then="close"), watched()) as (server, followed):
        await until(lambda: followed.watches == 2)
        assert server.requests[-1].query["resourceVersion"] == "77"
        assert server.requests[-1].query["allowWatchBookmarks"] == "true"
        assert followed.lists == 1


async def test_an_overload_is_waited_out_as_asked_and_costs_no_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy = no(429, "TooManyRequests", "busy", Retry_After="1")
    loop = asyncio.get_running_loop()
    async with following(busy, listed(5), busy, watched()) as (_, followed):
        begun = loop.time()
        await until(lambda: followed.stale_since is None)
        assert loop.time() - begun >= 2.0
        assert followed.lists == 1


async def test_a_missing_right_is_asked_for_again() -> None:
    forbidden = no(403, "Forbidden", "cannot list jobs")
    async with following(forbidden, forbidden, listed(5, job("a", 1)), watched()) as (_, followed):
        await until(lambda: "403 Forbidden: cannot list jobs" in (followed.trouble or ""))
        await until(followed.synced.is_set)
        assert followed.trouble is None or followed.stale_since


async def test_what_is_no_list_is_asked_for_again() -> None:
    async with following(text(200, "<html>log in</html>"), listed(5, job("a", 1)), watched()) as (
        _,
        followed,
    ):
        await until(lambda: followed.told == ["+a"])


async def test_lines_that_are_no_events_are_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch_wire.EventLines.__init__, "__defaults__", (1000,))
    chunks = (
        b"not json\n",
        event("HELLO", {}),  # of a newer Kubernetes
        event("ADDED", {"metadata": []}),
        event("ADDED", {**job("long", 7), "x": "y" * 4_000_000}),
        event("ADDED", job("a", 8)),
    )
    async with following(listed(5), watched(*chunks)) as (_, followed):
        await until(lambda: followed.told == ["+a"])
        assert followed.poisoned == 3
        assert followed.watches == 1


async def test_silence_is_asked_about_and_a_missing_answer_ends_the_watch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reflector_module, "QUIET_S", 0.1)
    monkeypatch.setattr(reflector_module, "PROBE_S", 0.1)
    async with following(listed(5), watched(), listed(5), watched()) as (server, followed):
        await until(lambda: followed._api.counts["get", "/livez"] >= 3)
        assert followed.watches == 1
        server.is_there = False
        await until(lambda: followed.watches == 2)
        assert followed.lists == 2


async def test_a_watch_that_is_not_answered_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector_module, "OPEN_S", 0.1)
    async with following(listed(5), never, listed(6), watched()) as (_, followed):
        await until(lambda: followed.stale_since is None)
        assert followed.lists == 2  # another database may have come back


async def test_an_outage_is_logged_once_for_each_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, reflector_module.__name__)
    away, busy = no(503, "ServiceUnavailable", "away"), no(429, "TooManyRequests", "busy")
    answers = (away, listed(5), away, busy, away, listed(6), watched())
    async with following(*answers) as (_, followed):
        await until(lambda: followed.stale_since is None)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    assert "not followed at the moment: The API server" in messages[0]
    assert "503 away" in messages[0]
    assert "429 busy" in messages[1]
    assert "followed again" in messages[2]


def test_the_limits_fit_together() -> None:
    assert reflector_module.QUIET_S + reflector_module.PROBE_S < 10
    assert reflector_module.LONGEST_PAUSE_S + api_module.CONNECT_S < 10
