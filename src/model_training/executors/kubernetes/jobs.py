"""A job as the executor holds it: its Job, its pods, and what was told of it last.

All of it can be read again from the cluster, but for the stops in ``stops.py``.
"""

import asyncio
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import cast

from model_training.executors.kubernetes.objects import EventRow, JobRow, PodRow
from model_training.executors.kubernetes.observation import Case, Seen
from model_training.jobs import JobSpec, JobState, JSONObject, parse_time
from model_training.names import pipeline_of_foreign_job
from model_training.strict_json import parse_json

UNKNOWN_OWNER = "unknown"  # of a Job made by somebody else


@dataclass(slots=True, eq=False)
class Job:
    """One job under the reserved prefix."""

    name: str
    row: JobRow | None = None
    """None: not in the cluster, or not seen yet"""
    spec: JobSpec | None = None
    """None until its Job was seen"""
    pods: dict[str, PodRow] = field(default_factory=dict[str, PodRow])
    """by UID; those that are gone stay until their job has ended, for its exit code"""
    live: set[str] = field(default_factory=set[str])
    """UIDs of pods that the cluster still has"""
    events: tuple[EventRow, ...] = ()
    told: Seen | None = None
    """the last observation"""
    stop_asked: bool = False
    is_removing: bool = False
    is_settled: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """set whenever something of it has changed"""
    end_noticed: float | None = None
    """when its end was seen first, while its log was not complete (monotonic seconds)"""

    @property
    def attempts(self) -> tuple[PodRow, ...]:
        """Its pods, oldest first; those of an earlier Job of the same name are not its own."""
        uid = self.row.uid if self.row else None
        own = (pod for pod in self.pods.values() if uid is None or pod.job_uid == uid)
        return tuple(sorted(own, key=lambda pod: pod.order))

    @property
    def has_object(self) -> bool:
        """Whether the cluster has its Job."""
        return self.row is not None

    @property
    def is_there(self) -> bool:
        """Whether the cluster has anything of it."""
        return self.row is not None or bool(self.live)

    @property
    def has_ended(self) -> bool:
        """Whether its end was told."""
        return self.told is not None and self.told.state.is_terminal

    def take(self, row: JobRow) -> None:
        """Note its Job as it is now."""
        if self.row is None or self.row.uid != row.uid:
            self.told, self.end_noticed, self.events = None, None, ()
            self.spec = spec_of(row)
        self.row = row

    def case(self, attempt: int) -> Case:
        """What there is to be looked at, in its latest attempt; its Job has been seen."""
        row = cast("JobRow", self.row)
        return Case(
            job=row,
            pods=self.attempts,
            attempt=attempt,
            events=self.events,
            stop_asked=self.stop_asked,
            timeout_s=self.spec.timeout_s if self.spec else None,
            is_ours=row.spec is not None,
        )


def spec_of(row: JobRow) -> JobSpec:
    """What was wanted: our own record on the Job, or what a Job of others tells."""
    if row.spec is None:
        return _foreign_spec(row)
    try:
        record = cast("JSONObject", json.loads(row.spec))
        record["parameters"] = parse_json((row.parameters or "{}").encode())
        spec = JobSpec.from_json(record)
    except (ValueError, TypeError, KeyError, AttributeError):
        return _foreign_spec(row)  # somebody edited it
    return replace(spec, name=row.name, namespace=row.namespace)


def _foreign_spec(row: JobRow) -> JobSpec:
    return JobSpec(
        name=row.name,
        id=row.uid,
        pipeline=pipeline_of_foreign_job(row.name),
        namespace=row.namespace,
        owner=UNKNOWN_OWNER,
        created_at=parse_time(row.created),
        parameters={},
        request_digest="",
        executor="kubernetes",
        image=row.image,
    )


def unknown_spec(name: str) -> JobSpec:
    """Of a job of which only the name is known."""
    return JobSpec(
        name=name,
        id="",
        pipeline=None,
        namespace="",
        owner="",
        created_at=datetime.fromtimestamp(0, UTC),
        parameters={},
        request_digest="",
        executor="kubernetes",
    )


def last_state(job: Job) -> JobState:
    """What was told of it last."""
    return job.told.state if job.told else JobState.PENDING
