"""May they. The service asks one question per action, with the loaded object's own attributes.

Deny by default: a decider that cannot be asked raises ``AccessUnavailable``, and nothing that
was asked for happens. Names are free of dots and colons, so that they fit every policy engine.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from model_training.access.actions import Action
from model_training.access.principals import Principal, PrincipalKind
from model_training.jobs import TrainingJob, format_time
from model_training.names import pipeline_in_job_name


@dataclass(frozen=True, slots=True)
class Resource:
    """What it would be done to.

    ``id`` is never empty, and of two resources of one question with the same type and id the
    attributes are the same: a decision point may keep only one of them.
    """

    type: str
    id: str
    attributes: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, and why; ``id`` is the decision point's own name for it, if it has one."""

    permitted: bool
    reason: str = ""
    id: str = ""


PERMIT: Final = Decision(permitted=True)
DENY: Final = Decision(permitted=False)


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
        return [Decision(permitted=principal.kind is PrincipalKind.LOCAL)] * len(resources)


class PermitAuthenticated:
    """Whoever is known may do everything: the switch of older deployments, set to false."""

    async def decide(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> Sequence[Decision]:
        """Permit."""
        del principal, action
        return [PERMIT] * len(resources)


def job_resource(job: TrainingJob) -> Resource:
    """A job as a resource, by its own recorded attributes."""
    return Resource(
        "training_job",
        job.name,
        {
            "pipeline": job.pipeline or "",
            "owner": job.owner,
            "state": str(job.state),
            "created_at": format_time(job.created_at),
        },
    )


def absent_job_resource(name: str) -> Resource:
    """What a job of this name would be told as, by what its name says; nobody owns it."""
    return Resource("training_job", name, {"pipeline": pipeline_in_job_name(name), "owner": ""})


def pair_resource(pipeline: str | None, owner: str) -> Resource:
    """All jobs of one owner and pipeline as one resource, for lists.

    What is decided about it holds for each of them. Its id says nothing, it only tells one pair
    from another; decide by the attributes.
    """
    told = f"{pipeline or ''}\n{owner}".encode()
    identity = f"jobs-{hashlib.sha256(told).hexdigest()[:24]}"
    return Resource("training_job", identity, {"pipeline": pipeline or "", "owner": owner})


def pipeline_resource(name: str, **attributes: object) -> Resource:
    """A pipeline as a resource."""
    return Resource("training_pipeline", name, attributes)


def service_resource(namespace: str) -> Resource:
    """The service itself as a resource."""
    return Resource("training_service", namespace)
