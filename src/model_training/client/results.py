"""What the client gives and takes, beside TrainingJob.

All frozen, with the names of the wire; ``to_json`` gives the wire form back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import TypeAlias, TypedDict, cast

from model_training.errors import Fault
from model_training.jobs import JSONObject, format_time, parse_time

Duration: TypeAlias = str | float
"""Seconds, or text such as ``90s``, ``15m``, ``2h``."""


class JobOptions(TypedDict, total=False):
    """Options of one job; what is left out is the pipeline's default."""

    timeout: Duration
    """from the start of its command to SIGTERM"""
    grace: Duration
    """from SIGTERM to SIGKILL"""
    cpu: str | float
    """CPUs: ``2``, ``0.5``, ``500m``"""
    memory: str | int
    """bytes, or text such as ``512Mi``"""
    gpu: int
    """devices"""
    idempotency_key: str
    """1-255 printable ASCII characters; the same key and request is the same job"""


class JobFilters(TypedDict, total=False):
    """Which jobs to list; what is left out filters nothing."""

    pipeline: str
    state: str | Sequence[str]
    """a state, or ``active``, ``completed``, ``failed`` for a group"""
    owner: str
    created_after: datetime
    created_before: datetime


class LogOptions(TypedDict, total=False):
    """Which part of a log."""

    tail: int
    """lines from its end"""
    since: str | datetime | timedelta
    """a time (RFC 3339), or how long back from now, such as ``10m``"""
    timestamps: bool
    """begin each line with the time it was printed"""
    attempt: int
    """counted from 1; the latest if left out"""


@dataclass(frozen=True, slots=True)
class Output:
    """One file that a job keeps."""

    path: str
    """relative to the job's output folder"""
    size: int
    """bytes"""
    modified_at: datetime

    def to_json(self) -> JSONObject:
        """The wire form."""
        modified_at = format_time(self.modified_at)
        return {"path": self.path, "size": self.size, "modified_at": modified_at}

    @classmethod
    def from_json(cls, plain: JSONObject) -> "Output":
        """Read the wire form."""
        return cls(
            path=cast("str", plain["path"]),
            size=cast("int", plain["size"]),
            modified_at=parse_time(cast("str", plain["modified_at"])),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineInfo:
    """A pipeline as the server describes it."""

    name: str | None
    """None for a broken one whose name cannot be read"""
    description: str | None
    command: tuple[str, ...]
    arguments: str | None
    requirements: str | None
    parameters: Mapping[str, JSONObject] | None
    """declarations by name; None: any parameter is accepted"""
    job: JSONObject
    """defaults for job options"""
    folder: str | None
    image: str | None
    """of a pipeline that is no folder: what a job runs"""
    problems: tuple[Fault, ...]
    """what is wrong with it; path is FILE:LINE: KEY"""

    def to_json(self) -> JSONObject:
        """The wire form."""
        plain: JSONObject = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["command"] = list(self.command)
        plain["problems"] = [{"path": f.path, "message": f.message} for f in self.problems]
        return plain

    @classmethod
    def from_json(cls, plain: JSONObject) -> "PipelineInfo":
        """Read the wire form; what a broken pipeline could not tell is left empty."""
        faults = cast("list[dict[str, str]]", plain.get("problems") or [])
        return cls(
            name=cast("str | None", plain.get("name")),
            description=cast("str | None", plain.get("description")),
            command=tuple(cast("list[str]", plain.get("command") or [])),
            arguments=cast("str | None", plain.get("arguments")),
            requirements=cast("str | None", plain.get("requirements")),
            parameters=cast("dict[str, JSONObject] | None", plain.get("parameters")),
            job=cast("JSONObject", plain.get("job") or {}),
            folder=cast("str | None", plain.get("folder")),
            image=cast("str | None", plain.get("image")),
            problems=tuple(Fault(fault["path"], fault["message"]) for fault in faults),
        )
