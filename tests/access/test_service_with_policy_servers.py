"""The whole service, once for each real policy server, loaded with the policies that we ship.

What each of them decides is held down in ``test_starting_policies.py``. Here is what a caller sees
of it, and what they see when the server stalls, dies and comes back.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from model_training.jobs import JobState
from model_training.ledger.ledger import Ledger
from tests.access.conftest import POLICIES
from tests.access.servers.cerbos import cerbos
from tests.access.servers.opa import opa
from tests.access.servers.openfga import openfga
from tests.access.servers.tools import PolicyProcess
from tests.api.test_access import FORGE, Service, environment, serving, user
from tests.unit.ledger_jobs import seen, spec
from tests.unit.token_forge import AUDIENCE, ISSUER
from tests.waiting import until

NAMES = ["Cerbos", "OPA", "OpenFGA"]
ACCESS = f"""
[[issuers]]
name = "corp"
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
algorithms = ["RS256"]
key = "corp.pem"

[api_keys]
file = "data/api-keys.json"

[decisions]
"""
PIPELINE = """
name = "{name}"
command = ["sh", "-c", "echo printed; sleep ${{SECONDS_LONG:-0}}"]
"""
END = FORGE.now() + 7200  # beyond all of these tests
LEA = user("lea", groups=["data-science"], exp=END)
OLGA = user("olga", roles=["ml-admin"], exp=END)
EVE = user("eve", groups=["data"], exp=END)
ACTIONS = "create,list,read,read_logs,read_outputs,stop,delete"
OWNERS = 90  # of jobs from before, in each of two pipelines; more than three batches of pairs
ANSWER_S = 2.2
BACK_S = 6.0


@dataclass
class Pair:
    """A service, and the policy server that it asks."""

    service: Service
    policies: PolicyProcess
    key: str
    """of the principal key/nightly"""

    def status(self, name: str, token: str = LEA) -> httpx2.Response:
        return self.service.ask("GET", f"/training-jobs/{name}/status", token)

    def ends(self, name: str) -> bool:
        return self.status(name, OLGA).json()["state"] in {"succeeded", "failed", "stopped"}

    def create(self, token: str, seconds: int = 0) -> str:
        answer = self.service.ask(
            "POST", "/training-jobs?pipeline=fraud-cards", token, json={"SECONDS_LONG": seconds}
        )
        assert answer.status_code == 201, answer.text
        return answer.json()["name"]


@contextmanager
def policy_server(name: str, root: Path) -> Iterator[tuple[PolicyProcess, str]]:
    """A server with our policies, and the service's settings for it."""
    match name:
        case "Cerbos":
            with cerbos(root, POLICIES / "cerbos") as one:
                yield one, f'engine = "authzen"\nurl = "{one.url}"\ndiscover = true\n'
        case "OPA":
            with opa(root, POLICIES / "opa") as one:
                yield one, f'engine = "opa"\nurl = "{one.url}"\n'
        case _:
            with openfga(root, POLICIES / "openfga") as one:
                more = f'url = "{one.url}"\njobs_by = "pipeline"\n'
                yield one.server, f'engine = "authzen"\n{more}'


@contextmanager
def both(name: str, root: Path, decisions: str = "") -> Iterator[Pair]:
    """A policy server and a service that asks it, where jobs have run before."""
    for folder in ("server", "data"):
        (root / folder).mkdir()
    for pipeline in ("fraud-cards", "churn"):
        (root / "pipelines" / pipeline).mkdir(parents=True)
        declaration = root / "pipelines" / pipeline / "pipeline.toml"
        declaration.write_text(PIPELINE.format(name=pipeline))
    (root / "corp.pem").write_bytes(FORGE.pem())
    asyncio.run(record_earlier_jobs(root / "data/ledger.sqlite3"))
    argv = [sys.executable, "-m", "model_training", "access", "key", "create", "nightly"]
    argv += ["--actions", ACTIONS, "--pipelines", "*"]
    key = subprocess.check_output(argv, env=environment(root), text=True).strip()
    with policy_server(name, root / "server") as (policies, settings):
        (root / "access.toml").write_text(ACCESS + settings + decisions)
        with serving(root) as service:
            pair = Pair(service, policies, key)
            yield pair
            policies.thaw()
            end_jobs(pair)


async def record_earlier_jobs(path: Path) -> None:
    """Of many owners, in turn one that may be read by lea and one that may not."""
    ledger = await Ledger.open(path)
    pipelines = ("fraud-cards", "churn")
    jobs = [
        spec(2 * number + at, pipeline, f"corp/user{number}")
        for number in range(OWNERS)
        for at, pipeline in enumerate(pipelines)
    ]
    await ledger.apply([seen(job, JobState.SUCCEEDED) for job in jobs])
    await ledger.close()


def end_jobs(pair: Pair) -> None:
    """Leave no process behind."""

    def active() -> list[str]:
        answer = pair.service.ask("GET", "/training-jobs?state=active", OLGA)
        return [job["name"] for job in answer.json()] if answer.status_code == 200 else ["?"]

    for name in active():
        pair.service.ask("DELETE", f"/training-jobs/{name}", OLGA)
    asyncio.run(until(lambda: not active(), within=20))


@pytest.fixture(scope="module", params=NAMES)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    with both(request.param, tmp_path_factory.mktemp("service")) as one:
        yield one


def test_a_scientist_trains_and_looks(pair: Pair):
    ask = pair.service.ask
    name = pair.create(LEA)
    asyncio.run(until(lambda: pair.ends(name), within=30))

    assert pair.status(name).json()["owner"] == "corp/lea"
    assert "printed" in ask("GET", f"/training-jobs/{name}", LEA).text
    assert ask("GET", f"/training-jobs/{name}/outputs", LEA).status_code == 200
    assert ask("GET", "/training-jobs?pipeline=fraud-cards", LEA).status_code == 200
    assert [each["name"] for each in ask("GET", "/pipelines", LEA).json()] == ["fraud-cards"]


def test_and_does_no_more(pair: Pair):
    ask = pair.service.ask
    refused = ask("POST", "/training-jobs?pipeline=churn", LEA)
    assert refused.status_code == 403
    assert refused.json()["type"] == "/problems/forbidden"
    assert ask("GET", "/training-jobs?pipeline=churn", LEA).status_code == 403
    assert ask("GET", "/pipelines/churn", LEA).status_code == 404
    assert ask("GET", "/metrics", LEA).status_code == 403


def test_a_key_is_its_own_principal(pair: Pair):
    mine, yours = pair.create(pair.key), pair.create(LEA)
    assert pair.status(mine, pair.key).json()["owner"] == "key/nightly"
    assert pair.service.ask("DELETE", f"/training-jobs/{yours}", pair.key).status_code == 403


def test_who_started_a_job_stops_it(pair: Pair):
    name = pair.create(LEA, seconds=60)
    assert pair.service.ask("POST", f"/training-jobs/{name}/stop", pair.key).status_code == 403
    assert pair.service.ask("POST", f"/training-jobs/{name}/stop", LEA).status_code == 202
    asyncio.run(until(lambda: pair.ends(name), within=30))
    assert pair.status(name).json()["state"] == "stopped"


def test_an_operator_does_everything(pair: Pair):
    ask = pair.service.ask
    name = pair.create(LEA)
    assert ask("GET", "/metrics", OLGA).status_code == 200
    names = {each["name"] for each in ask("GET", "/pipelines", OLGA).json()}
    assert names >= {"churn", "fraud-cards"}
    assert ask("DELETE", f"/training-jobs/{name}", OLGA).status_code == 202


def test_a_stranger_does_nothing_and_learns_nothing(pair: Pair):
    ask = pair.service.ask
    name = pair.create(LEA)
    absent = name[:-1] + ("0" if name[-1] != "0" else "1")
    assert ask("POST", "/training-jobs?pipeline=fraud-cards", EVE).status_code == 403
    assert ask("GET", "/training-jobs", EVE).status_code == 403
    for method, rest in (("GET", ""), ("GET", "/status"), ("POST", "/stop"), ("DELETE", "")):
        hidden, missing = (
            ask(method, f"/training-jobs/{each}{rest}", EVE, headers={"X-Request-ID": "same"})
            for each in (name, absent)
        )
        assert hidden.status_code == missing.status_code == 404
        assert hidden.content == missing.content.replace(absent.encode(), name.encode())
    for odd in (
        "nothing",
        "model-training--1",
        "model-training-a%20b%23c-1",
        "model-training-%C3%A9-1",
    ):
        for who in (EVE, LEA, OLGA):
            assert ask("GET", f"/training-jobs/{odd}/status", who).status_code == 404


def test_lists_of_many_owners_hold_what_may_be_read(pair: Pair):
    def listed(token: str) -> set[tuple[str, str]]:
        answer = pair.service.ask("GET", "/training-jobs?limit=1000", token)
        assert answer.status_code == 200, answer.text
        return {(job["pipeline"], job["owner"]) for job in answer.json()}

    everybody = {f"corp/user{number}" for number in range(OWNERS)}
    by_lea = listed(LEA)
    assert {pipeline for pipeline, _ in by_lea} == {"fraud-cards"}
    assert {owner for _, owner in by_lea} >= everybody
    by_olga = listed(OLGA)
    for pipeline in ("fraud-cards", "churn"):
        assert {owner for each, owner in by_olga if each == pipeline} >= everybody


# A server that stalls, dies and comes back


def refused_in_time(pair: Pair, method: str, path: str, **more: object) -> None:
    """A 503 that says when to come again, in time."""
    answer = pair.service.ask(method, path, LEA, **more)
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.elapsed.total_seconds() < ANSWER_S  # without the making of a client


@pytest.mark.parametrize("name", NAMES)
def test_one_that_stalls_is_never_a_yes(name: str, tmp_path: Path):
    with both(name, tmp_path) as pair:
        job = pair.create(LEA, seconds=60)
        pair.policies.freeze()
        refused_in_time(pair, "GET", f"/training-jobs/{job}/status")
        refused_in_time(pair, "GET", "/training-jobs")
        refused_in_time(pair, "POST", "/training-jobs?pipeline=fraud-cards")
        refused_in_time(pair, "DELETE", f"/training-jobs/{job}")
        pair.policies.thaw()
        asyncio.run(until(lambda: pair.status(job).status_code == 200, within=BACK_S))
        active = pair.service.ask("GET", "/training-jobs?state=active", OLGA).json()
        assert [each["name"] for each in active] == [job]


@pytest.mark.parametrize("name", NAMES)
def test_one_that_died_is_never_a_yes_and_is_asked_again_when_it_is_back(name: str, tmp_path: Path):
    with both(name, tmp_path) as pair:
        job = pair.create(LEA, seconds=60)
        pair.policies.kill()
        for _ in range(6):  # five of which are enough to leave it alone for five seconds
            refused_in_time(pair, "GET", f"/training-jobs/{job}/status")
        refused_in_time(pair, "POST", f"/training-jobs/{job}/stop")
        pair.policies.start()
        asyncio.run(until(lambda: pair.status(job).status_code == 200, within=BACK_S))
        assert pair.status(job).json()["state"] in {"pending", "running"}
        assert pair.service.ask("POST", f"/training-jobs/{job}/stop", LEA).status_code == 202


@pytest.mark.parametrize("name", NAMES)
def test_what_ends_a_job_is_never_answered_from_what_was_kept(name: str, tmp_path: Path):
    with both(name, tmp_path, "cache = 10\n") as pair:
        stop = ("POST", f"/training-jobs/{pair.create(LEA)}/stop")
        job = stop[1].removesuffix("/stop")
        asyncio.run(until(lambda: pair.ends(job.rpartition("/")[2]), within=30))

        def asked() -> list[int]:
            """To look at it; to stop it, which may be and changes nothing; to delete it, as no."""
            ask = pair.service.ask
            looked = [
                ask("GET", job + rest, who) for rest in ("/status", "") for who in (LEA, pair.key)
            ]
            ended = [ask(*stop, LEA), ask("DELETE", job, pair.key)]
            return [answer.status_code for answer in (*looked, *ended)]

        before = asked()
        assert 503 not in before
        assert before[-1] == 403
        pair.policies.kill()
        assert asked() == [*before[:-2], 503, 503]
        pair.policies.start()
        asyncio.run(until(lambda: asked() == before, within=BACK_S))
