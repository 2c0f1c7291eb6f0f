"""What the tests of the local executor share: job specs, and supervisors without an executor."""

import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from model_training.executors.base import Executor
from model_training.executors.local import jobs, records, shelves, watching
from model_training.executors.local.intake import Applicant, accept_all
from model_training.executors.local.jobs import Job
from model_training.folders import DataFolder
from model_training.jobs import JobSpec, JobState, Observation
from model_training.names import job_name
from tests.waiting import until


def spec(*command: str, folder: Path | str = "/", **fields: object) -> JobSpec:
    """A job of pipeline ``local`` that may be stopped quickly."""
    job_id = uuid4()
    values: dict[str, object] = {
        "name": job_name("local", job_id),
        "id": str(job_id),
        "pipeline": "local",
        "namespace": "default",
        "owner": "tester",
        "created_at": datetime.now(UTC),
        "parameters": {},
        "request_digest": "",
        "executor": "local",
        "command": command,
        "folder": str(folder),
        "grace_s": 1.0,
    }
    return JobSpec(**(values | fields))  # pyright: ignore


def sh(script: str, **fields: object) -> JobSpec:
    """A shell job."""
    return spec("sh", "-c", script, **fields)


def accept(data: DataFolder, wanted: JobSpec) -> Job:
    """The folder of an accepted job, as the executor makes it."""
    shelves.prepare(data)
    folder = data.job(wanted.name)
    process: dict[str, object] = {
        "environment": jobs.variables(wanted, folder),
        "environments": str(data.environments),
        "log_limit": 1 << 30,
    }
    assert not accept_all(data, [Applicant(wanted, 1, process)])
    return jobs.accepted(wanted, folder, 1)


def begin(job: Job, **assigned: object) -> int:
    """Start the supervisor, by default in no cgroup and without devices; its pid."""
    nothing: dict[str, object] = {"gpus": None, "cpus": [], "cgroup": None}
    pid = watching.start_supervisor(job, nothing | assigned)
    assert pid is not None
    return pid


def end_of(job: Job, pid: int) -> records.Record:
    """Wait for the supervisor; what it wrote."""
    os.waitpid(pid, 0)
    record = records.read(job.folder.exit)
    assert record is not None, job.folder.supervisor_log.read_text()
    return record


def run(data: DataFolder, wanted: JobSpec, **assigned: object) -> tuple[records.Record, bytes]:
    """Run a job from start to end without an executor; its record and its log."""
    job = accept(data, wanted)
    record = end_of(job, begin(job, **assigned))
    return record, log_of(data, wanted.name)


def log_of(data: DataFolder, name: str) -> bytes:
    """What a job printed."""
    return b"".join(path.read_bytes() for path in sorted(data.job(name).log(1).glob("*.log")))


def stop(job: Job, pid: int) -> None:
    """Ask the supervisor to stop the job, as the executor does."""
    records.write(job.folder.stop, {"at": "now"})
    os.kill(pid, signal.SIGTERM)


class Watcher:
    """Everything that an executor said, gathered while a test goes on."""

    def __init__(self, executor: Executor, *, everything: bool = False) -> None:
        self._events = executor.observe(everything=everything)
        self.seen: dict[str, list[Observation]] = {}

    async def begin(self) -> set[str]:
        """Take the snapshot; the names in it."""
        event = await anext(self._events)
        for observation in event.observations:
            self.seen.setdefault(observation.name, []).append(observation)
        return {observation.name for observation in event.observations}

    async def until(self, name: str, *states: JobState, gone: bool = False) -> Observation:
        """Take changes until the job is in one of these states (or gone); that observation."""
        while True:
            for observation in self.seen.get(name, []):
                if observation.gone if gone else observation.state in states:
                    return observation
            event = await anext(self._events)
            for observation in event.observations:
                self.seen.setdefault(observation.name, []).append(observation)

    async def end(self, name: str) -> Observation:
        """Take changes until the job has ended."""
        return await self.until(name, JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED)

    async def close(self) -> None:
        """Observe no more."""
        await self._events.aclose()


async def begun(path: Path) -> str:
    """Wait until a job wrote something into this file."""
    return await until(lambda: path.exists() and path.read_text())
