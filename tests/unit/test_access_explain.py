"""``model-training access explain``: that it shows what is really sent, and policies that are good.

What is shown is compared with what the service's own engines send over a socket when they are asked
the same.
"""

import json
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from aiohttp import web

from model_training.access.access_file import DecisionsTable
from model_training.access.actions import Action
from model_training.access.decisions import (
    job_resource,
    pair_resource,
    pipeline_resource,
    service_resource,
)
from model_training.access.engines.role_file import read_role_file
from model_training.access.engines.roles import RolesDecider
from model_training.access.engines.subject_access_reviews import SubjectAccessReviews
from model_training.access.opening import _remote
from model_training.access.principals import Principal, PrincipalKind
from model_training.access.starting_policies import starting_policies
from model_training.access.worked_requests import (
    CALLERS_TOKEN,
    CLUSTER,
    EXAMPLES,
    NAMESPACE,
    OUR_TOKEN,
    WANTED,
    asker_of,
    worked_requests,
)
from model_training.cli.main import run
from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.reviewing import Reviewing
from tests.unit.fake_api_server import FakeApiServer, fake_api_server
from tests.unit.test_access import JOB
from tests.unit.test_aissemble import token

pytestmark = pytest.mark.anyio
ENGINES = ["roles", "authzen", "opa", "aissemble", "kubernetes"]
TABLES = {
    "authzen": DecisionsTable(engine="authzen", url="http://127.0.0.1:1/tenant"),
    "authzen by pipeline": DecisionsTable(
        engine="authzen", url="http://127.0.0.1:1", jobs_by="pipeline"
    ),
    "opa": DecisionsTable(engine="opa", url="http://127.0.0.1:1/", path="/team/training/may"),
    "aissemble": DecisionsTable(engine="aissemble", url="http://127.0.0.1:1/api/pdp"),
    "aissemble with words of its own": DecisionsTable(
        engine="aissemble",
        url="http://127.0.0.1:1",
        resource="{namespace}/{type}/{pipeline}/{owner}",
        action="{action}",
    ),
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


Sent = tuple[str, str, dict[str, str], str]
SHOWN_HEADERS = {"Accept", "Content-Type", "Authorization"}


class Recorder:
    """Says no to everything, and keeps what it was sent to the byte."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []

    async def answer(self, request: web.Request) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name in SHOWN_HEADERS}
        body = (await request.read()).decode()
        self.sent.append((request.method, request.path, headers, body))
        asked = json.loads(body)
        if "jwt" in asked:
            return web.Response(text="DENY")
        if asked.get("kind"):
            return web.json_response({**asked, "status": {"allowed": False}}, status=201)
        no = {"decision": False}
        answers = [no for _ in asked.get("evaluations", [])]
        return web.json_response({"evaluations": answers} if answers else {**no, "result": False})


@asynccontextmanager
async def recording() -> AsyncGenerator[tuple[Recorder, FakeApiServer]]:
    recorder = Recorder()
    async with fake_api_server(recorder.answer) as server:
        yield recorder, server


def shown(table: DecisionsTable) -> list[Sent]:
    """What is explained, in the form of what is recorded; several at once come in any order."""
    return sorted(
        (each.method, re.sub(r"^\w+://[^/]+", "", each.url), dict(each.headers), each.body)
        for each in worked_requests(table)
    )


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
async def test_what_is_shown_is_what_is_sent(table: DecisionsTable):
    callers = token({"sub": "lea"})
    async with recording() as (recorder, server):
        there = table.model_copy(
            update={"url": (table.url or "").replace("http://127.0.0.1:1", server.url)}
        )
        asker = replace(asker_of(table), token=callers)
        async with _remote(there, NAMESPACE) as decider:
            for wanted in WANTED:
                await decider.decide(asker, wanted.action, wanted.resources)
    sent = [(*rest, body.replace(callers, CALLERS_TOKEN)) for *rest, body in recorder.sent]
    assert sorted(sent) == shown(table)


async def test_what_is_shown_of_a_cluster_is_what_it_is_sent():
    table = DecisionsTable(engine="kubernetes", group="training.corp.example")
    async with recording() as (recorder, server), KubernetesApi(server.config()) as api:
        decider = SubjectAccessReviews(Reviewing(api), NAMESPACE, table.group)
        for wanted in WANTED:
            await decider.decide(asker_of(table), wanted.action, wanted.resources)
    json_alone = {"Content-Type": "application/json"}
    sent = [(method, path, json_alone, body) for method, path, _, body in recorder.sent]
    assert sorted(sent) == shown(table)
    assert "training.corp.example" in worked_requests(table)[0].body
    assert worked_requests(table)[0].url.startswith(CLUSTER)


def test_where_the_server_is_asked_for_its_endpoints_that_is_shown(tmp_path: Path):
    table = DecisionsTable(engine="authzen", url="https://pdp.example/t", discover=True)
    first = worked_requests(table)[0]
    assert first.method == "GET"
    assert first.url == "https://pdp.example/.well-known/authzen-configuration/t"
    assert first.body == ""


def test_a_token_is_shown_by_a_word_in_its_place(tmp_path: Path):
    secret = tmp_path / "token"
    secret.write_text("s3cret")
    table = DecisionsTable(engine="opa", url="https://pdp.example", token=secret)
    for each in worked_requests(table):
        assert each.headers["Authorization"] == f"Bearer {OUR_TOKEN}"


def test_the_examples_tell_of_a_job_what_the_service_tells():
    shown_job = next(w.resources[0] for w in WANTED if w.route == "GET /training-jobs/NAME/status")
    assert shown_job.attributes.keys() == job_resource(JOB).attributes.keys()


def texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield place, name
        yield from texts(inner, name)
    for inner in value if isinstance(value, list) else ():
        yield from texts(inner, place)


@pytest.mark.parametrize("engine", ["authzen", "opa", "aissemble", "kubernetes"])
def test_nothing_that_is_decided_by_holds_a_colon(engine: str):
    """But for names that the cluster gave, and times, which nothing is looked up by."""
    found = [
        (place, text)
        for each in worked_requests(EXAMPLES[engine])
        for place, text in texts(json.loads(each.body))
        if ":" in text and place not in {"user", "groups", "created_at"}
    ]
    assert found == []


# The command


def told(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["access", "explain", *arguments]) == 0
    return capfd.readouterr().out


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["access", "explain", *arguments]) != 0
    out, err = capfd.readouterr()
    assert out == ""
    return err


def test_without_a_choice_every_engine_is_explained(capfd: pytest.CaptureFixture[str]):
    out = told(capfd)
    assert re.findall(r"^##### engine (\w+)$", out, re.MULTILINE) == ENGINES
    for engine in ENGINES:
        assert f"##### engine {engine}\n" in told(capfd, "--engine", engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_each_has_typical_questions_and_a_policy(capfd: pytest.CaptureFixture[str], engine: str):
    [found] = json.loads(told(capfd, "--engine", engine, "--json"))
    assert found["engine"] == engine
    for action in ("create", "list", "read", "delete"):
        assert any(f" {action} " in question for question in found["questions"])
    assert len(found["requests"]) >= (0 if engine == "roles" else 4)
    assert found["policies"]


def test_with_an_access_file_its_own_words_are_shown(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
):
    path = tmp_path / "access.toml"
    path.write_text(
        '[[issuers]]\nname = "corp"\nissuer = "https://login.example"\naudience = "a"\n'
        '[decisions]\nengine = "aissemble"\nurl = "https://pdp.example"\n'
        'resource = "ml/{type}/{pipeline}"\n'
    )
    out = told(capfd, "--access", str(path))
    assert "##### engine aissemble" in out
    assert "\nPOST https://pdp.example/api/pdp\n" in out
    assert '"resource":"ml/training_pipeline/fraud-cards"' in out
    assert f'"jwt":"{CALLERS_TOKEN}"' in out


def test_older_settings_are_explained_too(capfd: pytest.CaptureFixture[str], tmp_path: Path):
    path = tmp_path / "auth.properties"
    path.write_text("public_key_path=k.pem\npdp_host_url=http://pdp:8080/api/pdp\n")
    assert "\nPOST http://pdp:8080/api/pdp\n" in told(capfd, "--access", str(path))


def test_a_policy_alone_can_be_saved(tmp_path: Path):
    """By a shell, as a reader would."""
    argv = [sys.executable, "-m", "model_training", "access", "explain", "--engine", "roles"]
    done = subprocess.run([*argv, "--policy"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    saved = tmp_path / "roles.toml"
    saved.write_text(done.stdout)
    saved.chmod(0o644)
    assert set(read_role_file(saved).roles) == {"scientist", "operator"}


def test_what_belongs_to_a_policy_is_told_beside_it(capfd: pytest.CaptureFixture[str]):
    assert run(["access", "explain", "--engine", "opa", "--policy"]) == 0
    out, err = capfd.readouterr()
    assert "\npackage model_training\n" in out
    assert err == "opa/policy.rego is used together with opa/data.json\n"
    assert "roles" in json.loads(told(capfd, "--policy", "opa/data.json"))


def test_of_several_policies_one_must_be_named(capfd: pytest.CaptureFixture[str]):
    err = refused(capfd, "--engine", "authzen", "--policy")
    assert "cerbos/roles.yaml" in err
    assert "openfga/model.json" in err
    assert "say which" in refused(capfd, "--policy", "opa/absent.rego")


def test_a_file_and_an_engine_are_one_too_many(capfd: pytest.CaptureFixture[str], tmp_path: Path):
    assert "not both" in refused(capfd, "--engine", "opa", "--access", str(tmp_path / "a.toml"))


def test_a_mistake_in_the_file_is_told_as_everywhere(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
):
    path = tmp_path / "access.toml"
    path.write_text('local_token = true\n[decisions]\nengine = "opa"\n')
    err = refused(capfd, "--access", str(path))
    assert f"The setting decisions.url in {path}: opa needs it." in err


# The policies, as far as can be seen without what decides by them (that is in tests/access)


def policy(capfd: pytest.CaptureFixture[str], name: str) -> str:
    return told(capfd, "--policy", name)


def test_the_roles_of_the_cluster_name_the_group_that_is_asked_about(
    capfd: pytest.CaptureFixture[str],
):
    found = list(yaml.safe_load_all(policy(capfd, "kubernetes/rbac.yaml")))
    rules = [rule for each in found if each and each["kind"] == "Role" for rule in each["rules"]]
    asked = {
        json.loads(each.body)["spec"]["resourceAttributes"]["group"]
        for each in worked_requests(EXAMPLES["kubernetes"])
    }
    assert {group for rule in rules for group in rule["apiGroups"]} == asked
    # Kubernetes keeps groups without a dot for itself, and nobody can own a name in .alt.
    assert asked == {"model-training.alt"}


def test_the_policy_in_xacml_is_whole(capfd: pytest.CaptureFixture[str]):
    root = ElementTree.fromstring(policy(capfd, "aissemble/policy.xml"))
    space = "{urn:oasis:names:tc:xacml:3.0:core:schema:wd-17}"
    assert root.tag == f"{space}Policy"
    parts = [part.tag.removeprefix(space) for part in root]
    assert parts[:2] == ["Description", "Target"]
    assert {"PolicyId", "Version", "RuleCombiningAlgId"} == root.attrib.keys()
    defined = [each.attrib["VariableId"] for each in root.iter(f"{space}VariableDefinition")]
    used = {each.attrib["VariableId"] for each in root.iter(f"{space}VariableReference")}
    rules = [each.attrib["RuleId"] for each in root.iter(f"{space}Rule")]
    assert set(defined) == used
    assert len({*defined, *rules}) == len(defined) + len(rules)
    written = {each.text for each in root.iter(f"{space}AttributeValue")}
    for each in worked_requests(EXAMPLES["aissemble"]):
        question = json.loads(each.body)
        assert any(question["resource"].startswith(text or "") for text in written)
    assert not any(":" in (text or "") for text in written)


async def test_the_roles_permit_what_they_say(tmp_path: Path):
    path = tmp_path / "roles.toml"
    [file] = starting_policies("roles")
    path.write_text(file.text)
    path.chmod(0o644)
    decider = RolesDecider(path)
    lea = Principal(PrincipalKind.USER, "corp/lea", issuer="corp", groups=("data-science",))
    olga = Principal(PrincipalKind.USER, "corp/olga", issuer="corp", roles=("ml-admin",))
    eve = Principal(PrincipalKind.USER, "other/eve", issuer="other", groups=("data-science",))
    cards, churn = pipeline_resource("fraud-cards"), pipeline_resource("churn")
    hers = pair_resource("fraud-cards", "corp/lea")
    his = pair_resource("fraud-cards", "corp/ben")
    service = service_resource("training")
    table = [
        (Action.CREATE, cards, {"corp/lea", "corp/olga"}),
        (Action.CREATE, churn, {"corp/olga"}),
        (Action.LIST, service, {"corp/lea", "corp/olga"}),
        (Action.READ, service, {"corp/olga"}),
        (Action.READ_LOGS, his, {"corp/lea", "corp/olga"}),
        (Action.DELETE, hers, {"corp/lea", "corp/olga"}),
        (Action.DELETE, his, {"corp/olga"}),
    ]
    for action, resource, may in table:
        found = set()
        for who in (lea, olga, eve):
            [decision] = await decider.decide(who, action, [resource])
            found |= {who.id} if decision.permitted else set()
        assert found == may, (action, resource)
