"""Events, fetched only for jobs that nothing else explains.

That a quota refused a pod, or that a volume cannot be mounted, stands in no status: only in
Events, of which a cluster has too many to watch them all.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from model_training.errors import ExecutorUnavailable
from model_training.executors.kubernetes import paths
from model_training.executors.kubernetes.api import ApiError, KubernetesApi
from model_training.executors.kubernetes.jobs import Job
from model_training.executors.kubernetes.objects import decode_events
from model_training.executors.kubernetes.observation import UNEXPLAINED, Seen
from model_training.jobs import JobState

logger = logging.getLogger(__name__)

FIRST_S: Final = 1.0  # seconds that a job may start in without anybody asking why it has not
LONGEST_S: Final = 60.0  # between two looks at the events of one job; they double from the first
LOOK_S: Final = 0.5
BATCH: Final = 10  # jobs a look: 20 requests a second, however many jobs there are


@dataclass(slots=True)
class _Puzzle:
    """A job that waits for a reason unknown."""

    job: Job
    due: float
    """when to ask (monotonic seconds)"""
    delay: float = FIRST_S


class Explainer:
    """Fetches the events of jobs that seem to hang, into ``job.events``."""

    def __init__(self, api: KubernetesApi, explained: Callable[[str], None]) -> None:
        """``explained`` is called with the name of a job whose events have changed."""
        self._api = api
        self._explained = explained
        self._puzzles: dict[str, _Puzzle] = {}

    def note(self, job: Job, seen: Seen) -> None:
        """Whether the job is to be explained, after it was seen."""
        waits = seen.state is JobState.PENDING
        if waits and seen.reason in UNEXPLAINED:
            if job.name not in self._puzzles:
                self._puzzles[job.name] = _Puzzle(job, time.monotonic() + FIRST_S)
        elif not (waits and job.events):  # what events have explained may pass, as they will tell
            self._puzzles.pop(job.name, None)

    def forget(self, name: str) -> None:
        """The job is no longer held."""
        self._puzzles.pop(name, None)

    async def run(self) -> None:
        """Ask for what is due, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            due = [puzzle for puzzle in self._puzzles.values() if puzzle.due <= now]
            for puzzle in sorted(due, key=lambda puzzle: puzzle.due)[:BATCH]:
                puzzle.delay = min(LONGEST_S, puzzle.delay * 2)
                puzzle.due = now + puzzle.delay
                await self._ask(puzzle.job)

    async def _ask(self, job: Job) -> None:
        row, pods = job.row, job.attempts
        if row is None:
            return
        uid = pods[-1].uid if pods else row.uid
        params = {"fieldSelector": f"involvedObject.uid={uid}", "limit": "50"}
        try:
            raw = await self._api.get(paths.events(row.namespace), params)
            events = decode_events(raw)
        except (ExecutorUnavailable, ApiError, msgspec.DecodeError) as error:
            # Without the right to read events a job still shows that it waits, only not why.
            logger.debug("the events of %s cannot be read: %s", job.name, error)
            return
        if events != job.events:
            job.events = events
            self._explained(job.name)
