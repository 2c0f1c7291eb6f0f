"""What the tracker asks of the executor by itself: repeated stops and deletes, and retention."""

import contextlib
import os
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from model_training.executors.local import endings, records, shelves
from model_training.executors.local.executor import LocalExecutor
from model_training.executors.local.intake import Applicant, accept_all
from model_training.folders import DataFolder
from model_training.jobs import JobState, format_time
from model_training.ledger.ledger import JobFilter, Ledger
from model_training.logs.follow import Followers
from model_training.tracker import RETENTION_BATCH, Tracker
from tests.unit.local_bench import sh
from tests.waiting import until

pytestmark = pytest.mark.anyio

RETENTION = timedelta(hours=1)
NOW = datetime.now(UTC)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncGenerator[Ledger]:
    opened = await Ledger.open(tmp_path / "ledger.sqlite3")
    yield opened
    await opened.close()


@asynccontextmanager
async def service(
    data: DataFolder, ledger: Ledger, retention: timedelta | None
) -> AsyncGenerator[LocalExecutor]:
    async with (
        LocalExecutor(data, slots=2, gpus=()) as executor,
        Tracker(executor, ledger, Followers(), data, retention=retention),
    ):
        yield executor


def ended_jobs(data: DataFolder, count: int) -> list[str]:
    """Jobs that ended long ago, a minute after each other; the one that ended first comes first."""
    shelves.prepare(data)
    specs = [sh("true") for _ in range(count)]
    process = {"environment": {}, "environments": str(data.environments), "log_limit": 1 << 30}
    assert not accept_all(data, [Applicant(spec, n, process) for n, spec in enumerate(specs, 1)])
    for number, spec in enumerate(specs):
        at = datetime.now(UTC) - timedelta(days=7) + timedelta(minutes=number)
        endings.end_unstarted(data.job(spec.name), format_time(at))
    return [spec.name for spec in specs]


@contextlib.contextmanager
def stubborn(data: DataFolder, names: Iterable[str]) -> Generator[None]:
    """Broken specs, and somebody who holds the jobs' locks and will not go."""
    held: list[int | None] = []
    for name in names:
        data.job(name).spec.write_text("{")
        held.append(records.lock(data.job(name).lock))
    assert None not in held
    try:
        yield
    finally:
        for lock in held:
            os.close(lock or 0)


async def names(ledger: Ledger) -> set[str]:
    return {job.name for _, job in await ledger.page(JobFilter(), before=None, limit=1000)}


async def test_a_full_batch_that_cannot_be_removed_holds_up_nobody_and_is_asked_for_once(
    data: DataFolder, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = ended_jobs(data, RETENTION_BATCH + 5)
    stuck, others = set(old[:RETENTION_BATCH]), set(old[RETENTION_BATCH:])
    async with service(data, ledger, None):
        await until(lambda: data.open_jobs.exists() and not list(data.open_jobs.iterdir()))
    looks: list[list[str]] = []

    async def look(moment: datetime, limit: int) -> list[str]:
        looks.append(await Ledger.ended_before(ledger, moment, limit))
        return looks[-1]

    monkeypatch.setattr(ledger, "ended_before", look)
    with stubborn(data, stuck):
        async with service(data, ledger, RETENTION) as executor:
            fresh = (await executor.launch(sh("true"))).name

            async def only_the_stuck_are_left() -> bool:
                job = await ledger.get(fresh)
                is_over = job is not None and job.state is JobState.SUCCEEDED
                return is_over and await names(ledger) == stuck | {fresh}

            await until(only_the_stuck_are_left)
            assert set(await ledger.deleting()) == stuck
            assert [set(look) for look in looks] == [stuck, others]
    # Asked for again by the next life, when they can be removed.
    async with service(data, ledger, RETENTION):
        assert await until(lambda: is_all(ledger, {fresh}))
    assert [path.name for path in data.jobs.glob("[!.]*/*")] == [fresh]
    assert list(data.gone_jobs.iterdir()) == []


@pytest.mark.parametrize("listed", ["stopping", "deleting", "ended_before"])
async def test_a_new_job_under_the_name_of_one_that_was_listed_is_left_alone(
    data: DataFolder, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, listed: str
) -> None:
    async with service(data, ledger, None) as executor:
        new, old = [(await executor.launch(sh("sleep 100"))).name for _ in range(2)]
        for name in (new, old):
            await until(lambda name=name: is_in(ledger, name, JobState.RUNNING))
        if listed == "ended_before":
            await executor.stop(old)
            await until(lambda: is_in(ledger, old, JobState.STOPPED))
        else:
            await ledger.ask(old, {"stopping": "stop", "deleting": "delete"}[listed], "me", NOW)

        async def as_it_was(*_args: object) -> list[str]:
            return [new, old]

        monkeypatch.setattr(ledger, listed, as_it_was)
        async with Tracker(executor, ledger, Followers(), data, retention=RETENTION):
            if listed == "stopping":
                await until(lambda: is_in(ledger, old, JobState.STOPPED))
            else:
                await until(lambda: is_all(ledger, {new}))
        assert await is_in(ledger, new, JobState.RUNNING)
        assert (await executor.launch(sh("", name=new))).state is JobState.RUNNING
        for name in (new, old):
            await ledger.ask(name, "delete", "me", NOW)
            await executor.remove(name)
        await until(lambda: is_all(ledger, set()))


async def is_in(ledger: Ledger, name: str, state: JobState) -> bool:
    job = await ledger.get(name)
    return job is not None and job.state is state


async def is_all(ledger: Ledger, wanted: set[str]) -> bool:
    return await names(ledger) == wanted
