"""The server side ends and begins anew: jobs go on, and what became of them is true.

Each state is tried in both ways: the server leaves as on shutdown, and it is killed with
SIGKILL together with its process group.
"""

import asyncio
import signal
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from model_training.jobs import JobState, Reason
from tests.contract.lab import WAIT, Case, Lab
from tests.waiting import until

pytestmark = pytest.mark.anyio

COUNTS_TERMS = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: print("term", flush=True))
print("ready", flush=True)
open(os.environ["GO"]).read()
print("saved", flush=True)
sys.exit(7)"""


@pytest.fixture
def restarted(open_lab: Callable[..., Lab], killable: bool) -> Callable[..., Lab]:
    """A lab whose server side ends in one of the two ways."""

    def make(**options: object) -> Lab:
        return open_lab(killable=killable, **options)

    return make


async def test_waiting_jobs_go_on_waiting_in_their_order(restarted: Callable[..., Lab]) -> None:
    async with restarted(slots=1) as lab:
        lab.needs(Case.QUEUE)
        holder = await lab.launch(lab.waiting())
        await lab.running(holder)
        order = lab.bench.shared / "order"
        names = [await lab.launch(lab.sh(f"echo {i} >> {order}")) for i in range(5)]
        await lab.restart()
        snapshot = lab.watch.snapshot
        assert snapshot[holder].state is JobState.RUNNING
        assert {snapshot[name].state for name in names} == {JobState.PENDING}
        names.append(await lab.launch(lab.sh(f"echo 5 >> {order}")))
        await lab.go(holder)
        for name in names:
            assert (await lab.ended(name)).state is JobState.SUCCEEDED
            assert lab.starts(name) == 1
        assert order.read_text().split() == ["0", "1", "2", "3", "4", "5"]


async def test_jobs_just_accepted_are_started_once(restarted: Callable[..., Lab]) -> None:
    async with restarted(slots=8) as lab:
        names: list[str] = []
        for _ in range(3):
            specs = [lab.spec(lab.sh(f"echo out; exit {len(names) + i}")) for i in range(4)]
            await asyncio.gather(*map(lab.launch_spec, specs))
            names += [spec.name for spec in specs]
            await lab.restart()
        for i, name in enumerate(names):
            assert (await lab.ended(name)).exit_code == i
            assert lab.starts(name) == 1
            assert lab.log(name) == b"out\n"


async def test_a_job_whose_environment_is_being_built_goes_on(
    restarted: Callable[..., Lab], slow_requirements: Callable[[str], str]
) -> None:
    async with restarted() as lab:
        lab.needs(Case.FOLDER)
        requirements = slow_requirements("away")
        argv = lab.sh("python3 -c 'import away' && exit 8")
        name = await lab.launch(argv, requirements=requirements)
        await until((lab.bench.shared / "away.building").exists, 30)
        await lab.restart()
        seen = lab.watch.snapshot[name]
        assert (seen.state, seen.reason) == (JobState.PENDING, Reason.PREPARING_ENVIRONMENT)
        await lab.go("away")
        assert (await lab.ended(name, within=30)).exit_code == 8
        assert lab.starts(name) == 1
        assert len((lab.bench.shared / "away.building").read_text().split()) == 1


async def test_a_running_job_runs_on_and_its_log_is_whole(restarted: Callable[..., Lab]) -> None:
    async with restarted() as lab:
        script = f"echo one; {WAIT}; echo two; {WAIT}; echo three; exit 7"
        name = await lab.launch(lab.sh(script))
        before = await lab.running(name)
        await lab.leave()
        await lab.go(name)
        if lab.has(Case.LOG_MEANWHILE):
            await lab.printed(name, b"two\n")
        await lab.enter()
        await lab.printed(name, b"two\n")
        seen = lab.watch.snapshot[name]
        assert (seen.state, seen.started_at) == (JobState.RUNNING, before.started_at), seen
        await lab.go(name)
        end = await lab.ended(name)
        assert (end.exit_code, lab.starts(name)) == (7, 1)
        assert lab.log(name) == b"one\ntwo\nthree\n"


async def test_a_job_that_is_being_stopped_is_stopped_once(
    restarted: Callable[..., Lab],
) -> None:
    async with restarted() as lab:
        name = await lab.launch(lab.py(COUNTS_TERMS), grace_s=20.0)
        await lab.printed(name, b"ready\n")
        await lab.executor.stop(name)
        await lab.printed(name, b"term\n")
        await lab.restart()
        assert lab.watch.snapshot[name].state is JobState.STOPPING
        await lab.executor.stop(name)
        await lab.go(name)
        end = await lab.ended(name)
        assert (end.state, end.exit_code) == (JobState.STOPPED, 7)
        assert lab.log(name) == b"ready\nterm\nsaved\n"


async def test_a_stop_that_was_answered_holds(restarted: Callable[..., Lab]) -> None:
    async with restarted(slots=1) as lab:
        running, waiting = [await lab.launch(lab.waiting()) for _ in range(2)]
        await lab.begun(running)
        await asyncio.gather(*map(lab.executor.stop, (running, waiting)))
        await lab.restart()
        for name in (running, waiting):
            assert (await lab.ended(name)).state is JobState.STOPPED
        if lab.has(Case.QUEUE):
            assert lab.starts(waiting) == 0


async def test_the_exit_code_of_a_job_that_ended_meanwhile_is_found(
    restarted: Callable[..., Lab],
) -> None:
    async with restarted() as lab:
        name = await lab.launch(lab.waiting("echo meanwhile; exit 9"))
        killed = await lab.launch(lab.waiting("kill -SEGV $$"))
        for job in (name, killed):
            await lab.begun(job)
        await lab.leave()
        for job in (name, killed):
            await lab.go(job)
        await lab.no_process_left(within=10)
        ended_before = datetime.now(UTC)
        await lab.enter()
        end = await lab.ended(name)
        assert (end.state, end.reason, end.exit_code) == (JobState.FAILED, Reason.ERROR, 9)
        assert end.started_at <= end.finished_at
        assert (end.finished_at - ended_before).total_seconds() < 0.5
        assert lab.log(name) == b"meanwhile\n"
        assert (await lab.ended(killed)).exit_code == 128 + 11
        assert lab.starts(name) == lab.starts(killed) == 1


async def test_a_timeout_needs_no_server(restarted: Callable[..., Lab]) -> None:
    async with restarted() as lab:
        name = await lab.launch(lab.waiting(), timeout_s=1.0)
        await lab.begun(name)
        await lab.leave()
        await lab.no_process_left(within=4)
        await lab.enter()
        assert (await lab.ended(name)).reason == Reason.TIMEOUT


async def test_a_removal_that_was_cut_off_can_be_repeated(restarted: Callable[..., Lab]) -> None:
    async with restarted(slots=2) as lab:
        names = [await lab.launch(lab.waiting()) for _ in range(3)]
        await lab.begun(names[0])
        await asyncio.gather(*map(lab.executor.remove, names))
        await lab.restart()
        await asyncio.gather(*map(lab.executor.remove, names))
        for name in names:
            await lab.gone(name)
            assert lab.starts(name) <= 1
        assert lab.processes() == []
        assert lab.bench.traces() == []


async def test_many_running_jobs_are_taken_over_each_with_its_own_end(
    restarted: Callable[..., Lab],
) -> None:
    async with restarted(slots=24) as lab:
        names = [await lab.launch(lab.waiting(f"echo {i}; exit {i}")) for i in range(24)]
        for name in names:
            await lab.begun(name, within=20)
        await lab.restart()
        for i, name in enumerate(names):
            await lab.go(name)
            assert (await lab.ended(name)).exit_code == i
            assert (lab.starts(name), lab.log(name)) == (1, f"{i}\n".encode())


async def test_a_slot_that_is_taken_stays_taken(restarted: Callable[..., Lab]) -> None:
    async with restarted(slots=2) as lab:
        lab.needs(Case.QUEUE)
        names = [await lab.launch(lab.waiting()) for _ in range(3)]
        for name in names[:2]:
            await lab.running(name)
        await lab.restart()
        seen = await lab.seen(names[2], JobState.PENDING)
        assert seen.reason == Reason.WAITING_FOR_SLOT
        await lab.go(names[0])
        await lab.ended(names[0])
        await lab.go(names[2])
        await lab.ended(names[2])
        assert lab.last(names[1]).state is JobState.RUNNING


async def test_ctrl_c_in_the_servers_terminal_is_not_for_its_jobs(
    open_lab: Callable[..., Lab],
) -> None:
    async with open_lab(killable=True) as lab:
        name = await lab.launch(lab.sh("trap 'echo signalled' INT TERM HUP\nread x < \"$GO\""))
        await lab.begun(name)
        await lab.leave(by=signal.SIGINT)
        await lab.enter()
        await lab.go(name)
        assert (await lab.ended(name)).exit_code == 0
        assert lab.log(name) == b""
