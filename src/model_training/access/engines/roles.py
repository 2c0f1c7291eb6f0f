"""Decisions by a file of roles, in this process: the decision point that needs no other.

The file is looked at on each question, and read again when it changed. While it cannot be
understood, the last good one counts, so that a slip in an editor is no outage. The log says so
once for each change, and so does ``doctor``, which reads the file as it is. The service is ready:
it goes on deciding, and to send it no more requests would make an outage of the slip.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_training.access.actions import Action
from model_training.access.decisions import DENY, PERMIT, Decision, Resource
from model_training.access.engines.role_file import Role, RoleFile, read_role_file
from model_training.access.engines.stamps import AGAIN_S, stamp
from model_training.access.patterns import matches
from model_training.access.principals import Principal
from model_training.errors import SettingsError

logger = logging.getLogger(__name__)

PRINCIPALS_KEPT: Final = 1000  # whose rules stay put together; as many people ask in an hour


@dataclass(frozen=True, slots=True)
class _Rules:
    """All that one principal may do."""

    anybody: Mapping[Action, tuple[str, ...]]
    """patterns of pipelines"""
    own: Mapping[Action, tuple[str, ...]]
    """the same, of jobs that they started"""
    service: frozenset[Action]


class RolesDecider:
    """Decides by the file.

    Raises:
        SettingsError: it cannot be understood.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = stamp(path)
        self._fault = ""
        self._again_at = float("inf")
        try:
            self._file = read_role_file(path)
        except SettingsError as error:
            raise SettingsError(f"The setting decisions.file: {error.message}.") from None
        self._rules: OrderedDict[tuple[str, tuple[str, ...], tuple[str, ...]], _Rules] = (
            OrderedDict()
        )

    async def decide(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> Sequence[Decision]:
        """One decision a resource, in their order."""
        self._look()
        rules = self._rules_of(principal)
        if len(resources) == 1:
            return [_decide(rules, principal.id, action, resources[0])]
        anybody, own = rules.anybody.get(action, ()), rules.own.get(action, ())
        known: dict[tuple[str, bool], bool] = {}
        decisions: list[Decision] = []
        for resource in resources:
            if resource.type != "training_job":
                decisions.append(_decide(rules, principal.id, action, resource))
                continue
            pipeline = str(resource.attributes.get("pipeline", ""))
            is_own = resource.attributes.get("owner") == principal.id
            key = pipeline, is_own
            if (permitted := known.get(key)) is None:
                permitted = known[key] = _allows(anybody, own, pipeline, is_own=is_own)
            decisions.append(PERMIT if permitted else DENY)
        return decisions

    def _look(self) -> None:
        seen = stamp(self._path)
        if seen == self._seen and time.monotonic() < self._again_at:
            return
        try:
            self._file = read_role_file(self._path)
        except SettingsError as error:
            # What failed may have been the moment (too many open files), so it is read again soon.
            self._seen, self._again_at = seen, time.monotonic() + AGAIN_S
            if error.message != self._fault:
                self._fault = error.message
                logger.error("the roles that counted before still count: %s", error.message)  # noqa: TRY400 - one line, no trace
            return
        self._seen, self._fault, self._again_at = seen, "", float("inf")
        self._rules.clear()
        logger.info("the roles in %s were read again", self._path)

    def _rules_of(self, principal: Principal) -> _Rules:
        key = principal.id, principal.groups, principal.roles
        rules = self._rules.get(key)
        if rules is None:
            rules = self._rules[key] = _rules_for(self._file, principal)
            if len(self._rules) > PRINCIPALS_KEPT:
                self._rules.popitem(last=False)
        else:
            self._rules.move_to_end(key)
        return rules


def _decide(rules: _Rules, who: str, action: Action, resource: Resource) -> Decision:
    anybody, own = rules.anybody.get(action, ()), rules.own.get(action, ())
    if resource.type == "training_service":
        permitted = action in rules.service
    elif resource.type == "training_pipeline" and resource.attributes.get("all"):
        permitted = bool(anybody or own)  # each of them is asked about by itself
    elif resource.type == "training_pipeline":
        # To list the jobs of a pipeline, of which one's own are some, or to create such a one.
        permitted = _allows(anybody, own, resource.id, is_own=True)
    elif resource.type == "training_job":
        is_own = resource.attributes.get("owner") == who
        pipeline = str(resource.attributes.get("pipeline", ""))
        permitted = _allows(anybody, own, pipeline, is_own=is_own)
    else:
        permitted = False
    return PERMIT if permitted else DENY


def _allows(anybody: Sequence[str], own: Sequence[str], pipeline: str, *, is_own: bool) -> bool:
    return any(matches(pattern, pipeline) for pattern in anybody) or (
        is_own and any(matches(pattern, pipeline) for pattern in own)
    )


def _rules_for(file: RoleFile, principal: Principal) -> _Rules:
    anybody: dict[Action, tuple[str, ...]] = {}
    own: dict[Action, tuple[str, ...]] = {}
    service: frozenset[Action] = frozenset()
    for role in _roles_of(file, principal):
        service |= role.service
        for rule in role.allow:
            into = own if rule.owner == "self" else anybody
            for action in rule.actions:
                into[action] = into.get(action, ()) + rule.pipelines
    return _Rules(anybody, own, service)


def _roles_of(file: RoleFile, principal: Principal) -> list[Role]:
    groups = {f"{principal.issuer}/{group}" for group in principal.groups}
    claimed = {f"{principal.issuer}/{role}" for role in principal.roles}
    names = {
        binding.role
        for binding in file.bindings
        if principal.id in binding.principals
        or not groups.isdisjoint(binding.groups)
        or not claimed.isdisjoint(binding.roles)
    }
    return [file.roles[name] for name in sorted(names)]
