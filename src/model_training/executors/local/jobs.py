"""A job as the local executor holds it in memory, and what is seen of it.

Only jobs whose ends are not settled are held; everything here can be rebuilt from their folders.
"""

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any, cast

from model_training.declarations import environment_of
from model_training.executors.local import processes, records
from model_training.executors.local.shelves import Found
from model_training.folders import JobFolder
from model_training.jobs import (
    JobSpec,
    JobState,
    Observation,
    Reason,
    canonical_json,
    parse_time,
)

# Grows with each observation of this process, over all executors that it ever makes.
_versions = itertools.count(time.monotonic_ns())


class Phase(Enum):
    """Where a job stands in the life that the executor gives it."""

    WAITING = auto()
    ACTIVE = auto()  # it has a slot: from the moment before its supervisor starts
    ENDED = auto()


@dataclass(slots=True, eq=False)
class Job:
    """One job."""

    spec: JobSpec
    folder: JobFolder
    sequence: int
    phase: Phase
    observation: Observation
    run: records.Record | None = None
    """what its supervisor said last"""
    is_stopping: bool = False
    is_removing: bool = False
    failed_starts: int = 0
    gpus: tuple[int, ...] = ()
    cpus: tuple[int, ...] = ()
    digest: str | None = None
    """of its pipeline's code at the start"""
    supervisor: processes.Identity | None = None
    """once it is known"""
    pidfd: int | None = None
    """of its supervisor"""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def see(self, state: JobState, **seen: Any) -> Observation:  # noqa: ANN401 - fields of Observation
        """Observe it anew."""
        self.observation = observe(self.spec, self.folder, state, digest=self.digest, **seen)
        return self.observation

    def see_run(self) -> Observation:
        """Observe what its supervisor said last."""
        run = self.run or {}
        state, seen = _running(run)
        if self.is_stopping:
            state, seen = JobState.STOPPING, {"started_at": seen.get("started_at")}
        return self.see(state, **seen)

    def hear(self, run: records.Record | None) -> bool:
        """Take note of what its supervisor says; whether it is news."""
        if run is None or run == self.run:
            return False
        self.run = run
        if run.get("supervisor"):
            self.supervisor = processes.Identity(*run["supervisor"])
        return True

    def see_end(self, record: records.Record) -> Observation:
        """Observe how it ended; it holds nothing from now on."""
        self.phase, self.gpus, self.cpus = Phase.ENDED, (), ()
        self.ended.set()
        return self.see(JobState(record["state"]), **_ended(record))


def observe(spec: JobSpec, folder: JobFolder, state: JobState, **seen: Any) -> Observation:  # noqa: ANN401
    """What is seen of a job now."""
    return Observation(
        spec=spec, version=next(_versions), state=state, output=str(folder.output), **seen
    )


def variables(spec: JobSpec, folder: JobFolder) -> dict[str, str]:
    """What the environment of a job tells it: its parameters, and where it is."""
    return environment_of(spec.parameters) | {
        processes.MARK: spec.name,
        "MODEL_TRAINING_PIPELINE": spec.pipeline or "",
        "MODEL_TRAINING_PARAMETERS": canonical_json(spec.parameters),
        "MODEL_TRAINING_PARAMETERS_FILE": str(folder.parameters),
        "MODEL_TRAINING_OUTPUT": str(folder.output),
    }


def accepted(spec: JobSpec, folder: JobFolder, sequence: int) -> Job:
    """A new job."""
    waiting = observe(spec, folder, JobState.PENDING, reason=Reason.WAITING_FOR_SLOT)
    return Job(spec, folder, sequence, Phase.WAITING, waiting)


def from_folder(found: Found) -> Job:
    """A job that was found on disk."""
    assigned = cast("dict[str, list[int]]", found.assigned)
    job = accepted(found.spec, found.folder, found.sequence)
    job.digest = cast("str | None", found.assigned.get("digest"))
    job.hear(found.run)
    job.is_stopping = found.stop_asked
    if found.exit:
        job.see_end(found.exit)
    elif found.is_locked or found.run is not None:
        job.phase = Phase.ACTIVE
        job.gpus, job.cpus = (tuple(assigned.get(what) or ()) for what in ("gpus", "cpus"))
        job.see_run()
    return job


def gone(spec: JobSpec, folder: JobFolder, last: Observation | None = None) -> Observation:
    """Nothing of the job is left."""
    state = last.state if last else JobState.STOPPED
    return observe(spec, folder, state, gone=True)


def gone_unknown(folder: JobFolder) -> Observation:
    """Nothing is left of a job of which only the name is known."""
    spec = JobSpec(
        name=folder.name,
        id="",
        pipeline=None,
        namespace="",
        owner="",
        created_at=datetime.fromtimestamp(0, UTC),
        parameters={},
        request_digest="",
        executor="local",
    )
    return gone(spec, folder)


def _running(run: records.Record) -> tuple[JobState, dict[str, Any]]:
    match run.get("phase"):
        case "running":
            return JobState.RUNNING, {"started_at": parse_time(run["started_at"])}
        case "preparing":
            message = "its Python environment is being built"
            return JobState.PENDING, {"reason": Reason.PREPARING_ENVIRONMENT, "message": message}
        case _:
            message = "its supervisor is starting it"
            return JobState.PENDING, {"reason": Reason.STARTING, "message": message}


def _ended(record: records.Record) -> dict[str, Any]:
    seen = {key: record.get(key) for key in ("reason", "message", "exit_code", "duration_s")}
    for key in ("started_at", "finished_at"):
        seen[key] = parse_time(record[key]) if record.get(key) else None
    return seen
