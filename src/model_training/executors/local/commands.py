"""One command as a child of the supervisor: started exactly as wanted, or refused with the reason.

The child tells what kept it from starting through a pipe that closes by itself when the command
runs, so that "no such program" is never mistaken for an exit code of the program.

Standard library only: the supervisor uses it.
"""

import errno
import os
import resource
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from model_training.executors.local import cgroups, processes

REASON_SIZE = 4096  # bytes of the reason pipe that are read


class CannotStart(Exception):
    """The command did not start; the message says why."""


class Command(NamedTuple):
    """What to run, and how."""

    argv: list[str]
    folder: str
    environment: Mapping[str, str]
    umask: int
    cpus: Sequence[int] = ()
    """run only on these, where there are any"""
    cgroup: Path | None = None


def start(command: Command, output: int) -> int:
    """Start the command with ``output`` as stdout and stderr; its pid, which leads a session.

    Raises:
        CannotStart: there is no such program or folder, or it may not be run.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(reader)
        os.close(writer)
        raise CannotStart(f"no process could be made: {error.strerror}") from error
    if pid == 0:
        _become(command, output, writer, parent)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        reason = pipe.read(REASON_SIZE)
    if reason:
        os.waitpid(pid, 0)
        raise CannotStart(reason.decode(errors="replace"))
    return pid


def _become(command: Command, output: int, reason: int, parent: int) -> NoReturn:
    try:
        _prepare(command, output, parent)
        _execute(command)
    except CannotStart as error:
        os.write(reason, str(error).encode()[:REASON_SIZE])
    except OSError as error:
        os.write(reason, f"the command could not be started: {error}".encode()[:REASON_SIZE])
    finally:
        os._exit(127)


def _prepare(command: Command, output: int, parent: int) -> None:
    os.setsid()
    processes.prctl(processes.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(127)  # the supervisor died before the line above; the server cleans up
    os.dup2(output, 1)
    os.dup2(output, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if command.cpus:
        os.sched_setaffinity(0, command.cpus)
    if command.cgroup:
        cgroups.join(command.cgroup)
    os.umask(command.umask)
    try:
        os.chdir(command.folder)
    except OSError as error:
        what = "is missing" if error.errno == errno.ENOENT else f"cannot be used: {error.strerror}"
        raise CannotStart(f"the working folder {command.folder} {what}") from error
    _default_signals()


def _default_signals() -> None:
    """Undo what Python and the supervisor set: the command starts as from a shell."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if signal.getsignal(number) not in {signal.SIG_DFL, None}:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _execute(command: Command) -> NoReturn:
    program = command.argv[0]
    refused: OSError | None = None
    for place in _places(program, command.environment.get("PATH", os.defpath)):
        try:
            os.execve(place, command.argv, command.environment)  # noqa: S606 - argv, never a shell
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR} or Path(place).exists():
                refused = refused or error
    if refused is None:
        raise CannotStart(f"command not found: {program}")
    raise CannotStart(_why(refused, program))


def _places(program: str, path: str) -> Iterator[str]:
    if "/" in program:
        yield program
        return
    for folder in path.split(os.pathsep):
        yield f"{folder or '.'}/{program}"


def _why(error: OSError, program: str) -> str:
    match error.errno:
        case errno.EACCES:
            return f"not executable: {program}; run chmod +x on it, or name its interpreter"
        case errno.ENOEXEC:
            return f"not executable: {program} is no program of this machine and has no #! line"
        case errno.ENOENT:
            return f"the interpreter that the #! line of {program} names is missing"
        case errno.E2BIG:
            return f"the arguments and the environment of {program} are too large for this system"
        case _:
            return f"{program} could not be started: {error.strerror}"
