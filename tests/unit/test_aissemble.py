"""Decisions by aiSSEMBLE's decision point: two strings, one token, four words."""

import base64
import json
import string

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
from model_training.access.engines.aissemble import (
    FIELDS,
    AissembleDecider,
    Question,
    Words,
    body_of,
    question_of,
    template,
    verdict,
)
from model_training.access.engines.policy_answers import Answer
from model_training.access.engines.policy_server import Server
from model_training.access.principals import Principal, PrincipalKind
from model_training.errors import AccessUnavailable, SettingsError
from tests.unit.access_lab.lying_pdp import FakePdp, fake_pdp, message
from tests.unit.test_access import JOB

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def token(claims: object) -> str:
    """As a JSON Web Token looks; who verified it is not asked here."""
    parts = json.dumps({"alg": "RS256"}), json.dumps(claims), "signature"
    return ".".join(base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in parts)


def somebody(sub: object, **claims: object) -> Principal:
    return Principal(PrincipalKind.USER, "corp/a", token=token({"sub": sub, **claims}))


ALICE = somebody("alice")
DEFAULT = Words(
    template("model-training/{pipeline}", "resource"),
    template("training-job-{action}", "action"),
    "training",
)
EVERYTHING = Words(
    template("{namespace}/{type}/{pipeline}/{owner}", "resource"),
    template("{action}", "action"),
    "n",
)


def patient(url: str) -> Server:
    return Server(url, connect_s=60, total_s=60)


async def decided(fake: FakePdp, principal: Principal, *resources: Resource) -> list[bool]:
    async with AissembleDecider(patient(fake.url), namespace="n") as decider:
        answers = await decider.decide(principal, Action.READ, resources)
    return [answer.permitted for answer in answers]


@pytest.mark.parametrize(
    ("action", "resource", "asked"),
    [
        (
            Action.CREATE,
            pipeline_resource("digits"),
            ("model-training/digits", "training-job-create"),
        ),
        (Action.READ_LOGS, job_resource(JOB), ("model-training/digits", "training-job-read_logs")),
        (Action.READ, pair_resource("digits", "b"), ("model-training/digits", "training-job-read")),
        (Action.READ, pair_resource(None, "b"), ("model-training/", "training-job-read")),
        (Action.LIST, service_resource("training"), ("model-training/", "training-job-list")),
        (
            Action.LIST,
            pipeline_resource("training", all=True),
            ("model-training/", "training-job-list"),
        ),
    ],
)
def test_each_question_has_its_words(action: Action, resource: Resource, asked: tuple[str, str]):
    assert question_of(action, resource, DEFAULT) == Question(*asked)


def test_every_place_is_filled():
    assert question_of(Action.STOP, job_resource(JOB), EVERYTHING) == Question(
        "n/training_job/digits/local", "stop"
    )
    assert question_of(Action.LIST, service_resource("x"), EVERYTHING) == Question(
        "n/training_service//", "list"
    )


@pytest.mark.parametrize(
    "resource",
    [
        pipeline_resource("a:b"),
        pipeline_resource("a\nb"),
        Resource("training_job", "x", {"pipeline": "a:b", "owner": "o"}),
        Resource("training_job", "x", {"pipeline": 7, "owner": "o"}),
        Resource("training_job", "x", {"pipeline": "p"}),
        Resource("training_job", "x", {"owner": "o"}),
        Resource("training_job", "x"),
    ],
)
def test_what_cannot_be_told_of_is_not_asked(resource: Resource):
    assert question_of(Action.READ, resource, DEFAULT) is None


def test_a_value_is_taken_as_it_is():
    braces = Resource("training_job", "x", {"pipeline": "{owner}", "owner": "{{x}}"})
    asked = question_of(Action.READ, braces, EVERYTHING)
    assert asked == Question("n/training_job/{owner}/{{x}}", "read")


@pytest.mark.parametrize("setting", ["resource", "action"])
@pytest.mark.parametrize(
    "text",
    ["a:b", "{pipeline}:{action}", "a\nb", "{", "}", "{}", "{0}", "{jwt}", "{token}", "{ pipeline}",
     "{pipeline!r}", "{pipeline:>10}", "{pipeline.__class__}", "{pipeline[0]}", "{a", "{{{}"],
)  # fmt: skip
def test_a_template_that_cannot_be_used_ends_the_start(setting: str, text: str):
    with pytest.raises(SettingsError, match=rf"decisions\.{setting}"):
        AissembleDecider(Server("https://pdp.example.org"), namespace="n", **{setting: text})


def test_a_brace_and_a_fixed_text_are_taken():
    values = dict.fromkeys(FIELDS, "v")
    assert template("data-access", "action").filled(values) == "data-access"
    assert template("a{{b}}{type}", "action").filled(values) == "a{b}v"


@given(st.text(st.sampled_from(string.ascii_letters + "{}/-:. \n!"), max_size=20))
def test_a_template_is_refused_or_can_be_filled(text: str):
    try:
        made = template(text, "resource")
    except SettingsError:
        return
    filled = made.filled(dict.fromkeys(FIELDS, "v"))
    assert filled == text.format(**dict.fromkeys(FIELDS, "v"))
    assert ":" not in filled
    assert "\n" not in filled


def test_what_is_sent():
    assert json.loads(body_of("t0ken", Question("r", "a"))) == {
        "jwt": "t0ken",
        "resource": "r",
        "action": "a",
    }


@pytest.mark.parametrize(
    ("body", "decision"),
    [
        ("PERMIT", Decision(permitted=True)),
        (" PERMIT\r\n", Decision(permitted=True)),
        ("DENY", Decision(permitted=False, reason="DENY")),
        ("NOT_APPLICABLE", Decision(permitted=False, reason="NOT_APPLICABLE")),
        ("INDETERMINATE", Decision(permitted=False, reason="INDETERMINATE")),
    ],
)
def test_its_four_words(body: str, decision: Decision):
    assert verdict(Answer(200, "text/plain", body.encode())) == decision


@pytest.mark.parametrize(
    "body",
    ["", " ", "permit", "Permit", "PERMITTED", "PERMIT DENY", "PERMIT\nDENY", "DENY\nPERMIT",
     '"PERMIT"', "PERMIT.", "ALLOW", "true", "1", "yes", "NOT_PERMIT", "PERM", "P E R M I T",
     '{"decision": true}', "\ufeffPERMIT", "PERMIT\0", "\u0420ERMIT", "\u00a0PERMIT", "200"],
)  # fmt: skip
def test_any_other_word_is_not_understood(body: str):
    with pytest.raises(AccessUnavailable, match="cannot be understood"):
        verdict(Answer(200, "text/plain", body.encode()))


@given(st.text(max_size=10) | st.sampled_from(["PERMIT", "DENY"]), st.sampled_from([200, 201, 500]))
def test_only_its_word_for_yes_permits(body: str, status: int):
    try:
        permitted = verdict(Answer(status, "text/plain", body.encode())).permitted
    except AccessUnavailable:
        return
    assert permitted == (body.strip() == "PERMIT" and status == 200)


async def test_the_callers_own_token_is_handed_on_and_equal_questions_are_asked_once():
    pairs = [pair_resource(f"p{n % 3}", f"owner-{n}") for n in range(30)]
    async with fake_pdp(lambda question: question["resource"].endswith("p1")) as fake:
        assert await decided(fake, ALICE, *pairs) == [n % 3 == 1 for n in range(30)]
    assert len(fake.asked) == 3
    assert {asked.body["jwt"] for asked in fake.asked} == {ALICE.token}
    assert {asked.path for asked in fake.asked} == {"/api/pdp"}


@pytest.mark.parametrize("path", ["", "/", "/api/pdp", "/api/pdp/"])
async def test_the_address_may_have_its_path(path: str):
    async with (
        fake_pdp() as fake,
        AissembleDecider(patient(fake.url + path), namespace="n") as decider,
    ):
        await decider.decide(ALICE, Action.READ, [job_resource(JOB)])
    assert [asked.path for asked in fake.asked] == ["/api/pdp"]


@pytest.mark.parametrize("sub", ["a:b", ":", "a\nb", "", None, 7, ["alice"]])
async def test_whoever_it_could_take_for_another_is_refused_and_not_asked_about(sub: object):
    async with fake_pdp() as fake:
        assert await decided(fake, somebody(sub), job_resource(JOB)) == [False]
    assert fake.asked == []


async def test_what_has_a_colon_is_refused_and_the_others_are_asked_about():
    async with fake_pdp() as fake:
        resources = pipeline_resource("a:b"), pipeline_resource("ok")
        assert await decided(fake, ALICE, *resources) == [False, True]
    assert [asked.body["resource"] for asked in fake.asked] == ["model-training/ok"]


async def test_who_has_no_token_cannot_be_asked_about():
    async with fake_pdp() as fake:
        with pytest.raises(AccessUnavailable, match="token"):
            await decided(fake, Principal(PrincipalKind.LOCAL, "local"), job_resource(JOB))
    assert fake.asked == []


@pytest.mark.parametrize("status", ["200 OK", "500 Error"])
async def test_the_check_is_content_with_what_the_endpoint_says_to_no_token(status: str):
    async with fake_pdp() as fake:
        fake.instead = message(status, [("Content-Length", "0")])
        async with AissembleDecider(patient(fake.url), namespace="n") as decider:
            await decider.check()
    [asked] = fake.asked
    assert asked.body == {"jwt": "", "resource": "self-test", "action": "self-test"}


@pytest.mark.parametrize("status", ["302 Found", "401 Who", "404 Not Found", "405 No", "503 Away"])
async def test_the_check_tells_where_there_is_no_such_endpoint(status: str):
    async with fake_pdp() as fake:
        fake.instead = message(status, [("Content-Length", "0")])
        async with AissembleDecider(patient(fake.url), namespace="n") as decider:
            with pytest.raises(AccessUnavailable):
                await decider.check()
