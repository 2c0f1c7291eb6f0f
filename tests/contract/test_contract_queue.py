"""The queue: first in, first out, never more at once than there is room for."""

from collections.abc import Callable

import pytest

from model_training.jobs import JobState, Observation, Reason, Resources
from tests.contract.lab import Case, Lab

pytestmark = pytest.mark.anyio


async def test_jobs_start_in_the_order_they_came(open_lab: Callable[..., Lab]) -> None:
    async with open_lab(slots=1) as lab:
        lab.needs(Case.QUEUE)
        order = lab.bench.shared / "order"
        names = [await lab.launch(lab.sh(f"echo {i} >> {order}")) for i in range(20)]
        for name in names:
            await lab.ended(name, within=30)
        assert order.read_text().split() == [str(i) for i in range(20)]


async def test_many_jobs_wait_and_end_each_with_its_exit_code(
    open_lab: Callable[..., Lab],
) -> None:
    slots = 4
    async with open_lab(slots=slots) as lab:
        count = 300 if lab.has(Case.THREE_HUNDRED) else 30
        order = lab.bench.shared / "order"
        holders = await _hold(lab)
        scripts = [f"echo {i} >> {order}; exit {i % 256}" for i in range(count)]
        names = [await lab.launch(lab.sh(script)) for script in scripts]
        if holders:
            for name in names:
                waits = await lab.seen(name, JobState.PENDING)
                assert waits.reason == Reason.WAITING_FOR_SLOT
            assert not order.exists()
        for holder in holders:
            await lab.go(holder)
        for i, name in enumerate(names):
            _assert_exit_code(await lab.ended(name, within=60), i % 256)
            assert lab.starts(name) == 1
        started = [int(number) for number in order.read_text().split()]
        assert sorted(started) == list(range(count))
        if holders:
            # Jobs begin at once in so many slots: neighbours may be seen in turned order.
            assert max(abs(place - i) for place, i in enumerate(started)) <= 3 * slots


async def _hold(lab: Lab) -> list[str]:
    """Jobs that take all slots until they are told to go on; none where there are no slots."""
    if not lab.has(Case.QUEUE):
        return []
    holders = [await lab.launch(lab.waiting()) for _ in range(lab.slots)]
    for holder in holders:
        await lab.running(holder)
    return holders


def _assert_exit_code(end: Observation, code: int) -> None:
    wanted = (JobState.FAILED, Reason.ERROR) if code else (JobState.SUCCEEDED, None)
    assert (end.state, end.reason, end.exit_code) == (*wanted, code)
    assert not code or str(code) in (end.message or "")


async def test_no_more_run_at_once_than_there_are_slots(open_lab: Callable[..., Lab]) -> None:
    slots = 3
    async with open_lab(slots=slots) as lab:
        lab.needs(Case.QUEUE)
        held = lab.bench.shared / "held"
        script = f"echo + >> {held}; sleep 0.1; echo - >> {held}"
        names = [await lab.launch(lab.sh(script)) for _ in range(12)]
        for name in names:
            await lab.ended(name, within=30)
        running = most = 0
        for sign in held.read_text().split():
            running += 1 if sign == "+" else -1
            most = max(most, running)
        assert most == slots


async def test_every_kind_of_end_frees_its_slot(open_lab: Callable[..., Lab]) -> None:
    async with open_lab(slots=1) as lab:
        lab.needs(Case.QUEUE)
        await lab.launch(["no-such-command"])
        await lab.launch(lab.sh("kill -9 $$"))
        await lab.launch(lab.waiting(), timeout_s=0.2)
        stopped = await lab.launch(lab.waiting())
        removed = await lab.launch(lab.waiting())
        last = await lab.launch(lab.sh("true"))
        await lab.running(stopped)
        await lab.executor.stop(stopped)
        await lab.running(removed)
        await lab.executor.remove(removed)
        assert (await lab.ended(last)).state is JobState.SUCCEEDED


def _overlaps(lines: list[str]) -> list[str]:
    """Indices that were handed out while another job held them."""
    held: set[str] = set()
    twice: list[str] = []
    for line in lines:
        sign, _, indices = line.partition(" ")
        for index in indices.split(","):
            if sign == "+" and index in held:
                twice.append(index)
            (held.add if sign == "+" else held.discard)(index)
    return twice


async def test_no_gpu_is_handed_out_twice(open_lab: Callable[..., Lab]) -> None:
    async with open_lab(slots=6, gpus=[0, 1, 2]) as lab:
        lab.needs(Case.QUEUE)
        held = lab.bench.shared / "held"
        script = f"""echo "+ $CUDA_VISIBLE_DEVICES" >> {held}; sleep 0.1
            echo "- $CUDA_VISIBLE_DEVICES" >> {held}; echo "$CUDA_VISIBLE_DEVICES" """
        asked = [1, 2, 1, 3, 1, 1, 1, 2, 2, 3, 1, 1]
        names = [await lab.launch(lab.sh(script), resources=Resources(gpu=n)) for n in asked]
        for count, name in zip(asked, names, strict=True):
            end = await lab.ended(name, within=30)
            assert end.state is JobState.SUCCEEDED
            indices = lab.log(name).decode().strip().split(",")
            assert len(set(indices)) == len(indices) == count
            assert set(indices) <= {"0", "1", "2"}
        assert _overlaps(held.read_text().splitlines()) == []


async def test_a_job_that_asks_for_no_gpu_sees_none(open_lab: Callable[..., Lab]) -> None:
    async with open_lab(gpus=[0, 1]) as lab:
        lab.needs(Case.QUEUE)
        name = await lab.launch(lab.sh('echo "<$CUDA_VISIBLE_DEVICES>"'))
        await lab.ended(name)
        assert lab.log(name) == b"<>\n"


async def test_a_small_job_does_not_overtake_one_that_waits_for_gpus(
    open_lab: Callable[..., Lab],
) -> None:
    async with open_lab(gpus=[0, 1, 2]) as lab:
        lab.needs(Case.QUEUE)
        holder = await lab.launch(lab.waiting(), resources=Resources(gpu=2))
        await lab.running(holder)
        large = await lab.launch(lab.sh("true"), resources=Resources(gpu=3))
        small = await lab.launch(lab.sh("true"), resources=Resources(gpu=1))
        waits = await lab.seen(large, JobState.PENDING)
        assert "GPU" in waits.message
        await lab.seen(small, JobState.PENDING)
        await lab.go(holder)
        first, second = [await lab.ended(name) for name in (large, small)]
        assert first.started_at < second.started_at


async def test_a_job_keeps_its_gpus_over_a_restart(
    open_lab: Callable[..., Lab], killable: bool
) -> None:
    async with open_lab(gpus=[0, 1, 2], killable=killable) as lab:
        lab.needs(Case.QUEUE)
        script = 'echo "$CUDA_VISIBLE_DEVICES"; read x < "$GO"'
        holder = await lab.launch(lab.sh(script), resources=Resources(gpu=2))
        await lab.printed(holder, b"\n")
        await lab.restart()
        beside = await lab.launch(lab.sh(script), resources=Resources(gpu=1))
        behind = await lab.launch(lab.sh(script), resources=Resources(gpu=3))
        await lab.printed(beside, b"\n")
        held = [set(lab.log(name).decode().strip().split(",")) for name in (holder, beside)]
        assert held[0] | held[1] == {"0", "1", "2"}
        assert lab.starts(behind) == 0
        await lab.go(holder)
        await lab.go(beside)
        await lab.go(behind)
        assert (await lab.ended(behind)).state is JobState.SUCCEEDED
