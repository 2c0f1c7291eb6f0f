"""What a training job is: wanted (JobSpec), seen (Observation), recorded (TrainingJob).

``TrainingJob`` is both the domain type and the wire type: the ledger keeps it, the API answers
it, the client returns it. There is no second model. These are frozen dataclasses and not
pydantic models, because the client and the supervisor need them without the server's libraries;
the API derives its schema from them, docstrings of the fields included.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import ClassVar, Final, TypeAlias, cast

JSONObject: TypeAlias = dict[str, object]

# Read by pydantic when the API describes these types; a plain dict, so nothing is imported here.
_SCHEMA: Final = {"use_attribute_docstrings": True}


class JobState(StrEnum):
    """Where a training job stands."""

    PENDING = "pending"
    """accepted, not running yet; reason and message say why"""
    RUNNING = "running"
    """the training process runs"""
    STOPPING = "stopping"
    """asked to stop, still runs"""
    DELETING = "deleting"
    """DELETE was asked for and something of it is left"""
    SUCCEEDED = "succeeded"
    """exit code 0"""
    FAILED = "failed"
    """ended badly; reason says how"""
    STOPPED = "stopped"
    """ended because somebody asked"""

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended: such a state changes no more, but for ``deleting``."""
        return self in TERMINAL

    @property
    def group(self) -> str:
        """``active``, ``completed`` or ``failed``."""
        return _GROUPS[self]


TERMINAL: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED})
_GROUPS: Final = {
    JobState.PENDING: "active",
    JobState.RUNNING: "active",
    JobState.STOPPING: "active",
    JobState.DELETING: "active",
    JobState.SUCCEEDED: "completed",
    JobState.FAILED: "failed",
    JobState.STOPPED: "failed",
}
ACTIVE: Final = frozenset(state for state, group in _GROUPS.items() if group == "active")

# The one table of transitions. A job may skip states (a process can start and end between two
# looks at it) but never goes back, and leaves ``deleting`` only by being gone.
TRANSITIONS: Final[Mapping[JobState, frozenset[JobState]]] = {
    JobState.PENDING: frozenset({JobState.RUNNING, JobState.STOPPING, JobState.DELETING})
    | TERMINAL,
    JobState.RUNNING: frozenset({JobState.STOPPING, JobState.DELETING}) | TERMINAL,
    JobState.STOPPING: frozenset({JobState.DELETING}) | TERMINAL,
    JobState.SUCCEEDED: frozenset({JobState.DELETING}),
    JobState.FAILED: frozenset({JobState.DELETING}),
    JobState.STOPPED: frozenset({JobState.DELETING}),
    JobState.DELETING: frozenset(),
}


class Reason(StrEnum):
    """The machine word beside a state. Executors may say others; these are ours."""

    WAITING_FOR_SLOT = "WaitingForSlot"
    PREPARING_ENVIRONMENT = "PreparingEnvironment"
    STARTING = "Starting"
    ERROR = "Error"
    SIGNAL = "Signal"
    OUT_OF_MEMORY = "OutOfMemory"
    TIMEOUT = "Timeout"
    START_FAILED = "StartFailed"
    ENVIRONMENT_FAILED = "EnvironmentFailed"
    SUPERVISOR_LOST = "SupervisorLost"
    HOST_RESTARTED = "HostRestarted"
    REMOVED_OUTSIDE = "RemovedOutside"
    UNRECOGNISED = "Unrecognised"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a job may use; None means no limit of ours."""

    cpu: float | None = None
    """CPUs"""
    memory: int | None = None
    """bytes"""
    gpu: int = 0
    """devices, none of them shared with another job"""

    __pydantic_config__: ClassVar = _SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One training job as it is wanted: complete, so that an executor asks nothing back.

    It travels with the executor's own record of the job, so that a lost ledger can be rebuilt.
    """

    name: str
    id: str
    pipeline: str | None
    namespace: str
    owner: str
    created_at: datetime
    parameters: JSONObject
    request_digest: str
    """SHA-256 of the request, to tell a repeat from another request with the same key"""
    executor: str
    image: str | None = None
    """the reference of a container image that is run; None for a command in a folder"""
    command: tuple[str, ...] = ()
    """argv, flags included; with an image only what is given to its entrypoint as arguments,
    where that is empty its own default arguments"""
    folder: str | None = None
    """the pipeline's folder, in which a local command runs"""
    digest: str | None = None
    """of the pipeline's code, or of the image"""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """the pipeline's fixed variables"""
    pass_env: tuple[str, ...] = ()
    """variables taken over from the server; only their names are kept"""
    requirements: str | None = None
    """file of requirements, from which the job gets an environment of its own"""
    timeout_s: float | None = None
    grace_s: float = 30.0
    resources: Resources = field(default_factory=Resources)
    warnings: tuple[str, ...] = ()

    def to_json(self) -> JSONObject:
        """As plain JSON values; ``from_json`` reads it back equal."""
        plain: JSONObject = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["created_at"] = format_time(self.created_at)
        plain["resources"] = resources_to_json(self.resources)
        plain["environment"] = dict(self.environment)
        for name in ("command", "pass_env", "warnings"):
            plain[name] = list(getattr(self, name))
        return plain

    @classmethod
    def from_json(cls, plain: JSONObject) -> "JobSpec":
        """Read what ``to_json`` wrote.

        Raises:
            ValueError, TypeError, KeyError: it is something else.
        """
        values = dict(plain)
        values["created_at"] = parse_time(cast("str", values["created_at"]))
        values["resources"] = Resources(**cast("dict[str, int]", values["resources"]))
        for name in ("command", "pass_env", "warnings"):
            values[name] = tuple(cast("list[str]", values[name]))
        return cls(**values)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What an executor saw of one job at one moment.

    ``version`` grows with each observation that an executor makes of a job during one life of
    the service, so that an older one never overwrites a newer one.
    """

    spec: JobSpec
    version: int
    state: JobState
    reason: str | None = None
    message: str | None = None
    attempt: int = 1
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_s: float | None = None
    exit_code: int | None = None
    gone: bool = False
    """nothing of the job is left at the executor"""
    output: str | None = None
    """where the job keeps its outputs, in words for a person"""
    digest: str | None = None
    """of the pipeline's code as it was at the start; None where it is not taken anew"""

    @property
    def name(self) -> str:
        """The job's name."""
        return self.spec.name


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """A training job as the ledger records it and the API answers it."""

    name: str
    id: str
    """UUID"""
    pipeline: str | None
    """null for a job made by somebody else whose name does not tell"""
    namespace: str
    state: JobState
    reason: str | None = None
    """one CamelCase word: why the job is in this state"""
    message: str | None = None
    """the same for people"""
    parameters: JSONObject = field(default_factory=dict[str, object])
    executor: str
    image: str | None = None
    command: tuple[str, ...] = ()
    digest: str | None = None
    """of the pipeline's code at the start, or of its image"""
    owner: str
    created_at: datetime
    """when it was accepted; RFC 3339, UTC, six fractional digits, as all times"""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_s: float | None = None
    """seconds from start to end, measured by a clock that nobody sets"""
    exit_code: int | None = None
    """128 + N for a death by signal N"""
    attempt: int = 1
    resources: Resources = field(default_factory=Resources)
    timeout_s: float | None = None
    """seconds"""
    output: str | None = None
    """where the job keeps what it makes"""
    warnings: tuple[str, ...] = ()
    """what was left out of the pipeline's defaults, and why"""

    __pydantic_config__: ClassVar = _SCHEMA

    def to_json(self) -> JSONObject:
        """The wire form."""
        plain: JSONObject = {name: getattr(self, name) for name in _JOB_FIELDS}
        for name in ("created_at", "started_at", "finished_at"):
            moment = cast("datetime | None", plain[name])
            plain[name] = format_time(moment) if moment else None
        plain["state"] = str(self.state)
        plain["resources"] = resources_to_json(self.resources)
        plain["command"] = list(self.command)
        plain["warnings"] = list(self.warnings)
        return plain

    @classmethod
    def from_json(cls, plain: JSONObject) -> "TrainingJob":
        """Read the wire form; fields that this version does not know are left out."""
        values = {name: plain[name] for name in _JOB_FIELDS if name in plain}
        for name in ("created_at", "started_at", "finished_at"):
            text = cast("str | None", values.get(name))
            values[name] = parse_time(text) if text else None
        values["state"] = JobState(cast("str", values["state"]))
        values["resources"] = Resources(**cast("dict[str, int]", values.get("resources") or {}))
        for name in ("command", "warnings"):
            values[name] = tuple(cast("list[str]", values.get(name) or ()))
        return cls(**values)  # pyright: ignore[reportArgumentType]


_JOB_FIELDS: Final = tuple(f.name for f in fields(TrainingJob))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What people have asked of a job: written by the service, confirmed by observation."""

    stop: bool = False
    delete: bool = False


def first_record(observation: Observation) -> TrainingJob:
    """The record of a job that the ledger sees for the first time."""
    spec = observation.spec
    return TrainingJob(
        name=spec.name,
        id=spec.id,
        pipeline=spec.pipeline,
        namespace=spec.namespace,
        state=observation.state,
        reason=observation.reason,
        message=observation.message,
        parameters=spec.parameters,
        executor=spec.executor,
        image=spec.image,
        command=spec.command,
        digest=observation.digest or spec.digest,
        owner=spec.owner,
        created_at=spec.created_at,
        started_at=observation.started_at,
        finished_at=observation.finished_at,
        duration_s=observation.duration_s,
        exit_code=observation.exit_code,
        attempt=observation.attempt,
        resources=spec.resources,
        timeout_s=spec.timeout_s,
        output=observation.output,
        warnings=spec.warnings,
    )


def next_state(current: JobState, seen: JobState, asked: Asked) -> JobState:
    """The state after an observation: the table of transitions, applied here and nowhere else.

    A delete that was asked for shows as ``deleting`` until the job is gone; a stop that was
    asked for shows as ``stopping`` until the executor saw the end, whatever end it was.
    """
    wanted = seen
    if asked.delete:
        wanted = JobState.DELETING
    elif asked.stop and not seen.is_terminal:
        wanted = JobState.STOPPING
    return wanted if wanted in TRANSITIONS[current] else current


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with six fractional digits and ``Z``: sorts as text."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 time; the same moment in UTC.

    Raises:
        ValueError: it is none, has no zone, or lies outside the years 1 to 9999 of UTC.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        msg = f"the time {text!r} has no zone; end it with Z for UTC"
        raise ValueError(msg)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        msg = f"the time {text!r} lies outside the years 1 to 9999 of UTC"
        raise ValueError(msg) from None


def canonical_json(value: object) -> str:
    """One line of JSON, keys sorted, no spaces, not escaped beyond need: the same for equals."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def resources_to_json(resources: Resources) -> JSONObject:
    """As plain JSON values."""
    return {"cpu": resources.cpu, "memory": resources.memory, "gpu": resources.gpu}
