"""Where the contract suite works: an executor on its bench, its jobs, and all that was seen.

The suite names no executor. A ``Bench`` (made in ``conftest.py``) knows how to start one and
where its jobs leave their traces; a ``Lab`` launches jobs on it, records every observation,
starts the server side anew, and leaves nothing behind. When a lab closes it also judges what
holds for every job in every test: how observations may follow each other, and that no process
of a removed job is left.
"""

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import pytest

from model_training.executors.base import Executor
from model_training.jobs import JobSpec, JobState, Observation
from tests.contract.history import Watch, check_history
from tests.contract.leftovers import end_all, pids_of, processes_of, reap
from tests.contract.server_process import ServerProcess
from tests.waiting import until

# A shell line that waits for ``go``. Asked twice, it may find the first writer still there,
# reads nothing from it, and waits for the next.
WAIT = 'until read word < "$GO"; do :; done'


class Case(StrEnum):
    """What not every executor can have; its bench says why not."""

    QUEUE = "a queue of its own: slots, and GPUs handed out by index"
    FOLDER = "a folder on this machine: a working folder, an environment built from its files"
    SIGNALS = "a death by a signal told from an exit code above 128"
    RAW_OUTPUT = "output byte by byte as it comes, both streams in one order"
    DESCENDANTS = "time for descendants that outlive the training process"
    PASSED_VALUES = "values of the server's own environment, passed on"
    LOG_MEANWHILE = "a log that grows while the server is away"
    SETTLED_MARK = "a mark that an end is recorded, kept over a restart"
    THREE_HUNDRED = "three hundred jobs within two minutes"


class Bench(Protocol):
    """One executor as the suite sees it. ``tmp`` paths are the same for jobs and tests."""

    cannot: Mapping[Case, str]
    """cases that this executor cannot have, each with its reason"""
    out_of_memory: str
    """the reason to expect when a job is out of memory"""
    late_s: float
    """seconds by which it may be later than one machine is, in whatever it does"""
    python: tuple[str, ...]
    """argv of a Python 3 where jobs run"""
    shared: Path
    """a folder that jobs and tests reach by the same path"""

    def executor(self, *, slots: int, gpus: Sequence[int]) -> Executor:
        """A new executor, not entered yet, on the same data as the ones before it."""
        ...

    def server(self, *, slots: int, gpus: Sequence[int]) -> tuple[str, ...]:
        """Argv of ``server_process.py`` for the same executor."""
        ...

    def spec(self, argv: Sequence[str], folder: str | None) -> JobSpec:
        """A job that runs ``argv`` in ``folder`` (None: wherever it likes)."""
        ...

    def log(self, name: str) -> bytes:
        """What the job printed so far; empty if there is no log."""
        ...

    def output(self, name: str) -> Path:
        """The job's output folder."""
        ...

    def traces(self) -> list[str]:
        """Names of all that the executor keeps of jobs; empty when nothing is left of any."""
        ...


class Lab:
    """An executor at work, with everything it says recorded.

    ``killable``: the executor lives in a process of its own, which ``leave`` ends by SIGKILL.
    """

    def __init__(
        self, bench: Bench, *, slots: int = 4, gpus: Sequence[int] = (), killable: bool = False
    ) -> None:
        self.bench = bench
        self.late_s = bench.late_s
        self.slots = slots
        self.gpus = gpus
        self.killable = killable
        self.mark = uuid.uuid4().hex
        self.watches: list[Watch] = []
        self.launched: set[str] = set()
        self._running: Executor | ServerProcess | None = None

    async def __aenter__(self) -> Self:
        await self.enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._running is None:
                await self.enter()
            await self._remove_all()
            await self.leave(by=None)
            left = await self._settled_leftovers()
        finally:
            killed = end_all(self.mark, self.bench.shared.parent)
            reap()
        if kind is None:
            assert not left, f"left after the removal of all jobs: {left}; killed {killed}"
            for name in self.launched:
                check_history([watch.history(name) for watch in self.watches])

    async def _remove_all(self) -> None:
        names = {name for name in self.launched if not self._is_gone(name)}
        await asyncio.gather(*(self.executor.remove(name) for name in names))
        await until(lambda: all(map(self._is_gone, names)), 20, "all jobs are gone")

    async def _settled_leftovers(self) -> list[str]:
        def none_left() -> bool:
            return not processes_of(self.mark, self.bench.shared.parent)

        with contextlib.suppress(AssertionError):  # told below, with what is left
            await until(none_left, 3)
        return processes_of(self.mark, self.bench.shared.parent) + self.bench.traces()

    @property
    def executor(self) -> Executor | ServerProcess:
        """The one that works now."""
        assert self._running is not None, "nobody is at work; enter() first"
        return self._running

    @property
    def watch(self) -> Watch:
        """What the executor that works now (or worked last) has said."""
        return self.watches[-1]

    async def enter(self) -> None:
        """Start the server side; returns once its first snapshot is there."""
        if self.killable:
            self._running = ServerProcess(self.bench.server(slots=self.slots, gpus=self.gpus))
        else:
            self._running = self.bench.executor(slots=self.slots, gpus=self.gpus)
        await self._running.__aenter__()
        self.watches.append(Watch(self._running))
        await self.watch.begin()

    async def leave(self, *, by: signal.Signals | None = signal.SIGKILL) -> None:
        """End the server side: by this signal where the lab is killable, else as on shutdown."""
        running, self._running = self.executor, None
        await self.watch.end()
        if isinstance(running, ServerProcess) and by is not None:
            await running.end(by)
        else:
            await running.__aexit__(None, None, None)

    async def restart(self) -> None:
        """Leave, and enter again on the same data."""
        await self.leave()
        await self.enter()

    def needs(self, case: Case) -> None:
        """Skip the test, with the bench's reason, where the executor cannot have the case."""
        if reason := self.bench.cannot.get(case):
            pytest.skip(f"{case}: {reason}")

    def has(self, case: Case) -> bool:
        """Whether the executor can have the case; for a part of a test."""
        return case not in self.bench.cannot

    # Jobs.

    def sh(self, script: str) -> tuple[str, ...]:
        """Argv of a shell job; it notes its start, once a start."""
        return ("sh", "-c", f'echo started >> "$WITNESS"\n{script}\n# {self.mark}')

    def py(self, code: str) -> tuple[str, ...]:
        """Argv of a Python job; it notes its start, once a start."""
        note = 'import os\nopen(os.environ["WITNESS"], "a").write("started\\n")\n'
        return (*self.bench.python, "-c", f"{note}{code}\n# {self.mark}")

    def waiting(self, then: str = "") -> tuple[str, ...]:
        """Argv of a job that waits for ``go`` and then runs the shell lines ``then``."""
        return self.sh(f"{WAIT}\n{then}")

    def spec(self, argv: Sequence[str], *, folder: str | None = None, **fields: object) -> JobSpec:
        """A job of this lab that can be told to go on; ``fields`` are those of JobSpec."""
        spec = self.bench.spec(argv, folder)
        environment = {
            "LAB_MARK": self.mark,
            "WITNESS": str(self.bench.shared / f"{spec.name}.witness"),
            "GO": str(self.bench.shared / f"{spec.name}.go"),
        } | dict(fields.pop("environment", None) or {})  # pyright: ignore
        values = {name: getattr(spec, name) for name in JobSpec.__dataclass_fields__}
        values |= {"environment": environment, "grace_s": 1.0} | fields
        return JobSpec(**values)

    async def launch(self, argv: Sequence[str], **fields: object) -> str:
        """Launch a job and return its name."""
        return (await self.launch_spec(self.spec(argv, **fields))).name  # pyright: ignore

    async def launch_spec(self, spec: JobSpec) -> Observation:
        """Launch this very spec."""
        self.launched.add(spec.name)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self.bench.shared / f"{spec.name}.go")
        return await self.executor.launch(spec)

    async def go(self, name: str, within: float = 10) -> None:
        """Let a job that waits go on; waits until it has got there."""

        def tell() -> bool:
            try:
                fifo = os.open(self.bench.shared / f"{name}.go", os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads yet
                return False
            os.write(fifo, b"go\n")
            os.close(fifo)
            return True

        await until(tell, within + self.late_s, f"{name} waits to be told to go on")

    # What is seen of them.

    def starts(self, name: str) -> int:
        """How often the job was started."""
        witness = self.bench.shared / f"{name}.witness"
        return witness.read_text().splitlines().count("started") if witness.exists() else 0

    async def begun(self, name: str, within: float = 10) -> None:
        """Wait until the job's own first line has run."""
        await until(lambda: self.starts(name), within + self.late_s, f"{name} starts")

    def last(self, name: str) -> Observation | None:
        """The newest observation of the job by the executor that works now."""
        history = self.watch.history(name)
        return history[-1] if history else None

    async def seen(
        self, name: str, *states: JobState, reason: str | None = None, within: float = 10
    ) -> Observation:
        """Wait for an observation with one of these states (and this reason)."""

        def found() -> Observation | None:
            self.watch.check()
            wanted = (
                seen
                for seen in self.watch.history(name)
                if seen.state in states and (reason is None or seen.reason == reason)
            )
            return next(wanted, None)

        try:
            return await until(found, within + self.late_s)
        except AssertionError:
            words = f"{' or '.join(states)} {reason or ''} of {name}; seen: "
            raise AssertionError(words + repr(self.watch.history(name))) from None

    async def running(self, name: str, within: float = 10) -> Observation:
        """Wait until the job is seen running."""
        return await self.seen(name, JobState.RUNNING, within=within)

    async def ended(self, name: str, within: float = 10) -> Observation:
        """Wait until the job is seen in a terminal state."""
        ends = (JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED)
        return await self.seen(name, *ends, within=within)

    def _is_gone(self, name: str) -> bool:
        self.watch.check()
        last = self.last(name)
        return last is not None and last.gone

    async def gone(self, name: str, within: float = 10) -> None:
        """Wait until the executor says that nothing of the job is left."""
        await until(lambda: self._is_gone(name), within + self.late_s, f"{name} is gone")

    def log(self, name: str) -> bytes:
        """What the job printed so far."""
        return self.bench.log(name)

    async def printed(self, name: str, words: bytes, within: float = 10) -> None:
        """Wait until the job's log holds these bytes."""
        is_there = lambda: words in self.log(name)  # noqa: E731 - a name for what is waited for
        await until(is_there, within + self.late_s, f"{name} prints {words!r}")

    def processes(self) -> list[str]:
        """The jobs' processes that are alive (the server's own helpers are not counted)."""
        return processes_of(self.mark, None)

    def pids(self, name: str) -> list[int]:
        """Process ids of this job's live processes."""
        return pids_of(f"{name}.witness", None)

    async def no_process_left(self, within: float) -> None:
        """Wait until no process of any job of this lab is alive."""
        try:
            await until(lambda: not self.processes(), within + self.late_s)
        except AssertionError:
            raise AssertionError(f"alive after {within} s: {self.processes()}") from None
