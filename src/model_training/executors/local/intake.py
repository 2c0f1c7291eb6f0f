"""Accepting jobs: made durable together, so that many at once cost the disk little more than one.

The specs of a batch are written into one file, a line a job, and this file is synced once. Each
job is then accepted by a hard link to it in ``jobs/.open``, and that folder is synced once. So a
crash of whatever kind leaves enough to make a job's own folder again, which therefore needs no
sync; and the file goes by itself when the last job of the batch is settled. While one batch is
written, the jobs that come meanwhile gather for the next.
"""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

from model_training import trees
from model_training.crash_points import reached
from model_training.errors import DiskReserveReached, ExecutorUnavailable
from model_training.executors.local import records
from model_training.executors.local.threads import Tasks, Threads
from model_training.folders import DataFolder, JobFolder
from model_training.jobs import JobSpec, JSONObject

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Applicant:
    """A job on its way in."""

    spec: JobSpec
    sequence: int
    process: JSONObject
    """what its supervisor must know beyond the spec"""


Refusal = DiskReserveReached | ExecutorUnavailable


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
                refused = await self._threads.run(accept_all, self._data, applicants)
            except Exception:
                # Whatever it is, all of the batch must be told, and those after it have their turn.
                log.exception("a batch of jobs could not be taken in")
                for _, accepted in batch:
                    msg = "The job could not be taken in; the server's log says why."
                    accepted.set_exception(ExecutorUnavailable(msg))
                continue
            for applicant, accepted in batch:
                refusal = refused.get(applicant.spec.name)
                if isinstance(refusal, Refusal):
                    accepted.set_exception(refusal)
                else:
                    accepted.set_result(refusal is None)
        self._is_busy = False


def accept_all(
    data: DataFolder, applicants: Iterable[Applicant]
) -> dict[str, Refusal | FileExistsError]:
    """Make jobs durable; those that were not, by name, with the reason. Their names differ."""
    batch = _Batch(data)
    batch.run(applicants)
    return batch.refused


class _Batch:
    """The steps of acceptance, each for all who have come so far; a refused one goes no further."""

    def __init__(self, data: DataFolder) -> None:
        self._data = data
        self._specs: dict[str, bytes] = {}
        self.refused: dict[str, Refusal | FileExistsError] = {}

    def run(self, applicants: Iterable[Applicant]) -> None:
        made = [name for each in applicants if (name := self._write(each))]
        if not made:
            return
        file = self._data.new_jobs / f"{made[0]}.batch"
        try:
            records.write_content(file, b"".join(self._specs[name] for name in made))
            reached("launch.spec-written")
            moved = [name for name in made if self._mark(name, file) and self._move(name)]
            file.unlink()
            records.sync_folder(self._data.open_jobs)
        except OSError as error:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
            for name in made:
                if name not in self.refused:
                    self._refuse(name, error)
        else:
            if moved:
                reached("launch.renamed")

    def _write(self, applicant: Applicant) -> str | None:
        name = applicant.spec.name
        with self._refusing(name):
            if self._data.job(name).path.exists():
                raise FileExistsError(name)
            new = JobFolder(self._data.new_jobs / name)
            try:
                new.path.mkdir(mode=0o700)
            except FileExistsError:  # what a refused one left
                trees.remove(new.path)
                new.path.mkdir(mode=0o700)
            reached("launch.folder-made")
            self._specs[name] = _line(applicant)
            records.write_unsynced(new.spec, self._specs[name])
            return name
        return None

    def _mark(self, name: str, file: Path) -> bool:
        with self._refusing(name):
            os.link(file, self._data.open_jobs / name)
            reached("launch.marker-written")
            return True
        return False

    def _move(self, name: str) -> bool:
        place = self._data.job(name).path
        new = self._data.new_jobs / name
        with self._refusing(name):
            try:
                new.rename(place)
            except FileNotFoundError:  # the first of its shard
                place.parent.mkdir(mode=0o700, exist_ok=True)
                new.rename(place)
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
            trees.remove(self._data.new_jobs / name)
        if isinstance(error, FileExistsError):
            self.refused[name] = error
            return
        with contextlib.suppress(OSError):
            trees.remove(self._data.job(name).path)
            (self._data.open_jobs / name).unlink(missing_ok=True)
        root = self._data.root
        self.refused[name] = (
            DiskReserveReached(f"There is no space in {root} for another job; delete some first.")
            if records.is_full(error)
            else ExecutorUnavailable(f"The job could not be written to {root}: {error.strerror}")
        )


def _line(applicant: Applicant) -> bytes:
    record = {
        "job": applicant.spec.to_json(),
        "sequence": applicant.sequence,
        "process": applicant.process,
    }
    return json.dumps(record).encode() + b"\n"
