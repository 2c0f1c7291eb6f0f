"""Decisions that are kept for a moment, where that is asked for by the settings.

What is kept is found only by all that the decision point was told, so that no two questions share
an answer; by a digest, because a token may be part of it. A yes counts from when it was asked for,
no longer than the credential of who asked, and never for what cannot be undone. While the decision
point cannot be asked, what was kept ends as it would have: a yes of yesterday is not a yes.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from model_training.access.actions import Action
from model_training.access.decisions import Decider, Decision, Resource
from model_training.access.engines.names import canonical
from model_training.access.principals import Principal
from model_training.errors import AccessUnavailable

PERMIT_LIMIT_S: Final = 10.0  # seconds; so long somebody whose right was taken still has it
DENY_S: Final = 2.0  # seconds: enough for a client that tries again at once
KEPT: Final = 10_000  # decisions; ten lists of the most that a decision point is asked about
NEVER_KEPT: Final = frozenset({Action.STOP, Action.DELETE})


class DecisionCache:
    """Keeps what another decider decides.

    Args:
        decider: whose decisions.
        permit_s: seconds for which a yes is kept, at most 10; a no for at most 2.
        now: seconds of a clock that nobody sets.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        decider: Decider,
        permit_s: float,
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._decider = decider
        self._permit_s = min(permit_s, PERMIT_LIMIT_S)
        self._deny_s = min(permit_s, DENY_S)
        self._now = now
        self._wall = wall
        self._kept: OrderedDict[bytes, tuple[float, Decision]] = OrderedDict()

    async def decide(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> Sequence[Decision]:
        """One decision a resource, in their order; only what is not kept is asked.

        Raises:
            AccessUnavailable: what is not kept could not be asked.
        """
        if action in NEVER_KEPT:
            return await self._decider.decide(principal, action, resources)
        keys = question_keys(principal, action, resources)
        found = {key: decision for key in keys if (decision := self._get(key)) is not None}
        asked = {k: each for k, each in zip(keys, resources, strict=True) if k not in found}
        if asked:
            asked_at = self._now()
            left = _left(principal, self._wall())
            answers = await self._decider.decide(principal, action, list(asked.values()))
            if len(answers) != len(asked):
                raise AccessUnavailable("The decision point did not answer every question.")
            for key, decision in zip(asked, answers, strict=True):
                found[key] = decision
                seconds = min(left, self._permit_s if decision.permitted else self._deny_s)
                self._put(key, decision, asked_at + seconds)
        return [found[key] for key in keys]

    def _get(self, key: bytes) -> Decision | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        ends, decision = kept
        if self._now() >= ends:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return decision

    def _put(self, key: bytes, decision: Decision, ends: float) -> None:
        if self._now() >= ends:
            return
        self._kept[key] = ends, decision
        self._kept.move_to_end(key)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)


def _left(principal: Principal, wall: float) -> float:
    """Seconds for which the credential is still good."""
    return float("inf") if principal.expires_at is None else principal.expires_at - wall


def question_keys(
    principal: Principal, action: Action, resources: Sequence[Resource]
) -> list[bytes]:
    """What each question is kept by: a digest of all that any decision point is told of it."""
    cluster = principal.cluster
    who = [
        principal.kind,
        principal.id,
        principal.name,
        principal.issuer,
        principal.groups,
        principal.roles,
        principal.token,
        cluster and [cluster.username, cluster.uid, cluster.groups, cluster.extra],
    ]
    begun = hashlib.sha256(canonical([who, action]))
    keys: list[bytes] = []
    for resource in resources:
        digest = begun.copy()
        digest.update(canonical([resource.type, resource.id, dict(resource.attributes)]))
        keys.append(digest.digest())
    return keys
