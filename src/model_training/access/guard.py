"""The questions that the service asks, in the forms in which it needs the answers.

A job that may not be read and a job that is not there answer the same, so that nobody learns
names by asking: a refused action on a named job is a 403 only for somebody who may read it.
"""

from collections.abc import Sequence

from model_training.access.actions import Action
from model_training.access.decisions import Decider, Resource, job_resource
from model_training.access.principals import Principal
from model_training.errors import AccessUnavailable, Forbidden, JobNotFound
from model_training.jobs import TrainingJob


class Guard:
    """Puts questions to one decider, and refuses on anything but a clear yes."""

    def __init__(self, decider: Decider) -> None:
        self._decider = decider

    async def permitted(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> list[bool]:
        """For each resource whether the action is permitted, in their order.

        Raises:
            AccessUnavailable: the decider gave no answer, or not one for each.
        """
        decisions = await self._decider.decide(principal, action, resources)
        if len(decisions) != len(resources):
            raise AccessUnavailable("The decision point did not answer every question.")
        return [decision.permitted is True for decision in decisions]

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
        if job is None:
            raise unknown_job(name)
        [permitted] = await self.permitted(principal, action, [job_resource(job)])
        if permitted:
            return job
        if action is not Action.READ:
            [readable] = await self.permitted(principal, Action.READ, [job_resource(job)])
            if readable:
                raise Forbidden(f"You may not {action} training_job {name!r}.")
        raise unknown_job(name)


def unknown_job(name: str) -> JobNotFound:
    """The one answer for a job that is absent or hidden."""
    return JobNotFound(f"There is no training job named {name[:100]!r}.")
