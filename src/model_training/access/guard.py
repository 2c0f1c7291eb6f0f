"""The questions that the service asks, in the forms in which it needs the answers.

A job that may not be read and a job that is not there answer the same, so that nobody learns
names by asking: a refused action on a named job is a 403 only for somebody who may read it.
Whatever a decision point says, a credential is good for no more than its ceiling; and nothing is
changed that the audit log does not tell of.
"""

from collections.abc import Sequence
from time import perf_counter
from typing import Final

from model_training.access.actions import Action
from model_training.access.audit import CHANGES, AuditLog, NoAudit, Verdict
from model_training.access.decisions import (
    Decider,
    Decision,
    Resource,
    absent_job_resource,
    job_resource,
)
from model_training.access.patterns import matches
from model_training.access.principals import Ceiling, Principal
from model_training.errors import (
    AccessUnavailable,
    AuditUnavailable,
    FilterTooWide,
    Forbidden,
    JobNotFound,
)
from model_training.jobs import TrainingJob

# Distinct (pipeline, owner) that a remote decision point is asked about for one list: 20 batches
# of the 50 that the smallest takes. Asking 8 at a time, this stays inside its 2 s.
PAIRS_LIMIT: Final = 1000


class Guard:
    """Puts questions to one decider, and refuses on anything but a clear yes.

    Args:
        decider: what decides.
        engine: its name in the audit log.
        audit: where decisions are written down.
        pairs_limit: see ``PAIRS_LIMIT``; None for a decider that is asked in this process.
    """

    def __init__(
        self,
        decider: Decider,
        *,
        engine: str = "local",
        audit: AuditLog | None = None,
        pairs_limit: int | None = None,
    ) -> None:
        self._decider = decider
        self._engine = engine
        self._audit = audit or NoAudit()
        self._pairs_limit = pairs_limit

    async def permitted(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> list[bool]:
        """For each resource whether the action is permitted, in their order.

        Raises:
            AccessUnavailable: the decider gave no answer, or not one for each.
            AuditUnavailable: the action would change something, and it cannot be written down.
            FilterTooWide: these are more than the decider is asked about at once.
        """
        if self._pairs_limit is not None and len(resources) > self._pairs_limit:
            error = FilterTooWide(len(resources), self._pairs_limit)
            self._tell(principal, action, resources, (), error=type(error).__name__)
            raise error
        began = perf_counter()
        try:
            decisions = await self._decide(principal, action, resources)
        except AccessUnavailable as error:
            self._tell(principal, action, resources, (), began=began, error=error.message)
            raise
        self._tell(principal, action, resources, decisions, began=began)
        return [decision.permitted is True for decision in decisions]

    async def _decide(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> Sequence[Decision]:
        """Below the ceiling, what the decider says; above it, no, and it is not asked."""
        if principal.ceiling is None:
            return await self._ask(principal, action, resources)
        below = [is_below(principal.ceiling, action, resource) for resource in resources]
        asked = [resource for resource, yes in zip(resources, below, strict=True) if yes]
        answers = iter(await self._ask(principal, action, asked) if asked else ())
        return [next(answers) if yes else ABOVE_CEILING for yes in below]

    async def _ask(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> Sequence[Decision]:
        decisions = await self._decider.decide(principal, action, resources)
        if len(decisions) != len(resources):
            raise AccessUnavailable("The decision point did not answer every question.")
        return decisions

    def _tell(
        self,
        principal: Principal,
        action: Action,
        resources: Sequence[Resource],
        decisions: Sequence[Decision],
        *,
        began: float | None = None,
        error: str = "",
    ) -> None:
        verdict = Verdict(
            principal=principal,
            action=action,
            resources=resources,
            decisions=decisions,
            engine=self._engine,
            latency_ms=0.0 if began is None else (perf_counter() - began) * 1000,
            error=error,
        )
        try:
            self._audit.write(verdict)
        except AuditUnavailable:
            # What is only looked at stays visible, or a full disk could not be looked into.
            if action in CHANGES:
                raise

    async def require(self, principal: Principal, action: Action, resource: Resource) -> None:
        """Pass, or raise.

        Raises:
            Forbidden: it is refused.
        """
        [permitted] = await self.permitted(principal, action, [resource])
        if not permitted:
            raise Forbidden(f"You may not {action} {resource.type} {resource.id!r}.")

    async def require_job(
        self, principal: Principal, action: Action, name: str, job: TrainingJob | None
    ) -> TrainingJob:
        """The job, if it is there and the action on it is permitted.

        Raises:
            JobNotFound: it is not there, or may not even be read.
            Forbidden: it may be read, but not this.
        """
        # What is not there is asked about all the same. Else it would be told from what is hidden:
        # by the time that a question takes, and by the 503 while nobody can be asked.
        resource = absent_job_resource(name) if job is None else job_resource(job)
        [permitted] = await self.permitted(principal, action, [resource])
        if permitted and job is not None:
            return job
        if not permitted and action is not Action.READ:
            [readable] = await self.permitted(principal, Action.READ, [resource])
            if readable and job is not None:
                raise Forbidden(f"You may not {action} training_job {name!r}.")
        raise unknown_job(name)


ABOVE_CEILING: Final = Decision(permitted=False, reason="the credential is not good for this")


def is_below(ceiling: Ceiling, action: Action, resource: Resource) -> bool:
    """Whether a credential with this ceiling is good for the action on the resource."""
    if action not in ceiling.actions:
        return False
    if resource.type == "training_service":
        # To list is to be asked about each job; everything else there tells of all of them.
        return action is Action.LIST or "*" in ceiling.pipelines
    pipeline = resource.id
    if resource.type == "training_job":
        pipeline = str(resource.attributes.get("pipeline", ""))
    elif resource.attributes.get("all"):
        return True  # each pipeline is asked about by itself
    return any(matches(pattern, pipeline) for pattern in ceiling.pipelines)


def unknown_job(name: str) -> JobNotFound:
    """The one answer for a job that is absent or hidden."""
    return JobNotFound(f"There is no training job named {name[:100]!r}.")
