"""From a job's folder to a running supervisor, and from there to its end.

Liveness is the lock of the job, which its supervisor holds for life. A pidfd, where there is one,
says at once when that life ends; without one (in another pid namespace) the lock is tried twice a
second.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator

from model_training.crash_points import reached
from model_training.executors.local import processes, records, shelves, variables
from model_training.executors.local.jobs import Job

FIRST_LOOK_S = 0.02  # seconds until the supervisor is first looked at
LAST_LOOK_S = 0.25  # longest time between two looks at one that has not started its command
LOCK_POLL_S = 0.5  # between tries of the lock, where there is no pidfd


def start_supervisor(job: Job, assigned: records.Record) -> int | None:
    """Start the supervisor; its pid, or None if somebody runs the job already. Blocks.

    The lock is taken here and handed over, held, so that at no moment a job that is being started
    looks like one that never was.

    Raises:
        OSError: the system cannot start a process, or write the lock, now.
    """
    lock = records.lock(job.folder.lock)
    if lock is None:
        return None
    try:
        reached("start.lock-taken")
        os.truncate(lock, 0)
        os.pwrite(lock, json.dumps(assigned).encode(), 0)
        environment = variables.for_supervisor(
            os.environ, job.spec.pass_env, installs=job.spec.requirements is not None
        )
        pid = processes.spawn_supervisor(job.folder.path, lock, environment)
        reached("start.spawned")
        return pid
    finally:
        os.close(lock)


async def follow(job: Job) -> AsyncGenerator[None]:
    """Yields at once and whenever the supervisor said something new; ends when it has ended."""
    delay = FIRST_LOOK_S
    async with _Exit(job) as gone:
        yield
        while not await gone.within(delay):
            if job.hear(shelves.read_run(job.folder)):
                gone.look_closer()
                yield
            if (job.run or {}).get("phase") != "running":
                delay = min(delay * 1.5, LAST_LOOK_S)
            elif job.pidfd is None:
                delay = LOCK_POLL_S
            else:
                await gone.wait()
    reached("end.observed")
    job.hear(shelves.read_run(job.folder))


class _Exit:
    """The end of a job's supervisor."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._gone = asyncio.Event()

    async def __aenter__(self) -> "_Exit":
        self.look_closer()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pidfd, self._job.pidfd = self._job.pidfd, None
        if pidfd is not None:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)

    def look_closer(self) -> None:
        """Get a pidfd, as soon as it is known whose."""
        who = self._job.supervisor
        if self._job.pidfd is not None or who is None:
            return
        self._job.pidfd = processes.open_pidfd(who)
        if self._job.pidfd is not None:
            asyncio.get_running_loop().add_reader(self._job.pidfd, self._gone.set)

    async def wait(self) -> None:
        await self._gone.wait()

    async def within(self, seconds: float) -> bool:
        """Whether it ended; waits so long for it."""
        try:
            async with asyncio.timeout(seconds):
                await self._gone.wait()
        except TimeoutError:
            if self._job.pidfd is None:
                return not await asyncio.to_thread(shelves.is_locked, self._job.folder)
            return False
        return True
