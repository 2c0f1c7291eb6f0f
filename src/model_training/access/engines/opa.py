"""Decisions by Open Policy Agent: one rule of its data API, asked with who, what and on what.

One question a resource and request. A list in the input, answered by a list of booleans, was
rejected: it is a second rule that each policy would have to be written and tested for, whose order
nothing but care keeps, and OPA answers a thousand single questions inside the time that one
decision has.

``input`` is what AuthZEN sends: ``subject``, ``action``, ``resource``, with attributes in their
``properties``.
"""

import re
import time
from collections.abc import Callable, Sequence
from typing import Final, cast

from model_training.access.actions import Action
from model_training.access.decisions import Decision, Resource
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
from model_training.errors import SettingsError

PATH: Final = "model_training/allow"
UNDEFINED: Final = "the rule is undefined for this"
ID_SIGNS: Final = 100  # of its own name for a decision, a UUID by default; it goes to the audit log
_PATH: Final = re.compile(r"[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*")


def body_of(subject: JSONObject, action: Action, resource: JSONObject) -> bytes:
    """What is sent; the same for the same question."""
    asked: JSONObject = {"subject": subject, "action": {"name": str(action)}, "resource": resource}
    return canonical({"input": asked})


def rule_url(base: str, path: str) -> str:
    """Where a rule is asked.

    Raises:
        SettingsError: the path is none.
    """
    rule = path.strip("/")
    if not _PATH.fullmatch(rule):
        raise SettingsError(
            f"The setting decisions.path: {path!r} is no path of a rule; write it such as {PATH}."
        )
    return f"{base}/v1/data/{rule}"


def verdict(answer: Answer) -> Decision:
    """What was decided: ``true``, or an object whose ``allow`` is true, is a yes.

    A rule that says nothing about this is a no, as a rule without a default is written so.

    Raises:
        AccessUnavailable: it is neither a yes nor a no, or OPA warns that it was asked wrongly.
    """
    found = json_in(answer)
    if "warning" in found:
        raise not_understood("it comes with a warning")
    identity = _identity(found.get("decision_id"))
    if "result" not in found:
        return Decision(permitted=False, reason=UNDEFINED, id=identity)
    result = found["result"]
    if isinstance(result, dict):
        result = cast("JSONObject", result).get("allow")
    if not isinstance(result, bool):
        raise not_understood("the rule gives neither true nor false")
    return Decision(permitted=result, id=identity)


def _identity(value: object) -> str:
    if isinstance(value, str) and len(value) <= ID_SIGNS and value.isprintable():
        return value
    return ""


class OpaDecider(Remote):
    """Decides by a rule of OPA.

    Args:
        server: where it is.
        path: of the rule, as in ``package/rule``.
        now: seconds of a clock that nobody sets.

    Raises:
        SettingsError: the path is none.
    """

    def __init__(
        self, server: Server, *, path: str = PATH, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = rule_url(server.base, path)
        super().__init__(server, now)

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
        told = [resource_of(resource) for resource in resources]
        bodies = [None if each is None else body_of(subject, action, each) for each in told]
        distinct = dict.fromkeys(body for body in bodies if body is not None)
        requests = [Request(self._url, body) for body in distinct]
        answers = await self._server.ask(requests, self._server.deadline())
        found = dict(zip(distinct, map(verdict, answers), strict=True))
        return [REFUSED_RESOURCE if body is None else found[body] for body in bodies]

    async def check(self) -> str | None:
        """What is doubtful about its answer to a question about nobody, if anything.

        A rule that says nothing is a no. It is also what OPA says where no such rule is, so it is
        told.

        Raises:
            AccessUnavailable: it does not answer with a decision.
        """
        [decision] = await self.decide(SOMEBODY, Action.READ, [SOMETHING])
        if decision.reason != UNDEFINED:
            return None
        return (
            "the rule of decisions.path is undefined for a question about nobody. If it is the one "
            "that is meant, give it a default"
        )
