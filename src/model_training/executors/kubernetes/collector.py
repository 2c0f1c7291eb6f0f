"""Copies what pods print into the logs of their jobs, from the moment a container starts.

The node keeps little: the current file of a container (10 MiB by default), and nothing once the
pod is gone. Therefore each container that runs has one stream, and an ended one is read once
more, from the last line that is known: a stream may end early without a word.

After a cut, or a crash of ours, the log goes on at exactly the byte where it ended
(``log_sources.py``). What is lost is a gap in the log, never text.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.attempts import Attempt
from model_training.executors.kubernetes.log_copies import Copier, LogApi
from model_training.executors.kubernetes.log_sources import Source, SourceFile, read_sources
from model_training.executors.kubernetes.objects import PodRow
from model_training.folders import DataFolder

logger = logging.getLogger(__name__)


class Collector:
    """The logs of all jobs; use as an asynchronous context manager."""

    def __init__(
        self,
        api: KubernetesApi,
        data: DataFolder,
        *,
        log_limit: int,
        done: Callable[[str], None],
    ) -> None:
        """Make a collector that does nothing yet.

        Args:
            api: the API server; open for as long as the collector is.
            data: where the folders of the jobs are.
            log_limit: bytes kept of the log of one attempt.
            done: called with a job's name whenever its log has become complete.
        """
        self._api = LogApi(api)
        self._data = data
        self._log_limit = log_limit
        self._done = done
        self._jobs: dict[str, _Job] = {}
        self._unread: dict[str, _Job] = {}  # jobs whose folders were not looked into yet
        self._arrived = asyncio.Event()
        self._has_read = asyncio.Event()  # all that has arrived, or tried to
        self._has_read.set()
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._reader = asyncio.create_task(self._read_folders(), name="log folders")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
        jobs, self._jobs = self._jobs, {}
        await asyncio.gather(*(a.close() for job in jobs.values() for a in job.attempts.values()))

    def look(self, job: str, pods: Sequence[PodRow], *, went_unseen: bool = False) -> None:
        """The job has these pods now: all that there are, those being deleted too, or none.

        A pod that was known and is not among them is gone. Not before all pods are known: after
        a start, the log of an attempt whose pod is missing has a gap for ever. ``went_unseen``:
        nobody saw how they went, and they may have printed what nobody knows of.
        """
        known = self._jobs.get(job)
        if known is None:
            known = self._jobs[job] = self._unread[job] = _Job()
            self._has_read.clear()
            self._arrived.set()
        elif known is _NOTHING:
            if not pods and not went_unseen:
                return
            known = self._jobs[job] = _Job(is_read=True)
        known.went_unseen = went_unseen
        known.pods = {pod.uid: pod for pod in pods}
        known.seen |= known.pods
        if known.is_read:
            self._update(job, known)

    async def read_all(self) -> None:
        """Wait until the folders of all jobs looked at so far were read, as far as they can be."""
        await self._has_read.wait()

    def is_complete(self, job: str) -> bool:
        """Whether all that the pods of the job printed is in its log, or a gap says what is not.

        False as long as a pod may print more, and before the first ``look`` at the job.
        """
        known = self._jobs.get(job)
        return known is not None and known.is_read and not known.attempts

    def attempt_of(self, job: str, pod: str) -> int | None:
        """The number of the attempt that the pod with this uid is; None if it is not known yet."""
        known = self._jobs.get(job)
        return known.numbers.get(pod) if known else None

    def attempts(self, job: str) -> int:
        """How many attempts of the job are known, pods of old that are gone included."""
        known = self._jobs.get(job)
        return known.latest if known else 0

    def copied(self, job: str) -> int:
        """Bytes copied so far by what is not complete yet."""
        known = self._jobs.get(job)
        return sum(attempt.copied for attempt in known.attempts.values()) if known else 0

    async def write_off(self, jobs: Iterable[str]) -> None:
        """The cluster has nothing of these, and nobody saw them go: their logs say so with a gap.

        What the disk does not take is left out.
        """
        names = iter(jobs)
        while some := list(itertools.islice(names, _WRITTEN_OFF)):
            for name in some:
                self.look(name, (), went_unseen=True)
            await self.read_all()
            known = [job for name in some if (job := self._jobs.get(name))]
            attempts = [attempt for job in known for attempt in job.attempts.values()]
            await asyncio.gather(*(attempt.join(_WRITE_OFF_S) for attempt in attempts))
            await asyncio.gather(*(self.forget(name) for name in some))

    async def forget(self, job: str) -> None:
        """Stop copying, and close all files: the folder of the job is about to be removed."""
        known = self._jobs.pop(job, None)
        self._unread.pop(job, None)
        if known is not None:
            await asyncio.gather(*(attempt.close() for attempt in known.attempts.values()))

    async def _read_folders(self) -> None:
        """See what is there of jobs that are new to us; many at a time, in another thread."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            jobs, self._unread = self._unread, {}
            sources = await asyncio.to_thread(self._sources_of, list(jobs))
            for name, job in jobs.items():
                if self._jobs.get(name) is not job:
                    continue  # forgotten meanwhile
                if name in sources and not sources[name] and not job.seen and not job.went_unseen:
                    self._jobs[name] = _NOTHING
                    self._done(name)
                elif name in sources:
                    self._restore(name, job, sources[name])
                    self._update(name, job)
                else:
                    self._unread[name] = job
            if not self._arrived.is_set():
                self._has_read.set()
            if self._unread:
                loop.call_later(_DISK_RETRY_S, self._arrived.set)

    def _sources_of(self, names: Iterable[str]) -> dict[str, dict[int, Source]]:
        """Those of the jobs whose folders can be read."""
        found: dict[str, dict[int, Source]] = {}
        for name in names:
            try:
                found[name] = read_sources(self._data.job(name))
            except (OSError, ValueError) as error:
                logger.warning("The log of %s cannot be read now: %s.", name, error)
        return found

    def _restore(self, name: str, job: "_Job", sources: dict[int, Source]) -> None:
        job.is_read = True
        job.latest = max(sources, default=0)
        for number, source in sources.items():
            job.numbers[source.pod] = number
            if not source.complete:
                job.attempts[source.pod] = self._attempt(name, number, source, is_saved=True)

    def _update(self, name: str, job: "_Job") -> None:
        seen, job.seen = job.seen, {}
        for pod in sorted(seen.values(), key=lambda pod: pod.order):
            uid = pod.uid
            if uid not in job.numbers:
                job.latest += 1
                job.numbers[uid] = job.latest
                # What a single pod is numbered is clear without a word on the disk.
                job.attempts[uid] = self._attempt(
                    name, job.latest, Source(pod=uid), is_saved=job.latest == 1
                )
            if attempt := job.attempts.get(uid):
                attempt.look(pod)
        if job.went_unseen and not job.numbers:  # a pod that nobody ever saw
            job.latest = job.numbers[""] = 1
            job.attempts[""] = self._attempt(name, 1, Source(pod=""), is_saved=True)
        for uid in job.attempts.keys() - job.pods.keys():
            job.attempts[uid].lose(went_unseen=job.went_unseen)
        self._report(name, job)

    def _attempt(self, name: str, number: int, source: Source, *, is_saved: bool) -> Attempt:
        folder = self._data.job(name)
        file = SourceFile(folder.log_source(number))
        copier = Copier(self._api, folder.log(number), file, source, log_limit=self._log_limit)

        def done() -> None:
            job = self._jobs.get(name)
            if job is not None and job.attempts.get(source.pod) is attempt:
                del job.attempts[source.pod]
                self._report(name, job)

        attempt = Attempt(copier, f"{name}, attempt {number}", done, is_saved=is_saved)
        return attempt

    def _report(self, name: str, job: "_Job") -> None:
        is_complete = not job.attempts
        if is_complete and not job.was_complete:
            self._done(name)
        job.was_complete = is_complete


@dataclass(slots=True)
class _Job:
    """A job, as far as its log matters."""

    pods: dict[str, PodRow] = field(default_factory=dict[str, PodRow])
    """that exist, by uid"""
    seen: dict[str, PodRow] = field(default_factory=dict[str, PodRow])
    """since the last update, by uid; some may be gone before the disk was read"""
    numbers: dict[str, int] = field(default_factory=dict[str, int])
    """of attempts, by the uid of the pod"""
    attempts: dict[str, Attempt] = field(default_factory=dict[str, Attempt])
    """that are not complete, by the uid of the pod"""
    went_unseen: bool = False
    """nobody saw how its latest pod went, or whether there was one"""
    latest: int = 0
    is_read: bool = False
    """what the disk has of it is known"""
    was_complete: bool = False


_NOTHING = _Job(is_read=True, was_complete=True)
"""Of all jobs that neither have pods nor a log: most of those that ended long ago."""

_DISK_RETRY_S = 3.0
_WRITTEN_OFF = 100  # jobs at a time, each with a file or two
_WRITE_OFF_S = 3.0  # for those; a disk that takes longer takes nothing
