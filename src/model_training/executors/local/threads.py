"""Threads for what blocks, and tasks that outlive whoever asked for them."""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from model_training.errors import ModelTrainingError

THREADS = 16  # they wait for the disk, not for the processor

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """The executor's own threads, so that others' slow calls do not hold up a start."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="local-executor")
        self._closing = threading.Event()

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, partial(call, *args, **kwargs))

    def is_closing(self) -> bool:
        """Whether calls that take long shall leave the rest to another time; for use in them."""
        return self._closing.is_set()

    def close(self) -> None:
        """Wait for the calls that run, and drop those that have not begun."""
        self._closing.set()
        self._pool.shutdown(cancel_futures=True)


class Tasks:
    """Tasks that are kept until they are done, and cancelled at the end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    def start(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Run it beside the caller."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        # Errors of ours are for the caller who waits for the task; any other is a defect.
        if error is not None and not isinstance(error, ModelTrainingError):
            log.error("a task of the local executor failed: %s", error, exc_info=error)

    async def finish(self) -> None:
        """Wait for all of them."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def cancel(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()
        await self.finish()
