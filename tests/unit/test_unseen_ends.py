"""Jobs and pods that came or went while nobody looked: what their logs and records say of it.

What the cluster tells is put in as rows, where a real one cannot be made to lose its words in
just this order. Its answers to a question are of the fake API server.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.executor import KubernetesExecutor
from model_training.executors.kubernetes.jobs import Job
from model_training.executors.kubernetes.manifest import Site
from model_training.executors.kubernetes.objects import Condition, JobRow, PodRow, decode_job
from model_training.folders import DataFolder
from model_training.jobs import Observation
from model_training.logs.view import LogView
from tests.unit.fake_api_server import FakeApiServer, fake_api_server, text
from tests.waiting import until

pytestmark = pytest.mark.anyio

NAME = "model-training-a"
CREATED = "2026-01-01T00:00:00Z"
COMPLETE = (Condition("Complete", "True", "", "", CREATED),)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def row(version: str, **fields: Any) -> JobRow:
    return JobRow(
        namespace="n", name=NAME, uid="u", resource_version=version, created=CREATED, **fields
    )


def pod(version: str, **fields: Any) -> PodRow:
    return PodRow(
        namespace="n", name="p", uid="p", resource_version=version, created=CREATED, job=NAME,
        job_uid="u", **fields,
    )  # fmt: skip


def listed(*pods: dict[str, Any]) -> str:
    return json.dumps({"items": [{"metadata": each} for each in pods]})


@dataclass
class Bench:
    """An executor whose reflectors hear what a test says."""

    executor: KubernetesExecutor
    data: DataFolder
    cluster: FakeApiServer

    @property
    def inventory(self):
        return self.executor._inventory

    @property
    def collector(self):
        return self.executor._collector

    @property
    def job(self) -> Job:
        return self.inventory.jobs[NAME]

    def begin(self) -> None:
        """Both lists are there, and empty; both watches are open."""
        for reflector in (self.inventory._jobs, self.inventory._pods):
            reflector._store.end_list({}, 1)
            reflector.synced.set()
            reflector._catch_up()

    def lose_touch(self) -> None:
        for reflector in (self.inventory._jobs, self.inventory._pods):
            reflector.stale_since = 0.0

    def list_jobs(self, version: int, *rows: JobRow) -> None:
        self.inventory._jobs._store.end_list({("n", each.name): each for each in rows}, version)
        self.inventory._jobs._catch_up()

    def list_pods(self, version: int, *rows: PodRow) -> None:
        self.inventory._pods._store.end_list({("n", each.name): each for each in rows}, version)
        self.inventory._pods._catch_up()

    def news(self) -> Observation | None:
        return self.executor._news_of(NAME)

    async def end(self) -> Observation:
        """The first that is told of its end."""
        found: list[Observation] = []

        async def ended() -> bool:
            news = self.news()
            if news is not None and (news.gone or news.state.is_terminal):
                found.append(news)
            return bool(found)

        await until(ended)
        return found[0]

    def gaps(self, attempt: int = 1) -> int:
        return len(LogView(self.data.job(NAME).log(attempt)).gaps())


@asynccontextmanager
async def bench(folder: Path, pods: str = listed()) -> AsyncGenerator[Bench]:
    data = DataFolder(folder)
    data.jobs.mkdir(parents=True)
    async with fake_api_server(text(200, pods)) as cluster:
        api = KubernetesApi(cluster.config())
        executor = KubernetesExecutor(api, data, Site(namespace="n"))
        async with api, executor._collector:
            yield Bench(executor, data, cluster)
            tasks = tuple(executor._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_job_that_ended_without_a_pod_of_it_being_seen_has_a_gap(tmp_path: Path):
    async with bench(tmp_path) as one:
        one.begin()
        one.list_jobs(5, row("5", conditions=COMPLETE, had_pods=True))
        end = await one.end()
    assert (end.state, one.gaps()) == ("succeeded", 1)


async def test_one_that_was_seen_waiting_and_then_ended_has_a_gap(tmp_path: Path):
    async with bench(tmp_path) as one:
        one.begin()
        one.list_jobs(5, row("5"))
        one.lose_touch()
        one.list_pods(9)
        one.list_jobs(9, row("8", conditions=COMPLETE, had_pods=True))
        end = await one.end()
    assert (end.state, one.gaps()) == ("succeeded", 1)


async def test_a_pod_that_the_cluster_has_is_waited_for(tmp_path: Path):
    """The watch of pods may be behind that of Jobs."""
    own = {"name": "p", "uid": "p", "ownerReferences": [{"kind": "Job", "uid": "u"}]}
    async with bench(tmp_path, listed(own)) as one:
        one.begin()
        one.list_jobs(5, row("5", conditions=COMPLETE, had_pods=True))
        await until(lambda: one.cluster.requests)
        assert not one.job.went_unseen
        one.list_pods(9, pod("8", phase="Failed"))
        await one.end()
    assert one.gaps() == 0


async def test_nothing_is_missing_where_no_pod_has_ended(tmp_path: Path):
    async with bench(tmp_path) as one:
        one.begin()
        over = (Condition("Failed", "True", "DeadlineExceeded", "", CREATED),)
        one.list_jobs(5, row("5", conditions=over))
        end = await one.end()
    assert (end.state, one.gaps()) == ("failed", 0)
    assert not one.cluster.requests


async def test_the_list_of_jobs_may_come_before_that_of_pods(tmp_path: Path):
    """A Job that was deleted in the background, while its pod is still there."""
    async with bench(tmp_path) as one:
        one.begin()
        one.list_jobs(5, row("5"))
        one.lose_touch()
        one.list_jobs(9)
        assert one.news() is None
        one.list_pods(9, pod("8", phase="Running"))
        await until(lambda: one.collector.attempt_of(NAME, "p"))
        assert (one.collector.attempts(NAME), one.gaps()) == (1, 0)


async def test_without_any_pod_the_log_of_a_lost_job_has_a_gap_once_all_pods_are_known(
    tmp_path: Path,
):
    async with bench(tmp_path) as one:
        one.begin()
        one.list_jobs(5, row("5"))
        one.lose_touch()
        one.list_jobs(9)
        assert one.news() is None
        one.list_pods(9)
        end = await one.end()
    assert (end.gone, one.gaps()) == (True, 1)


async def test_what_becomes_of_a_job_whose_end_is_recorded_is_no_matter(tmp_path: Path):
    async with bench(tmp_path) as one:
        one.begin()
        one.list_jobs(5, row("5", conditions=COMPLETE))
        await one.end()
        await one.executor.settle([NAME])
        one.lose_touch()
        one.list_pods(9)
        one.list_jobs(9)
        assert one.news() is None
        assert NAME not in one.inventory.jobs
    assert not one.data.job(NAME).path.exists()


async def test_a_stopped_job_whose_pod_was_seen_to_go_has_no_gap(tmp_path: Path):
    async with bench(tmp_path) as one:
        one.begin()
        one.list_jobs(5, row("5"))
        waiting = pod("6", phase="Pending")
        one.inventory._pods._store.set(waiting)
        one.job.stop_asked = True
        one.inventory._pods._store.remove(("n", "p"), 8, waiting)
        one.list_jobs(9)
        end = await one.end()
    assert (end.message, one.gaps()) == ("stopped before it started", 0)


async def test_one_that_is_being_deleted_is_not_written_off_before_its_log_is_whole(
    tmp_path: Path,
):
    async with bench(tmp_path) as one:
        one.begin()
        one.list_jobs(5, row("5", deleted=CREATED))
        gone = f"{NAME}-gone"
        assert await one.executor.write_off([NAME, gone]) == [gone]
        assert len(LogView(one.data.job(gone).log(1)).gaps()) == 1


async def test_a_change_that_cannot_be_taken_keeps_no_other_back(tmp_path: Path):
    async with bench(tmp_path) as one:
        one.begin()
        changed, told = one.inventory._changed, list[str]()

        def first_fails(job: Job) -> None:
            told.append(job.name)
            if len(told) == 1:
                raise RuntimeError("one of them")
            changed(job)

        one.inventory._changed = first_fails
        one.list_jobs(5, row("5"), replace(row("5"), name="model-training-b", uid="b"))
        assert told == [NAME, "model-training-b"]
        assert set(one.inventory.jobs) == {NAME, "model-training-b"}


@pytest.mark.parametrize(
    ("managed_by", "status", "had_pods"),
    [
        (None, {"succeeded": 1}, True),
        ("kubernetes.io/job-controller", {"failed": 2}, True),
        ("example.com/another", {"succeeded": 1}, False),
        (None, {"active": 1}, False),
    ],
)
def test_a_job_tells_whether_pods_of_it_have_ended(
    managed_by: str | None, status: dict[str, int], had_pods: bool
):
    spec = {"template": {}} | ({"managedBy": managed_by} if managed_by else {})
    meta = {"name": NAME, "uid": "u", "resourceVersion": "1", "creationTimestamp": CREATED}
    raw = json.dumps({"metadata": meta, "spec": spec, "status": status}).encode()
    assert decode_job(raw).had_pods == had_pods
