"""Processes as Linux shows them: who somebody is, who descends from whom, how to end them all.

A pid alone names nobody, because numbers are used again; a process is its pid, the tick at which
it started, the boot and the pid namespace. Signals go through a pidfd that was opened first and
checked afterwards, so they cannot meet a stranger. A zombie counts as dead: where process 1 does
not reap, dead orphans stay in the table for ever.

Standard library only: the supervisor uses it too.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

MARK = "MODEL_TRAINING_JOB"  # the variable that every process of a job carries
LOCK_FD = 3  # where a supervisor finds its job's lock
NOT_BEGUN = 75  # a supervisor's exit code (EX_TEMPFAIL): nothing was started, try again
PROC = Path("/proc")
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
FREEZE_ROUNDS = 5  # passes of SIGSTOP; what still forks then is met by the next kill pass

_BOOTSTRAP = """\
import sys
sys.path.append(sys.argv[1])
from model_training.executors.local.supervisor import main
sys.exit(main(sys.argv[2]))
"""


class Identity(NamedTuple):
    """One process, told from every other that ever had its number."""

    pid: int
    start_ticks: int
    boot_id: str
    pid_namespace: int

    @property
    def is_of_this_boot(self) -> bool:
        """Whether the process could still run: same boot, same pid namespace."""
        return (self.boot_id, self.pid_namespace) == (boot_id(), pid_namespace())


class Stat(NamedTuple):
    """A line of the process table."""

    state: str
    parent: int
    session: int
    start_ticks: int


class Member(NamedTuple):
    """A process of a tree, as it was when we looked."""

    pid: int
    start_ticks: int


def boot_id() -> str:
    """Changes with each start of the machine; empty where the system does not tell."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except FileNotFoundError:
        return ""


def pid_namespace() -> int:
    """Changes with each start of a container; 0 where the system does not tell."""
    try:
        return (PROC / "self/ns/pid").stat().st_ino
    except FileNotFoundError:
        return 0


def stat(pid: int) -> Stat | None:
    """The process's line, or None if it is gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in brackets, may hold anything; fields are counted from its end.
    fields = text.rpartition(")")[2].split()
    return Stat(fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def identity(pid: int) -> Identity | None:
    """Who has this pid now, or None."""
    line = stat(pid)
    return Identity(pid, line.start_ticks, boot_id(), pid_namespace()) if line else None


def open_pidfd(who: Identity) -> int | None:
    """A descriptor for exactly this process, or None if it is gone.

    Raises:
        OSError: there is no descriptor to be had.
    """
    if not who.is_of_this_boot:
        return None
    try:
        pidfd = os.pidfd_open(who.pid)
    except ProcessLookupError:
        return None
    is_same = False
    try:
        line = stat(who.pid)
        is_same = line is not None and line.start_ticks == who.start_ticks
    finally:
        if not is_same:
            os.close(pidfd)
    return pidfd if is_same else None


def send(pidfd: int, number: int) -> None:
    """Signal the process of this descriptor, if it still lives."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def reap(pid: int) -> int | None:
    """Take a dead child off the process table; its exit code, or None if it is no child of ours."""
    try:
        dead, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # it was started by an earlier server
        return None
    return os.waitstatus_to_exitcode(status) if dead else None


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process.

    Raises:
        OSError: the system refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def children(pid: int) -> list[int]:
    """The children of a process, zombies included."""
    if not (PROC / "thread-self" / "children").exists():
        return children_by_scan(pid)
    found: list[int] = []
    try:
        for task in (PROC / str(pid) / "task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended while we looked, and its children moved up to the subreaper
    return found


def children_by_scan(pid: int) -> list[int]:
    """The same on a kernel without lists of children, by looking at every process."""
    lines = ((other, stat(other)) for other in all_processes())
    return [other for other, line in lines if line and line.parent == pid]


def living(pids: Iterable[int]) -> list[Member]:
    """Those of them that live."""
    lines = ((pid, stat(pid)) for pid in pids)
    return [Member(pid, line.start_ticks) for pid, line in lines if line and line.state not in "ZX"]


def descendants(root: int) -> list[Member]:
    """Everything below a process that lives."""
    found = fresh = living(children(root))
    while fresh:
        fresh = living(child for member in fresh for child in children(member.pid))
        found = found + fresh
    return found


def signal_all(members: Iterable[Member], number: int) -> None:
    """Signal those that still live; a stranger who has the number of a dead one is left alone."""
    for member in members:
        try:
            pidfd = os.pidfd_open(member.pid)
        except ProcessLookupError:
            continue
        line = stat(member.pid)
        if line and line.start_ticks == member.start_ticks:
            with contextlib.suppress(PermissionError):  # it changed its user: out of our reach
                send(pidfd, number)
        os.close(pidfd)


def kill_tree(root: int) -> None:
    """One pass of SIGKILL over everything below ``root``, frozen first so that it cannot fork."""
    known: set[Member] = set()
    for _ in range(FREEZE_ROUNDS):
        fresh = set(descendants(root)) - known
        if not fresh:
            break
        signal_all(fresh, signal.SIGSTOP)
        known |= fresh
    signal_all(known, signal.SIGKILL)


def all_processes() -> Iterator[int]:
    """Every pid there is."""
    return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())


def carries_mark(pid: int, job: str) -> bool:
    """Whether a process's environment says that it belongs to the job."""
    try:
        content = (PROC / str(pid) / "environ").read_bytes()
    except OSError:  # gone, or another user's: none of ours
        return False
    return f"{MARK}={job}".encode() in content.split(b"\0")


def kill_all(belongs: Callable[[int], bool]) -> int:
    """One pass of SIGKILL over every process that belongs; how many of them were alive."""
    alive = 0
    for pid in all_processes():
        if not belongs(pid) or pid == os.getpid():
            continue
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            line = stat(pid)
            if line and line.state not in "ZX" and belongs(pid):
                send(pidfd, signal.SIGKILL)
                alive += 1
        except PermissionError:
            pass  # it carries the mark but runs as somebody else: not ours to end
        finally:
            os.close(pidfd)
    return alive


def end_all(belongs: Callable[[int], bool]) -> None:
    """Kill until nothing that belongs is left alive."""
    began = time.monotonic()
    while kill_all(belongs):
        pause(pass_pause(began, 0.01))  # the dead need a moment to be dead


def pass_pause(began: float, least: float) -> float:
    """Seconds until the next kill pass: ``least``, and up to 1 once it has gone on for 1 s.

    What is left then is stuck in the kernel (a dead disk or network drive), maybe for hours.
    """
    gone_on = time.monotonic() - began
    return least if gone_on < 1 else min(1.0, gone_on / 10)


def pause(seconds: float) -> None:
    """Give others time, where there is nothing that could be waited for."""
    select.select([], [], [], seconds)


def spawn_supervisor(folder: Path, lock: int, environment: Mapping[str, str]) -> int:
    """Start the supervisor of a job and hand it the held lock; its pid.

    It gets a session of its own, so that neither Ctrl+C nor a closed terminal reaches it, and
    starts with SIGTERM blocked, so that a stop cannot kill it before it listens.

    Raises:
        OSError: the system cannot start a process now.
    """
    package_parent = Path(__file__).parents[3]
    log = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, str(package_parent), str(folder)],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, lock, LOCK_FD),
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(folder / "supervisor.log"), log, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[signal.SIGTERM],
        setsigdef=[signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD],
    )
