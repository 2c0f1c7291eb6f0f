"""Observations into the ledger, and what follows from them.

The tracker is the only reader of the executor's observations and, with the service's own
``apply`` on submit, the only writer of states. It also drives what was asked for until it has
happened (stop, delete), lets go of finished jobs whose retention has passed, and tells whoever
waits for a job that it changed.
"""

import asyncio
import logging
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Self

from model_training.crash_points import reached
from model_training.errors import ModelTrainingError, Unavailable
from model_training.executors.base import Change, Executor, Snapshot
from model_training.folders import DataFolder
from model_training.jobs import TERMINAL, JobState, Observation, TrainingJob
from model_training.ledger.ledger import Ledger
from model_training.logs.follow import Followers

logger = logging.getLogger(__name__)

RETRY_S = 1.0  # seconds between tries while the ledger or the executor cannot be asked
REPEAT_S = 30.0  # seconds between looks for stops and deletes that got stuck
RETENTION_S = 60.0  # seconds between looks for jobs whose retention has passed
RECORD_BATCH = 1000  # observations in one transaction, so that others get their turn
RETENTION_BATCH = 100  # jobs let go of at a time, so that a long list does not hold the ledger


class Tracker:
    """Follows every job of one executor; runs from ``__aenter__`` to ``__aexit__``."""

    def __init__(
        self,
        executor: Executor,
        ledger: Ledger,
        followers: Followers,
        data: DataFolder,
        *,
        retention: timedelta | None = None,
    ) -> None:
        self._executor = executor
        self._ledger = ledger
        self._followers = followers
        self._data = data
        self._retention = retention
        self._changed: dict[str, asyncio.Event] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.synced = asyncio.Event()
        """set once the first snapshot stands in the ledger: readiness"""

    async def __aenter__(self) -> Self:
        """Begin to follow."""
        duties = [self._observe, self._repeat, self._let_go]
        self._tasks = [
            asyncio.create_task(self._guarded(duty), name=f"tracker{duty.__name__}")
            for duty in duties
        ]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop following; jobs go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _guarded(self, duty: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                return await duty()
            except Unavailable as error:
                logger.warning("%s; trying again", error.message)
            except Exception:
                # A background loop must outlive every error, or all jobs would stand still.
                logger.exception("the tracker failed; trying again")
            await asyncio.sleep(RETRY_S)

    # Observing

    async def _observe(self) -> None:
        newest = await self._ledger.newest()
        async with aclosing(self._executor.observe(everything=self._ledger.created)) as seen:
            await self._follow(seen, newest)

    async def _follow(self, seen: AsyncGenerator[Snapshot | Change], newest: int) -> None:
        async for event in seen:
            present = await self._record_all(event.observations)
            if isinstance(event, Snapshot):
                # Jobs that were accepted while the snapshot was recorded have not vanished.
                missing = await self._ledger.missing(present, up_to=newest)
                vanished = await self._executor.write_off(missing)
                self.tell(await self._ledger.write_off(vanished))
                if self._ledger.created:
                    await self._ledger.note_rebuilt()
                self.synced.set()
                await self._resume()

    async def _record_all(self, observations: Iterable[Observation]) -> set[str]:
        """The names of the jobs that were recorded."""
        names: set[str] = set()
        remaining = iter(observations)
        # Some at a time: there may be very many.
        while batch := tuple(islice(remaining, RECORD_BATCH)):
            await self.record(batch)
            names.update(observation.name for observation in batch)
        return names

    async def record(self, observations: Sequence[Observation]) -> None:
        """Write observations into the ledger and act on what they mean."""
        jobs = await self._ledger.apply(observations)
        reached("track.recorded")
        self.tell(jobs)
        for observation in observations:
            if observation.gone:
                await self._finish_removal(observation.name)
        ended = [o.name for o in observations if o.state.is_terminal and not o.gone]
        if ended:
            await self._executor.settle(ended)

    async def _finish_removal(self, name: str) -> None:
        job = await self._ledger.get(name)
        if job is None or job.state is not JobState.DELETING:
            return
        await asyncio.to_thread(shutil.rmtree, self._data.job(name).path, ignore_errors=True)
        reached("remove.gone")
        await self._ledger.remove(name)
        reached("remove.forgotten")
        self.end(name)
        self._wake(job)

    # What was asked for

    async def _resume(self) -> None:
        for name in await self._ledger.stopping():
            if await self._is_in({JobState.STOPPING}, name):
                await self._ask(self._executor.stop, name)
        for name in await self._ledger.deleting():
            if await self._is_in({JobState.DELETING}, name):
                await self._ask(self._executor.remove, name)

    async def _is_in(self, states: Collection[JobState], name: str) -> bool:
        """Whether it still is: since a list was read, it may have gone and a new one have come."""
        job = await self._ledger.get(name)
        return job is not None and job.state in states

    async def _ask(self, what: Callable[[str], Awaitable[None]], name: str) -> None:
        """One job that cannot be stopped or removed holds up no other; it is asked for again."""
        try:
            await what(name)
        except ModelTrainingError as error:
            logger.warning("%s: %s; it will be tried again", name, error.message)

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(REPEAT_S)
            await self._resume()

    async def _let_go(self) -> None:
        while self._retention is not None:
            moment = datetime.now(UTC) - self._retention
            names = await self._ledger.ended_before(moment, RETENTION_BATCH)
            for name in names:
                if await self._is_in(TERMINAL, name):
                    await self._ledger.ask(name, "delete", "retention", datetime.now(UTC))
                    await self._ask(self._executor.remove, name)
            if len(names) < RETENTION_BATCH:
                await asyncio.sleep(RETENTION_S)

    # Telling

    async def until_gone(self, name: str) -> None:
        """Wait until nothing is left of a job whose removal was asked for."""
        while True:
            # Taken first, then looked at: so no change is missed.
            change = self._changed.setdefault(name, asyncio.Event())
            if await self._ledger.get(name) is None:
                # Others may wait for it by the same event.
                self._wake_waiting(name)
                return
            await change.wait()

    def ended(self, name: str) -> asyncio.Event:
        """Set once the job has ended with its log complete, or is gone.

        Take it first, then look at the job; if it has ended or is gone, say so by ``end``.
        """
        return self._ended.setdefault(name, asyncio.Event())

    def end(self, name: str) -> None:
        """The job has ended, or is gone."""
        if event := self._ended.pop(name, None):
            event.set()

    def tell(self, jobs: Iterable[TrainingJob]) -> None:
        """Wake whoever waits for these jobs."""
        for job in jobs:
            if job.state.is_terminal:
                self.end(job.name)
            self._wake(job)

    def _wake(self, job: TrainingJob) -> None:
        self._wake_waiting(job.name)
        if self._followers.are_any:
            self._followers.nudge(self._data.job(job.name).log(job.attempt))

    def _wake_waiting(self, name: str) -> None:
        if event := self._changed.pop(name, None):
            event.set()
