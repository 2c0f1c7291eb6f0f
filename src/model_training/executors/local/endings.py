"""Ends that the server writes: of jobs that never started, and of jobs whose supervisor is gone.

All functions block and are called from threads, for one job at a time.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from model_training.crash_points import reached
from model_training.executors.local import cgroups, processes, records
from model_training.executors.local.shelves import is_locked, read_exit, read_run
from model_training.folders import JobFolder
from model_training.jobs import JobState, Reason

LOCK_TRIES: Final = 500  # of 10 ms; a supervisor that died while it forked leaves the lock briefly


def ask_stop(folder: JobFolder, at: str) -> None:
    """Write down that a stop was asked for.

    Raises:
        OSError: it could not be written.
    """
    records.write(folder.stop, {"at": at})
    reached("stop.written")


def end_unstarted(folder: JobFolder, at: str) -> records.Record:
    """End a job that never started.

    Raises:
        OSError: it could not be written; the job goes on waiting.
    """
    message = "stopped before it started"
    return _write_end(folder, {"state": JobState.STOPPED, "message": message, "finished_at": at})


def fail_unstarted(folder: JobFolder, at: str) -> records.Record:
    """End a job whose supervisor comes to nothing each time it is started.

    Raises:
        OSError: it could not be written; the job goes on waiting.
    """
    words = (
        folder.supervisor_log.read_text(errors="replace") if folder.supervisor_log.exists() else ""
    )
    last = (words.strip().splitlines() or ["it left no word"])[-1]
    message = f"its supervisor could not begin: {last[: records.MESSAGE_LIMIT]}"
    return _write_end(
        folder,
        {
            "state": JobState.FAILED,
            "reason": Reason.START_FAILED,
            "message": message,
            "finished_at": at,
        },
    )


def conclude(folder: JobFolder, at: str) -> records.Record | None:
    """How a job ended whose supervisor has gone; None if it never began.

    Raises:
        OSError: it could not be written, or the lock is still held; try again.
    """
    if exit_record := read_exit(folder):
        return exit_record
    run = read_run(folder)
    if run is not None:
        return conclude_lost(folder, run, at)
    return end_unstarted(folder, at) if folder.stop.exists() else None


def conclude_lost(folder: JobFolder, run: records.Record, at: str) -> records.Record:
    """End a job whose supervisor has gone without a word: first its processes, then its record.

    Raises:
        OSError: it could not be written, or the lock is still held; try again.
    """
    lock = _take(folder)
    try:
        if exit_record := read_exit(folder):
            return exit_record
        who = processes.Identity(*run["supervisor"]) if run.get("supervisor") else None
        same_host = who is None or who.is_of_this_boot
        if path := run.get("cgroup"):
            cgroups.end(Path(path))  # its name is the job's alone, so also after a restart
        if same_host:
            end_leftovers(folder.name, run)
        return _write_end(folder, _lost(run, at, same_host=same_host))
    finally:
        os.close(lock)


def end_unreadable(folder: JobFolder, at: str) -> None:
    """See that nothing runs any more of a job that is to be removed, whose spec cannot be read.

    Raises:
        BlockingIOError: it was asked to stop and has not yet; try again.
        OSError: a record could not be written; try again.
    """
    if not folder.path.exists():
        return
    if is_locked(folder):
        if not folder.stop.exists():
            ask_stop(folder, at)
        msg = f"{folder.name} is still stopping"
        raise BlockingIOError(msg)
    run = read_run(folder)
    if run is not None and read_exit(folder) is None:
        conclude_lost(folder, run, at)


def _lost(run: records.Record, at: str, *, same_host: bool) -> records.Record:
    if same_host:
        reason, message = Reason.SUPERVISOR_LOST, "its supervisor was killed, and it with it"
    else:
        reason, message = Reason.HOST_RESTARTED, "the machine was restarted while it ran"
    return {
        "state": JobState.FAILED,
        "reason": reason,
        "message": message,
        "started_at": run.get("started_at"),
        "finished_at": at,
    }


def end_leftovers(name: str, run: records.Record) -> None:
    """Kill whatever is left of a job whose supervisor has gone, until nothing is.

    Found by the mark in the environment and by the session of the command. What gave up both,
    and stood in no cgroup either, is not found: that is the bound of what can be promised.
    """
    processes.end_all(_belongs(name, run.get("pid"), run.get("start_ticks")))


def _belongs(name: str, leader: int | None, ticks: int | None) -> Callable[[int], bool]:
    def belongs(pid: int) -> bool:
        if processes.carries_mark(pid, name):
            return True
        line = processes.stat(pid)
        if line is None or leader is None or ticks is None or line.session != leader:
            return False
        # A session's number may be used again once nobody is left in it: a leader that lives
        # must be ours, and nobody of ours is older than ours was.
        head = processes.stat(leader)
        return line.start_ticks >= ticks and (head is None or head.start_ticks == ticks)

    return belongs


def _take(folder: JobFolder) -> int:
    for _ in range(LOCK_TRIES):
        if (lock := records.lock(folder.lock)) is not None:
            return lock
        processes.pause(0.01)
    msg = f"the lock of {folder.name} is still held"
    raise BlockingIOError(msg)


def _write_end(folder: JobFolder, end: records.Record) -> records.Record:
    blank: records.Record = dict.fromkeys(
        ("state", "reason", "message", "exit_code", "started_at", "finished_at", "duration_s")
    )
    record = blank | {"attempt": 1} | end
    records.write_reserved(folder.exit, record)
    return record
