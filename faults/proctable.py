"""The process table as the campaigns see it: who belongs to whom by mark, and ending them by id."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))  # version 2 alone, or beside 1


def alive(*marks: str) -> list[int]:
    """Living processes that carry one of the marks in their arguments or their environment.

    The dead who were not reaped (state Z) do not count: where process 1 does not reap, they stay.
    """
    wanted = [mark.encode() for mark in marks]
    return [pid for pid in _all() if pid != os.getpid() and _carries(pid, wanted) and _lives(pid)]


def by_argument(*parts: str) -> list[int]:
    """Living processes whose arguments hold all of these."""
    wanted = [part.encode() for part in parts]
    found: list[int] = []
    for pid in _all():
        line = _read(pid, "cmdline")
        if pid != os.getpid() and all(part in line for part in wanted) and _lives(pid):
            found.append(pid)
    return found


def in_own_cgroup(name: str) -> bool:
    """Whether a process of the job stands in a cgroup of the job's own."""
    return any(name.encode() in _read(pid, "cgroup") for pid in alive(name))


def cgroups_of(mark: str) -> set[Path]:
    """The jobs' own cgroups in which somebody with this mark stands."""
    found: set[Path] = set()
    for pid in alive(mark):
        for line in _read(pid, "cgroup").decode().splitlines():
            path = line.partition("::")[2].lstrip("/")
            if "model-training-" in path:
                found |= {mount / path for mount in CGROUPS}
    return found


def end_all(*marks: str, seconds: float = 10.0) -> list[int]:
    """Kill everybody who carries a mark until nobody does; who is left after so many seconds."""
    deadline = time.monotonic() + seconds
    while left := alive(*marks):
        for pid in left:
            kill(pid, marks)
        if time.monotonic() > deadline:
            return left
        time.sleep(0.02)
    return []


def kill(pid: int, marks: tuple[str, ...], number: int = signal.SIGKILL) -> None:
    """Signal exactly the process that carries a mark: its number may be another's by now."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if _carries(pid, [mark.encode() for mark in marks]):
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def _all() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def _carries(pid: int, marks: list[bytes]) -> bool:
    content = _read(pid, "cmdline") + b"\0" + _read(pid, "environ")
    return any(mark in content for mark in marks)


def _read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:  # gone, or another user's
        return b""


def _lives(pid: int) -> bool:
    return _read(pid, "stat").rpartition(b")")[2].split()[:1] not in ([], [b"Z"], [b"X"])
