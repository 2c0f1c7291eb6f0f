"""Who may do what by the policies that we ship, as the real servers that are loaded with them say.

Asked by our own engines, with what the service would ask about each route. Who may is written down
here by hand, once for the two that know of a job's pipeline and owner, and once for OpenFGA, which
is asked about pipelines alone and knows those that it was told of.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial

import pytest

from model_training.access.actions import Action
from model_training.access.decisions import (
    Decider,
    Resource,
    pair_resource,
    pipeline_resource,
    service_resource,
)
from model_training.access.engines.authzen import BATCH, AuthzenDecider
from model_training.access.engines.opa import OpaDecider
from model_training.access.engines.policy_server import Server
from model_training.access.principals import LocalToken, Principal, PrincipalKind
from tests.access.conftest import POLICIES
from tests.access.servers.cerbos import cerbos
from tests.access.servers.opa import opa
from tests.access.servers.openfga import openfga

pytestmark = pytest.mark.anyio

Make = Callable[[], AbstractAsyncContextManager[Decider]]


def somebody(name: str, groups: Sequence[str] = (), roles: Sequence[str] = ()) -> Principal:
    issuer = name.partition("/")[0]
    return Principal(
        PrincipalKind.USER, name, issuer=issuer, groups=tuple(groups), roles=tuple(roles)
    )


def key(name: str) -> Principal:
    return Principal(PrincipalKind.API_KEY, f"key/{name}", issuer="key")


def account(name: str) -> Principal:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{name.partition('/')[0]}")
    return Principal(
        PrincipalKind.SERVICE_ACCOUNT, f"kubernetes/{name}", issuer="kubernetes", groups=groups
    )


WHO = {
    "lea": somebody("corp/lea", groups=["data-science"]),
    "olga": somebody("corp/olga", roles=["ml-admin"]),
    "nightly": key("nightly"),
    "notebook": account("training/notebook"),
    # Strangers: of a group that is named alike, of a name that begins as another's, of another
    # issuer that vouches for the same, and of a group that is named as a role.
    "eve": somebody("corp/eve", groups=["data", "data-science-2"]),
    "leah": somebody("corp/leah"),
    "guest": somebody("guests/lea", groups=["data-science"], roles=["ml-admin"]),
    "mallory": somebody("corp/mallory", groups=["ml-admin"], roles=["data-science"]),
    "weekly": key("nightly2"),
    "other": account("other/notebook"),
    "local": LocalToken.principal,
}
SCIENTISTS = frozenset({"lea", "nightly", "notebook"})
ALL = SCIENTISTS | {"olga"}
NOBODY: frozenset[str] = frozenset()


def job(pipeline: str, owner: str) -> Resource:
    told = {"state": "running", "created_at": "2026-03-01T12:00:00Z"}
    return Resource("training_job", "a-job", {"pipeline": pipeline, "owner": owner, **told})


@dataclass(frozen=True)
class Row:
    """One question, and who gets a yes."""

    action: Action
    resource: Resource
    may: frozenset[str]
    by_pipeline: frozenset[str]
    """of OpenFGA, where lea maintains fraud-cards"""

    def __str__(self) -> str:
        owner = self.resource.attributes.get("owner", "")
        pipeline = self.resource.attributes.get("pipeline", "")
        more = "all" if self.resource.attributes.get("all") else f"{pipeline} {owner}"
        return f"{self.action} {self.resource.type} {self.resource.id} {more}".strip()


MINE, YOURS = job("fraud-cards", "corp/lea"), job("fraud-cards", "key/nightly")
OTHER, NONE = job("churn", "corp/lea"), job("", "corp/lea")
CARDS, NEW, CHURN = map(pipeline_resource, ("fraud-cards", "fraud-new", "churn"))
WANTED = pipeline_resource(
    "fraud-cards", namespace="local", executor="local", parameters=["epochs"], cpu=1.5,
    memory=1073741824, gpu=0, timeout=None,
)  # fmt: skip
ADMIN = frozenset({"olga"})
TABLE = [
    Row(Action.CREATE, CARDS, ALL, ALL),
    Row(Action.CREATE, WANTED, ALL, ALL),
    Row(Action.CREATE, NEW, ALL, NOBODY),
    Row(Action.CREATE, CHURN, ADMIN, ADMIN),
    Row(Action.CREATE, pipeline_resource("fraud"), ADMIN, NOBODY),
    Row(Action.CREATE, pipeline_resource("not-fraud-cards"), ADMIN, NOBODY),
    Row(Action.LIST, service_resource("local"), ALL, ALL),
    Row(Action.LIST, pipeline_resource("local", all=True), ALL, ALL),
    Row(Action.LIST, CARDS, ALL, ALL),
    Row(Action.LIST, CHURN, ADMIN, ADMIN),
    Row(Action.READ, service_resource("local"), ADMIN, ADMIN),
    Row(Action.READ, CARDS, ALL, ALL),
    Row(Action.READ, CHURN, ADMIN, ADMIN),
    *(
        row
        for action in (Action.READ, Action.READ_LOGS, Action.READ_OUTPUTS)
        for row in (
            Row(action, MINE, ALL, ALL),
            Row(action, YOURS, ALL, ALL),
            Row(action, OTHER, ADMIN, ADMIN),
            Row(action, NONE, ADMIN, NOBODY),
        )
    ),
    *(
        row
        for action in (Action.STOP, Action.DELETE)
        for row in (
            Row(action, MINE, frozenset({"lea", "olga"}), frozenset({"lea", "olga"})),
            Row(action, YOURS, frozenset({"nightly", "olga"}), frozenset({"lea", "olga"})),
            Row(action, OTHER, ADMIN, ADMIN),
            Row(action, NONE, ADMIN, NOBODY),
        )
    ),
    Row(Action.READ, pair_resource("fraud-cards", "corp/ben"), ALL, ALL),
    Row(Action.READ, pair_resource("churn", "corp/lea"), ADMIN, ADMIN),
    Row(Action.READ, pair_resource(None, "corp/lea"), ADMIN, NOBODY),
]


@pytest.fixture(scope="module", params=["Cerbos", "OPA", "OpenFGA"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Make]]:
    root = tmp_path_factory.mktemp("policies")
    match request.param:
        case "Cerbos":
            with cerbos(root, POLICIES / "cerbos") as one:
                yield "may", partial(AuthzenDecider, Server(one.url))
        case "OPA":
            with opa(root, POLICIES / "opa") as one:
                yield "may", partial(OpaDecider, Server(one.url))
        case _:
            with openfga(root, POLICIES / "openfga") as one:
                server = Server(one.url)
                yield "by_pipeline", partial(AuthzenDecider, server, jobs_by="pipeline")


async def permitted(make: Make, action: Action, who: str, resources: Sequence[Resource]) -> list:
    async with make() as decider:
        decisions = await decider.decide(WHO[who], action, resources)
    return [decision.permitted for decision in decisions]


@pytest.mark.parametrize("row", TABLE, ids=str)
async def test_a_question_is_answered_for_everybody_as_the_table_says(
    engine: tuple[str, Make], row: Row
):
    column, make = engine
    may = {who for who in WHO if await permitted(make, row.action, who, [row.resource]) == [True]}
    assert may == getattr(row, column)


@pytest.mark.parametrize("action", Action, ids=str)
async def test_asked_together_they_are_answered_as_they_are_alone(
    engine: tuple[str, Make], action: Action
):
    column, make = engine
    rows = [row for row in TABLE if row.action is action]
    for who in WHO:
        answers = await permitted(make, action, who, [row.resource for row in rows])
        assert answers == [who in getattr(row, column) for row in rows], who


async def test_a_list_of_many_pairs_is_answered_for_each(engine: tuple[str, Make]):
    """More than fit into one batch, of which some may be read, in no order that helps."""
    _, make = engine
    pairs = [
        ("fraud-cards" if number % 3 else "churn", f"corp/user{number}")
        for number in range(3 * BATCH + 7)
    ]
    answers = await permitted(make, Action.READ, "lea", [pair_resource(*pair) for pair in pairs])
    assert answers == [pipeline == "fraud-cards" for pipeline, _ in pairs]


async def test_two_different_jobs_of_one_name_are_told_apart(engine: tuple[str, Make]):
    """Cerbos answers both by the first of them where they are in one batch."""
    _, make = engine
    asked = [job("fraud-cards", "corp/lea"), job("churn", "corp/lea")] * 2
    assert await permitted(make, Action.READ, "lea", asked) == [True, False] * 2
    assert await permitted(make, Action.READ, "lea", asked[::-1]) == [False, True] * 2
