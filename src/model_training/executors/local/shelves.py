"""Job folders on disk: found again after a restart, settled, removed.

All functions block and are called from threads.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_training import names, trees
from model_training.crash_points import reached
from model_training.errors import ExecutorUnavailable
from model_training.executors.local import processes, records
from model_training.folders import DataFolder, JobFolder
from model_training.jobs import JobSpec, JobState, JSONObject, parse_time

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """A job as its folder tells it."""

    spec: JobSpec
    folder: JobFolder
    sequence: int
    is_locked: bool
    assigned: JSONObject
    """what the lock file says: the devices that were handed out"""
    run: records.Record | None
    exit: records.Record | None
    stop_asked: bool


def prepare(data: DataFolder) -> None:
    """Make the folders that are missing, and sweep away what a crash left half-done.

    Raises:
        OSError: the data folder cannot be written.
    """
    for folder in (data.jobs, data.open_jobs, data.new_jobs, data.gone_jobs, data.environments):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for half_written in data.new_jobs.iterdir():
        trees.remove(half_written)
    for marker in data.open_jobs.iterdir():
        if names.is_job_name(marker.name):
            _make_whole(data.job(marker.name), marker)


def _make_whole(folder: JobFolder, marker: Path) -> None:
    """Give an accepted job its folder and spec again, where a crash kept them from the disk.

    The marker holds the spec, in a line of its own among those of the same batch.
    """
    quoted = f'"{folder.name}"'.encode()
    lines = marker.read_bytes().splitlines(keepends=True)
    line = next((line for line in lines if quoted in line), None)
    if line is None or (folder.spec.exists() and folder.spec.read_bytes() == line):
        return
    folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    records.write_bytes(folder.spec, line)


def find(data: DataFolder, name: str) -> Found | None:
    """The job of this name, or None.

    Raises:
        ExecutorUnavailable: its folder is there and cannot be read.
    """
    folder = data.job(name)
    if not names.is_job_name(name) or not folder.spec.exists():
        return None
    try:
        return _read(folder)
    except (OSError, ValueError, TypeError, KeyError) as error:
        msg = f"The folder {folder.path} cannot be read: {error}"
        raise ExecutorUnavailable(msg) from error


def find_open(data: DataFolder) -> list[Found]:
    """The jobs whose ends the ledger has not recorded."""
    return list(_readable(data, (entry.name for entry in data.open_jobs.iterdir())))


def find_others(data: DataFolder, known: Collection[str]) -> list[Found]:
    """Every job there is but those that are known."""
    shards = (entry for entry in data.jobs.iterdir() if not entry.name.startswith("."))
    folders = (entry for shard in shards if shard.is_dir() for entry in shard.iterdir())
    return list(_readable(data, (entry.name for entry in folders if entry.name not in known)))


def mark_open(data: DataFolder, folder: JobFolder) -> None:
    """Note that the end of this job has not been recorded, by another name for its spec."""
    with contextlib.suppress(FileExistsError):
        os.link(folder.spec, data.open_jobs / folder.name)


def settle(data: DataFolder, settled: list[str]) -> None:
    """The ends of these jobs are recorded; from now on their folders must last by themselves.

    One whose folder cannot be synced keeps its marker, and is looked at again at the next start.
    """
    for name in settled:
        try:
            _settle_one(data, data.job(name))
        except OSError as error:
            log.warning("%s is looked at again at the next start: %s", name, error)


def _settle_one(data: DataFolder, folder: JobFolder) -> None:
    with contextlib.suppress(FileNotFoundError):
        records.sync_file(folder.spec)
        for place in (folder.path, folder.path.parent, data.jobs):
            records.sync_folder(place)
    (data.open_jobs / folder.name).unlink(missing_ok=True)


def _readable(data: DataFolder, candidates: Iterator[str]) -> Iterator[Found]:
    for name in candidates:
        try:
            found = find(data, name)
        except ExecutorUnavailable as error:
            log.warning("%s; it is left alone", error)
        else:
            if found:
                yield found


def _read(folder: JobFolder) -> Found:
    record: dict[str, Any] = records.read(folder.spec) or {}
    spec = JobSpec.from_json(record["job"])
    if spec.name != folder.name:
        msg = f"its spec belongs to {spec.name}"
        raise ValueError(msg)
    # The lock is tried first: who lets go of it has written all that there is to read.
    held = is_locked(folder)
    return Found(
        spec=spec,
        folder=folder,
        sequence=int(record["sequence"]),
        is_locked=held,
        assigned=_assigned(folder),
        run=read_run(folder),
        exit=read_exit(folder),
        stop_asked=folder.stop.exists(),
    )


def read_run(folder: JobFolder) -> records.Record | None:
    """That the supervisor began; empty if the record is there but broken."""
    try:
        run = records.read(folder.run)
        if run and run.get("supervisor"):
            processes.Identity(*run["supervisor"])
        if run and run.get("phase") == "running":
            parse_time(run["started_at"])
    except (ValueError, TypeError, KeyError):
        return {}
    return run


def read_exit(folder: JobFolder) -> records.Record | None:
    """How the job ended; a record that something broke is none, and is written anew."""
    try:
        end = records.read(folder.exit)
        if end is None or not JobState(end["state"]).is_terminal:
            return None
        for time_of in ("started_at", "finished_at"):
            if end.get(time_of):
                parse_time(end[time_of])
    except (ValueError, TypeError, KeyError):
        return None
    return end


def is_locked(folder: JobFolder) -> bool:
    """Whether somebody runs the job."""
    if not folder.lock.exists():
        return False
    held = records.lock(folder.lock)
    if held is None:
        return True
    os.close(held)
    return False


def _assigned(folder: JobFolder) -> JSONObject:
    try:
        text = folder.lock.read_bytes()
    except FileNotFoundError:
        return {}
    return records.parse(text) if text else {}


def set_aside(data: DataFolder, name: str) -> None:
    """Take the folder out of sight: from now on there is no such job.

    Raises:
        OSError: it could not be moved.
    """
    folder = data.job(name)
    # Before the folder goes: a mark without a folder would make the job again.
    (data.open_jobs / name).unlink(missing_ok=True)
    records.sync_folder(data.open_jobs)
    if folder.path.exists():
        folder.path.rename(data.gone_jobs / f"{name}.{time.time_ns()}")
        records.sync_folder(data.gone_jobs)


def discard(data: DataFolder, name: str, is_over: Callable[[], bool] = lambda: False) -> None:
    """Remove what was set aside of the job, at this time or before a crash.

    Raises:
        InterruptedError: ``is_over`` said that the rest shall wait.
        OSError: something of it cannot be removed.
    """
    reached("remove.renamed")
    for left in data.gone_jobs.glob(f"{name}.*"):
        trees.remove(left, is_over)


def discard_leftovers(data: DataFolder, is_over: Callable[[], bool]) -> None:
    """Finish the removals that a crash interrupted, until ``is_over``."""
    for left in data.gone_jobs.iterdir():
        try:
            trees.remove(left, is_over)
        except InterruptedError:
            return
        except OSError as error:
            log.warning("%s cannot be removed: %s", left, error)
