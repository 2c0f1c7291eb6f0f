"""Jobs to rows and back. A column that is no field of a job is named here and nowhere else."""

import json
import sqlite3
from datetime import datetime
from functools import lru_cache
from typing import cast

from model_training.jobs import (
    Asked,
    JobState,
    Observation,
    Resources,
    TrainingJob,
    canonical_json,
    format_time,
    parse_time,
    resources_to_json,
)
from model_training.ledger.records import Entry

Value = str | int | float | None


def entry_of(row: sqlite3.Row) -> Entry:
    """The entry in a row of ``jobs``."""
    state = JobState(row["state"])
    return Entry(
        sequence=row["sequence"],
        job=job_of(row),
        asked=Asked(
            stop=row["stop_asked_at"] is not None,
            # The state itself, because after the loss of a ledger only the executor remembers.
            delete=state is JobState.DELETING,
        ),
        ended=bool(row["ended"]),
    )


def job_of(row: sqlite3.Row) -> TrainingJob:
    """The job in a row of ``jobs``."""
    return TrainingJob(
        name=row["name"],
        id=row["id"],
        pipeline=row["pipeline"] or None,
        namespace=row["namespace"],
        state=JobState(row["state"]),
        reason=row["reason"],
        message=row["message"],
        parameters=json.loads(row["parameters"]),
        executor=row["executor"],
        image=row["image"],
        command=_words(row["command"]),
        digest=row["digest"],
        owner=row["owner"],
        created_at=parse_time(row["created_at"]),
        started_at=_time(row["started_at"]),
        finished_at=_time(row["finished_at"]),
        duration_s=row["duration_s"],
        exit_code=row["exit_code"],
        attempt=row["attempt"],
        resources=_resources(row["resources"]),
        timeout_s=row["timeout_s"],
        output=row["output"],
        warnings=_words(row["warnings"]),
    )


# The jobs of one list have few different ones, and both are frozen.
@lru_cache(maxsize=64)
def _words(text: str) -> tuple[str, ...]:
    return tuple(cast("list[str]", json.loads(text)))


@lru_cache(maxsize=64)
def _resources(text: str) -> Resources:
    return Resources(**json.loads(text))


def values_of_new(job: TrainingJob, observation: Observation) -> dict[str, Value]:
    """What the query ``add`` binds."""
    return {
        **values_of_change(job, ended=job.state.is_terminal),
        "name": job.name,
        "id": job.id,
        "pipeline": job.pipeline or "",
        "owner": job.owner,
        "created_at": format_time(job.created_at),
        "namespace": job.namespace,
        "executor": job.executor,
        "image": job.image,
        "timeout_s": job.timeout_s,
        "request_digest": observation.spec.request_digest,
        "resources": canonical_json(resources_to_json(job.resources)),
        "warnings": canonical_json(job.warnings),
        "command": canonical_json(job.command),
        "parameters": canonical_json(job.parameters),
    }


def values_of_change(job: TrainingJob, *, ended: bool) -> dict[str, Value]:
    """What the query ``change`` binds, but for the sequence."""
    return {
        "state": job.state.value,
        "ended": int(ended),
        "reason": None if job.reason is None else str(job.reason),
        "message": job.message,
        "started_at": _text(job.started_at),
        "finished_at": _text(job.finished_at),
        "duration_s": job.duration_s,
        "exit_code": job.exit_code,
        "attempt": job.attempt,
        "output": job.output,
        "digest": job.digest,
    }


def _time(text: object) -> datetime | None:
    return None if text is None else parse_time(cast("str", text))


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)
