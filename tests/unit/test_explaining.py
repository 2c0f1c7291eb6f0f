"""Which jobs the cluster is asked about, and for how long."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from model_training.executors.kubernetes import explaining
from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.explaining import Explainer
from model_training.executors.kubernetes.jobs import Job
from model_training.executors.kubernetes.objects import EventRow, JobRow
from model_training.executors.kubernetes.observation import Seen
from model_training.jobs import JobState, Reason
from tests.unit.fake_api_server import fake_api_server
from tests.waiting import until

pytestmark = pytest.mark.anyio

CREATED = "2026-01-01T00:00:00Z"
STARTING = Seen(state=JobState.PENDING, reason=Reason.STARTING)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def job(name: str) -> Job:
    made = Job(name)
    made.take(JobRow(namespace="n", name=name, uid=name, resource_version="1", created=CREATED))
    return made


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.SUCCEEDED, JobState.STOPPING])
def test_who_waits_no_longer_is_not_asked_about(state: JobState):
    api: Any = None  # never asked
    explainer = Explainer(api, lambda _: None)
    puzzle = job("a")
    explainer.note(puzzle, STARTING)
    puzzle.events = (EventRow("Pulling", "", CREATED),)
    explainer.note(puzzle, Seen(state=state))
    assert not explainer._puzzles


def test_what_events_explain_is_asked_about_until_it_is_over():
    api: Any = None  # never asked
    explainer = Explainer(api, lambda _: None)
    puzzle = job("a")
    explainer.note(puzzle, STARTING)
    puzzle.events = (EventRow("FailedCreate", "exceeded quota", CREATED),)
    explainer.note(puzzle, Seen(state=JobState.PENDING, reason="QuotaExceeded"))
    assert explainer._puzzles


async def test_a_new_job_is_asked_about_though_many_wait(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(explaining, "LOOK_S", 0.005)
    monkeypatch.setattr(explaining, "FIRST_S", 0.01)
    monkeypatch.setattr(explaining, "LONGEST_S", 0.05)
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.query["fieldSelector"])
        return web.json_response({"items": []})

    async with fake_api_server(answer) as cluster, KubernetesApi(cluster.config()) as api:
        explainer = Explainer(api, lambda _: None)
        for number in range(500):  # more than are asked about in the longest time between two
            explainer.note(job(f"old-{number}"), STARTING)
        task = asyncio.create_task(explainer.run())
        await until(lambda: len(asked) > 100)
        explainer.note(job("new"), STARTING)
        await until(lambda: "involvedObject.uid=new" in asked)
        task.cancel()
