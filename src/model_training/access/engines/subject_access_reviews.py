"""Decisions by the cluster: its own roles say who may do what, by SubjectAccessReviews.

The resources that are asked about are of no cluster: their API group is ours, nothing of it is
installed, and roles name them by their texts alone. A role that gives rights to real objects (Jobs,
pods) gives none here, and the other way round; only one that gives everything does both.

RBAC knows a name of a resource and nothing else of it, so a job is decided about by its pipeline:
``resourceNames`` of a role are names of pipelines everywhere, and who started a job makes no
difference. Jobs' own names were rejected for it: they are made anew with each job, and no role
could list them.

``LocalSubjectAccessReview`` is asked, which is of one namespace, that of the service: a Role there
is enough to be allowed to ask, where the same review of the whole cluster needs a ClusterRole and
would let us ask who may do what anywhere. So the rights of somebody are those in the service's
namespace, also on jobs of other namespaces that it follows.

What was decided is not kept here: within one question the same is asked once.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from model_training.access.actions import Action
from model_training.access.decisions import Decision, Resource
from model_training.access.principals import ClusterIdentity, Principal
from model_training.access.reviews import (
    JSONObject,
    Review,
    not_understood,
    status_of,
    switch_in,
    text_in,
)
from model_training.errors import AccessUnavailable

KIND: Final = "LocalSubjectAccessReview"
VERSION: Final = "authorization.k8s.io/v1"
AT_ONCE: Final = 8  # questions of one list; the API server serves others too
TOTAL_S: Final = 2.0  # seconds for all questions of one list; somebody waits for the answer


@dataclass(frozen=True, slots=True)
class _Words:
    """What an action on a type is to Kubernetes."""

    verb: str
    resource: str
    subresource: str = ""


# The types in the plural, and the verbs that RBAC has. To stop is to update: a role that lists
# what may be created on everything ("*") must not stop the jobs of others by it.
_WORDS: Final[Mapping[tuple[Action, str], _Words]] = {
    (Action.CREATE, "training_pipeline"): _Words("create", "trainingpipelines"),
    (Action.LIST, "training_pipeline"): _Words("list", "trainingpipelines"),
    (Action.READ, "training_pipeline"): _Words("get", "trainingpipelines"),
    (Action.READ, "training_job"): _Words("get", "trainingjobs"),
    (Action.READ_LOGS, "training_job"): _Words("get", "trainingjobs", "log"),
    (Action.READ_OUTPUTS, "training_job"): _Words("get", "trainingjobs", "outputs"),
    (Action.STOP, "training_job"): _Words("update", "trainingjobs", "stop"),
    (Action.DELETE, "training_job"): _Words("delete", "trainingjobs"),
    (Action.LIST, "training_service"): _Words("list", "trainingservices"),
    (Action.READ, "training_service"): _Words("get", "trainingservices"),
}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about somebody.

    A name left empty means all: RBAC says yes to that only by a rule without ``resourceNames``.
    """

    verb: str
    resource: str
    subresource: str = ""
    name: str = ""


def question_of(action: Action, resource: Resource) -> Question | None:
    """The question; None: there is none, as nobody can do this to that."""
    words = _WORDS.get((action, resource.type))
    if words is None:
        return None
    return Question(words.verb, words.resource, words.subresource, _name_of(resource))


def _name_of(resource: Resource) -> str:
    if resource.type == "training_job":
        pipeline = resource.attributes.get("pipeline")
        return pipeline if isinstance(pipeline, str) else ""
    if resource.attributes.get("all"):
        return ""  # its id is the namespace, which some pipeline may be called
    return resource.id


def review_path(namespace: str) -> str:
    """Where the API server is asked about rights in a namespace."""
    return f"/apis/{VERSION}/namespaces/{namespace}/localsubjectaccessreviews"


def access_review(
    identity: ClusterIdentity, question: Question, namespace: str, group: str
) -> JSONObject:
    """The body of one question."""
    attributes: JSONObject = {
        "namespace": namespace,
        "verb": question.verb,
        "group": group,
        "resource": question.resource,
    }
    if question.subresource:
        attributes["subresource"] = question.subresource
    if question.name:
        attributes["name"] = question.name
    spec: JSONObject = {"resourceAttributes": attributes, "user": identity.username}
    if identity.uid:
        spec["uid"] = identity.uid
    if identity.groups:
        spec["groups"] = list(identity.groups)
    if identity.extra:
        spec["extra"] = {name: list(values) for name, values in identity.extra}
    metadata = {"namespace": namespace}
    return {"apiVersion": VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def decision_in(answer: JSONObject) -> Decision:
    """What the cluster decided.

    A no stands also where something could not be evaluated, as that happens with every role that
    is bound and not there; a yes does not.

    Raises:
        AccessUnavailable: the answer is neither a yes nor a no.
    """
    status = status_of(answer, KIND)
    if "allowed" not in status:
        raise not_understood(KIND, "allowed is missing")
    allowed = switch_in(status, "allowed", KIND)
    denied = switch_in(status, "denied", KIND)
    fault = text_in(status, "evaluationError", KIND)
    reason = text_in(status, "reason", KIND)
    if not allowed:
        return Decision(permitted=False, reason=reason or fault)
    if denied:
        raise not_understood(KIND, "it is allowed and denied")
    if fault:
        raise not_understood(KIND, "it is allowed, and could not be evaluated")
    return Decision(permitted=True, reason=reason)


NO_QUESTION: Final = Decision(permitted=False, reason="nobody can do this to that")


class SubjectAccessReviews:
    """Decides by the roles of the cluster.

    Args:
        review: asks the cluster.
        namespace: in which rights count, that of the service.
        group: API group of the resources, as roles name it.
    """

    def __init__(self, review: Review, namespace: str, group: str) -> None:
        self._review = review
        self._path = review_path(namespace)
        self._namespace = namespace
        self._group = group

    async def decide(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> Sequence[Decision]:
        """One decision a resource, in their order.

        Raises:
            AccessUnavailable: one of the questions was not answered, or the cluster does not know
                the principal.
        """
        if principal.cluster is None:
            raise AccessUnavailable("Roles of the cluster say nothing of who is no user of it.")
        questions = [question_of(action, resource) for resource in resources]
        distinct = dict.fromkeys(each for each in questions if each is not None)
        answers = await self._answers(principal.cluster, distinct)
        return [NO_QUESTION if each is None else answers[each] for each in questions]

    async def _answers(
        self, identity: ClusterIdentity, questions: Collection[Question]
    ) -> Mapping[Question, Decision]:
        waiting = iter(questions)
        answers: dict[Question, Decision] = {}
        faults: list[AccessUnavailable] = []

        async def ask_on() -> None:
            for question in waiting:
                try:
                    answers[question] = await self._ask(identity, question)
                except AccessUnavailable as fault:
                    faults.append(fault)
                if faults:  # a list is decided about as a whole or not at all
                    return

        try:
            async with asyncio.timeout(TOTAL_S), asyncio.TaskGroup() as group:
                for _ in range(min(AT_ONCE, len(questions))):
                    group.create_task(ask_on())
        except TimeoutError:
            msg = f"The cluster did not decide within {TOTAL_S:.0f} s; ask for less, or try again."
            raise AccessUnavailable(msg) from None
        if faults:
            raise faults[0]
        return answers

    async def _ask(self, identity: ClusterIdentity, question: Question) -> Decision:
        body = access_review(identity, question, self._namespace, self._group)
        return decision_in(await self._review(self._path, body))
