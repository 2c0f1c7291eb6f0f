"""Decisions by aiSSEMBLE's policy decision point, ``POST /api/pdp``.

It is told a JSON Web Token and two strings, and answers in one word of plain text. Who asks is the
token's own ``sub``, so the caller's token is handed on, which this service has verified itself:
that decision point looks at signature and expiry alone, and answers a bad token as it answers a
fault of its own (500).

It keeps its decisions by subject, resource and action, joined with colons. ``a:b`` and ``c`` share
an entry with ``a`` and ``b:c``, and a yes for one is a yes for the other; so nobody is asked about
who has a colon in ``sub``, and no string that holds one is sent.

What the two strings are is a setting, because policies exist that expect others. About no pipeline
in particular ``{pipeline}`` is empty; what is not about a job has no ``{owner}``.
"""

import string
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from model_training.access.actions import Action
from model_training.access.decisions import Decision, Resource
from model_training.access.engines.names import (
    REFUSED_PRINCIPAL,
    REFUSED_RESOURCE,
    JSONObject,
    canonical,
    sendable,
)
from model_training.access.engines.policy_answers import TEXT, Answer, not_understood, text_in
from model_training.access.engines.policy_server import Remote, Request, Server
from model_training.access.principals import Principal
from model_training.access.signed_text import Unreadable, take_apart
from model_training.errors import AccessUnavailable, SettingsError

PATH: Final = "/api/pdp"
RESOURCE: Final = "model-training/{pipeline}"
ACTION: Final = "training-job-{action}"
FIELDS: Final = ("pipeline", "owner", "type", "action", "namespace")
_NO: Final = frozenset({"DENY", "NOT_APPLICABLE", "INDETERMINATE"})
_ITS_OWN: Final = frozenset({200, 500})  # what it answers to a token that is none


@dataclass(frozen=True, slots=True)
class Template:
    """A string with places for what is asked about."""

    parts: tuple[tuple[str, str | None], ...]
    """each a text and the field behind it"""

    def filled(self, values: dict[str, str]) -> str:
        """The string of these values, which are taken as they are."""
        return "".join(text + (values[name] if name else "") for text, name in self.parts)


def template(text: str, setting: str) -> Template:
    """The template of a setting.

    Raises:
        SettingsError: it names a field that there is not, or what must not be sent.
    """
    try:
        parts = [(before, name, spec, turn) for before, name, spec, turn in _formatter.parse(text)]
    except ValueError:
        raise _no_template(text, setting, "a brace is not closed; write {{ for a brace") from None
    for before, name, spec, turn in parts:
        if before and not sendable(before):
            raise _no_template(text, setting, "a colon or a control sign must not be sent")
        if name is not None and (name not in FIELDS or spec or turn):
            known = ", ".join(f"{{{field}}}" for field in FIELDS)
            raise _no_template(text, setting, f"the places in it are of {known}")
    return Template(tuple((before, name) for before, name, _, _ in parts))


_formatter: Final = string.Formatter()


def _no_template(text: str, setting: str, reason: str) -> SettingsError:
    return SettingsError(f"The setting decisions.{setting}: {text!r} cannot be used: {reason}.")


@dataclass(frozen=True, slots=True)
class Words:
    """How what is asked about is written; the namespace is the service's own."""

    resource: Template
    action: Template
    namespace: str


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about somebody."""

    resource: str
    action: str


def question_of(action: Action, resource: Resource, words: Words) -> Question | None:
    """The question; None: it cannot be told of."""
    pipeline, owner = _pipeline_and_owner(resource)
    if pipeline is None or owner is None:
        return None
    values = {
        "pipeline": pipeline,
        "owner": owner,
        "type": resource.type,
        "action": str(action),
        "namespace": words.namespace,
    }
    question = Question(words.resource.filled(values), words.action.filled(values))
    return question if sendable(question.resource) and sendable(question.action) else None


def _pipeline_and_owner(resource: Resource) -> tuple[str | None, str | None]:
    if resource.type == "training_job":
        pipeline, owner = resource.attributes.get("pipeline"), resource.attributes.get("owner")
        return pipeline if isinstance(pipeline, str) else None, (
            owner if isinstance(owner, str) else None
        )
    if resource.type == "training_pipeline" and not resource.attributes.get("all"):
        return resource.id, ""
    return "", ""


def body_of(token: str, question: Question) -> bytes:
    """What is sent."""
    body: JSONObject = {"jwt": token, "resource": question.resource, "action": question.action}
    return canonical(body)


def endpoint(base: str) -> str:
    """Where is asked; an address may have the path at its end, as those of older clients do."""
    return base if base.endswith(PATH) else base + PATH


def request_of(url: str, token: str, question: Question) -> Request:
    """The request that asks it about whoever the token is of."""
    return Request(url, body_of(token, question), accept=TEXT)


def verdict(answer: Answer) -> Decision:
    """What was decided.

    Raises:
        AccessUnavailable: it is none of the four words.
    """
    word = text_in(answer)
    if word == "PERMIT":
        return Decision(permitted=True)
    if word in _NO:
        return Decision(permitted=False, reason=word)
    raise not_understood("it is none of its four words")


class AissembleDecider(Remote):
    """Decides by aiSSEMBLE's decision point.

    Args:
        server: where it is; its address may end in /api/pdp.
        namespace: of the service.
        resource: template of what it is asked about.
        action: template of what would be done.
        now: seconds of a clock that nobody sets.

    Raises:
        SettingsError: a template cannot be used.
    """

    def __init__(
        self,
        server: Server,
        *,
        namespace: str,
        resource: str = RESOURCE,
        action: str = ACTION,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._words = Words(template(resource, "resource"), template(action, "action"), namespace)
        super().__init__(server, now)
        self._url = endpoint(server.base)

    async def decide(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> Sequence[Decision]:
        """One decision a resource, in their order.

        Raises:
            AccessUnavailable: not each of them was clearly answered, or there is no token by which
                it could be asked.
        """
        if not sendable(_subject(principal)):
            return [REFUSED_PRINCIPAL] * len(resources)
        asked = [question_of(action, resource, self._words) for resource in resources]
        distinct = dict.fromkeys(question for question in asked if question is not None)
        requests = [request_of(self._url, principal.token, each) for each in distinct]
        answers = await self._server.ask(requests, self._server.deadline())
        found = dict(zip(distinct, map(verdict, answers), strict=True))
        return [REFUSED_RESOURCE if question is None else found[question] for question in asked]

    async def check(self) -> None:
        """Ask it something, without a token.

        That it decides cannot be seen without one. It is answered here by the endpoint itself, in
        whatever way; that something else answers, or nothing, is told.

        Raises:
            AccessUnavailable: there is no such endpoint.
        """
        request = request_of(self._url, "", Question("self-test", "self-test"))
        [answer] = await self._server.ask([request], self._server.deadline())
        if answer.status not in _ITS_OWN:
            raise not_understood(f"there is no such endpoint, its status is {answer.status}")


def _subject(principal: Principal) -> str:
    """Who it will take the caller for."""
    try:
        subject = take_apart(principal.token).claims.get("sub")
    except Unreadable:
        raise AccessUnavailable(
            "The decision point can be asked only about somebody who comes with a token of an "
            "issuer."
        ) from None
    return subject if isinstance(subject, str) else ""
