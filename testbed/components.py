"""The processes of a cluster: started, broken on purpose, looked at, and ended."""

import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from testbed.errors import ClusterError
from testbed.processes import Record, launch


@dataclass(frozen=True)
class Component:
    """One program of the cluster.

    Attributes:
        argv: how it is started; the program by its path.
        healthy: asks it whether it does its work, and takes a few seconds at most.
        environment: variables beside our own.
    """

    argv: tuple[str, ...]
    healthy: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Condition:
    """How a component stands: ``running``, ``unhealthy``, ``paused`` or ``not running``."""

    state: str
    pid: int | None


class Components:
    """The components of one cluster, by the name of their process, in the order of their start.

    Records of who runs are in ``run`` of the folder, what they printed is in ``logs``. Another
    process that makes an object of the same folder has the same components in its hands.
    """

    folder: Path

    def components(self) -> dict[str, Component]:
        """What the cluster is made of."""
        raise NotImplementedError

    def start(self, name: str, extra_flags: Iterable[str] = ()) -> None:
        """Start a component that does not run, with flags after its own (the last of two wins)."""
        component = self._component(name)
        if self._running(name):
            return
        for folder in ("run", "logs"):
            (self.folder / folder).mkdir(exist_ok=True)
        argv = (*component.argv, *extra_flags)
        launch(argv, self._record(name), self.log(name), component.environment)

    def stop(self, name: str) -> None:
        """End a component by SIGTERM, after 10 s by SIGKILL; returns once it has ended."""
        self.kill(name, signal.SIGTERM)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send the signal that ends a component; returns once it has ended."""
        if record := self._running(name):
            record.end(number)

    def pause(self, name: str) -> None:
        """Stop it as SIGSTOP does: connections stay open and nobody answers."""
        self._signal(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a paused component go on."""
        self._signal(name, signal.SIGCONT)

    def restart(self, name: str, extra_flags: Iterable[str] = ()) -> None:
        """Stop it, start it with these flags after its own, and wait until it is ready."""
        self.stop(name)
        self.start(name, extra_flags)
        self.wait_ready(name)

    def log(self, name: str) -> Path:
        """The file of what a component printed, over all its starts."""
        return self.folder / "logs" / f"{name}.log"

    def condition(self, name: str) -> Condition:
        """How one component stands now."""
        record = self._running(name)
        if record is None:
            return Condition("not running", None)
        if record.state() in ("T", "t"):
            return Condition("paused", record.pid)
        healthy = self._component(name).healthy()
        return Condition("running" if healthy else "unhealthy", record.pid)

    def wait_ready(self, *names: str, within: float = 60.0) -> None:
        """Wait until these components do their work, all of them by default.

        Raises:
            ClusterError: one ended, or is not ready within so many seconds; with its last words.
        """
        deadline = time.monotonic() + within
        for name in names or self.components():
            while (state := self.condition(name).state) != "running":
                if state == "not running" or time.monotonic() > deadline:
                    raise ClusterError(f"{name} is {state}; {self._last_words(name)}")
                time.sleep(0.05)

    def _component(self, name: str) -> Component:
        components = self.components()
        if name not in components:
            raise ClusterError(f"no component {name}; there are: {', '.join(components)}")
        return components[name]

    def _record(self, name: str) -> Path:
        return self.folder / "run" / f"{name}.json"

    def _running(self, name: str) -> Record | None:
        self._component(name)
        record = Record.read(self._record(name))
        return record if record and record.state() else None

    def _signal(self, name: str, number: int) -> None:
        record = self._running(name)
        if record is None or not record.send(number):
            raise ClusterError(f"{name} is not running")

    def _last_words(self, name: str) -> str:
        log = self.log(name)
        lines = log.read_text(errors="replace").splitlines()[-8:] if log.exists() else []
        return "\n".join([f"the end of {log}:", *(f"  {line[:300]}" for line in lines)])
