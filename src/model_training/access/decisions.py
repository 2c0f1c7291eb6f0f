"""May they. The service asks one question per action, with the loaded object's own attributes.

Deny by default: a decider that cannot be asked raises ``AccessUnavailable``, and nothing that
was asked for happens. Names are free of dots and colons, so that they fit every policy engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from model_training.access.principals import Principal
from model_training.jobs import TrainingJob


class Action(StrEnum):
    """What may be done."""

    CREATE = "create"
    LIST = "list"
    READ = "read"
    READ_LOGS = "read_logs"
    READ_OUTPUTS = "read_outputs"
    STOP = "stop"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Resource:
    """What it would be done to."""

    type: str
    id: str
    attributes: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, and why."""

    permitted: bool
    reason: str = ""


class Decider(Protocol):
    """A policy decision point."""

    async def decide(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> Sequence[Decision]:
        """One decision per resource, in their order.

        Raises:
            AccessUnavailable: it could not be asked; nothing may happen.
        """
        ...


class LocalDecider:
    """The single user of a local service may do everything to it; anybody else nothing."""

    async def decide(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> Sequence[Decision]:
        """Permit the local principal."""
        del action
        return [Decision(permitted=principal.kind == "local")] * len(resources)


def job_resource(job: TrainingJob) -> Resource:
    """A job as a resource, by its own recorded attributes."""
    return Resource(
        "training_job",
        job.name,
        {"pipeline": job.pipeline, "owner": job.owner, "state": str(job.state)},
    )


def pipeline_resource(name: str, **attributes: object) -> Resource:
    """A pipeline as a resource."""
    return Resource("training_pipeline", name, attributes)


def service_resource(namespace: str) -> Resource:
    """The service itself as a resource."""
    return Resource("training_service", namespace)
