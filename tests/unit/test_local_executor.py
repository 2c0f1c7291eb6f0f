"""What the local executor alone can know: its folders, its queue, its devices, its restarts."""

import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from model_training import trees
from model_training.errors import ExecutorUnavailable, JobRejected
from model_training.executors.local import processes, records, shelves
from model_training.executors.local.executor import LocalExecutor
from model_training.executors.local.intake import Applicant, accept_all
from model_training.folders import DataFolder
from model_training.jobs import JobState, Resources
from model_training.pipelines.digests import FolderDigests
from tests.unit.local_bench import Watcher, accept, begin, begun, log_of, sh
from tests.waiting import until

pytestmark = pytest.mark.anyio

Work = Callable[..., AbstractAsyncContextManager[tuple[LocalExecutor, Watcher]]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


@pytest.fixture
async def work(data: DataFolder) -> AsyncGenerator[Work]:
    """An executor at work and what it says; at the very end every job of the test is removed."""

    @asynccontextmanager
    async def at_work(
        *, everything: bool = False, slots: int = 2, gpus: tuple[int, ...] = ()
    ) -> AsyncGenerator[tuple[LocalExecutor, Watcher]]:
        async with LocalExecutor(data, slots=slots, gpus=gpus) as executor:
            watcher = Watcher(executor, everything=everything)
            await watcher.begin()
            yield executor, watcher
            await watcher.close()

    yield at_work
    async with at_work(everything=True) as (executor, watcher):
        for name in list(watcher.seen):
            await executor.remove(name)
        for name in list(watcher.seen):
            await watcher.until(name, gone=True)


async def test_waiting_jobs_say_behind_what_and_are_told_when_it_moves(work: Work) -> None:
    async with work(slots=1) as (executor, watcher):
        first = await executor.launch(sh("sleep 100"))
        waiting = [await executor.launch(sh("sleep 100")) for _ in range(3)]
        assert [seen.message for seen in waiting] == [
            "waits for one of 1 slot; next in line",
            "waits for one of 1 slot; 1 job before it",
            "waits for one of 1 slot; 2 jobs before it",
        ]
        await executor.stop(first.name)
        last = waiting[-1].name
        await watcher.end(first.name)
        await until(
            lambda: _newest(executor, last) == "waits for one of 1 slot; 1 job before it", within=5
        )


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """As when others hold all that there are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_jobs_are_seen_through_although_descriptors_run_out(
    work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    async with work(slots=1) as (executor, watcher):
        first = await executor.launch(sh("sleep 0.7; exit 4"))
        second = await executor.launch(sh("exit 5"))
        await watcher.until(first.name, JobState.RUNNING)
        with no_more_descriptors():
            await until(lambda: "Too many open files" in caplog.text)
        assert (await watcher.end(first.name)).exit_code == 4
        assert (await watcher.end(second.name)).exit_code == 5


def _newest(executor: LocalExecutor, name: str) -> str | None:
    return executor._jobs[name].observation.message


async def test_gpus_are_never_handed_out_twice_also_after_a_restart(
    work: Work, data: DataFolder
) -> None:
    script = "echo $CUDA_VISIBLE_DEVICES; sleep 100"
    async with work(slots=4, gpus=(0, 1, 2)) as (executor, watcher):
        pair = await executor.launch(sh(script, resources=Resources(gpu=2)))
        await watcher.until(pair.name, JobState.RUNNING)
    async with work(slots=4, gpus=(0, 1, 2)) as (executor, watcher):
        single = await executor.launch(sh(script, resources=Resources(gpu=1)))
        late = await executor.launch(sh(script, resources=Resources(gpu=1)))
        none = await executor.launch(sh("echo [$CUDA_VISIBLE_DEVICES]"))
        assert late.message == "waits for 1 GPU, 0 of 3 free; next in line"
        assert none.reason == "WaitingForSlot", "nobody overtakes"
        await until(lambda: log_of(data, pair.name) == b"0,1\n")
        await until(lambda: log_of(data, single.name) == b"2\n")
        await executor.stop(single.name)
        await until(lambda: log_of(data, late.name) == b"2\n")
        await watcher.end(none.name)
        assert log_of(data, none.name) == b"[]\n"


async def test_the_digest_is_that_of_the_code_at_the_start_also_after_a_restart(
    data: DataFolder, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text("1")
    digest = FolderDigests().digest
    at_acceptance = digest(code)
    async with LocalExecutor(data, slots=1, gpus=(), digest_of=digest) as executor:
        watcher = Watcher(executor)
        await watcher.begin()
        holder = (await executor.launch(sh("sleep 100"))).name
        name = (await executor.launch(sh("true", folder=code, digest=at_acceptance))).name
        (code / "train.py").write_text("22")
        at_start = digest(code)
        await executor.stop(holder)
        seen = await watcher.end(name)
        await watcher.close()
    assert seen.digest == at_start != at_acceptance
    async with LocalExecutor(data, slots=1, gpus=()) as executor:
        watcher = Watcher(executor)
        await watcher.begin()
        assert watcher.seen[name][-1].digest == at_start
        for each in (holder, name):
            await executor.remove(each)
            await watcher.until(each, gone=True)
        await watcher.close()


async def test_what_cannot_be_enforced_is_refused_with_the_reason(
    work: Work, data: DataFolder
) -> None:
    async with work(gpus=(0,)) as (executor, _):
        many = len(os.sched_getaffinity(0)) + 1
        assert executor.cannot_enforce(Resources(gpu=1, cpu=1)) == {}
        refused = executor.cannot_enforce(Resources(gpu=2, cpu=0.5))
        assert refused["gpu"] == "this machine has 1 GPU, 2 asked"
        assert "whole CPUs" in refused["cpu"]
        assert f"{many} asked" in executor.cannot_enforce(Resources(cpu=many))["cpu"]
        with pytest.raises(JobRejected, match="gpu: this machine has 1 GPU"):
            await executor.launch(sh("true", resources=Resources(gpu=2)))
        assert list(data.open_jobs.iterdir()) == []


async def test_foreign_and_broken_things_in_the_data_folder_break_nothing(
    work: Work, data: DataFolder, caplog: pytest.LogCaptureFixture
) -> None:
    good, broken, foreign = (accept(data, sh(f"echo {n}; exit 3")) for n in range(3))
    for spec in (broken.folder.spec, data.open_jobs / broken.spec.name):
        spec.write_text('{"job": ')
    (data.open_jobs / "README").write_text("a note")
    (data.jobs / "notes.txt").write_text("another")
    (data.jobs / "00").mkdir(exist_ok=True)
    (data.jobs / "00" / "not a job").write_text("")
    (data.open_jobs / foreign.spec.name).unlink()
    foreign.folder.path.rename(foreign.folder.path.with_name("model-training-local-x"))
    (data.new_jobs / "model-training-local-half").mkdir()
    (data.gone_jobs / "model-training-local-old.1" / "output").mkdir(parents=True)
    async with work() as (executor, watcher):
        assert set(watcher.seen) == {good.spec.name}
        assert (await watcher.end(good.spec.name)).exit_code == 3
        again = await executor.launch(sh("exit 0"))
        await watcher.end(again.name)
        await until(lambda: not list(data.gone_jobs.iterdir()))
    assert list(data.new_jobs.iterdir()) == []
    assert (data.open_jobs / "README").exists()
    assert broken.spec.name in caplog.text
    (data.open_jobs / broken.spec.name).unlink()
    broken.folder.path.rename(data.gone_jobs / "broken")


async def test_settled_jobs_are_left_out_until_everything_is_asked_for(
    work: Work, data: DataFolder
) -> None:
    async with work() as (executor, watcher):
        done = await executor.launch(sh("exit 0"))
        lost = await executor.launch(sh("exit 4"))
        for job in (done, lost):
            await watcher.end(job.name)
        await executor.settle([done.name, lost.name, "model-training-local-unknown"])
        assert (await executor.launch(sh("true", name=done.name))).state is JobState.SUCCEEDED
    async with work() as (_, watcher):
        assert watcher.seen == {}
    data.job(lost.name).exit.unlink()  # as if it had never ended: its marker is missing too
    async with work(everything=True) as (_, watcher):
        assert set(watcher.seen) == {done.name, lost.name}
        assert (await watcher.end(lost.name)).reason == "SupervisorLost"


async def test_a_killed_supervisor_takes_its_whole_job_along(
    work: Work, data: DataFolder, tmp_path: Path
) -> None:
    """Also without a cgroup, which is how ``begin`` starts it."""
    helpers = "setsid nohup sleep 100 & sh -c 'sleep 100' & env -i sleep 100 &"
    script = f"{helpers} echo x > {tmp_path}/n; wait"
    job = accept(data, sh(script))
    pid = begin(job)
    await begun(tmp_path / "n")
    await until(lambda: (records.read(job.folder.run) or {}).get("phase") == "running")
    tree = await until(lambda: len(found := processes.descendants(pid)) >= 5 and found)
    async with work() as (_, watcher):
        assert watcher.seen[job.spec.name][-1].state is JobState.RUNNING
        os.kill(pid, signal.SIGKILL)
        end = await watcher.end(job.spec.name)
    assert (end.state, end.reason) == (JobState.FAILED, "SupervisorLost")
    assert end.started_at is not None
    states = {line.state for line in (processes.stat(member.pid) for member in tree) if line}
    assert states <= {"Z", "X"}


@pytest.mark.parametrize("what", ["boot_id", "pid_namespace"])
async def test_a_job_of_another_boot_failed_with_the_host(
    work: Work, data: DataFolder, what: str
) -> None:
    job = accept(data, sh("true"))
    here = processes.identity(os.getpid())
    assert here is not None
    before = {
        "boot_id": here._replace(boot_id="x"),
        "pid_namespace": here._replace(pid_namespace=1),
    }
    records.write(
        job.folder.run,
        {
            "phase": "running",
            "pid": 1,
            "supervisor": list(before[what]),
            "start_ticks": 1,
            "started_at": "2026-01-01T00:00:00.000000Z",
        },
    )
    async with work() as (_, watcher):
        end = await watcher.end(job.spec.name)
    assert (end.state, end.reason) == (JobState.FAILED, "HostRestarted")


async def test_two_hundred_running_jobs_are_adopted_in_under_two_seconds(
    work: Work, data: DataFolder
) -> None:
    """Held locks stand for supervisors, which is all that tells a job that runs."""
    held: list[int] = []
    here = processes.identity(os.getpid())
    assert here is not None
    for _ in range(200):
        job = accept(data, sh("true"))
        lock = records.lock(job.folder.lock)
        assert lock is not None
        held.append(lock)
        run = {"phase": "running", "supervisor": list(here), "pid": os.getpid(), "start_ticks": 1}
        job.folder.run.write_text(json.dumps(run | {"started_at": "2026-01-01T00:00:00.000000Z"}))
    begin_s = time.monotonic()
    async with work() as (_, watcher):
        took = time.monotonic() - begin_s
        states = {seen[-1].state for seen in watcher.seen.values()}
        assert (len(watcher.seen), states) == (200, {JobState.RUNNING})
    assert took < 2
    for lock in held:
        os.close(lock)
    for marker in data.open_jobs.iterdir():
        shelves.set_aside(data, marker.name)
        shelves.discard(data, marker.name)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"state": "running"}', '{"state": 5}'])
async def test_an_end_that_something_broke_is_written_anew(
    work: Work, data: DataFolder, content: str
) -> None:
    job = accept(data, sh("true"))
    records.write(job.folder.run, {"phase": "running", "supervisor": [1]})
    job.folder.exit.write_text(content)
    async with work() as (_, watcher):
        assert (await watcher.end(job.spec.name)).state is JobState.FAILED
    assert records.read(job.folder.exit)


async def test_a_launch_whose_caller_went_away_is_whole(work: Work, data: DataFolder) -> None:
    async with work() as (executor, watcher):
        wanted = sh("exit 6")
        caller = asyncio.create_task(executor.launch(wanted))
        await asyncio.sleep(0)
        caller.cancel()
        assert (await watcher.end(wanted.name)).exit_code == 6


async def test_the_plan_tells_names_of_what_is_taken_over_not_values(
    work: Work, data: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAKEN_OVER", "hidden")
    async with work() as (executor, _):
        plan = await executor.plan(sh("true", pass_env=("TAKEN_OVER",), parameters={"epochs": 3}))
    assert plan["command"] == ["sh", "-c", "true"]
    assert plan["environment"]["epochs"] == "3"  # pyright: ignore
    assert "hidden" not in json.dumps(plan)
    assert list(data.open_jobs.iterdir()) == []


def test_outputs_that_took_away_their_owners_rights_are_removed_too(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    inner = tmp_path / "job" / "output" / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    (inner.parent / "link").symlink_to(outside)
    for folder in (inner, inner.parent):
        folder.chmod(0)
    code = (
        "import sys; from pathlib import Path; from model_training import trees;"
        "trees.remove(Path(sys.argv[1]))"
    )
    # Root may do everything; without these two capabilities it may do what an owner may.
    as_owner = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    prefix = as_owner if os.getuid() == 0 else []
    subprocess.run([*prefix, sys.executable, "-c", code, str(tmp_path / "job")], check=True)
    assert not (tmp_path / "job").exists()
    assert outside.stat().st_mode & 0o777 == 0o755


async def test_a_job_whose_folder_a_power_cut_took_is_made_again(
    work: Work, data: DataFolder
) -> None:
    job = accept(data, sh("echo back; exit 3"))
    shutil.rmtree(job.folder.path)  # the names in its shard had not reached the disk
    async with work() as (_, watcher):
        assert (await watcher.end(job.spec.name)).exit_code == 3
        assert log_of(data, job.spec.name) == b"back\n"


async def test_a_spec_that_a_power_cut_tore_is_made_whole(work: Work, data: DataFolder) -> None:
    job = accept(data, sh("exit 3"))
    job.folder.spec.write_bytes(b"")
    async with work() as (_, watcher):
        assert (await watcher.end(job.spec.name)).exit_code == 3


async def test_a_batch_that_fails_is_told_and_does_not_hold_up_the_next(work: Work) -> None:
    wrong = sh("exit 0", timeout_s=object())  # nothing that can be written down
    async with work() as (executor, watcher):
        # The second one comes while the batch of the first is at work.
        failing = asyncio.create_task(executor.launch(wrong))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        good = (await executor.launch(sh("exit 3"))).name
        with pytest.raises(ExecutorUnavailable, match="could not be taken in"):
            await failing
        assert (await watcher.end(good)).exit_code == 3


async def test_jobs_accepted_at_the_same_time_are_each_found_again(
    work: Work, data: DataFolder
) -> None:
    shelves.prepare(data)
    specs = [sh(f"exit {n}") for n in range(3)]
    refused = accept_all(data, [Applicant(spec, n, {}) for n, spec in enumerate(specs, 1)])
    for spec in specs:
        shutil.rmtree(data.job(spec.name).path)
    shelves.prepare(data)

    found = sorted(shelves.find_open(data), key=lambda each: each.sequence)
    assert refused == {}
    assert [each.spec for each in found] == specs
    shelves.settle(data, [spec.name for spec in specs])
    assert list(data.open_jobs.iterdir()) == []
    for spec in specs:
        trees.remove(data.job(spec.name).path)
