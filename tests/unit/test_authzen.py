"""Decisions by AuthZEN: what is asked, in which batches, and what of the answers is a yes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.access.actions import Action
from model_training.access.decisions import (
    Decision,
    Resource,
    job_resource,
    pair_resource,
    pipeline_resource,
    service_resource,
)
from model_training.access.engines.authzen import (
    AuthzenDecider,
    JobsBy,
    asked_about,
    questions,
    verdicts,
)
from model_training.access.engines.authzen_discovery import (
    Endpoints,
    endpoints_in,
    metadata_url,
    origin_of,
    standard_endpoints,
)
from model_training.access.engines.names import resource_of, subject_of
from model_training.access.engines.policy_answers import Answer
from model_training.access.engines.policy_server import Server
from model_training.access.principals import Principal, PrincipalKind
from model_training.errors import AccessUnavailable
from tests.unit.access_lab.lying_pdp import JSON, Asked, FakePdp, Said, fake_pdp, nonsense
from tests.unit.test_access import JOB

pytestmark = pytest.mark.anyio

ALICE = Principal(
    PrincipalKind.USER, "corp/alice", name="alice", issuer="corp", groups=("ml",), token="canary"
)
SUBJECT = {
    "type": "user",
    "id": "corp/alice",
    "properties": {"groups": ["ml"], "roles": [], "issuer": "corp"},
}
A, B = ({"type": "training_job", "id": name, "properties": {}} for name in "ab")
A2 = {**A, "properties": {"owner": "bob"}}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def patient(url: str) -> Server:
    return Server(url, connect_s=60, total_s=60)


def says(body: object) -> Answer:
    text = body if isinstance(body, str) else json.dumps(body)
    return Answer(200, "application/json", text.encode())


async def decided(
    fake: FakePdp, *resources: Resource, principal: Principal = ALICE, jobs_by: JobsBy = "job"
) -> list[bool]:
    async with AuthzenDecider(patient(fake.url), jobs_by=jobs_by) as decider:
        answers = await decider.decide(principal, Action.READ, resources)
    return [answer.permitted for answer in answers]


# What is asked


def test_one_question():
    asked = subject_of(ALICE)
    assert asked is not None
    [only] = questions(asked, Action.READ_LOGS, [A2])
    assert only.body == {"subject": SUBJECT, "action": {"name": "read_logs"}, "resource": A2}


def test_several_questions_share_who_and_what():
    [only] = questions(SUBJECT, Action.READ, [A, B, A])
    assert only.body == {
        "subject": SUBJECT,
        "action": {"name": "read"},
        "evaluations": [{"resource": A}, {"resource": B}],
    }


def test_two_different_questions_about_one_name_are_never_in_one_batch():
    first, second = questions(SUBJECT, Action.READ, [A, A2, B])
    assert first.body["evaluations"] == [{"resource": A}, {"resource": B}]
    assert second.body["resource"] == A2


def test_batches_of_fifty():
    many = [{"type": "training_job", "id": f"j{n}", "properties": {}} for n in range(101)]
    asked = questions(SUBJECT, Action.READ, many)
    assert [len(each.about) for each in asked] == [50, 50, 1]
    assert "resource" in asked[2].body


def test_no_batches_where_there_are_none():
    asked = questions(SUBJECT, Action.READ, [A, B, A2], batch=1)
    assert [each.body["resource"] for each in asked] == [A, B, A2]


_resources = st.lists(
    st.builds(
        lambda kind, name, owner: {"type": kind, "id": name, "properties": {"owner": owner}},
        st.sampled_from(["t", "u"]),
        st.sampled_from("abc"),
        st.integers(0, 20),
    ),
    max_size=150,
)


@given(_resources, st.sampled_from([1, 3, 50]))
def test_each_is_asked_once_and_no_name_twice_in_a_batch(
    resources: list[dict[str, Any]], batch: int
):
    asked = questions(SUBJECT, Action.READ, resources, batch=batch)
    sent = []
    for each in asked:
        inside = [item["resource"] for item in each.body.get("evaluations", [each.body])]
        assert 1 <= len(inside) == len(each.about) <= batch
        assert len({(one["type"], one["id"]) for one in inside}) == len(inside)
        assert [json.loads(text) for text in each.about] == inside
        sent += inside
    assert len(sent) == len({json.dumps(one) for one in sent})
    assert {json.dumps(one) for one in sent} == {json.dumps(one) for one in resources}


def test_jobs_by_pipeline_are_asked_about_as_pipelines():
    by = [
        asked_about(each, "pipeline") for each in (job_resource(JOB), pair_resource("digits", "o"))
    ]
    assert by == [{"type": "training_pipeline", "id": "digits", "properties": {}}] * 2
    for same in (pipeline_resource("digits", gpu=1), service_resource("n")):
        assert asked_about(same, "pipeline") == resource_of(same)
    assert asked_about(pair_resource(None, "o"), "pipeline") is None
    assert asked_about(Resource("training_job", "x"), "pipeline") is None
    assert asked_about(Resource("training_job", "x", {"pipeline": "a:b"}), "pipeline") is None


async def test_a_list_of_jobs_by_pipeline_is_as_many_questions_as_pipelines():
    pairs = [pair_resource(f"p{n % 4}", f"o{n}") for n in range(40)]
    async with fake_pdp(lambda question: question["resource"]["id"] == "p2") as fake:
        told = await decided(fake, *pairs, jobs_by="pipeline")
    assert told == [n % 4 == 2 for n in range(40)]
    assert [len(asked.questions) for asked in fake.asked] == [4]


# Over a socket


async def test_one_goes_to_evaluation_and_several_to_evaluations():
    async with fake_pdp(lambda question: question["resource"]["id"] == "b") as fake:
        a, b = (pipeline_resource(name) for name in "ab")
        assert await decided(fake, a) == [False]
        assert await decided(fake, b, a, b) == [True, False, True]
    assert [asked.path for asked in fake.asked] == [
        "/access/v1/evaluation",
        "/access/v1/evaluations",
    ]
    assert [set(asked.body) for asked in fake.asked] == [
        {"subject", "action", "resource"}, {"subject", "action", "evaluations"},
    ]  # fmt: skip
    assert "canary" not in json.dumps([asked.body for asked in fake.asked])


async def test_a_thousand_pairs_are_twenty_batches_and_each_gets_its_answer():
    pairs = [pair_resource(f"p{n}", "o") for n in range(1000)]

    def permits(question: dict[str, Any]) -> bool:
        return question["resource"]["properties"]["pipeline"].endswith("7")

    async with fake_pdp(permits) as fake:
        assert await decided(fake, *pairs) == [n % 10 == 7 for n in range(1000)]
    assert [len(asked.questions) for asked in fake.asked] == [50] * 20


async def test_the_address_may_be_that_of_a_tenant():
    async with fake_pdp() as fake, AuthzenDecider(patient(f"{fake.url}/stores/01J/")) as decider:
        await decider.decide(ALICE, Action.READ, [pipeline_resource("a")])
    assert [asked.path for asked in fake.asked] == ["/stores/01J/access/v1/evaluation"]


async def test_who_or_what_has_a_colon_is_refused_and_not_told_of():
    async with fake_pdp() as fake:
        resources = pipeline_resource("a:b"), pipeline_resource("ok")
        assert await decided(fake, *resources) == [False, True]
        stranger = Principal(PrincipalKind.USER, "corp:alice")
        assert await decided(fake, *resources, principal=stranger) == [False, False]
        assert await decided(fake, pipeline_resource("a\nb")) == [False]
    assert [len(asked.questions) for asked in fake.asked] == [1]


async def test_the_check_wants_a_decision():
    async with fake_pdp(lambda _: False) as fake, AuthzenDecider(patient(fake.url)) as decider:
        await decider.check()
        fake.said = lambda _: Said(b'{"decision": "no"}', JSON)
        with pytest.raises(AccessUnavailable):
            await decider.check()


# What is answered


@pytest.mark.parametrize(
    ("body", "permitted"),
    [
        ({"decision": True}, True),
        ({"decision": False}, False),
        ({"decision": True, "context": {"reason": "x"}}, True),
        ({"decision": True, "context": {}}, True),
        ({"decision": True, "context": {"error": None}}, True),
        ({"decision": False, "more": [1]}, False),
    ],
)
def test_what_is_a_yes_or_a_no(body: object, permitted: bool):
    assert verdicts(says(body), 1) == [Decision(permitted=permitted)]
    assert verdicts(says({"evaluations": [{"decision": False}, body]}), 2) == [
        Decision(permitted=False),
        Decision(permitted=permitted),
    ]


@pytest.mark.parametrize("body", [*nonsense("decision").values(), "{}", '{"Decision": true}'])
def test_what_is_neither_is_not_understood(body: str):
    with pytest.raises(AccessUnavailable, match="cannot be understood"):
        verdicts(says(body), 1)
    with pytest.raises(AccessUnavailable, match="cannot be understood"):
        verdicts(says(f'{{"evaluations": [{{"decision": true}}, {body}]}}'), 2)


YES = {"decision": True}


@pytest.mark.parametrize(
    "body",
    [
        {"decision": True, "evaluations": [YES]},
        {"decision": False, "evaluations": [YES]},
        {"evaluations": [YES]},
        {"result": True},
        {"result": YES},
        {"decision": YES},
        {"decision": True, "context": "x"},
        {"decision": True, "context": [1]},
        {"decision": True, "context": {"error": {"status": 500}}},
        {"decision": True, "context": {"error": "x"}},
        {"decision": False, "context": {"error": {"status": 404, "message": "x"}}},
    ],
)
def test_one_answer_that_contradicts_itself_is_not_understood(body: object):
    with pytest.raises(AccessUnavailable, match="cannot be understood"):
        verdicts(says(body), 1)


@pytest.mark.parametrize(
    "body",
    [
        {},
        YES,
        {"evaluations": None},
        {"evaluations": YES},
        {"evaluations": {"0": YES, "1": YES}},
        {"evaluations": []},
        {"evaluations": [YES]},
        {"evaluations": [YES, YES, YES]},
        {"evaluations": [YES, None]},
        {"evaluations": [YES, True]},
        {"evaluations": [YES, [YES]]},
        {"evaluations": [[YES, YES]]},
        {"evaluations": [YES, {}]},
        {"evaluations": [YES, {"decision": False, "context": {"error": {"status": 404}}}]},
        [YES, YES],
    ],
)
def test_several_that_are_not_as_many_clear_answers_are_not_understood(body: object):
    with pytest.raises(AccessUnavailable, match="cannot be understood"):
        verdicts(says(body), 2)


def test_a_decision_beside_evaluations_counts_for_nothing():
    no = {"decision": False}
    assert (
        verdicts(says({"decision": True, "evaluations": [no, no]}), 2)
        == [Decision(permitted=False)] * 2
    )


_any = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from(["true", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["decision", "evaluations", "context", "error"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(_any, st.integers(1, 3))
def test_only_a_clear_yes_permits(body: Any, expected: int):
    try:
        answers = verdicts(says(body), expected)
    except AccessUnavailable:
        return
    items = [body] if expected == 1 else body["evaluations"]
    assert [answer.permitted for answer in answers] == [item["decision"] for item in items]
    assert all(type(item["decision"]) is bool for item in items)


# Where it says that it is


URL = "https://pdp.example.org/t/1"


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://a.example", "https://a.example/.well-known/authzen-configuration"),
        ("https://a.example/", "https://a.example/.well-known/authzen-configuration"),
        ("https://a.example:1/t/1/", "https://a.example:1/.well-known/authzen-configuration/t/1"),
    ],
)
def test_where_its_metadata_is(url: str, asked: str):
    assert metadata_url(url) == asked


def metadata(**more: object) -> dict[str, object]:
    return {
        "policy_decision_point": URL,
        "access_evaluation_endpoint": "https://pdp.example.org/x/one",
        "access_evaluations_endpoint": "https://pdp.example.org:443/x/many",
        **more,
    }


def test_endpoints_of_its_own_origin_are_believed():
    assert endpoints_in(metadata(), URL) == Endpoints(
        "https://pdp.example.org/x/one", "https://pdp.example.org:443/x/many"
    )
    assert endpoints_in(metadata(access_evaluations_endpoint=None), URL).evaluations is None


@pytest.mark.parametrize(
    "more",
    [
        {"policy_decision_point": None},
        {"policy_decision_point": URL + "/"},
        {"policy_decision_point": "https://evil.example"},
        {"policy_decision_point": "http://pdp.example.org/t/1"},
        {"access_evaluation_endpoint": None},
        {"access_evaluation_endpoint": 7},
        {"access_evaluation_endpoint": ""},
        {"access_evaluation_endpoint": "/access/v1/evaluation"},
        {"access_evaluation_endpoint": "https://evil.example/x"},
        {"access_evaluation_endpoint": "https://pdp.example.org.evil.example/x"},
        {"access_evaluation_endpoint": "https://pdp.example.org@evil.example/x"},
        {"access_evaluation_endpoint": "https://evil.example\\@pdp.example.org/x"},
        {"access_evaluation_endpoint": "https://pdp.example.org:8443/x"},
        {"access_evaluation_endpoint": "https://pdp.example.org:port/x"},
        {"access_evaluation_endpoint": "http://pdp.example.org/x"},
        {"access_evaluation_endpoint": "http://pdp.example.org:443/x"},
        {"access_evaluation_endpoint": "https://pdp.example.org/x?y"},
        {"access_evaluation_endpoint": "https://pdp.example.org/x\n"},
        {"access_evaluations_endpoint": "https://evil.example/x"},
        {"access_evaluations_endpoint": ["https://pdp.example.org/x"]},
    ],
)
def test_metadata_of_another_or_pointing_elsewhere_is_not_believed(more: dict[str, object]):
    with pytest.raises(AccessUnavailable, match="metadata"):
        endpoints_in(metadata(**more), URL)


@given(st.text(max_size=20))
def test_an_origin_is_told_of_any_text(text: str):
    assert origin_of("https://" + text) is None or origin_of("https://" + text) == origin_of(
        "HTTPS://" + text
    )


def test_the_standards_own_paths():
    assert standard_endpoints(URL) == Endpoints(
        f"{URL}/access/v1/evaluation", f"{URL}/access/v1/evaluations"
    )


async def test_its_own_endpoints_are_asked_once_they_were_found():
    async with fake_pdp() as fake:
        served: dict[str, object] = {
            "policy_decision_point": f"{fake.url}/t",
            "access_evaluation_endpoint": f"{fake.url}/x/evaluation",
        }

        def said(asked: Asked) -> Said | None:
            return Said(json.dumps(served).encode(), JSON) if asked.method == "GET" else None

        fake.said = said
        async with AuthzenDecider(patient(f"{fake.url}/t"), discover=True) as decider:
            for _ in range(2):
                answers = await decider.decide(
                    ALICE, Action.READ, [pipeline_resource("a"), pipeline_resource("b")]
                )
                assert [answer.permitted for answer in answers] == [True, True]
    paths = [asked.path for asked in fake.asked]
    assert paths == ["/.well-known/authzen-configuration/t", *["/x/evaluation"] * 4]


async def test_where_discovery_fails_nothing_is_asked_and_it_is_tried_again():
    async with fake_pdp() as fake:
        served: list[object] = [{"policy_decision_point": "http://evil.example"}]

        def said(asked: Asked) -> Said | None:
            return Said(json.dumps(served[0]).encode(), JSON) if asked.method == "GET" else None

        fake.said = said
        async with AuthzenDecider(patient(fake.url), discover=True) as decider:
            with pytest.raises(AccessUnavailable):
                await decider.check()
            served[0] = {
                "policy_decision_point": fake.url,
                "access_evaluation_endpoint": f"{fake.url}/access/v1/evaluation",
            }
            await decider.check()
    assert [asked.method for asked in fake.asked] == ["GET", "GET", "POST"]
