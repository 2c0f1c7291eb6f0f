"""The supervisor: one small process a job, which outlives the server and tells the truth.

It holds the job's lock for life, says in ``run.json`` that it began, prepares the environment,
runs the command, copies its output, ends its whole tree, and says in ``exit.json`` how it ended.
It works in the job's folder, needs no server, and starts nothing where somebody has begun
before. Everything is imported before the job starts, so that an upgrade of the installed package
does not reach a running job; the standard library only, to stay below 15 MB.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from model_training.executors.local import cgroups, commands, processes, records, runs, variables
from model_training.executors.local.wakeups import Wakeups
from model_training.folders import JobFolder
from model_training.logs.segments import SegmentWriter

LOG_SIZE: Final = 64 << 10  # bytes of our own words that are kept
RETRY_S: Final = 1.0  # between tries to write the end on a full disk


class _Ended(Exception):
    """The job ends here; carries what goes into ``exit.json``."""

    def __init__(
        self, state: str, reason: str | None, message: str | None, exit_code: int | None = None
    ) -> None:
        super().__init__(message)
        self.record: records.Record = {
            "state": state,
            "reason": reason,
            "message": message[: records.MESSAGE_LIMIT] if message else None,
            "exit_code": exit_code,
        }


class Supervisor:
    """One life of one job."""

    def __init__(self, folder: JobFolder, umask: int) -> None:
        self._folder = folder
        self._umask = umask
        spec = records.read(folder.spec) or {}
        self._job: dict[str, Any] = spec["job"]
        self._process: dict[str, Any] = spec["process"]
        self._assigned: dict[str, Any] = _read_assignment()
        self._wakeups = Wakeups(folder.stop)
        self._clock = _Clock()
        self._started_at: str | None = None
        self._duration_s: float | None = None
        self._cgroup: Path | None = None
        self._prepare_until: float | None = None  # on the monotonic clock
        self._run: records.Record = {}

    def live(self) -> int:
        """Run the job to its end; the supervisor's own exit code."""
        if self._folder.run.exists() or self._folder.exit.exists():
            return 0  # somebody began before us, and nothing is ever started twice
        try:
            records.reserve(self._folder.exit)
            self._begin()
        except OSError as error:
            say(f"cannot begin: {error}")
            return processes.NOT_BEGUN
        writer: SegmentWriter | None = None
        try:
            self._make_folders()
            writer = SegmentWriter(self._folder.log(1), limit=self._process["log_limit"])
            self._work(writer)
        except _Ended as ended:
            end = ended.record
        except OSError as error:
            end = _Ended("failed", "StartFailed", f"the job could not be set up: {error}").record
        else:
            return 0  # not reached: _work ends by raising
        if writer:
            self._close(writer)
        self._end(end)
        return 0

    def _close(self, writer: SegmentWriter) -> None:
        try:
            writer.close()
        except OSError as error:
            say(f"cannot finish the log: {error}")  # the disk is broken; how it ended counts

    def _work(self, writer: SegmentWriter) -> None:
        copy = self._copier(writer)
        self._stop_if_asked()
        prefix = self._prepare(copy)
        self._stop_if_asked()
        if self._run["phase"] != "starting":
            self._note("starting")
        try:
            self._cgroup = self._make_cgroup()
            run = runs.Run(self._command(prefix), self._limits(), copy, self._wakeups)
        except (commands.CannotStart, OSError) as error:
            raise _Ended("failed", "StartFailed", str(error)) from error
        self._started_at = records.format_ns(self._clock.now_ns())
        self._note_running(run.pid)
        ending = self._see_through(run)
        self._duration_s = round(ending.duration_s, 6)
        raise _ended(ending, self._limits(), by_service=self._wakeups.is_asked_by_service)

    def _see_through(self, run: runs.Run) -> runs.Ending:
        while True:
            try:
                return run.wait()
            except OSError as error:  # whatever the system refuses: the job runs, and is ours
                say(f"trouble while it runs: {error}")
                self._wakeups.wait(RETRY_S)

    def _begin(self) -> None:
        who = processes.identity(os.getpid())
        self._run = {
            "supervisor": list(who) if who else None,
            "cgroup": self._assigned.get("cgroup") and str(self._cgroup_path()),
        }
        self._note("preparing" if self._job["requirements"] else "starting")

    def _note(self, phase: str, **more: object) -> None:
        self._run |= {"phase": phase} | more
        records.write(self._folder.run, self._run)

    def _note_running(self, pid: int) -> None:
        line = processes.stat(pid)
        try:
            self._note(
                "running",
                pid=pid,
                start_ticks=line.start_ticks if line else None,
                started_at=self._started_at,
            )
        except OSError as error:
            say(f"cannot note that it runs: {error}")  # the disk is full; the job goes on

    def _make_folders(self) -> None:
        for path in (self._folder.output, self._folder.logs):
            path.mkdir(exist_ok=True, mode=0o700)
        parameters = self._process["environment"]["MODEL_TRAINING_PARAMETERS"]
        self._folder.parameters.write_text(parameters)

    def _copier(self, writer: SegmentWriter) -> Callable[[memoryview], None]:
        return lambda data: writer.write(data, self._clock.now_ns())

    def _prepare(self, copy: Callable[[memoryview], None]) -> Path | None:
        """The job's own Python environment, if its pipeline has requirements."""
        if not self._job["requirements"]:
            return None
        from model_training.executors.local import environments

        if self._job["timeout_s"] is not None:
            self._prepare_until = time.monotonic() + self._job["timeout_s"]
        requirements = Path(self._job["folder"]) / self._job["requirements"]
        try:
            place = environments.place_of(Path(self._process["environments"]), requirements)
            environments.build(
                place, requirements, lambda argv: self._run_tool(argv, copy), self._wait
            )
        except (environments.CannotBuild, OSError) as error:
            raise _Ended("failed", "EnvironmentFailed", str(error)) from error
        return place

    def _run_tool(self, argv: list[str], copy: Callable[[memoryview], None]) -> int:
        environment = variables.for_installer(os.environ, self._job["name"])
        command = commands.Command(argv, self._job["folder"], environment, self._umask)
        try:
            limits = runs.Limits(self._prepare_left(), self._job["grace_s"])
            ending = runs.Run(command, limits, copy, self._wakeups).wait()
        except commands.CannotStart as error:
            raise _Ended("failed", "EnvironmentFailed", str(error)) from error
        if ending.cause is runs.Cause.STOP:
            raise _Ended("stopped", None, "stopped while its environment was built")
        if ending.cause is runs.Cause.TIMEOUT:
            raise _late()
        return ending.exit_code

    def _prepare_left(self) -> float | None:
        """Seconds until the preparation must be done: it has the job's timeout for itself."""
        if self._prepare_until is None:
            return None
        return max(0.0, self._prepare_until - time.monotonic())

    def _wait(self, seconds: float) -> bool:
        if self._prepare_left() == 0:
            raise _late()
        self._wakeups.wait(seconds)
        return not self._wakeups.stop_asked

    def _stop_if_asked(self) -> None:
        if self._wakeups.stop_asked:
            raise _Ended("stopped", None, "stopped before it started")

    def _limits(self) -> runs.Limits:
        return runs.Limits(self._job["timeout_s"], self._job["grace_s"])

    def _command(self, prefix: Path | None) -> commands.Command:
        return commands.Command(
            argv=self._job["command"],
            folder=self._job["folder"] or str(self._folder.output),
            environment=self._environment(prefix),
            umask=self._umask,
            cpus=self._assigned.get("cpus", ()),
            cgroup=self._cgroup,
        )

    def _environment(self, prefix: Path | None) -> dict[str, str]:
        job = self._job
        environment = variables.for_job(
            os.environ, job["pass_env"], job["environment"], self._process["environment"]
        )
        if (gpus := self._assigned.get("gpus")) is not None:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
        if cpus := self._assigned.get("cpus"):
            environment.setdefault("OMP_NUM_THREADS", str(len(cpus)))
        if prefix:
            environment["VIRTUAL_ENV"] = str(prefix)
            environment["PATH"] = f"{prefix / 'bin'}:{environment.get('PATH', os.defpath)}"
        return environment

    def _cgroup_path(self) -> Path:
        return Path(self._assigned["cgroup"]) / self._job["name"]

    def _make_cgroup(self) -> Path | None:
        if not self._assigned.get("cgroup"):
            return None
        path = self._cgroup_path()
        return cgroups.make(path.parent, path.name, self._job["resources"]["memory"])

    def _end(self, record: records.Record) -> None:
        if self._cgroup:
            cgroups.end(self._cgroup)
        record |= {
            "started_at": self._started_at,
            "finished_at": records.format_ns(self._clock.now_ns()),
            "duration_s": self._duration_s,
            "attempt": 1,
        }
        while True:
            try:
                records.write_reserved(self._folder.exit, record)
            except OSError as error:
                say(f"cannot write how it ended: {error}; trying again")
                self._wakeups.wait(RETRY_S)
            else:
                return


class _Clock:
    """Wall time that nobody can set back: read once, then counted on by the machine's clock."""

    def __init__(self) -> None:
        self._wall = time.time_ns() - self._since_boot()

    def now_ns(self) -> int:
        return self._wall + self._since_boot()

    @staticmethod
    def _since_boot() -> int:
        # Unlike CLOCK_MONOTONIC it counts the time that a laptop slept.
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _late() -> _Ended:
    return _Ended("failed", "Timeout", "its environment was not ready within the job's timeout")


def _ended(ending: runs.Ending, limits: runs.Limits, *, by_service: bool) -> _Ended:
    """What an ending means."""
    code = ending.exit_code
    if ending.cause is runs.Cause.STOP:
        message = "finished during stop" if code == 0 else None
        if not by_service:
            message = "stopped by a SIGTERM to its supervisor, from outside the service"
        return _Ended("stopped", None, message, code)
    if ending.cause is runs.Cause.TIMEOUT:
        return _Ended("failed", "Timeout", f"ran longer than {limits.timeout_s:g} s", code)
    if ending.out_of_memory:
        message = "a process of it was killed at the job's memory limit"
        return _Ended("failed", "OutOfMemory", message, code)
    if ending.signal:
        return _Ended("failed", "Signal", _signal_message(ending.signal), code)
    if code:
        return _Ended("failed", "Error", f"exit code {code}", code)
    return _Ended("succeeded", None, None, 0)


def _signal_message(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal has no name of its own
        name = f"signal {number}"
    hint = "; perhaps the machine ran out of memory" if number == signal.SIGKILL else ""
    return f"ended by {name}{hint}"


def _read_assignment() -> dict[str, Any]:
    """What the server wrote into the lock file: the devices that this job may use."""
    size = os.fstat(processes.LOCK_FD).st_size
    return json.loads(os.pread(processes.LOCK_FD, size, 0) or b"{}")


def say(words: str) -> None:
    """A line in ``supervisor.log``, which never grows beyond its limit."""
    try:
        if os.fstat(2).st_size < LOG_SIZE:
            os.write(2, f"{records.format_ns(time.time_ns())} {words}\n".encode())
    except OSError:
        pass  # the disk is full, and there is nobody else to tell


def main(folder: str) -> int:
    """Be the supervisor of the job in this folder, whose lock is held as ``LOCK_FD``."""
    umask = os.umask(0o077)
    os.set_inheritable(processes.LOCK_FD, False)  # noqa: FBT003 - it takes no keyword
    os.closerange(processes.LOCK_FD + 1, os.sysconf("SC_OPEN_MAX"))
    os.chdir(folder)
    processes.prctl(processes.PR_SET_CHILD_SUBREAPER, 1)
    return Supervisor(JobFolder(Path(folder)), umask).live()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
