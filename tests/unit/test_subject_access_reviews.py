"""What the cluster's roles permit: one question of each kind, and no yes but a clear one."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_training.access.actions import Action
from model_training.access.decisions import (
    Resource,
    pair_resource,
    pipeline_resource,
    service_resource,
)
from model_training.access.engines.subject_access_reviews import (
    Question,
    SubjectAccessReviews,
    decision_in,
    question_of,
)
from model_training.access.principals import ClusterIdentity, Principal, PrincipalKind
from model_training.errors import AccessUnavailable
from tests.unit.fake_reviews import FakeReviews, Status, fake_reviews

pytestmark = pytest.mark.anyio

GROUP = "training.example.org"
ALICE = Principal(
    PrincipalKind.SERVICE_ACCOUNT,
    "kubernetes/training/alice",
    cluster=ClusterIdentity(
        username="system:serviceaccount:training:alice",
        uid="0b3c",
        groups=("system:serviceaccounts", "system:authenticated"),
        extra=(("authentication.kubernetes.io/pod-name", ("notebook-0",)),),
    ),
)
JOB = Resource("training_job", "model-training-digits-x", {"pipeline": "digits", "owner": "bob"})
YES: dict[str, Any] = {"allowed": True}
NO: dict[str, Any] = {"allowed": False}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def always(status: dict[str, Any]) -> Status:
    return lambda _: status


async def decided(
    status: Status, action: Action, *resources: Resource, principal: Principal = ALICE
) -> tuple[list[bool], FakeReviews]:
    async with fake_reviews(status) as (fake, review):
        decider = SubjectAccessReviews(review, "training", GROUP)
        answers = await decider.decide(principal, action, resources)
    return [answer.permitted for answer in answers], fake


# What is asked


@pytest.mark.parametrize(
    ("action", "resource", "asked"),
    [
        (Action.CREATE, pipeline_resource("digits"), ("create", "trainingpipelines", "", "digits")),
        (Action.READ, pipeline_resource("digits"), ("get", "trainingpipelines", "", "digits")),
        (Action.LIST, pipeline_resource("digits"), ("list", "trainingpipelines", "", "digits")),
        (Action.LIST, pipeline_resource("training", all=True), ("list", "trainingpipelines")),
        (Action.LIST, service_resource("training"), ("list", "trainingservices", "", "training")),
        (Action.READ, service_resource("training"), ("get", "trainingservices", "", "training")),
        (Action.READ, JOB, ("get", "trainingjobs", "", "digits")),
        (Action.READ, pair_resource("digits", "bob"), ("get", "trainingjobs", "", "digits")),
        (Action.READ, pair_resource(None, "bob"), ("get", "trainingjobs")),
        (Action.READ, Resource("training_job", "x", {"pipeline": 7}), ("get", "trainingjobs")),
        (Action.READ, Resource("training_job", "x"), ("get", "trainingjobs")),
        (Action.READ_LOGS, JOB, ("get", "trainingjobs", "log", "digits")),
        (Action.READ_OUTPUTS, JOB, ("get", "trainingjobs", "outputs", "digits")),
        (Action.STOP, JOB, ("update", "trainingjobs", "stop", "digits")),
        (Action.DELETE, JOB, ("delete", "trainingjobs", "", "digits")),
    ],
)
def test_each_action_has_its_words(action: Action, resource: Resource, asked: tuple[str, ...]):
    assert question_of(action, resource) == Question(*asked)


TYPES = ("training_pipeline", "training_job", "training_service", "training_jobs", "")


@settings(deadline=None)
@given(st.sampled_from(Action), st.sampled_from(TYPES), st.text(max_size=8), st.text(max_size=8))
def test_different_actions_are_never_the_same_question(
    action: Action, kind: str, name: str, pipeline: str
):
    resource = Resource(kind, name, {"pipeline": pipeline})
    asked = question_of(action, resource)
    others = [question_of(other, resource) for other in Action if other != action]
    assert asked is None or asked not in others


async def test_the_cluster_is_asked_about_the_user_that_it_told_of():
    permitted, fake = await decided(always(YES), Action.READ_LOGS, JOB)

    assert permitted == [True]
    assert fake.paths == [
        "/apis/authorization.k8s.io/v1/namespaces/training/localsubjectaccessreviews"
    ]
    assert fake.asked == [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "LocalSubjectAccessReview",
            "metadata": {"namespace": "training"},
            "spec": {
                "user": "system:serviceaccount:training:alice",
                "uid": "0b3c",
                "groups": ["system:serviceaccounts", "system:authenticated"],
                "extra": {"authentication.kubernetes.io/pod-name": ["notebook-0"]},
                "resourceAttributes": {
                    "namespace": "training",
                    "verb": "get",
                    "group": GROUP,
                    "resource": "trainingjobs",
                    "subresource": "log",
                    "name": "digits",
                },
            },
        }
    ]


async def test_a_user_without_groups_is_asked_about_too():
    oidc = Principal(
        PrincipalKind.SERVICE_ACCOUNT, "kubernetes/alice", cluster=ClusterIdentity("alice")
    )
    _, fake = await decided(always(NO), Action.READ, JOB, principal=oidc)
    assert fake.asked[0]["spec"].keys() == {"user", "resourceAttributes"}


async def test_all_jobs_of_a_pipeline_are_one_question_and_each_gets_its_answer():
    def status(spec: dict[str, Any]) -> dict[str, Any]:
        return {"allowed": spec["resourceAttributes"].get("name") in ("p1", "p3")}

    pairs = [pair_resource(f"p{n % 5}", f"owner-{n}") for n in range(200)]
    permitted, fake = await decided(status, Action.READ, *pairs)

    assert len(fake.asked) == 5
    assert permitted == [n % 5 in (1, 3) for n in range(200)]


async def test_at_most_8_are_asked_at_once():
    pairs = [pair_resource(f"p{n}", "o") for n in range(50)]
    permitted, fake = await decided(always(YES), Action.READ, *pairs)
    assert permitted == [True] * 50
    assert len(fake.asked) == 50
    assert fake.most_at_once <= 8


async def test_nothing_is_asked_about_nothing():
    assert (await decided(always(YES), Action.READ))[0] == []


async def test_what_nobody_can_do_is_refused_without_a_question():
    for action, resource in (
        (Action.DELETE, service_resource("training")),
        (Action.CREATE, JOB),
        (Action.STOP, pipeline_resource("digits")),
        (Action.READ, Resource("training_secret", "x")),
    ):
        permitted, fake = await decided(always(YES), action, resource)
        assert permitted == [False]
        assert fake.asked == []


@pytest.mark.parametrize("action", [Action.STOP, Action.DELETE, Action.READ])
async def test_a_right_that_was_taken_is_gone_at_once(action: Action):
    async with fake_reviews(always(YES)) as (fake, review):
        decider = SubjectAccessReviews(review, "training", GROUP)
        assert (await decider.decide(ALICE, action, [JOB]))[0].permitted
        fake.status = always(NO)
        assert not (await decider.decide(ALICE, action, [JOB]))[0].permitted


async def test_who_is_no_user_of_the_cluster_cannot_be_asked_about():
    stranger = Principal(PrincipalKind.USER, "corp/alice")
    async with fake_reviews(always(YES)) as (fake, review):
        with pytest.raises(AccessUnavailable, match="no user of it"):
            await SubjectAccessReviews(review, "training", GROUP).decide(
                stranger, Action.READ, [JOB]
            )
    assert fake.asked == []


# What is answered


def answered(status: object, kind: str = "LocalSubjectAccessReview") -> dict[str, Any]:
    return {"kind": kind, "status": status}


def test_a_yes_tells_its_reason_to_the_audit_log():
    decision = decision_in(answered({"allowed": True, "reason": "RBAC: allowed by RoleBinding"}))
    assert (decision.permitted, decision.reason) == (True, "RBAC: allowed by RoleBinding")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"allowed": False}, ""),
        ({"allowed": False, "denied": True, "reason": "by the webhook"}, "by the webhook"),
        ({"allowed": False, "evaluationError": "role x not found"}, "role x not found"),
    ],
)
def test_a_no_is_a_no(status: dict[str, Any], reason: str):
    decision = decision_in(answered(status))
    assert (decision.permitted, decision.reason) == (False, reason)


NONSENSE: Sequence[dict[str, Any]] = (
    {},
    {"status": YES},
    {"kind": "LocalSubjectAccessReview"},
    answered(None),
    answered(True),
    answered([YES]),
    answered({}),
    answered({"denied": False}),
    answered({"allowed": "true"}),
    answered({"allowed": 1}),
    answered({"allowed": None}),
    answered({"allowed": [True]}),
    answered({"allowed": True, "denied": True}),
    answered({"allowed": True, "denied": "false"}),
    answered({"allowed": True, "evaluationError": "the webhook is away"}),
    answered({"allowed": True, "evaluationError": ["x"]}),
    answered({"allowed": True, "reason": {"text": "x"}}),
    answered(YES, kind="Status"),
    answered(YES, kind="TokenReview"),
    answered(YES, kind="SelfSubjectAccessReview"),
)


@pytest.mark.parametrize("answer", NONSENSE)
def test_what_is_neither_yes_nor_no_is_not_understood(answer: dict[str, Any]):
    with pytest.raises(AccessUnavailable, match="cannot be understood"):
        decision_in(answer)


_any = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.booleans())


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={"allowed": _any, "denied": _any, "evaluationError": _any, "reason": _any},
    )
)
def test_only_a_clear_yes_permits(status: dict[str, Any]):
    try:
        permitted = decision_in(answered(status)).permitted
    except AccessUnavailable:
        return
    if permitted:
        assert status["allowed"] is True
        assert status.get("denied", False) is False
        assert not status.get("evaluationError")


async def test_a_list_is_decided_about_as_a_whole_or_not_at_all():
    def status(spec: dict[str, Any]) -> dict[str, Any]:
        name = spec["resourceAttributes"]["name"]
        return {"allowed": "perhaps"} if name == "p17" else YES

    with pytest.raises(AccessUnavailable):
        await decided(status, Action.READ, *(pair_resource(f"p{n}", "o") for n in range(30)))


class FakeSlowCluster:
    """Answers each question, but the many of a list too late."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, path: str, body: dict[str, object]) -> dict[str, object]:
        del path, body
        self.asked += 1
        await asyncio.sleep(0.5)
        return answered(YES)


async def test_a_list_that_takes_too_long_is_given_up_in_2_seconds():
    cluster = FakeSlowCluster()
    decider = SubjectAccessReviews(cluster, "training", GROUP)
    began = time.monotonic()
    with pytest.raises(AccessUnavailable, match="within 2 s"):
        await decider.decide(ALICE, Action.READ, [pair_resource(f"p{n}", "o") for n in range(1000)])
    assert time.monotonic() - began < 3
    assert cluster.asked < 50
