"""Removals that cannot succeed at once, and the waiting line while jobs are stopped."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from model_training import trees
from model_training.executors.local.executor import LocalExecutor
from model_training.folders import DataFolder
from model_training.jobs import JobState
from tests.contract.leftovers import end_all, processes_of, reap
from tests.unit.local_bench import Watcher, sh, spec
from tests.waiting import PAUSE, until

pytestmark = pytest.mark.anyio

Work = Callable[..., AbstractAsyncContextManager[tuple[LocalExecutor, Watcher]]]

# Makes folders inside folders, more than Python can recurse into.
NEST = "import os\nfor _ in range(1500):\n    os.mkdir('d')\n    os.chdir('d')\n"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


@pytest.fixture(autouse=True)
def no_process_left(tmp_path: Path) -> Generator[None]:
    """Nothing runs on after a test, and the supervisors that it made our children are reaped.

    Where this process stands for two servers, nobody else waits for those of the first.
    """
    yield
    deadline = time.monotonic() + 5
    while (left := processes_of(str(tmp_path), tmp_path)) and time.monotonic() < deadline:
        time.sleep(PAUSE)
    end_all(str(tmp_path), tmp_path)
    reap()
    assert not left


@pytest.fixture
def work(data: DataFolder) -> Work:
    @asynccontextmanager
    async def at_work(*, slots: int = 2) -> AsyncGenerator[tuple[LocalExecutor, Watcher]]:
        async with LocalExecutor(data, slots=slots, gpus=()) as executor:
            watcher = Watcher(executor)
            await watcher.begin()
            yield executor, watcher
            await watcher.close()

    return at_work


@contextlib.contextmanager
def undeletable(path: Path) -> Generator[None]:
    """A file that nobody can delete meanwhile, as one of another user is for us."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    made = subprocess.run(["chattr", "+i", str(path)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no file can be made undeletable here: {made.stderr.decode()}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)


def nothing_left(data: DataFolder) -> bool:
    return not [*data.gone_jobs.iterdir(), *data.open_jobs.iterdir(), *data.jobs.glob("[!.]*/*")]


async def test_a_removal_that_cannot_succeed_yet_holds_nobody_up(
    work: Work, data: DataFolder
) -> None:
    left = data.gone_jobs / "model-training-local-left.1"
    async with work() as (executor, watcher):
        with undeletable(left / "output" / "file"):
            (left / "output" / "other").touch()
            async with asyncio.timeout(5):
                for _ in range(3):
                    await executor.remove("model-training-local-left")
            await until(lambda: not (left / "output" / "other").exists())
            assert watcher.seen == {}, "not gone while something is left"
        await watcher.until("model-training-local-left", gone=True)
    assert nothing_left(data)


async def test_a_job_that_made_folders_without_end_is_removed(work: Work, data: DataFolder) -> None:
    async with work() as (executor, watcher):
        name = (
            await executor.launch(spec(sys.executable, "-S", "-c", NEST, folder=data.root))
        ).name
        assert (await watcher.end(name)).exit_code == 0
        (data.root / "d").rename(data.job(name).output / "d")
        await executor.remove(name)
        await watcher.until(name, gone=True)
    assert nothing_left(data)


async def test_a_job_whose_spec_is_broken_is_removed(work: Work, data: DataFolder) -> None:
    async with work() as (executor, watcher):
        name = (await executor.launch(sh("true"))).name
        await watcher.end(name)
        await executor.settle([name])
        data.job(name).spec.write_text("{")
        await executor.remove(name)
        await watcher.until(name, gone=True)
    assert nothing_left(data)


async def test_a_running_job_whose_spec_broke_is_ended_and_removed(
    work: Work, data: DataFolder, tmp_path: Path
) -> None:
    async with work() as (executor, watcher):
        script = f"trap 'echo x > {tmp_path}/told; exit' TERM; sleep 100 & wait"
        name = (await executor.launch(sh(script))).name
        await watcher.until(name, JobState.RUNNING)
    for path in (data.job(name).spec, data.open_jobs / name):
        path.write_text("{")
    async with work() as (executor, watcher):
        assert watcher.seen == {}
        await executor.remove(name)
        await watcher.until(name, gone=True)
    assert (tmp_path / "told").exists()
    assert nothing_left(data)


async def test_a_long_removal_does_not_hold_up_the_end_and_is_finished_later(
    work: Work, data: DataFolder
) -> None:
    left = data.gone_jobs / "model-training-local-left.1"
    left.mkdir(parents=True)
    count = 40_000
    for number in range(count):
        (left / str(number)).touch()
    async with work():
        await until(lambda: len(list(left.iterdir())) < count, what="the removal has begun")
    assert left.exists(), "the end waited for the whole removal"
    async with work():
        await until(lambda: nothing_left(data))


def test_a_removal_goes_on_where_it_was_left(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / "tree" / str(number) / "inner").mkdir(parents=True)
    steps = iter([False] * 10)
    with pytest.raises(InterruptedError):
        trees.remove(tmp_path / "tree", lambda: next(steps, True))
    assert len([*tmp_path.glob("tree/*/inner")]) == 10
    trees.remove(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


async def test_a_job_stopped_at_the_moment_of_its_turn_never_starts(
    work: Work, data: DataFolder
) -> None:
    async with work(slots=1) as (executor, watcher):
        holder = (await executor.launch(sh("sleep 100"))).name
        waiting = (await executor.launch(sh("sleep 100"))).name
        stopping = asyncio.create_task(executor.stop(waiting))
        await asyncio.sleep(0)  # it has begun to stop
        executor._line._slots = 2
        executor._fill()
        await stopping
        end = await watcher.end(waiting)
        assert (end.state, end.message) == (JobState.STOPPED, "stopped before it started")
        assert not data.job(waiting).run.exists()
        for name in (holder, waiting):
            await executor.remove(name)
            await watcher.until(name, gone=True)
    assert nothing_left(data)
