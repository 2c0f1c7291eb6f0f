"""One job from the moment it has a slot until its end is known, whatever happens to whom."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGTERM
from typing import Final, TypeVar

from model_training.executors.local import endings, processes, records, watching
from model_training.executors.local.jobs import Job
from model_training.executors.local.threads import Threads
from model_training.jobs import JobState, Observation, Reason, format_time

RETRY_S: Final = 1.0  # between tries of what the system refuses now
START_TRIES: Final = 5  # a supervisor that never begins is broken, not unlucky

Result = TypeVar("Result")

log = logging.getLogger(__name__)


class Supervision:
    """Starts supervisors, listens to them, and finds out how their jobs ended."""

    def __init__(
        self,
        threads: Threads,
        publish: Callable[[Observation], None],
        digest_of: Callable[[Path], str | None] | None,
    ) -> None:
        self._threads = threads
        self._digest_of = digest_of
        self._publish = publish

    async def begin(self, job: Job, assigned: records.Record) -> records.Record:
        """Start the job and see it through; how it ended."""
        # The code may have been edited while the job waited.
        job.digest = await self._digest(job)
        assigned = assigned | {"digest": job.digest}
        while True:
            await self._start(job, assigned)
            if end := await self.adopt(job):
                return end
            if job.failed_starts >= START_TRIES:
                return await self._fail(job)
            await asyncio.sleep(RETRY_S)

    async def adopt(self, job: Job) -> records.Record | None:
        """See a job through that was started before; None if nothing was."""
        await self._insist(job, "cannot be looked at", lambda: self._listen(job))
        if job.supervisor:
            code = processes.reap(job.supervisor.pid)
            if code == processes.NOT_BEGUN:
                self._tell_refused(job, "its supervisor finds no space on the disk")
            else:
                job.failed_starts += 1
            job.supervisor = None
        return await self._conclude(job)

    async def _listen(self, job: Job) -> None:
        async with aclosing(watching.follow(job)) as news:
            async for _ in news:
                if job.is_stopping:
                    self.signal(job)
                if job.run is not None:
                    self._publish(job.see_run())

    def signal(self, job: Job) -> None:
        """Tell the supervisor to stop, if there is one that can be told."""
        if job.pidfd is not None:
            processes.send(job.pidfd, SIGTERM)

    async def _digest(self, job: Job) -> str | None:
        if self._digest_of is None or not job.spec.folder:
            return None
        try:
            return await self._threads.run(self._digest_of, Path(job.spec.folder))
        except OSError as error:
            log.warning("the code of %s cannot be read: %s", job.spec.name, error)
            return None

    async def _start(self, job: Job, assigned: records.Record) -> None:
        try:
            pid = await self._threads.run(watching.start_supervisor, job, assigned)
        except OSError as error:
            log.warning("%s cannot be started now: %s", job.spec.name, error)
            self._tell_refused(job, error.strerror or str(error))
            return
        if pid is not None:
            job.supervisor = await self._insist(job, "cannot be known", lambda: self._known(pid))

    @staticmethod
    async def _known(pid: int) -> processes.Identity | None:
        # Not reaped yet, so the number is still its own.
        return processes.identity(pid)

    def _tell_refused(self, job: Job, why: str) -> None:
        message = f"cannot be started now, is tried again: {why}"
        self._publish(job.see(JobState.PENDING, reason=Reason.STARTING, message=message))

    async def _conclude(self, job: Job) -> records.Record | None:
        return await self._insist(
            job,
            "cannot be told how it ended",
            lambda: self._threads.run(endings.conclude, job.folder, now()),
        )

    async def _fail(self, job: Job) -> records.Record:
        return await self._insist(
            job,
            "cannot be written off",
            lambda: self._threads.run(endings.fail_unstarted, job.folder, now()),
        )

    @staticmethod
    async def _insist(job: Job, trouble: str, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do it as often as it takes: a job that nobody sees through would keep its slot for ever.

        The system refuses for want of space or of descriptors, which others may free.
        """
        while True:
            try:
                return await work()
            except (OSError, ValueError) as error:
                log.warning("%s %s now: %s; trying again", job.spec.name, trouble, error)
                await asyncio.sleep(RETRY_S)


def now() -> str:
    """The time, as records hold it."""
    return format_time(datetime.now(UTC))
