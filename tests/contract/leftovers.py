"""Find the processes of a lab by what they carry, not by what anybody says of them.

A job carries the lab's mark in its environment and its argv; a helper process of the executor
stands in a folder of the lab. A dead process that nobody has reaped yet (state Z) is dead.
"""

import os
import signal
from pathlib import Path


def processes_of(mark: str, folder: Path | None) -> list[str]:
    """``PID COMMAND`` of each live process with the mark, or whose working folder is inside."""
    return [f"{pid} {_read(pid, 'cmdline')[:120]!r}" for pid in pids_of(mark, folder)]


def end_all(mark: str, folder: Path | None) -> int:
    """Kill what is left, until nothing is; the number of processes that had to be killed."""
    killed = 0
    while found := pids_of(mark, folder):
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed += 1
    return killed


def pids_of(mark: str, folder: Path | None) -> list[int]:
    """Process ids, in the same way."""
    return [pid for pid in _pids() if pid != os.getpid() and _belongs(pid, mark, folder)]


def is_alive(pid: int) -> bool:
    """Whether there is such a process and it has not ended."""
    return _state(pid) not in ("", "Z", "X")


def dead_children() -> list[int]:
    """Children of this process that ended and were never waited for."""
    return [pid for pid in _pids() if _stat(pid)[:2] == ["Z", str(os.getpid())]]


def reap() -> None:
    """Wait for all dead children.

    A server that ends leaves its children to the system. Where the tests' own process stands
    for two servers, one after the other, it is the system between them.
    """
    for pid in dead_children():
        os.waitpid(pid, os.WNOHANG)


def _pids() -> list[int]:
    """All process ids, the newest first: those are the ones that go away while one looks."""
    every = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return sorted(every, reverse=True)


def _belongs(pid: int, mark: str, folder: Path | None) -> bool:
    if not is_alive(pid):
        return False
    if mark.encode() in _read(pid, "environ") or mark.encode() in _read(pid, "cmdline"):
        return True
    try:
        return folder is not None and Path(f"/proc/{pid}/cwd").readlink().is_relative_to(folder)
    except OSError:  # it has ended meanwhile
        return False


def _state(pid: int) -> str:
    return _stat(pid)[0]


def _stat(pid: int) -> list[str]:
    """State, parent and what follows; ``[""]`` if there is no such process."""
    return _read(pid, "stat").rpartition(b") ")[2].decode().split() or [""]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended meanwhile
        return b""
