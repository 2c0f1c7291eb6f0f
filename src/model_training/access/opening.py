"""From the access file to who asks and who decides: the one place that knows all of both.

What is needed for one way alone is imported where that way is chosen, so that a service of one
user loads none of it.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from model_training.access.access_file import AccessFile, DecisionsTable, IssuerTable
from model_training.access.audit import AuditFile, AuditLog, AuditStdout
from model_training.access.credentials import Credentials
from model_training.access.decisions import Decider, PermitAuthenticated
from model_training.access.first_answer import FirstAnswer
from model_training.access.guard import PAIRS_LIMIT, Guard
from model_training.access.principals import Authenticator, LocalToken
from model_training.access.reviews import Review
from model_training.errors import SettingsError
from model_training.folders import DataFolder

if TYPE_CHECKING:
    from model_training.access.engines.aissemble import AissembleDecider
    from model_training.access.engines.authzen import AuthzenDecider
    from model_training.access.engines.opa import OpaDecider
    from model_training.access.engines.policy_server import Server
    from model_training.access.issuers import Issuer

logger = logging.getLogger(__name__)

# Those that are asked in this process have no bound on a list.
_HERE: Final = frozenset({"roles", "permit"})


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Access:
    """Who is it, and may they."""

    authenticator: Authenticator
    guard: Guard
    is_ready: Callable[[], bool] = _always
    """whether those who are asked over a network have answered since the start"""


@dataclass(frozen=True, slots=True)
class ReviewingCluster:
    """A cluster that can be asked about tokens and rights."""

    review: Review
    namespace: str
    """in which rights count"""
    may_review: Callable[[], bool] = _always
    """whether it lets us ask"""


async def open_access(
    file: AccessFile,
    *,
    data: DataFolder,
    local: LocalToken,
    namespace: str,
    cluster: ReviewingCluster | None,
    stack: AsyncExitStack,
) -> Access:
    """What the file says, at work until ``stack`` is left.

    Raises:
        SettingsError: something that it names is not there, or not what it must be.
    """
    authenticator = await _credentials(file, local, cluster, stack)
    decider, answers = await _decider(file.decisions, namespace, cluster, stack)
    audit = _audit(file, data, stack)
    engine = file.decisions.engine
    if engine == "permit":
        logger.warning(
            "authorization is switched off: whoever is authenticated may do everything here"
        )
    pairs_limit = None if engine in _HERE else PAIRS_LIMIT
    guard = Guard(decider, engine=engine, audit=audit, pairs_limit=pairs_limit)
    may_review = _always if cluster is None else cluster.may_review
    return Access(authenticator, guard, lambda: may_review() and answers())


async def _credentials(
    file: AccessFile, local: LocalToken, cluster: ReviewingCluster | None, stack: AsyncExitStack
) -> Credentials:
    issuers = keys = reviews = None
    if file.issuers:
        from model_training.access.jwt_tokens import Issuers

        issuers = await stack.enter_async_context(Issuers([_issuer(t) for t in file.issuers]))
    if file.api_keys is not None:
        from model_training.access.api_keys import ApiKeys

        keys = ApiKeys(file.api_keys.file)
    if file.kubernetes is not None:
        from model_training.access.token_reviews import TokenReviews

        reviews = TokenReviews(_required(cluster, "kubernetes").review, file.kubernetes.audience)
    return Credentials(
        issuers=issuers, keys=keys, reviews=reviews, local=local if file.local_token else None
    )


def _issuer(table: IssuerTable) -> "Issuer":
    from model_training.access.issuers import Issuer

    return Issuer(
        name=table.name,
        issuer=table.issuer,
        audience=table.audience,
        algorithms=table.algorithms,
        jwks=table.jwks,
        key=table.key,
        types=table.accepted_types,
        subject=table.subject,
        groups=table.groups,
        roles=table.roles,
        ca=table.ca,
        leeway_s=table.leeway,
    )


def _required(cluster: ReviewingCluster | None, setting: str) -> ReviewingCluster:
    if cluster is None:
        raise SettingsError(
            f"The setting {setting} of the access file needs a cluster to ask: use "
            "--executor kubernetes, or another way."
        )
    return cluster


async def _decider(
    table: DecisionsTable,
    namespace: str,
    cluster: ReviewingCluster | None,
    stack: AsyncExitStack,
) -> tuple[Decider, Callable[[], bool]]:
    """What decides, and whether it has answered yet."""
    match table.engine:
        case "permit":
            return PermitAuthenticated(), _always
        case "roles":
            from model_training.access.engines.roles import RolesDecider

            assert table.file is not None  # noqa: S101 - seen when the file was read
            return RolesDecider(table.file), _always
        case "kubernetes":
            from model_training.access.engines.subject_access_reviews import SubjectAccessReviews

            asked = _required(cluster, "decisions.engine")
            reviews = SubjectAccessReviews(asked.review, asked.namespace, table.group)
            return _kept(reviews, table), _always
        case _:
            remote = await stack.enter_async_context(_remote(table, namespace))
            first = FirstAnswer(remote, table.url or "")
            stack.callback(asyncio.create_task(first.run(), name="first answer").cancel)
            return _kept(remote, table), lambda: first.is_there


async def try_out(table: DecisionsTable) -> str | None:
    """What is doubtful about the answer of a decision point over HTTP, if anything.

    Raises:
        SettingsError: it cannot be asked as the settings say.
        AccessUnavailable: it does not answer with a decision.
    """
    async with _remote(table, "try-out") as decider:
        return await decider.check()


def _remote(
    table: DecisionsTable, namespace: str
) -> "AissembleDecider | AuthzenDecider | OpaDecider":
    from model_training.access.engines.aissemble import AissembleDecider
    from model_training.access.engines.authzen import AuthzenDecider
    from model_training.access.engines.opa import OpaDecider

    server = server_of(table)
    if table.engine == "opa":
        return OpaDecider(server, path=table.path)
    if table.engine == "authzen":
        return AuthzenDecider(server, discover=table.discover, jobs_by=table.jobs_by)
    return AissembleDecider(
        server, namespace=namespace, resource=table.resource, action=table.action
    )


def server_of(table: DecisionsTable) -> "Server":
    """Where the decision point is, and how it is reached.

    Raises:
        SettingsError: it could not be asked, or not safely.
    """
    from model_training.access.engines.policy_server import Server

    return Server(
        url=table.url or "",
        token_file=table.token,
        ca=table.ca,
        certificate=table.certificate,
        certificate_key=table.certificate_key,
        plain_http=table.plain_http,
    )


def _kept(decider: Decider, table: DecisionsTable) -> Decider:
    if not table.cache:
        return decider
    from model_training.access.engines.decision_cache import DecisionCache

    return DecisionCache(decider, table.cache)


def _audit(file: AccessFile, data: DataFolder, stack: AsyncExitStack) -> AuditLog:
    if file.audit is not None and file.audit.file == "-":
        return AuditStdout()
    path = file.audit.file if file.audit is not None else data.audit
    log = AuditFile(path)  # pyright: ignore[reportArgumentType] - a path, as it is not "-"
    stack.callback(log.close)
    return log
