"""What an executor said, and what must hold for all that it says of one job."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from model_training.executors.base import Change, Snapshot
from model_training.jobs import TRANSITIONS, JobState, Observation


class Observed(Protocol):
    """Whatever can be observed."""

    def observe(self, *, everything: bool = False) -> AsyncGenerator[Snapshot | Change]:
        """As ``Executor.observe``."""
        ...


class Watch:
    """Records all that ``observe`` yields, from the first snapshot on."""

    def __init__(self, executor: Observed) -> None:
        self._executor = executor
        self._history: dict[str, list[Observation]] = defaultdict(list)
        loop = asyncio.get_running_loop()
        self._first: asyncio.Future[tuple[Observation, ...]] = loop.create_future()
        self._task = asyncio.create_task(self._record())

    async def begin(self) -> None:
        """Wait for the snapshot."""
        await asyncio.wait({self._first, self._task}, timeout=20, return_when="FIRST_COMPLETED")
        self.check()
        assert self._first.done(), "no snapshot within 20 s"

    @property
    def snapshot(self) -> dict[str, Observation]:
        """The first snapshot, by name."""
        return {seen.name: seen for seen in self._first.result()}

    async def end(self) -> None:
        """Stop recording."""
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self.check()

    def check(self) -> None:
        """Fail if observing has ended, which it never does by itself."""
        if self._task.done():
            self._task.result()
            raise AssertionError("observe() ended by itself")

    def history(self, name: str) -> list[Observation]:
        """All observations of one job, oldest first."""
        return list(self._history[name]) if name in self._history else []

    async def _record(self) -> None:
        async for event in self._executor.observe():
            observations = tuple(event.observations)
            if not self._first.done():
                assert isinstance(event, Snapshot), "observe() begins with a snapshot"
                check_oldest_first(observations)
                self._first.set_result(observations)
            else:
                assert isinstance(event, Change), "after the snapshot come changes"
            for seen in observations:
                self._history[seen.name].append(seen)


def check_oldest_first(observations: Sequence[Observation]) -> None:
    """Judge the order of a snapshot."""
    created = [seen.spec.created_at for seen in observations]
    assert created == sorted(created), "a snapshot is not oldest first"


def check_history(lives: Sequence[Sequence[Observation]]) -> None:
    """Judge all observations of one job, a sequence for each life of the server side.

    Raises:
        AssertionError: a promise of ``executors/base.py`` or ``jobs.py`` was broken.
    """
    for life in lives:
        versions = [seen.version for seen in life]
        assert versions == sorted(set(versions)), f"versions do not grow: {versions}"
    before: Observation | None = None
    for seen in (seen for life in lives for seen in life):
        if seen.gone:  # what comes after it is another job of the same name
            before = None
            continue
        _check_one(seen)
        if before is not None:
            _check_step(before, seen)
        before = seen


def _check_one(seen: Observation) -> None:
    if seen.state is JobState.PENDING:
        assert seen.reason, f"pending says why: {seen}"
        assert seen.message, f"pending says why, for people: {seen}"
        assert seen.started_at is None, seen
    if seen.state is JobState.RUNNING:
        assert seen.started_at, f"running says since when: {seen}"
    if seen.state is JobState.SUCCEEDED:
        assert seen.exit_code == 0, seen
    if seen.state is JobState.FAILED:
        assert seen.reason, f"failed says why: {seen}"
        assert seen.message, f"failed says why, for people: {seen}"
    if seen.state.is_terminal:
        assert seen.finished_at, seen
        if seen.started_at is not None:
            assert seen.duration_s is not None, seen
            assert seen.duration_s >= 0, seen
    else:
        assert seen.finished_at is None, seen
        assert seen.exit_code is None, seen


def _check_step(before: Observation, seen: Observation) -> None:
    step = f"{before} then {seen}"
    assert seen.spec == before.spec, f"the spec changed: {step}"
    assert seen.state in TRANSITIONS[before.state] | {before.state}, step
    if before.state.is_terminal and seen.state.is_terminal:
        assert _outcome(before) == _outcome(seen), f"the outcome changed: {step}"
    if before.started_at is not None:
        assert seen.started_at == before.started_at, f"the start changed: {step}"


def _outcome(seen: Observation) -> tuple[object, ...]:
    times = (seen.started_at, seen.finished_at, seen.duration_s)
    return (seen.state, seen.reason, seen.message, seen.exit_code, seen.attempt, *times)
