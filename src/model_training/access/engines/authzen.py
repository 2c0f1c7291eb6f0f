"""Decisions by any decision point that speaks the OpenID AuthZEN Authorization API 1.0.

Nothing is sent but what the standard names, as real servers refuse the rest. Several questions go
in batches of 50, which is what the smallest takes; how a batch is evaluated is left out, since to
answer all of it is the default. A batch never holds two different questions about one type and id:
there is a server that answers both by the first of them.

A question that was not evaluated comes back with ``error`` in its context. That is no answer, also
where ``decision`` beside it is false: a list without the jobs that could not be decided about
would be a partial one.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast

from model_training.access.actions import Action
from model_training.access.decisions import Decision, Resource
from model_training.access.engines.authzen_discovery import (
    Endpoints,
    endpoints_in,
    metadata_url,
    standard_endpoints,
)
from model_training.access.engines.names import (
    REFUSED_PRINCIPAL,
    REFUSED_RESOURCE,
    SOMEBODY,
    SOMETHING,
    JSONObject,
    canonical,
    resource_of,
    subject_of,
)
from model_training.access.engines.policy_answers import Answer, json_in, not_understood
from model_training.access.engines.policy_server import Remote, Request, Server
from model_training.access.principals import Principal

JobsBy = Literal["job", "pipeline"]

BATCH: Final = 50  # questions; Cerbos and OpenFGA refuse more


@dataclass(frozen=True, slots=True)
class Questions:
    """One request: a body, and the resources that it is about, in the order of the answers."""

    body: JSONObject
    about: tuple[bytes, ...]
    """each as canonical JSON"""


def asked_about(resource: Resource, jobs_by: JobsBy) -> JSONObject | None:
    """The resource that is asked about; None: it cannot be told of.

    By pipeline, a job is asked about as the pipeline that it is of and nothing else is told of it:
    the same action on another type. A job of no pipeline is then nobody's.
    """
    if jobs_by == "job" or resource.type != "training_job":
        return resource_of(resource)
    pipeline = resource.attributes.get("pipeline")
    if not isinstance(pipeline, str):
        return None
    return resource_of(Resource("training_pipeline", pipeline))


def questions(
    subject: JSONObject, action: Action, resources: Sequence[JSONObject], *, batch: int = BATCH
) -> list[Questions]:
    """The requests that ask about each of the resources once.

    Args:
        subject: who would do it.
        action: what would be done.
        resources: to what; any may be among them more than once.
        batch: questions in one request, at most.
    """
    distinct = {canonical(resource): resource for resource in resources}
    seen = Counter[tuple[object, object]]()
    rounds: list[list[bytes]] = []  # in each a type and id is at most once
    for text, resource in distinct.items():
        name = resource["type"], resource["id"]
        if seen[name] == len(rounds):
            rounds.append([])
        rounds[seen[name]].append(text)
        seen[name] += 1
    return [
        _questions(subject, action, {text: distinct[text] for text in each[at : at + batch]})
        for each in rounds
        for at in range(0, len(each), batch)
    ]


def _questions(
    subject: JSONObject, action: Action, resources: Mapping[bytes, JSONObject]
) -> Questions:
    body: JSONObject = {"subject": subject, "action": {"name": str(action)}}
    if len(resources) == 1:
        [body["resource"]] = resources.values()
    else:
        body["evaluations"] = [{"resource": resource} for resource in resources.values()]
    return Questions(body, tuple(resources))


def verdicts(answer: Answer, expected: int) -> list[Decision]:
    """What was decided.

    A ``decision`` beside ``evaluations`` counts for nothing, as the standard says; where one
    question was asked, ``evaluations`` have no place.

    Args:
        answer: to one request.
        expected: how many questions it asked.

    Raises:
        AccessUnavailable: it is not one clear yes or no for each.
    """
    found = json_in(answer)
    if expected == 1:
        if "evaluations" in found:
            raise not_understood("one question is answered by several evaluations")
        return [_verdict(found)]
    evaluations = found.get("evaluations")
    if not isinstance(evaluations, list):
        raise not_understood("it has no list of evaluations")
    items = cast("list[object]", evaluations)
    if len(items) != expected:
        raise not_understood(f"it has {len(items)} evaluations for {expected} questions")
    return [_verdict(item) for item in items]


def _verdict(item: object) -> Decision:
    if not isinstance(item, dict):
        raise not_understood("an evaluation is no object")
    evaluation = cast("JSONObject", item)
    decision = evaluation.get("decision")
    if not isinstance(decision, bool):
        raise not_understood("decision is neither true nor false")
    context = evaluation.get("context")
    if context is not None and not isinstance(context, dict):
        raise not_understood("context is no object")
    if context is not None and cast("JSONObject", context).get("error") is not None:
        raise not_understood("a question could not be evaluated there")
    return Decision(permitted=decision)


class AuthzenDecider(Remote):
    """Decides by an AuthZEN decision point.

    Args:
        server: where it is; a path in its address is that of a tenant.
        discover: whether it says where its endpoints are.
        jobs_by: whether jobs are asked about themselves, or as their pipelines.
        now: seconds of a clock that nobody sets.
    """

    def __init__(
        self,
        server: Server,
        *,
        discover: bool = False,
        jobs_by: JobsBy = "job",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(server, now)
        self._jobs_by: JobsBy = jobs_by
        self._endpoints = None if discover else standard_endpoints(server.base)

    async def decide(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> Sequence[Decision]:
        """One decision a resource, in their order.

        Raises:
            AccessUnavailable: not each of them was clearly answered.
        """
        subject = subject_of(principal)
        if subject is None:
            return [REFUSED_PRINCIPAL] * len(resources)
        told = [asked_about(resource, self._jobs_by) for resource in resources]
        asked = [resource for resource in told if resource is not None]
        answers = await self._answers(subject, action, asked) if asked else {}
        return [
            REFUSED_RESOURCE if resource is None else answers[canonical(resource)]
            for resource in told
        ]

    async def check(self) -> None:
        """Ask it something.

        Raises:
            AccessUnavailable: it does not answer with a decision.
        """
        await self.decide(SOMEBODY, Action.READ, [SOMETHING])

    async def _answers(
        self, subject: JSONObject, action: Action, resources: Sequence[JSONObject]
    ) -> dict[bytes, Decision]:
        deadline = self._server.deadline()
        endpoints = self._endpoints or await self._discovered(deadline)
        batch = BATCH if endpoints.evaluations else 1
        asked = questions(subject, action, resources, batch=batch)
        requests = [_request(each, endpoints) for each in asked]
        answers = await self._server.ask(requests, deadline)
        found: dict[bytes, Decision] = {}
        for each, answer in zip(asked, answers, strict=True):
            found.update(zip(each.about, verdicts(answer, len(each.about)), strict=True))
        return found

    async def _discovered(self, deadline: float) -> Endpoints:
        url = self._server.server.url
        [answer] = await self._server.ask([Request(metadata_url(url))], deadline)
        self._endpoints = endpoints_in(json_in(answer), url)
        return self._endpoints


def _request(asked: Questions, endpoints: Endpoints) -> Request:
    several = len(asked.about) > 1 and endpoints.evaluations
    return Request(several or endpoints.evaluation, canonical(asked.body))
