"""What an executor is: a small driver that starts, stops, removes and observes jobs.

It knows no HTTP, no access rules, no ledger and no pipelines: it gets a complete JobSpec. The
suite in ``tests/contract`` holds every executor to the promises written here.

Output is no part of this interface. What a job prints appears in its log folder
(``DataFolder.job(name).log(attempt)``), written by ``logs.segments``: by a supervisor on one
machine, by a collector on a cluster.
"""

from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from model_training.jobs import JobSpec, JSONObject, Observation, Resources


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every job that the executor knows (or, from ``observe()``, every one not yet settled).

    A job that the ledger holds as active and that is not in it has vanished.
    """

    observations: Iterable[Observation]
    """oldest job first; read once, before the next event is asked for, as some executors make
    them one by one: all at once they would be most of the server's memory"""


@dataclass(frozen=True, slots=True)
class Change:
    """Jobs that changed since the snapshot or the last change."""

    observations: tuple[Observation, ...]


class Executor(Protocol):
    """The contract. All methods may raise ``ExecutorUnavailable``: nothing changed, try again."""

    @property
    def name(self) -> str:
        """``local`` or ``kubernetes``."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether it can run jobs as far as it knows; if not, its log says what is in the way."""
        ...

    async def __aenter__(self) -> Self:
        """Begin to work, or to wait for what it works on: it may come later."""
        ...

    async def __aexit__(self, *exc_info: object) -> None:
        """Leave; no job is ended by it."""
        ...

    def cannot_enforce(self, resources: Resources) -> Mapping[str, str]:
        """The resources that cannot be enforced here: option name to the reason, for people.

        Empty if all can. Keys are ``cpu``, ``memory`` and ``gpu``.
        """
        ...

    async def plan(self, spec: JobSpec) -> JSONObject:
        """What ``launch`` would create, without secrets. Nothing is created."""
        ...

    async def launch(self, spec: JobSpec) -> Observation:
        """Accept the job; on return it is durable and will run without further calls.

        Idempotent by name: where the job exists already, its own observation is returned, with
        the spec it was accepted with, whatever ``spec`` says.

        Raises:
            JobRejected: it would be refused again; nothing was created.
            DiskReserveReached: there is no space; nothing was created.
        """
        ...

    async def stop(self, name: str) -> None:
        """Ask the job to end: SIGTERM, its own grace, SIGKILL, until no process of it is left.

        Returns once this is durable, not when it has happened. A job that waits ends at once
        and never starts. Stopping one that has ended, is being stopped or is not there is no
        error and changes nothing.
        """
        ...

    async def remove(self, name: str) -> None:
        """Stop whatever runs of the job and forget it; then an observation says ``gone``.

        Returns once this is under way. The caller repeats it after a crash; removing one that
        is not there yields ``gone`` again.
        """
        ...

    def outputs(self, name: str) -> Path | None:
        """The folder of what the job kept; None where this service cannot reach it."""
        ...

    def observe(self, *, everything: bool = False) -> AsyncGenerator[Snapshot | Change]:
        """One ``Snapshot``, then ``Change``s for ever.

        The snapshot leaves out jobs that were settled, so that a million finished ones cost
        nothing at start; ``everything=True`` includes them, to rebuild a lost ledger.
        """
        ...

    async def write_off(self, names: Iterable[str]) -> Collection[str]:
        """These are in no snapshot: which of them vanished, so that nothing more will be told.

        Nobody saw how they went. Their logs say by then that something may be missing, as far as
        the disk has taken it.
        """
        ...

    async def settle(self, names: Iterable[str]) -> None:
        """The ends of these jobs are recorded durably; snapshots may leave them out.

        Names that are not there, or have not ended, are passed over.
        """
        ...
