"""What is kept of decisions, and for how long: by clocks that the test sets."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.access.actions import Action
from model_training.access.decisions import Decision, Resource
from model_training.access.engines import decision_cache
from model_training.access.engines.decision_cache import DecisionCache, question_keys
from model_training.access.principals import Ceiling, ClusterIdentity, Principal, PrincipalKind
from model_training.errors import AccessUnavailable

pytestmark = pytest.mark.anyio

ALICE = Principal(PrincipalKind.USER, "corp/alice", groups=("ml",))
JOB = Resource("training_job", "j1", {"pipeline": "digits", "owner": "corp/alice"})
KEPT = (Action.CREATE, Action.LIST, Action.READ, Action.READ_LOGS, Action.READ_OUTPUTS)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Decides:
    """Decides as it is told to, and counts."""

    def __init__(self) -> None:
        self.permits = True
        self.is_there = True
        self.asked: list[list[str]] = []
        self.meanwhile = lambda: None

    async def decide(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> Sequence[Decision]:
        self.asked.append([resource.id for resource in resources])
        self.meanwhile()
        if not self.is_there:
            raise AccessUnavailable
        return [Decision(permitted=self.permits, reason=resource.id) for resource in resources]


class Lab:
    def __init__(self, permit_s: float = 10) -> None:
        self.decider = Decides()
        self.now = 50.0
        self.wall = 1_000_000.0
        self.cache = DecisionCache(
            self.decider, permit_s, now=lambda: self.now, wall=lambda: self.wall
        )

    async def ask(
        self,
        *resources: Resource,
        action: Action = Action.READ,
        principal: Principal = ALICE,
    ) -> list[bool]:
        answers = await self.cache.decide(principal, action, resources or [JOB])
        return [answer.permitted for answer in answers]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


async def test_a_yes_is_kept_for_the_time_that_was_set():
    lab = Lab(permit_s=4)
    assert await lab.ask() == [True]
    lab.decider.permits = False
    lab.pass_time(3.9)
    assert await lab.ask() == [True]
    lab.pass_time(0.1)
    assert await lab.ask() == [False]


async def test_no_setting_keeps_a_yes_for_more_than_10_s_or_a_no_for_more_than_2():
    lab = Lab(permit_s=3600)
    await lab.ask()
    lab.decider.permits = False
    lab.pass_time(10)
    assert await lab.ask() == [False]
    lab.decider.permits = True
    lab.pass_time(1.9)
    assert await lab.ask() == [False]
    lab.pass_time(0.1)
    assert await lab.ask() == [True]


async def test_a_no_is_kept_no_longer_than_a_yes():
    lab = Lab(permit_s=1)
    lab.decider.permits = False
    await lab.ask()
    lab.decider.permits = True
    lab.pass_time(1)
    assert await lab.ask() == [True]


async def test_time_counts_from_the_question_and_not_from_the_answer():
    lab = Lab(permit_s=4)
    lab.decider.meanwhile = lambda: lab.pass_time(3)
    await lab.ask()
    lab.decider.permits = False
    lab.pass_time(1)
    assert await lab.ask() == [False]


async def test_a_yes_ends_with_the_credential():
    lab = Lab()
    alice = replace(ALICE, expires_at=lab.wall + 3)
    await lab.ask(principal=alice)
    lab.decider.permits = False
    lab.pass_time(2.9)
    assert await lab.ask(principal=alice) == [True]
    lab.pass_time(0.1)
    assert await lab.ask(principal=alice) == [False]


async def test_nothing_is_kept_for_a_credential_that_has_ended():
    lab = Lab()
    alice = replace(ALICE, expires_at=lab.wall)
    await lab.ask(principal=alice)
    await lab.ask(principal=alice)
    assert len(lab.decider.asked) == 2


@pytest.mark.parametrize("action", [Action.STOP, Action.DELETE])
async def test_what_cannot_be_undone_is_asked_each_time(action: Action):
    lab = Lab()
    for _ in range(3):
        await lab.ask(action=action)
    assert len(lab.decider.asked) == 3
    lab.decider.permits = False
    assert await lab.ask(action=action) == [False]


async def test_a_yes_to_reading_is_no_yes_to_anything_else():
    lab = Lab()
    for action in KEPT:
        assert await lab.ask(action=action) == [True]
    lab.decider.permits = False
    for action in (Action.STOP, Action.DELETE):
        assert await lab.ask(action=action) == [False]
    assert len(lab.decider.asked) == len(KEPT) + 2


async def test_an_outage_is_never_kept_nor_bridged():
    lab = Lab(permit_s=4)
    lab.decider.is_there = False
    for _ in range(2):
        with pytest.raises(AccessUnavailable):
            await lab.ask()
    lab.decider.is_there = True
    assert await lab.ask() == [True]
    lab.decider.is_there = False
    lab.pass_time(4)
    with pytest.raises(AccessUnavailable):
        await lab.ask()


async def test_only_what_is_not_kept_is_asked_and_each_gets_its_own_answer():
    lab = Lab()
    a, b, c = (Resource("training_job", name, {"pipeline": "p"}) for name in "abc")
    lab.decider.permits = False
    await lab.ask(b)
    lab.decider.permits = True
    answers = await lab.cache.decide(ALICE, Action.READ, [c, b, a, b, c])
    assert [(each.permitted, each.reason) for each in answers] == [
        (True, "c"), (False, "b"), (True, "a"), (False, "b"), (True, "c"),
    ]  # fmt: skip
    assert lab.decider.asked == [["b"], ["c", "a"]]


async def test_a_decider_that_forgets_one_is_no_yes_to_the_others():
    class Forgets:
        async def decide(self, *_: Any) -> Sequence[Decision]:
            return [Decision(permitted=True)]

    other = replace(JOB, id="j2")
    with pytest.raises(AccessUnavailable, match="every question"):
        await DecisionCache(Forgets(), 10).decide(ALICE, Action.READ, [JOB, other])


async def test_what_was_not_asked_for_longest_is_let_go_first():
    lab = Lab()
    many = [replace(JOB, id=f"j{n}") for n in range(decision_cache.KEPT)]
    await lab.ask(*many)
    await lab.ask(many[0])
    await lab.ask(replace(JOB, id="one more"))
    await lab.ask(many[0])
    assert len(lab.decider.asked) == 2
    await lab.ask(many[1])
    assert lab.decider.asked[-1] == ["j1"]


# Two questions never share an answer

OTHER: dict[str, Any] = {
    "kind": PrincipalKind.API_KEY,
    "id": "corp/bob",
    "name": "bob",
    "issuer": "other",
    "groups": ("ops",),
    "roles": ("admin",),
    "token": "t",
    "cluster": ClusterIdentity("bob"),
}
# Not told to anybody who decides: the ceiling is held by the guard, the rest says nothing of them.
NOT_TOLD: dict[str, Any] = {
    "fingerprint": "f",
    "expires_at": 5.0,
    "ceiling": Ceiling(frozenset(), ()),
}


def test_all_that_is_told_of_somebody_tells_questions_apart():
    assert {field.name for field in fields(Principal)} == OTHER.keys() | NOT_TOLD.keys()
    same = question_keys(ALICE, Action.READ, [JOB])
    for name, value in OTHER.items():
        assert question_keys(replace(ALICE, **{name: value}), Action.READ, [JOB]) != same
    for name, value in NOT_TOLD.items():
        assert question_keys(replace(ALICE, **{name: value}), Action.READ, [JOB]) == same


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (Resource("ab", "c"), Resource("a", "bc")),
        (Resource("a", "b", {"c": "d"}), Resource("a", "b", {"cd": ""})),
        (Resource("a", "b", {"c": 1}), Resource("a", "b", {"c": "1"})),
        (Resource("a", "b", {"c": 1}), Resource("a", "b", {"c": True})),
        (Resource("a", "b", {"c": None}), Resource("a", "b")),
        (Resource("a", 'b","c'), Resource("a", "b")),
    ],
)
def test_what_is_told_of_something_is_never_run_together(one: Resource, two: Resource):
    assert question_keys(ALICE, Action.READ, [one]) != question_keys(ALICE, Action.READ, [two])


def test_the_order_of_attributes_makes_no_other_question():
    one, two = Resource("a", "b", {"x": 1, "y": 2}), Resource("a", "b", {"y": 2, "x": 1})
    assert question_keys(ALICE, Action.READ, [one]) == question_keys(ALICE, Action.READ, [two])


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
_principals = st.builds(
    Principal,
    st.sampled_from(PrincipalKind),
    _text,
    name=_text,
    issuer=_text,
    groups=st.lists(_text, max_size=2).map(tuple),
    roles=st.lists(_text, max_size=2).map(tuple),
    token=_text,
)
_values = st.none() | st.booleans() | st.integers(-5, 5) | _text | st.lists(_text, max_size=2)
_resources = st.builds(Resource, _text, _text, st.dictionaries(_text, _values, max_size=2))
_questions = st.tuples(_principals, st.sampled_from(Action), _resources)


def _same(one: object, two: object) -> bool:
    """Equal, and true is not 1."""
    return one == two and repr(one) == repr(two)


@given(_questions, _questions)
def test_different_questions_have_different_keys(one: Any, two: Any):
    keys = [question_keys(who, action, [what]) for who, action, what in (one, two)]
    told = [
        (*question[:2], question[2].type, question[2].id, sorted(question[2].attributes.items()))
        for question in (one, two)
    ]
    assert (keys[0] == keys[1]) == _same(*told)
