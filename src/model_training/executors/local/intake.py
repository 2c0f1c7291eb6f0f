"""Accepting jobs: made durable together, so that many at once cost the disk little more than one.

Acceptance is one rename: whatever a crash leaves before it lies in ``jobs/.new`` and is swept
away, whatever comes after it is a job. Each step is made durable before the next one begins. While
one batch is written, the jobs that come meanwhile gather for the next: a journaling file system
then commits once for a batch where it would commit four times for each job.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_training.crash_points import reached
from model_training.errors import DiskReserveReached, ExecutorUnavailable
from model_training.executors.local import records
from model_training.executors.local.shelves import clear
from model_training.executors.local.threads import Tasks, Threads
from model_training.folders import DataFolder, JobFolder
from model_training.jobs import JobSpec, JSONObject


@dataclass(frozen=True, slots=True)
class Applicant:
    """A job on its way in."""

    spec: JobSpec
    sequence: int
    process: JSONObject
    """what its supervisor must know beyond the spec"""


Refusal = DiskReserveReached | ExecutorUnavailable
Each = Callable[..., Iterable[Any]]


class Intake:
    """Takes jobs in, a batch at a time."""

    def __init__(self, data: DataFolder, threads: Threads, tasks: Tasks) -> None:
        self._data = data
        self._threads = threads
        self._tasks = tasks
        self._gathered: list[tuple[Applicant, asyncio.Future[bool]]] = []
        self._is_busy = False

    async def accept(self, applicant: Applicant) -> bool:
        """Make the job durable; False if there is one of this name already.

        Raises:
            DiskReserveReached: there is no space, and nothing is left of it.
            ExecutorUnavailable: the disk refuses for another reason; nothing is left of it.
        """
        accepted = asyncio.get_running_loop().create_future()
        self._gathered.append((applicant, accepted))
        if not self._is_busy:
            self._is_busy = True
            self._tasks.start(self._serve())
        return await accepted

    async def _serve(self) -> None:
        while self._gathered:
            batch, self._gathered = self._gathered, []
            applicants = [applicant for applicant, _ in batch]
            try:
                refused = await self._threads.run(
                    accept_all, self._data, applicants, each=self._threads.each
                )
            except BaseException as error:
                for _, accepted in batch:
                    accepted.set_exception(ExecutorUnavailable(f"Jobs cannot be taken in: {error}"))
                self._is_busy = False
                raise
            for applicant, accepted in batch:
                refusal = refused.get(applicant.spec.name)
                if isinstance(refusal, Refusal):
                    accepted.set_exception(refusal)
                else:
                    accepted.set_result(refusal is None)
        self._is_busy = False


def accept_all(
    data: DataFolder, applicants: Iterable[Applicant], *, each: Each = map
) -> dict[str, Refusal | FileExistsError]:
    """Make jobs durable; those that were not, by name, with the reason. Their names differ.

    Args:
        data: the service's folder.
        applicants: the jobs.
        each: ``map``, or one that calls in several threads at once.
    """
    batch = _Batch(data, each)
    batch.run(applicants)
    return batch.refused


class _Batch:
    """The steps of acceptance, each for all who have come so far; a refused one goes no further."""

    def __init__(self, data: DataFolder, each: Each) -> None:
        self._data = data
        self._each = each
        self.refused: dict[str, Refusal | FileExistsError] = {}

    def run(self, applicants: Iterable[Applicant]) -> None:
        # All is written before any of it is synced, and then at once: what one sync commits, the
        # others need not, and the disk flushes for all of them together.
        made = [name for each in applicants if (name := self._write(each))]
        written = [name for name in self._each(self._make_durable, made) if name]
        marked = self._sync(self._data.open_jobs, written)
        reached("launch.marker-written")
        renamed = [name for name in marked if self._rename(name)]
        shards: dict[Path, list[str]] = {}
        for name in renamed:
            shards.setdefault(self._data.job(name).path.parent, []).append(name)
        list(self._each(self._sync, shards, shards.values()))
        reached("launch.renamed")

    def _write(self, applicant: Applicant) -> str | None:
        name = applicant.spec.name
        with self._refusing(name):
            if self._data.job(name).path.exists():
                raise FileExistsError(name)
            new = self._data.new_jobs / name
            clear(new)
            new.mkdir(mode=0o700)
            reached("launch.folder-made")
            record = {
                "job": applicant.spec.to_json(),
                "sequence": applicant.sequence,
                "process": applicant.process,
            }
            # Written in place: nobody looks into this folder before it is renamed.
            _write_file(JobFolder(new).spec, json.dumps(record).encode())
            _write_file(self._data.open_jobs / name, b"")
            return name
        return None

    def _make_durable(self, name: str) -> str | None:
        new = JobFolder(self._data.new_jobs / name)
        with self._refusing(name):
            records.sync_file(new.spec)
            records.sync_folder(new.path)
            reached("launch.spec-written")
            return name
        return None

    def _sync(self, folder: Path, names: list[str]) -> list[str]:
        """Make the names in a folder durable; who is left of those that rely on it."""
        try:
            if names:
                records.sync_folder(folder)
        except OSError as error:
            for name in names:
                self._refuse(name, error)
            return []
        return names

    def _rename(self, name: str) -> bool:
        place = self._data.job(name).path
        with self._refusing(name):
            if not place.parent.exists():
                place.parent.mkdir(mode=0o700, exist_ok=True)
                records.sync_folder(place.parent.parent)
            if place.exists():
                raise FileExistsError(name)
            (self._data.new_jobs / name).rename(place)
            return True
        return False

    @contextlib.contextmanager
    def _refusing(self, name: str) -> Generator[None]:
        try:
            yield
        except OSError as error:
            self._refuse(name, error)

    def _refuse(self, name: str, error: OSError) -> None:
        """Leave nothing of the job, unless it was there before."""
        with contextlib.suppress(OSError):
            clear(self._data.new_jobs / name)
        if isinstance(error, FileExistsError):
            self.refused[name] = error
            return
        with contextlib.suppress(OSError):
            clear(self._data.job(name).path)
            (self._data.open_jobs / name).unlink(missing_ok=True)
        root = self._data.root
        self.refused[name] = (
            DiskReserveReached(f"There is no space in {root} for another job; delete some first.")
            if records.is_full(error)
            else ExecutorUnavailable(f"The job could not be written to {root}: {error.strerror}")
        )


def _write_file(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
