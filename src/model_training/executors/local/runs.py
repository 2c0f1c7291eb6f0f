"""One command from its start until nothing of its tree is left, its output copied as it comes.

The supervisor is the subreaper of the tree: whatever the command forks, however often and in
whatever session, ends up as a child of ours when its own parent dies. So "no children" means
that nothing is left, and a kill pass repeated until then misses nothing.

Standard library only: the supervisor uses it.
"""

import contextlib
import fcntl
import os
import select
import signal
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from model_training.executors.local import cgroups, commands, processes
from model_training.executors.local.wakeups import Wakeups

DRAIN_S = 2.0  # a tree without its leader has so long to finish its output
CLEAR_S = 2.0  # then SIGTERM, and so long until SIGKILL
IDLE_S = 5.0  # the stop file is looked at so often, should a signal have been lost
KILL_PASS_S = 0.02  # between kill passes, at first
BLOCK = 256 << 10  # bytes read at a time
PIPE_SIZE = 1 << 20  # bytes; a full pipe stalls the job, the default of 64 KiB does so often


class Cause(Enum):
    """Why we ended the command, where it did not end by itself."""

    STOP = auto()
    TIMEOUT = auto()


class Ending(NamedTuple):
    """How it ended."""

    exit_code: int
    """as the shell counts: 128 + N for a death by signal N"""
    signal: int
    """or 0"""
    cause: Cause | None
    out_of_memory: bool
    duration_s: float


class _Phase(Enum):
    RUNNING = auto()
    ENDING = auto()  # SIGTERM was sent, the grace runs
    DRAINING = auto()  # the leader has gone; others may still print
    CLEARING = auto()  # they were sent SIGTERM
    KILLING = auto()


class Limits(NamedTuple):
    """How long a command may run, and how long it may take to stop, in seconds."""

    timeout_s: float | None
    grace_s: float


class Run:
    """A started command. ``wait`` returns once nothing of its tree is left."""

    def __init__(
        self,
        command: commands.Command,
        limits: Limits,
        write: Callable[[memoryview], None],
        wakeups: Wakeups,
    ) -> None:
        """Start it.

        Raises:
            CannotStart: it does not start; the message says why.
        """
        self._limits = limits
        self._write = write
        self._wakeups = wakeups
        self._cgroup = command.cgroup
        self._mark = command.environment.get(processes.MARK)
        self._buffer = memoryview(bytearray(BLOCK))
        self._pipe, output = os.pipe2(os.O_CLOEXEC)
        self._widen_pipe()
        self._began = time.monotonic()
        try:
            self.pid = commands.start(command, output)
        except commands.CannotStart:
            os.close(self._pipe)
            raise
        finally:
            os.close(output)
        self._pipe_open = True
        self._leader_status: int | None = None
        self._has_children = True
        self._phase = _Phase.RUNNING
        self._until = self._began + limits.timeout_s if limits.timeout_s is not None else None
        self._killing_since = 0.0  # on the monotonic clock, once it has begun
        self._cause: Cause | None = None

    def wait(self) -> Ending:
        """Copy output, enforce the limits, end the whole tree."""
        self._reap()
        while not self._is_over():
            self._advance()
            self._poll()
            self._reap()
        self._read_rest()
        if self._phase is not _Phase.RUNNING:
            self._end_strays()
        return self._ending()

    def _is_over(self) -> bool:
        """Nobody is left, and nobody can print any more, or nobody is waited for any more."""
        nobody = self._leader_status is not None and not self._has_children
        return nobody and (not self._pipe_open or self._phase in {_Phase.CLEARING, _Phase.KILLING})

    def _poll(self) -> None:
        sources = [self._wakeups.fd, self._pipe] if self._pipe_open else [self._wakeups.fd]
        ready = select.select(sources, [], [], self._pause())[0]
        if self._wakeups.fd in ready:
            self._wakeups.drain()
        if self._pipe_open and self._pipe in ready:
            self._read()

    def _pause(self) -> float:
        if self._phase is _Phase.KILLING:
            return processes.pass_pause(self._killing_since, KILL_PASS_S)
        if self._until is None:
            return IDLE_S
        return min(IDLE_S, max(0.0, self._until - time.monotonic()))

    def _advance(self) -> None:
        now = time.monotonic()
        is_due = self._until is not None and now >= self._until
        match self._phase:
            case _Phase.RUNNING:
                self._advance_running(now, is_due=is_due)
            case _Phase.ENDING if self._leader_status is not None:
                self._clear(now)
            case _Phase.DRAINING if is_due or not self._pipe_open or self._wakeups.stop_asked:
                self._until = None
                self._clear(now)
            case _Phase.ENDING | _Phase.CLEARING if is_due:
                self._phase, self._killing_since = _Phase.KILLING, now
                self._kill()
            case _Phase.KILLING:
                self._kill()
            case _:
                pass

    def _advance_running(self, now: float, *, is_due: bool) -> None:
        if self._leader_status is not None:
            self._phase, self._until = _Phase.DRAINING, now + DRAIN_S
            return
        if not is_due and not self._wakeups.stop_asked:
            return
        self._cause = Cause.TIMEOUT if is_due else Cause.STOP
        self._phase, self._until = _Phase.ENDING, now + self._limits.grace_s
        self._terminate()

    def _clear(self, now: float) -> None:
        """Ask those to go whom the leader left behind, within what is left of the grace."""
        ends = now + CLEAR_S
        self._until = min(ends, self._until) if self._until is not None else ends
        self._phase = _Phase.CLEARING
        self._tell(processes.descendants(os.getpid()))

    def _terminate(self) -> None:
        """SIGTERM for the leader's group, and for those who were left to us."""
        self._tell_group(signal.SIGTERM)
        self._tell_group(signal.SIGCONT)
        adopted = (pid for pid in processes.children(os.getpid()) if pid != self.pid)
        self._tell(processes.living(adopted))

    def _tell_group(self, number: int) -> None:
        with contextlib.suppress(PermissionError):  # it changed its user: out of our reach
            os.killpg(self.pid, number)

    def _tell(self, members: list[processes.Member]) -> None:
        processes.signal_all(members, signal.SIGTERM)
        processes.signal_all(members, signal.SIGCONT)  # one that was stopped could not listen

    def _kill(self) -> None:
        if self._cgroup:
            cgroups.kill(self._cgroup)
        if self._leader_status is None:  # its number is still its own, and so is its group's
            self._tell_group(signal.SIGKILL)
        processes.kill_tree(os.getpid())

    def _end_strays(self) -> None:
        """Those whom another daemon started in the job's name; they are no children of ours."""
        if self._mark:
            mark = self._mark
            processes.end_all(lambda pid: processes.carries_mark(pid, mark))

    def _reap(self) -> None:
        while self._has_children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._has_children = False
                return
            if pid == 0:
                return
            if pid == self.pid:
                self._leader_status = status
                self._ended = time.monotonic()

    def _read(self) -> int:
        size = os.readv(self._pipe, [self._buffer])
        if size:
            self._write(self._buffer[:size])
        else:
            os.close(self._pipe)
            self._pipe_open = False
        return size

    def _read_rest(self) -> None:
        """What is still in the pipe, should somebody outside our reach hold it open."""
        if not self._pipe_open:
            return
        os.set_blocking(self._pipe, False)
        try:
            while self._read():
                pass
        except BlockingIOError:
            os.close(self._pipe)
            self._pipe_open = False

    def _widen_pipe(self) -> None:
        # The user's share of pipe memory may be used up; a narrow one works too.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)

    def _ending(self) -> Ending:
        code = os.waitstatus_to_exitcode(self._leader_status or 0)
        return Ending(
            exit_code=code if code >= 0 else 128 - code,
            signal=max(0, -code),
            cause=self._cause,
            out_of_memory=bool(self._cgroup and cgroups.oom_kills(self._cgroup)),
            duration_s=time.monotonic() - self._began,
        )
