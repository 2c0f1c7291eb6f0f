"""A job as the executor holds it: its Job, its pods, and what was told of it last.

All of it can be read again from the cluster, but for the stops in ``stops.py``.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, cast

import msgspec

from model_training.errors import MalformedRequest
from model_training.executors.kubernetes.objects import EventRow, JobRow, PodRow
from model_training.executors.kubernetes.observation import Case, Seen
from model_training.executors.kubernetes.stops import Stop
from model_training.jobs import JobSpec, JobState, parse_time
from model_training.names import pipeline_of_foreign_job
from model_training.strict_json import parse_json

LOOK_S: Final = 2.0  # seconds between two looks of who waits, should a change be missed
UNKNOWN_OWNER = "unknown"  # of a Job made by somebody else


@dataclass(frozen=True, slots=True)
class LogWait:
    """Waiting for a log that is not complete."""

    since: float
    """monotonic seconds"""
    copied: int
    """bytes of it at that time"""


@dataclass(slots=True, eq=False)
class Job:
    """One job under the reserved prefix. Small: there may be fifty thousand of them."""

    name: str
    row: JobRow | None = None
    """None: not in the cluster (any more), or not seen yet"""
    last_row: JobRow | None = None
    """its Job as it was seen last"""
    noted: Stop | None = None
    """a stop that an earlier life of the service wrote down"""
    pods: tuple[PodRow, ...] = ()
    """oldest first; those that are gone stay until their job has ended, for its exit code"""
    live: frozenset[str] = frozenset()
    """UIDs of pods that the cluster still has"""
    went_unseen: bool = False
    """it, or its latest pod, went while we did not look: what it did at last is not known"""
    events: tuple[EventRow, ...] = ()
    told: Seen | None = None
    """the last observation"""
    stop_asked: bool = False
    is_removing: bool = False
    is_settled: bool = False
    is_searched: bool = False
    """the cluster was, or is being, asked for pods that its Job tells of and no watch does"""
    launches: int = 0
    """how many calls are creating it right now"""
    waited: LogWait | None = None
    """for its log, since its end was seen"""
    changed: asyncio.Event | None = None
    """there while somebody waits for a change"""

    @property
    def spec(self) -> JobSpec | None:
        """What was wanted; None until its Job was seen."""
        if self.last_row is not None:
            return spec_of(self.last_row)
        return self.noted.spec if self.noted else None

    @property
    def created_at(self) -> datetime | None:
        """When it was asked for; None until its Job was seen."""
        if self.last_row is None:
            return self.noted.spec.created_at if self.noted else None
        return _creation_of(self.last_row)

    @property
    def is_known(self) -> bool:
        """Whether it is known what was wanted."""
        return self.last_row is not None or self.noted is not None

    @property
    def attempts(self) -> tuple[PodRow, ...]:
        """Its pods, oldest first; those of an earlier Job of the same name are not its own."""
        if self.last_row is None:
            return self.pods
        return tuple(pod for pod in self.pods if pod.job_uid == self.last_row.uid)

    @property
    def uid(self) -> str | None:
        """Of its Job, while the cluster has that."""
        return self.row.uid if self.row else None

    @property
    def has_pods(self) -> bool:
        """Whether the cluster still has a pod of it."""
        return any(pod.uid in self.live for pod in self.attempts)

    @property
    def may_print(self) -> bool:
        """Whether the cluster still has a pod of it that has not ended."""
        return any(pod.uid in self.live and not pod.has_ended for pod in self.attempts)

    @property
    def lacks_pods(self) -> bool:
        """Whether its Job tells of pods that ended, and none of them is known."""
        had_pods = self.row is not None and self.row.had_pods
        return had_pods and not self.attempts and not self.went_unseen and not self.has_ended

    @property
    def is_there(self) -> bool:
        """Whether the cluster has anything of it."""
        return self.row is not None or self.has_pods

    @property
    def has_ended(self) -> bool:
        """Whether its end was told."""
        return self.told is not None and self.told.state.is_terminal

    @property
    def _last_uid(self) -> str | None:
        if self.last_row is not None:
            return self.last_row.uid
        return self.noted.uid if self.noted else None

    def owns(self, uid: str) -> bool:
        """Whether pods of this Job are its own; those without one are, by their label."""
        return not uid or self._last_uid in {None, uid}

    def take(self, row: JobRow) -> None:
        """Note its Job as it is now."""
        if self.last_row is None or self.last_row.uid != row.uid:
            self.told, self.waited, self.events = None, None, ()
            self.went_unseen = row.deleted is not None and not self.pods
            if row.uid != self._last_uid:
                self.stop_asked = self.is_settled = self.is_searched = False  # of a namesake
        self.row = self.last_row = row

    def see(self, pod: PodRow) -> None:
        """Note a pod as it is now; its deletion was asked for when that was first told.

        With the kubelet's last word, that its containers have ended, the API server moves the time.
        """
        known = next((each for each in self.pods if each.uid == pod.uid), None)
        if known is not None and known.deleted is not None and pod.deleted is not None:
            pod = msgspec.structs.replace(pod, deleted=known.deleted, grace_s=known.grace_s)
        others = (each for each in self.pods if each.uid != pod.uid)
        self.pods = tuple(sorted((*others, pod), key=lambda each: each.order))
        self.live |= {pod.uid}
        if pod in self.attempts:
            self.went_unseen = False

    def lose(self, pod: PodRow) -> None:
        """Note that a pod is gone, and how it was last."""
        self.see(pod)
        self.live -= {pod.uid}

    def touch(self) -> None:
        """Wake who waits for a change."""
        if self.changed is not None:
            self.changed.set()

    async def next_change(self, within_s: float) -> None:
        """Wait until something of it changes, but no longer."""
        self.changed = asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.changed.wait()
        self.changed = None

    async def launched(self) -> None:
        """Wait until nobody is creating it."""
        while self.launches:
            await self.next_change(LOOK_S)

    def case(self, attempt: int) -> Case:
        """What there is to be looked at, in its latest attempt; its Job has been seen."""
        row, spec = cast("JobRow", self.last_row), self.spec
        return Case(
            job=row,
            pods=self.attempts,
            attempt=attempt,
            events=self.events,
            stop_asked=self.stop_asked,
            timeout_s=spec.timeout_s if spec else None,
            is_gone=self.row is None,
            is_ours=row.spec is not None,
        )


def spec_of(row: JobRow) -> JobSpec:
    """What was wanted: our own record on the Job, or what a Job of others tells."""
    if row.spec is None:
        return _foreign_spec(row)
    spec = _recorded_spec(row.spec, row.parameters or "{}", row.name, row.namespace)
    return spec or _foreign_spec(row)  # if somebody edited it


@lru_cache(maxsize=64)  # a job is looked at several times in a row; keeping all takes 100 MB
def _recorded_spec(record: str, parameters: str, name: str, namespace: str) -> JobSpec | None:
    try:
        fields = msgspec.json.decode(record, type=dict[str, object])
        fields["parameters"] = parse_json(parameters.encode())
        fields["created_at"] = parse_time(str(fields["created_at"]))
        fields |= {"name": name, "namespace": namespace}
        return msgspec.convert(fields, JobSpec)  # unlike from_json, it minds the types
    except (*_NOT_OURS, MalformedRequest, KeyError):
        return None


_NOT_OURS: Final = (msgspec.MsgspecError, ValueError, RecursionError)
"""what reading a record raises that somebody else wrote"""


class _Creation(msgspec.Struct, gc=False):
    created_at: str


def _creation_of(row: JobRow) -> datetime:
    """As in ``spec_of``, without all the rest of it."""
    try:
        return parse_time(msgspec.json.decode(row.spec or "", type=_Creation).created_at)
    except _NOT_OURS:
        return parse_time(row.created)


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
