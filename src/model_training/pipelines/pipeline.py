"""A training pipeline: how to train, whether it is a folder on this machine or a container image.

What differs between the two is which fields are filled: a folder with its command, or an image,
whose entrypoint is the command. Sources find pipelines by name; ``PipelineSource`` is what the
service asks of one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final, Protocol

from model_training.declarations import Declaration, body_path, parameter_faults
from model_training.errors import Fault
from model_training.jobs import JSONObject
from model_training.options import JobOptions

NEAREST_NAMES: Final = 20  # names; more than are told, as not all may be told to everybody


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """How to train. ``digest`` is None until a source resolves the pipeline for a job."""

    name: str
    folder: Path | None
    """absolute, jobs run in it; None for an image"""
    image: str | None = None
    """what a job runs, pinned by digest if it was checked; None for a folder"""
    command: tuple[str, ...] = ()
    """argv; empty for an image, whose entrypoint it is"""
    description: str = ""
    arguments: str | None = None
    """``flags``: parameters are also appended to the argv"""
    requirements: Path | None = None
    """absolute, within the folder"""
    pass_env: tuple[str, ...] = ()
    """names of variables taken over from the server"""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """fixed variables"""
    job: JobOptions = field(default_factory=JobOptions)
    """defaults for job options"""
    declaration: Declaration | None = None
    """None: any parameter is accepted"""
    digest: str | None = None
    """SHA-256 of the folder's files; of an image as registries write it, ``sha256:...``"""
    warnings: tuple[str, ...] = ()
    """what a job of this pipeline must tell"""
    problems: tuple[Fault, ...] = ()
    """what its author must know; the pipeline can be used nevertheless"""

    def validate(self, parameters: JSONObject) -> tuple[JSONObject, tuple[Fault, ...]]:
        """The parameters with defaults filled in, and all faults."""
        faults = list(parameter_faults(parameters))
        taken = {*self.environment, *self.pass_env}
        faults += [
            Fault(body_path(name), "is a variable that the pipeline sets itself; choose another")
            for name in parameters
            if name in taken
        ]
        if self.declaration is not None:
            parameters, found = self.declaration.validate(parameters)
            faults += found
        return parameters, tuple(faults)

    def to_json(self) -> JSONObject:
        """The wire form."""
        job = {item.name: getattr(self.job, item.name) for item in fields(self.job)}
        file = self.requirements
        if file is not None and self.folder is not None:
            file = file.relative_to(self.folder)
        return {
            "name": self.name,
            "description": self.description,
            "command": list(self.command),
            "arguments": self.arguments,
            "requirements": str(file) if file else None,
            "parameters": self.declaration.to_json() if self.declaration else None,
            "job": {name: value for name, value in job.items() if value is not None},
            "folder": str(self.folder) if self.folder else None,
            "image": self.image,
            "problems": _faults_to_json(self.problems),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenPipeline:
    """What should be a pipeline and cannot be used; ``name`` is None if it tells none."""

    name: str | None
    folder: Path | None
    image: str | None = None
    problems: tuple[Fault, ...]

    def to_json(self) -> JSONObject:
        """The wire form: the fields of a pipeline, with only its problems filled in."""
        return {
            "name": self.name,
            "description": "",
            "command": [],
            "arguments": None,
            "requirements": None,
            "parameters": None,
            "job": {},
            "folder": str(self.folder) if self.folder else None,
            "image": self.image,
            "problems": _faults_to_json(self.problems),
        }


class PipelineSource(Protocol):
    """Where pipelines are found by name."""

    async def resolve(self, name: str) -> Pipeline:
        """The pipeline of this name, ready for a job.

        Raises:
            PipelineNotFound: its ``nearest`` names at most ``NEAREST_NAMES`` known pipelines,
                whoever may see them: the caller leaves out what the asker may not.
            InvalidDeclaration: there is one, but it is broken.
            RegistryUnavailable: whether there is one cannot be told now.
        """
        ...

    async def list(self) -> Sequence[Pipeline | BrokenPipeline]:
        """Every known pipeline, broken ones too, by name."""
        ...


def _faults_to_json(faults: tuple[Fault, ...]) -> list[JSONObject]:
    """As plain JSON values."""
    return [{"path": fault.path, "message": fault.message} for fault in faults]
