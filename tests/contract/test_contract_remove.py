"""Remove: whatever runs is ended, and nothing is left."""

import asyncio
from collections.abc import Callable

import pytest

from model_training.errors import ExecutorUnavailable
from model_training.jobs import JobState, Reason
from tests.contract.lab import Case, Lab
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def test_removing_a_running_job_ends_its_processes_and_leaves_nothing(lab: Lab) -> None:
    name = await lab.launch(lab.sh("sleep 1000 & sleep 1000 & echo up; wait"))
    await lab.printed(name, b"up\n")
    assert len(lab.processes()) >= 3
    await lab.executor.remove(name)
    await lab.gone(name)
    assert lab.processes() == []
    assert lab.bench.traces() == []
    await lab.restart()
    assert name not in lab.watch.snapshot
    assert lab.starts(name) == 1


async def test_a_removed_job_has_its_grace(lab: Lab) -> None:
    script = 'trap \'echo saved > "$WITNESS.saved"; exit 0\' TERM\necho up\nread x < "$GO"'
    name = await lab.launch(lab.sh(script), grace_s=10.0)
    await lab.printed(name, b"up\n")
    await lab.executor.remove(name)
    await lab.gone(name)
    assert (lab.bench.shared / f"{name}.witness.saved").read_text() == "saved\n"


async def test_removing_an_ended_job_leaves_nothing(lab: Lab) -> None:
    name = await lab.launch(lab.sh("echo words; echo kept > $MODEL_TRAINING_OUTPUT/model"))
    await lab.ended(name)
    await lab.executor.remove(name)
    await lab.gone(name)
    assert lab.bench.traces() == []


async def test_removing_a_settled_job_leaves_nothing(lab: Lab) -> None:
    name = await lab.launch(lab.sh("true"))
    await lab.ended(name)
    await lab.executor.settle([name])
    await lab.restart()
    await lab.executor.remove(name)
    await lab.gone(name)
    assert lab.bench.traces() == []


async def test_removing_what_is_not_there_says_gone_again(lab: Lab) -> None:
    name = await lab.launch(lab.sh("true"))
    await lab.ended(name)
    await lab.executor.remove(name)
    await lab.gone(name)
    times = len(lab.watch.history(name))
    await lab.executor.remove(name)
    await until(lambda: len(lab.watch.history(name)) > times)
    assert lab.last(name).gone
    await lab.restart()
    await lab.executor.remove(name)
    await lab.gone(name)


async def test_removing_a_job_by_many_at_once_is_removing_it(lab: Lab) -> None:
    name = await lab.launch(lab.waiting())
    await lab.running(name)
    await asyncio.gather(*(lab.executor.remove(name) for _ in range(10)))
    await lab.gone(name)
    assert lab.bench.traces() == []
    assert lab.processes() == []


async def test_a_job_launched_while_its_name_is_removed_is_kept_or_refused(
    open_lab: Callable[..., Lab],
) -> None:
    async with open_lab(slots=1) as lab:
        names = {await launch_while_removed(lab) for _ in range(10)}
        await until(lambda: not any(lab.last(name).gone for name in names))
        await lab.restart()
        assert names == set(lab.watch.snapshot)


async def launch_while_removed(lab: Lab) -> str:
    spec = lab.spec(lab.waiting())
    await lab.executor.remove(spec.name)

    async def is_launched() -> bool:
        try:
            await lab.launch_spec(spec)
        except ExecutorUnavailable:
            return False
        return True

    await until(is_launched)
    return spec.name


async def test_jobs_removed_while_they_are_launched_leave_nothing(lab: Lab) -> None:
    specs = [lab.spec(lab.sh("true")) for _ in range(10)]
    for spec in specs:
        await asyncio.gather(lab.launch_spec(spec), lab.executor.remove(spec.name))
        await lab.gone(spec.name)
    assert lab.bench.traces() == []


async def test_jobs_removed_while_they_start_leave_nothing(lab: Lab) -> None:
    names = [await lab.launch(lab.waiting()) for _ in range(8)]
    for name in names:
        await lab.executor.remove(name)
    for name in names:
        await lab.gone(name)
        assert lab.starts(name) <= 1
    assert lab.processes() == []
    assert lab.bench.traces() == []


async def test_a_job_removed_while_it_is_stopped_is_gone(lab: Lab) -> None:
    name = await lab.launch(lab.sh("trap '' TERM; echo up; read x < \"$GO\""), grace_s=1.0)
    await lab.printed(name, b"up\n")
    await lab.executor.stop(name)
    await lab.executor.remove(name)
    await lab.gone(name)
    assert lab.processes() == []


async def test_a_removed_waiting_job_never_starts_and_the_next_one_does(
    open_lab: Callable[..., Lab],
) -> None:
    async with open_lab(slots=1) as lab:
        lab.needs(Case.QUEUE)
        holder = await lab.launch(lab.waiting())
        await lab.running(holder)
        removed, behind = [await lab.launch(lab.sh("true")) for _ in range(2)]
        await lab.seen(removed, JobState.PENDING, reason=Reason.WAITING_FOR_SLOT)
        await lab.executor.remove(removed)
        await lab.gone(removed, within=2)
        await lab.executor.remove(holder)  # frees the slot
        assert (await lab.ended(behind)).state is JobState.SUCCEEDED
        assert lab.starts(removed) == 0
