"""Decisions by OPA: what its rule is asked, and what of its answers is a yes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.access.actions import Action
from model_training.access.decisions import Decision, Resource
from model_training.access.engines.names import resource_of, sendable, subject_of
from model_training.access.engines.opa import OpaDecider, body_of, verdict
from model_training.access.engines.policy_answers import Answer
from model_training.access.engines.policy_server import Server
from model_training.access.principals import Principal, PrincipalKind
from model_training.errors import AccessUnavailable, SettingsError
from tests.unit.access_lab.lying_pdp import JSON, Asked, FakePdp, Said, fake_pdp, nonsense

pytestmark = pytest.mark.anyio

ALICE = Principal(
    PrincipalKind.USER,
    "corp/alice",
    name="alice",
    issuer="corp",
    groups=("ml", "system:authenticated"),
    roles=("trainer",),
    token="canary",
)
JOB = Resource("training_job", "j1", {"pipeline": "digits", "owner": "corp/bob", "gpu": None})
OTHER = Resource("training_job", "j2", {"pipeline": "digits", "owner": "corp/bob"})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def patient(url: str) -> Server:
    return Server(url, connect_s=60, total_s=60)


def says(body: str, status: int = 200, kind: str = "application/json") -> Answer:
    return Answer(status, kind, body.encode())


async def decided(fake: FakePdp, *resources: Resource, principal: Principal = ALICE) -> list[bool]:
    async with OpaDecider(patient(fake.url)) as decider:
        answers = await decider.decide(principal, Action.READ, resources)
    return [answer.permitted for answer in answers]


def test_what_is_asked():
    subject, resource = subject_of(ALICE), resource_of(JOB)
    assert subject is not None
    assert resource is not None
    assert json.loads(body_of(subject, Action.READ_LOGS, resource)) == {
        "input": {
            "subject": {
                "type": "user",
                "id": "corp/alice",
                "properties": {
                    "groups": ["ml", "system:authenticated"],
                    "roles": ["trainer"],
                    "issuer": "corp",
                },
            },
            "action": {"name": "read_logs"},
            "resource": {
                "type": "training_job",
                "id": "j1",
                "properties": {"pipeline": "digits", "owner": "corp/bob", "gpu": None},
            },
        }
    }


@pytest.mark.parametrize(
    ("url", "path", "asked"),
    [
        ("", "model_training/allow", "/v1/data/model_training/allow"),
        ("/", "/a/b/c/", "/v1/data/a/b/c"),
        ("/proxied/opa/", "a", "/proxied/opa/v1/data/a"),
    ],
)
async def test_where_it_is_asked(url: str, path: str, asked: str):
    async with fake_pdp() as fake, OpaDecider(patient(fake.url + url), path=path) as decider:
        await decider.decide(ALICE, Action.READ, [JOB])
    assert [request.path for request in fake.asked] == [asked]


@pytest.mark.parametrize("path", ["", "/", "a//b", "a.b", "../x", "a?b", "a:b", "ä"])
def test_a_path_that_is_none_ends_the_start(path: str):
    with pytest.raises(SettingsError, match=r"decisions\.path"):
        OpaDecider(Server("https://opa.example.org"), path=path)


async def test_each_resource_is_asked_about_once_and_gets_its_own_answer():
    async with fake_pdp(lambda question: question["resource"]["id"] == "j2") as fake:
        assert await decided(fake, JOB, OTHER, JOB, OTHER) == [False, True, False, True]
    assert len(fake.asked) == 2


async def test_who_or_what_has_a_colon_is_refused_and_not_told_of():
    bad = Resource("training_pipeline", "a:b")
    async with fake_pdp() as fake:
        assert await decided(fake, JOB, bad, OTHER) == [True, False, True]
        stranger = Principal(PrincipalKind.USER, "corp:alice")
        assert await decided(fake, JOB, OTHER, principal=stranger) == [False, False]
    assert len(fake.asked) == 2


@pytest.mark.parametrize(
    ("body", "decision"),
    [
        ('{"result": true}', Decision(permitted=True)),
        ('{"result": false}', Decision(permitted=False)),
        ('{"result": {"allow": true}}', Decision(permitted=True)),
        ('{"result": {"allow": false, "why": "x"}}', Decision(permitted=False)),
        ("{}", Decision(permitted=False, reason="the rule is undefined for this")),
        ('{"decision_id": "4ca6", "result": true}', Decision(permitted=True, id="4ca6")),
        ('{"decision_id": 7, "result": true}', Decision(permitted=True)),
        ('{"decision_id": "a\\nb", "result": true}', Decision(permitted=True)),
        ('{"metrics": {"timer": 1}, "result": false}', Decision(permitted=False)),
    ],
)
def test_what_is_a_yes_or_a_no(body: str, decision: Decision):
    assert verdict(says(body)) == decision


def test_a_very_long_name_of_a_decision_is_left_out():
    assert verdict(says(json.dumps({"result": True, "decision_id": "x" * 101}))).id == ""


@pytest.mark.parametrize("body", [*nonsense("result").values(), *nonsense("allow").values()])
def test_what_is_no_clear_yes_is_none(body: str):
    try:
        permitted = verdict(says(body)).permitted
    except AccessUnavailable as error:
        permitted = "cannot be understood" not in error.message
    assert not permitted


@pytest.mark.parametrize(
    "body",
    [
        *nonsense("result").values(),
        '{"result": {}}',
        '{"result": {"allow": "true"}}',
        '{"result": {"allow": 1}}',
        '{"result": {"allow": null}}',
        '{"result": {"allow": [true]}}',
        '{"result": {"allowed": true}}',
        '{"result": {"result": true}}',
        '{"result": {"allow": {"allow": true}}}',
        '{"result": [{"allow": true}]}',
        '{"result": true, "warning": {"code": "api_usage_warning"}}',
        '{"result": false, "warning": null}',
        '{"warning": {"code": "api_usage_warning"}}',
    ],
)
def test_what_is_neither_is_not_understood(body: str):
    with pytest.raises(AccessUnavailable, match="cannot be understood"):
        verdict(says(body))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.recursive(
                st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from(["true", ""]),
                lambda inner: (
                    st.lists(inner, max_size=2)
                    | st.dictionaries(st.sampled_from(["allow", "result"]), inner, max_size=2)
                ),
                max_leaves=4,
            )
            for name in ("result", "allow", "decision", "warning")
        },
    )
)
def test_only_a_clear_yes_permits(body: dict[str, Any]):
    try:
        permitted = verdict(says(json.dumps(body))).permitted
    except AccessUnavailable:
        return
    if permitted:
        result = body["result"]
        assert (result["allow"] if isinstance(result, dict) else result) is True
        assert "warning" not in body


async def test_the_check_wants_a_decision_and_tells_where_there_is_no_rule():
    async with fake_pdp() as fake, OpaDecider(patient(fake.url)) as decider:
        assert await decider.check() is None
        fake.permits = lambda _: False
        assert await decider.check() is None
        bodies: list[bytes] = [b"{}", b'{"result": "no"}', b'{"warning": {}, "result": false}']

        def said(_: Asked) -> Said:
            return Said(bodies[0], JSON)

        fake.said = said
        assert "decisions.path is undefined" in (await decider.check() or "")
        for _ in range(2):
            bodies.pop(0)
            with pytest.raises(AccessUnavailable):
                await decider.check()


# What is told, whichever decision point it is


@given(st.text(max_size=6))
def test_no_colon_and_no_control_sign_is_sent(text: str):
    if sendable(text):
        assert text
        assert ":" not in text
        assert all(ord(sign) >= 32 and not 127 <= ord(sign) < 160 for sign in text)
        text.encode()


@pytest.mark.parametrize(
    "text", ["", ":", "a:b", "a\n", "\0", "a\x7f", "a\x9f", "\u200b", "\u202e", "\ud800", "\u2028"]
)
def test_what_is_not_sendable(text: str):
    assert not sendable(text)
    assert resource_of(Resource("training_pipeline", text)) is None
    assert resource_of(Resource(text, "x")) is None
    assert subject_of(Principal(PrincipalKind.USER, text)) is None


@pytest.mark.parametrize("text", ["a", "corp/alice@example.org", "Ünïcode", "a b", "100%"])
def test_what_is(text: str):
    assert sendable(text)


@pytest.mark.parametrize("name", ["cerbos.roles", "a:b", "", "A", "a" * 51, "a\n", "1"])
def test_an_attribute_that_no_code_of_ours_names_is_not_told(name: str):
    assert resource_of(Resource("training_pipeline", "x", {name: 1})) is None


@pytest.mark.parametrize("value", ["\ud800", 2**70, object()])
async def test_what_cannot_be_written_is_asked_about_nobody(value: object):
    async with fake_pdp() as fake:
        with pytest.raises(AccessUnavailable, match="cannot be told"):
            await decided(fake, Resource("training_pipeline", "x", {"namespace": value}))
    assert fake.asked == []


def test_of_somebody_nothing_is_told_but_what_is_listed():
    told = json.dumps(subject_of(ALICE))
    assert "canary" not in told
    assert json.loads(told).keys() == {"type", "id", "properties"}
    assert json.loads(told)["properties"].keys() == {"groups", "roles", "issuer"}
