"""From a request and a pipeline to a complete JobSpec: pure, so that a dry run is the same code.

Faults are collected, not raised one by one: those that the edge found while parsing come along
in ``SubmitRequest.faults``, and join those that only the pipeline's declaration and the
executor's abilities can show.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

from model_training.access.principals import Principal
from model_training.declarations import flags_of
from model_training.errors import Fault, InvalidRequest
from model_training.jobs import JobSpec, JSONObject, Resources, canonical_json
from model_training.names import job_name, repeatable_id
from model_training.options import JobOptions
from model_training.pipelines.pipeline import Pipeline

DEFAULT_GRACE_S = 30.0  # what Kubernetes gives a pod

CannotEnforce = Callable[[Resources], Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitRequest:
    """What was asked for: one POST, parsed."""

    pipeline: str
    options: JobOptions = field(default_factory=JobOptions)
    parameters: JSONObject = field(default_factory=dict[str, object])
    idempotency_key: str | None = None
    faults: tuple[Fault, ...] = ()
    """what the edge found wrong; with any, nothing is started"""

    @property
    def digest(self) -> str:
        """SHA-256 of what was asked: equal for a repeat, different for another request."""
        asked = {
            "pipeline": self.pipeline,
            "parameters": self.parameters,
            "timeout": self.options.timeout_s,
            "grace": self.options.grace_s,
            "cpu": self.options.cpu,
            "memory": self.options.memory,
            "gpu": self.options.gpu,
        }
        return hashlib.sha256(canonical_json(asked).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Target:
    """Where the job will run."""

    executor: str
    namespace: str
    cannot_enforce: CannotEnforce


def job_id(principal: Principal, key: str | None) -> UUID:
    """The same for a repeat by Idempotency-Key, else random."""
    return uuid4() if key is None else repeatable_id(f"{principal.kind}:{principal.id}", key)


def build_spec(
    request: SubmitRequest, pipeline: Pipeline, principal: Principal, target: Target
) -> JobSpec:
    """The job that this request stands for.

    Raises:
        InvalidRequest: with every fault of the request.
    """
    parameters, found = pipeline.validate(request.parameters)
    faults = [*request.faults, *found]
    resources, warnings, found = _resources(request.options, pipeline.job, target)
    faults.extend(found)
    if faults:
        raise InvalidRequest(*dict.fromkeys(faults))
    options, defaults = request.options, pipeline.job
    identity = job_id(principal, request.idempotency_key)
    flags = flags_of(parameters) if pipeline.arguments == "flags" else ()
    return JobSpec(
        name=job_name(pipeline.name, identity),
        id=str(identity),
        pipeline=pipeline.name,
        namespace=target.namespace,
        owner=principal.id,
        created_at=datetime.now(UTC),
        parameters=parameters,
        request_digest=request.digest,
        executor=target.executor,
        image=pipeline.image,
        command=(*pipeline.command, *flags),
        folder=str(pipeline.folder) if pipeline.folder else None,
        digest=pipeline.digest,
        environment=pipeline.environment,
        pass_env=pipeline.pass_env,
        requirements=str(pipeline.requirements) if pipeline.requirements else None,
        timeout_s=_first(options.timeout_s, defaults.timeout_s),
        grace_s=_first(options.grace_s, defaults.grace_s, DEFAULT_GRACE_S) or 0.0,
        resources=resources,
        warnings=(*pipeline.warnings, *warnings),
    )


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _resources(
    asked: JobOptions, defaults: JobOptions, target: Target
) -> tuple[Resources, tuple[str, ...], list[Fault]]:
    """What the job gets; what was asked for and cannot be is a fault, a default a warning."""
    wanted = Resources(
        cpu=_first(asked.cpu, defaults.cpu),
        memory=asked.memory if asked.memory is not None else defaults.memory,
        gpu=asked.gpu if asked.gpu is not None else defaults.gpu or 0,
    )
    faults: list[Fault] = []
    warnings: list[str] = []
    kept = {"cpu": wanted.cpu, "memory": wanted.memory, "gpu": wanted.gpu}
    for option, reason in target.cannot_enforce(wanted).items():
        if getattr(asked, option) is not None:
            faults.append(Fault(f"query.{option}", reason))
        else:
            warnings.append(f"the pipeline's default {option} was left out: {reason}")
            kept[option] = None
    resources = Resources(
        cpu=kept["cpu"],
        memory=None if kept["memory"] is None else int(kept["memory"]),
        gpu=int(kept["gpu"] or 0),
    )
    return resources, tuple(warnings), faults
