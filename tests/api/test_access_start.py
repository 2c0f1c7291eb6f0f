"""A service that starts beside its decision point: what it waits for, says, and refuses.

The whole program over HTTP, with our own decision point in its honest mode, or without it.
"""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from model_training.access.guard import PAIRS_LIMIT
from model_training.access.worked_requests import EXAMPLES, worked_requests
from model_training.jobs import JobState
from model_training.ledger.ledger import Ledger
from tests.api.test_access import (
    ACCESS,
    AUDIENCE,
    ISSUER,
    ROLES,
    Service,
    command,
    environment,
    serving,
    user,
    write_files,
)
from tests.unit.access_lab.lying_pdp import JSON, FakePdp, Said, fake_pdp
from tests.unit.ledger_jobs import seen, spec
from tests.waiting import until

REMOTE = ACCESS.partition("[decisions]")[0] + '[decisions]\nengine = "{engine}"\nurl = "{url}"\n'


@contextmanager
def pdp(port: int = 0) -> Iterator[FakePdp]:
    """In a thread, as this one waits for answers."""
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(fake_pdp(port=port)) as fake,
    ):
        yield fake


def lea() -> str:
    """A token of now: it lives for minutes, and all the tests take longer."""
    return user("lea")


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def is_ready(service: Service) -> bool:
    answer = service.ask("GET", "/readyz")
    assert answer.text == ("ok\n" if answer.status_code == 200 else "not ready\n")
    return answer.status_code == 200


def log(service: Service) -> str:
    return (service.root / "server.log").read_text()


def test_it_is_not_ready_until_its_decision_point_has_answered_once(tmp_path: Path):
    with pdp() as there:
        url = there.url
    write_files(tmp_path, REMOTE.format(engine="authzen", url=url))
    with serving(tmp_path) as service:
        told = f"Not ready, as {url} must decide: The decision point takes no connection"
        asyncio.run(until(lambda: told in log(service)))
        assert not is_ready(service)
        assert service.ask("GET", "/training-jobs", lea()).status_code == 503
        with pdp(port_of(url)):
            asyncio.run(until(lambda: is_ready(service), within=20))
            assert f"{url} answers." in log(service)
            assert service.ask("GET", "/training-jobs", lea()).status_code == 200
        # An outage afterwards is told to each caller, who could not be told by nobody.
        assert service.ask("GET", "/training-jobs", lea()).status_code == 503
        assert is_ready(service)
        assert log(service).count("Not ready") == 1


def test_a_rule_that_is_not_there_is_told_at_the_start(tmp_path: Path):
    with pdp() as there:
        there.said = lambda _: Said(b"{}", JSON)
        write_files(tmp_path, REMOTE.format(engine="opa", url=there.url))
        with serving(tmp_path) as service:
            told = f"{there.url} answers, but the rule of decisions.path is undefined"
            asyncio.run(until(lambda: told in log(service)))
            assert is_ready(service)
            assert service.ask("GET", "/training-jobs", lea()).status_code == 403


def test_what_is_asked_is_what_is_explained(tmp_path: Path):
    """Of each typical request, the names of all that is told; their values are examples."""
    with pdp() as there:
        write_files(tmp_path, REMOTE.format(engine="opa", url=there.url))
        with serving(tmp_path) as service:
            asyncio.run(until(lambda: is_ready(service)))
            before = len(there.asked)
            name = service.create(lea())
            service.ask("GET", "/training-jobs", lea())
            service.ask("GET", f"/training-jobs/{name}/status", lea())
            service.ask("DELETE", f"/training-jobs/{name}", lea())
            asked = [told(each.body) for each in there.asked[before:]]
    explained = [told(json.loads(each.body)) for each in worked_requests(EXAMPLES["opa"])]
    assert list(dict.fromkeys(asked)) == list(dict.fromkeys(explained))


def told(body: dict[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    asked = body["input"]
    resource = asked["resource"]
    return asked["action"]["name"], resource["type"], tuple(sorted(resource["properties"]))


# Lists of more than can be decided about


def test_a_list_of_too_many_owners_asks_for_a_narrower_filter(tmp_path: Path):
    """And is never a part of what may be read."""
    with pdp() as there:
        write_files(tmp_path, REMOTE.format(engine="authzen", url=there.url))
        (tmp_path / "data").mkdir()
        asyncio.run(record_jobs(tmp_path / "data/ledger.sqlite3"))
        with serving(tmp_path) as service:
            asyncio.run(until(lambda: is_ready(service)))
            before = len(there.asked)
            wide = service.ask("GET", "/training-jobs", lea())
            assert wide.status_code == 422
            problem = wide.json()
            assert problem["type"] == "/problems/filter-too-wide"
            assert f"more than {PAIRS_LIMIT} pipelines and owners" in problem["detail"]
            assert "name a pipeline, a state or an owner" in problem["detail"]
            assert "churn" not in wide.text
            asked = [
                question["action"]["name"] for a in there.asked[before:] for question in a.questions
            ]
            assert asked == ["list"], "about nothing that is in it"

            narrow = service.ask("GET", "/training-jobs?pipeline=fraud&limit=1000", lea())
            assert narrow.status_code == 200
            assert len(narrow.json()) == PAIRS_LIMIT // 2
        errors = [line["reason"] for line in service.audit() if line["decision"] == "error"]
        assert errors == ["FilterTooWide"]


async def record_jobs(path: Path) -> None:
    """One more than can be decided about, in two pipelines."""
    ledger = await Ledger.open(path)
    half = PAIRS_LIMIT // 2
    pipelines = ["fraud"] * half + ["churn"] * (half + 1)
    jobs = [spec(n, pipeline, f"corp/user{n}") for n, pipeline in enumerate(pipelines)]
    await ledger.apply([seen(job, JobState.SUCCEEDED) for job in jobs])
    await ledger.close()


# Settings that end the start, each by one sentence that names them

BAD = {
    "an issuer that cannot be reached": (
        ACCESS.replace('key = "corp.pem"', 'jwks = "http://127.0.0.1:1/keys"'),
        ROLES,
        "The setting issuers[corp].jwks: its keys cannot be fetched: ",
    ),
    "an issuer whose discovery cannot be reached": (
        ACCESS.replace('key = "corp.pem"\n', "").replace(ISSUER, "http://127.0.0.1:1/realm"),
        ROLES,
        "The setting issuers[corp].issuer: its keys cannot be fetched: ",
    ),
    "an issuer that is no address": (
        ACCESS.replace('key = "corp.pem"\n', "").replace(ISSUER, "corp"),
        ROLES,
        "The setting issuer of corp in ",
    ),
    "a key that is not there": (
        ACCESS.replace('"corp.pem"', '"absent.pem"'),
        ROLES,
        "The setting issuers[corp].key: ",
    ),
    "a key that is none": (
        ACCESS.replace('"corp.pem"', '"roles.toml"'),
        ROLES,
        "The setting issuers[corp].key: ",
    ),
    "no audience": (
        ACCESS.replace(f'audience = "{AUDIENCE}"\n', ""),
        ROLES,
        "The setting issuers[0].audience in ",
    ),
    "a decision point without a scheme": (
        REMOTE.format(engine="opa", url="pdp:8181"),
        ROLES,
        "The setting decisions.url in ",
    ),
    "a decision point beyond this machine without TLS": (
        REMOTE.format(engine="opa", url="http://pdp:8181"),
        ROLES,
        "The setting decisions.url: ",
    ),
    "a path that is none": (
        REMOTE.format(engine="opa", url="https://pdp") + 'path = "a//b"\n',
        ROLES,
        "The setting decisions.path: ",
    ),
    "a text with a colon": (
        REMOTE.format(engine="aissemble", url="https://pdp")
        .replace("[api_keys]", "#")
        .replace('file = "data/api-keys.json"', "")
        + 'action = "training-job:{action}"\n',
        ROLES,
        "The setting decisions.action: ",
    ),
    "certificates that are not there": (
        REMOTE.format(engine="opa", url="https://pdp") + 'ca = "absent.pem"\n',
        ROLES,
        "The setting decisions.ca: ",
    ),
    "an unknown action in the roles": (
        ACCESS,
        ROLES.replace('"stop"', '"fly"'),
        "The setting decisions.file: ",
    ),
    "rules that overlap": (
        ACCESS,
        ROLES.replace(', owner = "self"', "").replace('"stop"', '"read"'),
        "The setting decisions.file: ",
    ),
    "roles that are not there": (
        ACCESS.replace('"roles.toml"', '"absent.toml"'),
        ROLES,
        "The setting decisions.file: ",
    ),
    "tokens of a cluster without one": (
        ACCESS + '[kubernetes]\naudience = "model-training"\n',
        ROLES,
        "The setting kubernetes of the access file needs a cluster to ask: ",
    ),
}


@pytest.mark.parametrize(("access", "roles", "sentence"), BAD.values(), ids=BAD)
def test_a_broken_setting_ends_the_start_by_one_sentence_that_names_it(
    tmp_path: Path, access: str, roles: str, sentence: str
):
    write_files(tmp_path, access, roles)
    done = subprocess.run(
        command(tmp_path), env=environment(tmp_path), capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    [why] = [line for line in done.stderr.splitlines() if line.startswith("  why:")]
    assert sentence in why
    assert "Traceback" not in done.stderr
    assert "next: correct what is named" in done.stderr
