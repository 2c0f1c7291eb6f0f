"""Stop: gently, once, in every state."""

import signal
import time
from collections.abc import Callable

import pytest

from model_training.jobs import JobState, Reason
from tests.contract.lab import Case, Lab
from tests.contract.leftovers import is_alive
from tests.waiting import until

pytestmark = pytest.mark.anyio

# Counts every SIGTERM, and ends only when it is told to.
COUNTS_TERMS = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: print("term", flush=True))
print("ready", flush=True)
open(os.environ["GO"]).read()
print("saved", flush=True)
sys.exit(7)"""


async def test_a_stopped_job_gets_sigterm_and_its_grace(lab: Lab) -> None:
    name = await lab.launch(lab.py(COUNTS_TERMS), grace_s=20.0)
    await lab.printed(name, b"ready\n")
    await lab.executor.stop(name)
    await lab.printed(name, b"term\n")
    await lab.seen(name, JobState.STOPPING)
    await lab.go(name)
    end = await lab.ended(name)
    assert (end.state, end.exit_code) == (JobState.STOPPED, 7)
    assert lab.log(name) == b"ready\nterm\nsaved\n"


async def test_stopping_twice_is_stopping_once(lab: Lab) -> None:
    name = await lab.launch(lab.py(COUNTS_TERMS), grace_s=20.0)
    await lab.printed(name, b"ready\n")
    await lab.executor.stop(name)
    await lab.printed(name, b"term\n")
    for _ in range(3):
        await lab.executor.stop(name)
    other = await lab.launch(lab.waiting())  # whatever the executor still had to do is done
    await lab.running(other)
    await lab.executor.stop(other)
    await lab.ended(other)
    await lab.go(name)
    end = await lab.ended(name)
    assert (end.state, end.exit_code) == (JobState.STOPPED, 7)
    assert lab.log(name).count(b"term\n") == 1


async def test_a_job_that_does_nothing_about_sigterm_ends_at_once(lab: Lab) -> None:
    name = await lab.launch(lab.waiting(), grace_s=30.0)
    await lab.begun(name)
    begin = time.monotonic()
    await lab.executor.stop(name)
    end = await lab.ended(name)
    assert time.monotonic() - begin < 3 + lab.late_s
    assert (end.state, end.exit_code) == (JobState.STOPPED, 128 + signal.SIGTERM)
    assert lab.processes() == []


async def test_a_job_that_ignores_sigterm_is_killed_after_its_own_grace(lab: Lab) -> None:
    name = await lab.launch(lab.sh("trap '' TERM; echo ready; read x < \"$GO\""), grace_s=1.5)
    await lab.printed(name, b"ready\n")
    begin = time.monotonic()
    await lab.executor.stop(name)
    end = await lab.ended(name)
    assert 1.5 <= time.monotonic() - begin < 3.5 + lab.late_s
    assert (end.state, end.exit_code) == (JobState.STOPPED, 128 + signal.SIGKILL)
    assert lab.processes() == []


async def test_no_grace_means_at_once(lab: Lab) -> None:
    name = await lab.launch(lab.sh("trap '' TERM; echo ready; read x < \"$GO\""), grace_s=0.0)
    await lab.printed(name, b"ready\n")
    begin = time.monotonic()
    await lab.executor.stop(name)
    end = await lab.ended(name)
    assert time.monotonic() - begin < 2 + lab.late_s
    assert (end.state, end.exit_code) == (JobState.STOPPED, 128 + signal.SIGKILL)


async def test_a_job_that_ends_well_while_it_is_stopped_was_stopped(lab: Lab) -> None:
    name = await lab.launch(lab.sh("trap 'exit 0' TERM; echo ready; read x < \"$GO\""))
    await lab.printed(name, b"ready\n")
    await lab.executor.stop(name)
    end = await lab.ended(name)
    assert (end.state, end.exit_code) == (JobState.STOPPED, 0)


async def test_a_stop_ends_the_children_that_outlive_their_parent(lab: Lab) -> None:
    script = "trap 'exit 3' TERM\nsh -c \"trap '' TERM; echo ready; read x < '$GO'\"\nwait"
    name = await lab.launch(lab.sh(script), grace_s=1.0)
    await lab.printed(name, b"ready\n")
    await lab.executor.stop(name)
    end = await lab.ended(name)
    assert end.state is JobState.STOPPED
    assert lab.processes() == []


async def test_jobs_stopped_while_they_start_never_run_on(lab: Lab) -> None:
    names = [await lab.launch(lab.waiting()) for _ in range(4)]
    for _ in range(4):
        for name in names[-4:]:
            await lab.executor.stop(name)
        for name in names[-4:]:
            end = await lab.ended(name)
            assert end.state is JobState.STOPPED
            assert lab.starts(name) <= 1
        assert lab.processes() == []
        names += [await lab.launch(lab.waiting()) for _ in range(4)]


async def test_a_stopped_waiting_job_ends_at_once_and_never_starts(
    open_lab: Callable[..., Lab],
) -> None:
    async with open_lab(slots=1) as lab:
        lab.needs(Case.QUEUE)
        holder = await lab.launch(lab.waiting())
        await lab.running(holder)
        stopped, behind = [await lab.launch(lab.sh("echo ran")) for _ in range(2)]
        await lab.seen(stopped, JobState.PENDING, reason=Reason.WAITING_FOR_SLOT)
        await lab.executor.stop(stopped)
        end = await lab.ended(stopped, within=2)
        assert (end.state, end.exit_code, end.started_at) == (JobState.STOPPED, None, None)
        await lab.go(holder)
        assert (await lab.ended(behind)).state is JobState.SUCCEEDED
        assert (lab.starts(stopped), lab.log(stopped)) == (0, b"")


async def test_stopping_what_has_ended_or_never_was_changes_nothing(lab: Lab) -> None:
    name = await lab.launch(lab.sh("exit 3"))
    end = await lab.ended(name)
    await lab.executor.stop(name)
    await lab.executor.stop("model-training-contract-not-there")
    other = await lab.launch(lab.sh("true"))
    await lab.ended(other)
    assert lab.last(name).state is JobState.FAILED
    assert lab.last(name).exit_code == 3
    await lab.restart()
    again = lab.watch.snapshot[name]
    assert (again.state, again.reason, again.exit_code) == (end.state, end.reason, 3)
    assert lab.watch.history("model-training-contract-not-there") == []


async def test_a_job_stopped_while_its_environment_is_built_never_starts(
    lab: Lab, slow_requirements: Callable[..., str]
) -> None:
    lab.needs(Case.FOLDER)
    requirements = slow_requirements("slow")
    name = await lab.launch(lab.sh("true"), requirements=requirements)
    await lab.seen(name, JobState.PENDING, reason=Reason.PREPARING_ENVIRONMENT, within=30)
    building = lab.bench.shared / "slow.building"
    await until(building.exists, 30)
    await lab.executor.stop(name)
    end = await lab.ended(name)
    assert (end.state, end.started_at, lab.starts(name)) == (JobState.STOPPED, None, 0)
    assert lab.processes() == []
    assert not is_alive(int(building.read_text()))
