"""Removing what is left of jobs: out of sight at once, off the disk in its own time.

A removal can take long (many files) or for ever (a folder of another user, as a container started
by a job leaves it), so nobody waits for one: it is a task that tries again, and what is left when
the server goes is finished by the next one.
"""

import asyncio
import logging
from collections.abc import Callable

from model_training import names
from model_training.executors.local import endings, shelves
from model_training.executors.local.supervision import RETRY_S, now
from model_training.executors.local.threads import Tasks, Threads
from model_training.folders import DataFolder

LONGEST_RETRY_S = 60.0  # seconds; between tries of what fails again and again

log = logging.getLogger(__name__)


class Removals:
    """The removals under way."""

    def __init__(self, data: DataFolder, threads: Threads, tasks: Tasks) -> None:
        self._data = data
        self._threads = threads
        self._tasks = tasks
        self._forgetting: set[str] = set()

    def finish_earlier(self) -> None:
        """Go on with the removals of an earlier life."""
        leftovers = self._threads.run(
            shelves.discard_leftovers, self._data, self._threads.is_closing
        )
        self._tasks.start(leftovers)

    def forget(self, name: str, done: Callable[[], None]) -> None:
        """Remove whatever is there of a job whose spec is lost; who asks again shares it."""
        if name not in self._forgetting:
            self._forgetting.add(name)
            self._tasks.start(self._forget(name, done))

    def are_forgetting(self, name: str) -> bool:
        """Whether ``forget`` has not come to its end."""
        return name in self._forgetting

    async def _forget(self, name: str, done: Callable[[], None]) -> None:
        if names.is_job_name(name):
            folder = self._data.job(name)
            await self._persist(name, lambda: endings.end_unreadable(folder, now()))
            await self.discard(name)
        self._forgetting.discard(name)
        done()

    async def discard(self, name: str) -> None:
        """Remove the folder of a job that has ended; returns once nothing is left of it."""
        await self._persist(name, lambda: shelves.set_aside(self._data, name))
        # Only what was set aside: by the second try there may be a new job of this name.
        is_over = self._threads.is_closing
        await self._persist(name, lambda: shelves.discard(self._data, name, is_over))

    async def _persist(self, name: str, step: Callable[[], None]) -> None:
        delay = RETRY_S
        while True:
            try:
                return await self._threads.run(step)
            except Exception as error:  # noqa: BLE001 - else the job would show as deleting for ever
                log.warning("%s cannot be removed yet: %s", name, error)
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_RETRY_S)
