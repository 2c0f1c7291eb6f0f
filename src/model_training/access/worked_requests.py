"""What a decision point is sent, shown by examples before there is one.

Whoever writes a policy must know what it will be asked. The examples are made by what the engines
themselves send with, so that a page cannot fall behind them; a token is never among what is shown,
a word stands in its place.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from model_training.access.access_file import DecisionsTable, Engine
from model_training.access.actions import Action
from model_training.access.decisions import (
    Resource,
    pair_resource,
    pipeline_resource,
    service_resource,
)
from model_training.access.opening import server_of
from model_training.access.principals import ClusterIdentity, Principal, PrincipalKind

if TYPE_CHECKING:
    from model_training.access.engines.policy_server import Request

NAMESPACE: Final = "training"
CLUSTER: Final = "https://kubernetes.default.svc"
OUR_TOKEN: Final = "OUR-TOKEN"  # noqa: S105 - it stands in its place
CALLERS_TOKEN: Final = "TOKEN-OF-THE-CALLER"  # noqa: S105 - the same

# Where decision points listen by default.
EXAMPLES: Final[Mapping[Engine, DecisionsTable]] = {
    "roles": DecisionsTable(engine="roles"),
    "authzen": DecisionsTable(engine="authzen", url="http://127.0.0.1:3592"),
    "opa": DecisionsTable(engine="opa", url="http://127.0.0.1:8181"),
    "aissemble": DecisionsTable(engine="aissemble", url="http://127.0.0.1:8080"),
    "kubernetes": DecisionsTable(engine="kubernetes"),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asks this service for, and what is decided about for it."""

    route: str
    action: Action
    resources: tuple[Resource, ...]

    def words(self, who: str) -> str:
        """The question as a person would put it."""
        what = ", ".join(map(_words_for, self.resources))
        return f"{self.route}: may {who} {self.action} {what}?"


@dataclass(frozen=True, slots=True)
class WorkedRequest:
    """One request to a decision point, whole but for its connection."""

    asks: str
    """what somebody wants, for which it is sent"""
    method: str
    url: str
    headers: Mapping[str, str]
    body: str
    """to the byte; empty where none is sent"""


def _words_for(resource: Resource) -> str:
    if resource.type != "training_job":
        return f"{resource.type} {resource.id}"
    return f"{resource.type} of {resource.attributes['pipeline']} by {resource.attributes['owner']}"


_NAME: Final = "model-training-fraud-cards-0f0f2c4e-54f7-8b1a-a1a3-3d6a1a6f0c11"
_JOB: Final = Resource(
    "training_job",
    _NAME,
    {
        "pipeline": "fraud-cards",
        "owner": "corp/lea",
        "state": "running",
        "created_at": "2026-03-01T12:00:00Z",
    },
)
WANTED: Final = (
    Wanted(
        "POST /training-jobs?pipeline=fraud-cards",
        Action.CREATE,
        (
            pipeline_resource(
                "fraud-cards",
                namespace=NAMESPACE,
                executor="kubernetes",
                parameters=["epochs", "learning_rate"],
                cpu=2.0,
                memory=4 * 1024**3,
                gpu=0,
                timeout=3600.0,
            ),
        ),
    ),
    Wanted("GET /training-jobs", Action.LIST, (service_resource(NAMESPACE),)),
    Wanted(
        "GET /training-jobs, then",
        Action.READ,
        (pair_resource("fraud-cards", "corp/lea"), pair_resource("churn", "key/nightly")),
    ),
    Wanted("GET /training-jobs/NAME/status", Action.READ, (_JOB,)),
    Wanted("DELETE /training-jobs/NAME", Action.DELETE, (_JOB,)),
)

_USER: Final = Principal(
    PrincipalKind.USER,
    "corp/lea",
    name="lea",
    issuer="corp",
    groups=("data-science",),
    roles=("scientist",),
    token=CALLERS_TOKEN,
)
_ACCOUNT: Final = Principal(
    PrincipalKind.SERVICE_ACCOUNT,
    "kubernetes/training/notebook",
    name="system:serviceaccount:training:notebook",
    issuer="kubernetes",
    cluster=ClusterIdentity(
        "system:serviceaccount:training:notebook",
        groups=("system:serviceaccounts", "system:authenticated"),
    ),
)


def asker_of(table: DecisionsTable) -> Principal:
    """Somebody whom this decision point can be asked about."""
    return _ACCOUNT if table.engine == "kubernetes" else _USER


def worked_requests(table: DecisionsTable) -> list[WorkedRequest]:
    """What is sent for each of the examples; nothing, where this process decides by itself.

    Raises:
        SettingsError: it cannot be asked as the settings say.
    """
    if table.engine == "kubernetes":
        return list(_reviews(table))
    if table.engine not in _REQUESTS:
        return []
    from model_training.access.engines.policy_server import headers_of

    token = OUR_TOKEN if table.token else ""
    return [
        WorkedRequest(
            asks,
            request.method,
            request.url,
            headers_of(request, token),
            (request.body or b"").decode(),
        )
        for asks, request in _REQUESTS[table.engine](table)
    ]


_Asked = Iterator[tuple[str, "Request"]]


def _authzen(table: DecisionsTable) -> _Asked:
    from model_training.access.engines.authzen import asked_about, questions
    from model_training.access.engines.authzen_discovery import metadata_url, standard_endpoints
    from model_training.access.engines.names import canonical, subject_of
    from model_training.access.engines.policy_server import Request

    server = server_of(table)
    if table.discover:
        yield (
            "once, where its endpoints are; else they are as below",
            Request(metadata_url(server.url)),
        )
    endpoints = standard_endpoints(server.base)
    subject = subject_of(_USER)
    assert subject is not None  # noqa: S101 - an example
    for wanted in WANTED:
        told = [asked_about(resource, table.jobs_by) for resource in wanted.resources]
        for each in questions(subject, wanted.action, [one for one in told if one is not None]):
            several = len(each.about) > 1
            url = (
                endpoints.evaluations if several and endpoints.evaluations else endpoints.evaluation
            )
            yield wanted.words(_USER.id), Request(url, canonical(each.body))


def _opa(table: DecisionsTable) -> _Asked:
    from model_training.access.engines.names import resource_of, subject_of
    from model_training.access.engines.opa import body_of, rule_url
    from model_training.access.engines.policy_server import Request

    url = rule_url(server_of(table).base, table.path)
    subject = subject_of(_USER)
    assert subject is not None  # noqa: S101 - an example
    for wanted in WANTED:
        for resource in wanted.resources:
            told = resource_of(resource)
            assert told is not None  # noqa: S101 - the same
            yield wanted.words(_USER.id), Request(url, body_of(subject, wanted.action, told))


def _aissemble(table: DecisionsTable) -> _Asked:
    from model_training.access.engines.aissemble import (
        Words,
        endpoint,
        question_of,
        request_of,
        template,
    )

    url = endpoint(server_of(table).base)
    words = Words(template(table.resource, "resource"), template(table.action, "action"), NAMESPACE)
    for wanted in WANTED:
        asked = [question_of(wanted.action, resource, words) for resource in wanted.resources]
        for question in dict.fromkeys(each for each in asked if each is not None):
            yield wanted.words(_USER.id), request_of(url, CALLERS_TOKEN, question)


_REQUESTS: Final[Mapping[str, Callable[[DecisionsTable], _Asked]]] = {
    "authzen": _authzen,
    "opa": _opa,
    "aissemble": _aissemble,
}


def _reviews(table: DecisionsTable) -> Iterator[WorkedRequest]:
    from model_training.access.engines.subject_access_reviews import (
        access_review,
        question_of,
        review_path,
    )

    assert _ACCOUNT.cluster is not None  # noqa: S101 - an example
    for wanted in WANTED:
        asked = [question_of(wanted.action, resource) for resource in wanted.resources]
        for question in dict.fromkeys(each for each in asked if each is not None):
            review = access_review(_ACCOUNT.cluster, question, NAMESPACE, table.group)
            yield WorkedRequest(
                wanted.words(_ACCOUNT.id),
                "POST",
                f"{CLUSTER}{review_path(NAMESPACE)}",
                {"Content-Type": "application/json"},
                json.dumps(review, separators=(",", ":"), ensure_ascii=False),
            )
