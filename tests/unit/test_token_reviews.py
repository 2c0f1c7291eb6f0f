"""Whose a token of the cluster is, and that nothing but a clear word of the cluster tells."""

import asyncio
import base64
import json
import re
import time
from typing import Any, cast
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_training.access.principals import ClusterIdentity, Principal, PrincipalKind
from model_training.access.token_reviews import (
    TOKENS_KEPT,
    TokenReviews,
    cluster_id,
    expiry_in,
    reviewed_identity,
)
from model_training.errors import AccessUnavailable, Unauthenticated
from tests.unit.fake_reviews import Status, fake_reviews
from tests.waiting import until

pytestmark = pytest.mark.anyio

OURS = "model-training"
NAME = "system:serviceaccount:training:alice"
USER: dict[str, Any] = {
    "username": NAME,
    "uid": "0b3c",
    "groups": ["system:serviceaccounts", "system:authenticated"],
    "extra": {"authentication.kubernetes.io/pod-name": ["notebook-0"]},
}
YES: dict[str, Any] = {"authenticated": True, "user": USER, "audiences": [OURS]}
NO: dict[str, Any] = {"user": {}}  # Kubernetes leaves out what is false


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def token(**claims: object) -> str:
    """As the cluster's tokens look; who signed it is for the cluster to tell."""
    return f"{segment({'alg': 'RS256', 'kid': 'k'})}.{segment(claims)}.c2lnbmVk"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def answered(status: object, **more: object) -> dict[str, Any]:
    return {"kind": "TokenReview", "status": status, **more}


def always(status: dict[str, Any]) -> Status:
    return lambda _: status


# What an answer says


def test_a_yes_for_our_audience_tells_who_it_is():
    identity = reviewed_identity(answered(YES), OURS)

    assert identity == ClusterIdentity(
        username=NAME,
        uid="0b3c",
        groups=("system:serviceaccounts", "system:authenticated"),
        extra=(("authentication.kubernetes.io/pod-name", ("notebook-0",)),),
    )


@pytest.mark.parametrize(
    "status",
    [
        NO,
        {"authenticated": False, "user": USER, "audiences": [OURS]},
        {"error": "[invalid bearer token, the token has expired]", "user": {}},
        {**YES, "audiences": ["https://kubernetes.default.svc"]},
        {**YES, "audiences": [f"{OURS}-2", OURS.upper()]},
        {**YES, "audiences": []},
        {**YES, "audiences": None},
        {"authenticated": True, "user": USER},
        {**YES, "user": {"username": "a" * 513}},
        {**YES, "user": {"username": "alice\nadmin"}},
    ],
)
def test_a_clear_no_is_nobody(status: dict[str, Any]):
    assert reviewed_identity(answered(status), OURS) is None


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"kind": "TokenReview"},
        answered(None),
        answered([YES]),
        answered("true"),
        answered(YES, kind="Status"),
        answered(YES, kind="SelfSubjectReview"),
        answered({**YES, "authenticated": "true"}),
        answered({**YES, "authenticated": 1}),
        answered({**YES, "authenticated": None}),
        answered({**YES, "error": "could not look up the signing key"}),
        answered({**YES, "error": ["x"]}),
        answered({**YES, "audiences": OURS}),
        answered({**YES, "audiences": {OURS: True}}),
        answered({**YES, "audiences": [OURS, 1]}),
        answered({"authenticated": True, "audiences": [OURS]}),
        answered({**YES, "user": None}),
        answered({**YES, "user": NAME}),
        answered({**YES, "user": {}}),
        answered({**YES, "user": {**USER, "username": ""}}),
        answered({**YES, "user": {**USER, "username": [NAME]}}),
        answered({**YES, "user": {**USER, "uid": 7}}),
        answered({**YES, "user": {**USER, "groups": "system:masters"}}),
        answered({**YES, "user": {**USER, "groups": [["system:masters"]]}}),
        answered({**YES, "user": {**USER, "extra": []}}),
        answered({**YES, "user": {**USER, "extra": {"scopes": "all"}}}),
    ],
)
def test_what_is_neither_yes_nor_no_is_not_understood(answer: dict[str, Any]):
    with pytest.raises(AccessUnavailable, match="cannot be understood"):
        reviewed_identity(answer, OURS)


_json = st.sampled_from(
    [None, True, False, 0, 1, "", "true", OURS, [], [OURS], ["x"], [1], [None], {}, {"a": OURS}]
)
_statuses = st.fixed_dictionaries(
    {},
    optional={
        "authenticated": _json,
        "audiences": _json,
        "user": _json | st.just(USER),
        "error": _json,
    },
)


@settings(deadline=None)
@given(_statuses)
def test_nobody_comes_in_without_the_three_things_said(status: dict[str, Any]):
    try:
        identity = reviewed_identity(answered(status), OURS)
    except AccessUnavailable:
        return
    if identity is not None:
        assert status["authenticated"] is True
        assert OURS in status["audiences"]
        assert identity.username == status["user"]["username"]
        assert not status.get("error")


# What they are called here

_labels = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
_names = st.from_regex(r"[a-z0-9]([-.a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
_accounts = st.builds("system:serviceaccount:{}:{}".format, _labels, _names)
_alike = st.text(st.sampled_from("/%:ab-.2F3A"), max_size=12)
_usernames = (
    _accounts
    | _alike
    | st.builds("system:serviceaccount:{}".format, _alike)
    | st.text(max_size=20).filter(lambda text: not re.search("[\ud800-\udfff]", text))
)


def turned_back(identity: str) -> str:
    source, _, rest = identity.partition("/")
    assert source == "kubernetes"
    if "/" in rest:
        namespace, name = rest.split("/")
        return f"system:serviceaccount:{namespace}:{name}"
    return unquote(rest)


@settings(deadline=None)
@given(_usernames)
def test_two_usernames_never_have_the_same_id(username: str):
    identity = cluster_id(username)

    assert turned_back(identity) == username
    assert ":" not in identity
    assert identity.isascii()


def test_a_service_account_can_be_read_in_its_id():
    assert cluster_id(NAME) == "kubernetes/training/alice"
    assert cluster_id("system:serviceaccount:a:b.c") == "kubernetes/a/b.c"
    assert cluster_id("training/alice") == "kubernetes/training%2Falice"
    assert cluster_id("oidc:alice@example.org") == "kubernetes/oidc%3Aalice@example.org"


# Asking


async def test_somebody_the_cluster_knows_is_a_principal():
    ends = int(time.time()) + 600
    given_token = token(sub=NAME, exp=ends)
    async with fake_reviews(always(YES)) as (fake, review):
        found = await TokenReviews(review, OURS).principal(given_token)

    assert fake.paths == ["/apis/authentication.k8s.io/v1/tokenreviews"]
    assert fake.asked == [
        {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": given_token, "audiences": [OURS]},
        }
    ]
    assert found == Principal(
        PrincipalKind.SERVICE_ACCOUNT,
        "kubernetes/training/alice",
        name=NAME,
        issuer="kubernetes",
        groups=("system:serviceaccounts", "system:authenticated"),
        fingerprint=found.fingerprint,
        expires_at=ends,
        cluster=reviewed_identity(answered(YES), OURS),
    )
    assert re.fullmatch("[0-9a-f]{12}", found.fingerprint)
    assert given_token not in repr(found)


@pytest.mark.parametrize(
    ("ends", "read"),
    [
        (1900000000, 1900000000.0),
        (1900000000.5, 1900000000.5),
        (None, None),
        ("1900000000", None),
        (True, None),
        (-1, None),
        (0, None),
        (10**400, None),
        ([1900000000], None),
    ],
)
def test_an_end_that_is_no_time_is_none(ends: object, read: float | None):
    assert expiry_in({"exp": ends}) == read
    assert expiry_in({}) is None


@pytest.mark.parametrize(
    "given_token",
    [
        "",
        "opaque",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        f"{token()}.x",
        f"{token()}\n",
        token(fill="x" * 8192),
        f"{segment([])}.{segment({})}.c2lnbmVk",
        f"{segment({'alg': 'none'})}.{segment({})}.",
        f"mta_abcdefgh_{'x' * 43}",
    ],
)
async def test_what_looks_like_no_token_of_a_cluster_is_not_sent(given_token: str):
    async with fake_reviews(always(YES)) as (fake, review):
        with pytest.raises(Unauthenticated):
            await TokenReviews(review, OURS).principal(given_token)
    assert fake.asked == []


async def test_a_refused_token_is_nobodys_and_is_told_no_reason():
    status: dict[str, Any] = {"error": "[invalid bearer token, kubernetes.io says: no]", "user": {}}
    async with fake_reviews(always(status)) as (_, review):
        with pytest.raises(Unauthenticated) as refused:
            await TokenReviews(review, OURS).principal(token())
    assert refused.value.was_given
    assert refused.value.message == "The credential is not good here."


async def test_a_yes_stands_for_10_seconds_and_no_longer():
    clock = Clock()
    async with fake_reviews(always(YES)) as (fake, review):
        reviews = TokenReviews(review, OURS, clock)
        await reviews.principal(token())
        clock.seconds += 9.9
        await reviews.principal(token())
        assert len(fake.asked) == 1
        fake.status = always(NO)
        clock.seconds += 0.2
        with pytest.raises(Unauthenticated):
            await reviews.principal(token())


async def test_a_yes_does_not_outlive_its_token():
    clock = Clock()
    async with fake_reviews(always(YES)) as (fake, review):
        reviews = TokenReviews(review, OURS, clock)
        ending = token(exp=int(time.time()) + 4)
        await reviews.principal(ending)
        clock.seconds += 4.1
        await reviews.principal(ending)
        assert len(fake.asked) == 2


async def test_a_no_stands_for_2_seconds():
    clock = Clock()
    async with fake_reviews(always(NO)) as (fake, review):
        reviews = TokenReviews(review, OURS, clock)
        for _ in range(2):
            with pytest.raises(Unauthenticated):
                await reviews.principal(token())
        assert len(fake.asked) == 1
        fake.status = always(YES)
        clock.seconds += 2.1
        assert (await reviews.principal(token())).name == NAME


async def test_a_no_with_an_error_is_asked_about_again():
    async with fake_reviews(always({"error": "etcd is away"})) as (fake, review):
        reviews = TokenReviews(review, OURS)
        with pytest.raises(Unauthenticated):
            await reviews.principal(token())
        fake.status = always(YES)
        assert (await reviews.principal(token())).name == NAME


async def test_a_fault_is_not_kept():
    async with fake_reviews(always({**YES, "authenticated": "true"})) as (fake, review):
        reviews = TokenReviews(review, OURS)
        with pytest.raises(AccessUnavailable):
            await reviews.principal(token())
        fake.status = always(YES)
        assert (await reviews.principal(token())).name == NAME


async def test_tokens_are_told_apart():
    def status(spec: dict[str, Any]) -> dict[str, Any]:
        subject = "alice" if spec["token"] == token(sub="alice") else "bob"
        return {**YES, "user": {"username": subject}}

    async with fake_reviews(status) as (_, review):
        reviews = TokenReviews(review, OURS)
        names = [(await reviews.principal(token(sub=sub))).name for sub in ("alice", "bob") * 2]
    assert names == ["alice", "bob"] * 2


async def test_many_requests_with_one_token_are_one_review():
    async with fake_reviews(always(YES)) as (fake, review):
        fake.may_answer.clear()
        reviews = TokenReviews(review, OURS)
        asking = [asyncio.create_task(reviews.principal(token())) for _ in range(20)]
        await until(lambda: fake.asked, within=5)
        asking[0].cancel()  # the client that came first goes away
        fake.may_answer.set()
        found = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert {each.name for each in found[1:] if isinstance(each, Principal)} == {NAME}
    assert not [each for each in found[1:] if not isinstance(each, Principal)]
    assert len(fake.asked) == 1


class FakeCluster:
    """Knows tokens with this subject, and counts; without a socket, as it is asked for many."""

    def __init__(self, *subjects: object) -> None:
        self.asked = 0
        self._known = {token(sub=subject) for subject in subjects}

    async def __call__(self, path: str, body: dict[str, object]) -> dict[str, object]:
        del path
        self.asked += 1
        spec = cast("dict[str, Any]", body["spec"])
        return answered(YES if spec["token"] in self._known else NO)


async def test_made_up_tokens_push_out_no_good_one():
    cluster = FakeCluster("known")
    reviews = TokenReviews(cluster, OURS, Clock())
    await reviews.principal(token(sub="known"))
    for number in range(TOKENS_KEPT + 1):
        with pytest.raises(Unauthenticated):
            await reviews.principal(token(sub=number))
    asked = cluster.asked
    await reviews.principal(token(sub="known"))
    assert cluster.asked == asked
    with pytest.raises(Unauthenticated):
        await reviews.principal(token(sub=0))  # the oldest was forgotten, so that they stay few
    assert cluster.asked == asked + 1


async def test_who_came_last_is_known_longest():
    cluster = FakeCluster(*range(TOKENS_KEPT + 1))
    reviews = TokenReviews(cluster, OURS, Clock())
    for number in (*range(TOKENS_KEPT), 0, TOKENS_KEPT):
        await reviews.principal(token(sub=number))
    asked = cluster.asked
    await reviews.principal(token(sub=0))
    assert cluster.asked == asked
    await reviews.principal(token(sub=1))
    assert cluster.asked == asked + 1
