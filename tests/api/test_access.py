"""A whole service under an access file: who comes in, what they see, and what is written down."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.unit.token_forge import AUDIENCE, ISSUER, Forge

FORGE = Forge()
PIPELINE = """
name = "{name}"
command = ["sh", "-c", "echo printed; echo kept > $MODEL_TRAINING_OUTPUT/model.json"]
"""
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
engine = "roles"
file = "roles.toml"
"""
ROLES = """
[roles.fraud]
service = ["list"]
allow = [
    { actions = ["create", "list", "read", "read_logs", "read_outputs"], pipelines = ["fraud"] },
    { actions = ["stop", "delete"], pipelines = ["fraud"], owner = "self" },
]

[roles.reader]
service = ["list"]
allow = [{ actions = ["list", "read"], pipelines = ["*"] }]

[[bindings]]
role = "fraud"
principals = ["corp/lea", "key/nightly"]
groups = ["corp/fraud"]

[[bindings]]
role = "reader"
principals = ["corp/kim"]
"""


@dataclass
class Service:
    """A server process, its folder, and callers."""

    url: str
    root: Path

    def ask(self, method: str, path: str, token: str | None = None, **more) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= more.pop("headers", {})
        return httpx2.request(method, self.url + path, headers=headers, timeout=20, **more)

    def audit(self) -> list[dict]:
        text = (self.root / "data/audit.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def create(self, token: str, pipeline: str = "fraud") -> str:
        answer = self.ask("POST", f"/training-jobs?pipeline={pipeline}", token)
        assert answer.status_code == 201, answer.text
        return answer.json()["name"]


def user(name: str, **claims: object) -> str:
    header = {"alg": "RS256", "typ": "JWT"}
    return FORGE.sign(header, FORGE.claims(sub=name, **claims), "RS256")


def write_files(root: Path, access: str = ACCESS, roles: str = ROLES) -> None:
    for name in ("fraud", "churn"):
        folder = root / "pipelines" / name
        folder.mkdir(parents=True)
        (folder / "pipeline.toml").write_text(PIPELINE.format(name=name))
    (root / "corp.pem").write_bytes(FORGE.pem())
    (root / "roles.toml").write_text(roles)
    (root / "roles.toml").chmod(0o644)
    (root / "access.toml").write_text(access)


def environment(root: Path) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MODEL_TRAINING")}
    return clean | {"MODEL_TRAINING_DATA": str(root / "data")}


def command(root: Path, *arguments: str) -> list[str]:
    more = ("--access", str(root / "access.toml"), "--pipelines", str(root / "pipelines"))
    return [sys.executable, "-m", "model_training", "serve", "--port", "0", *more, *arguments]


@contextmanager
def serving(root: Path, *arguments: str) -> Iterator[Service]:
    with (
        (root / "server.log").open("w") as log,
        subprocess.Popen(
            command(root, *arguments),
            env=environment(root),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "ready at" in line, (root / "server.log").read_text()
            yield Service(line.split()[-1], root)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("access")
    write_files(root)
    with serving(root) as one:
        yield one


def test_a_user_of_an_issuer_trains_what_their_role_says(service: Service):
    lea = user("lea")
    name = service.create(lea)

    assert service.ask("GET", f"/training-jobs/{name}/status", lea).json()["owner"] == "corp/lea"
    refused = service.ask("POST", "/training-jobs?pipeline=churn", lea)
    assert refused.status_code == 403
    assert refused.json()["type"] == "/problems/forbidden"


def test_what_may_not_be_read_answers_as_what_is_not_there(service: Service):
    name = service.create(user("lea"))
    eve = user("eve")
    absent = name[:-1] + ("0" if name[-1] != "0" else "1")
    for method, rest in (
        ("GET", ""), ("GET", "/status"), ("GET", "/outputs"), ("GET", "/outputs/model.json"),
        ("POST", "/stop"), ("DELETE", ""),
    ):  # fmt: skip
        hidden = service.ask(method, f"/training-jobs/{name}{rest}", eve)
        missing = service.ask(method, f"/training-jobs/{absent}{rest}", eve)
        assert hidden.status_code == missing.status_code == 404
        told = [
            {**answer.json(), "request_id": "", "detail": answer.json()["detail"][-9:]}
            for answer in (hidden, missing)
        ]
        assert hidden.json()["detail"] == missing.json()["detail"].replace(absent, name)
        assert told[0] | {"detail": ""} == told[1] | {"detail": ""}


def test_who_may_read_and_no_more_is_told_so(service: Service):
    name = service.create(user("lea"))
    kim = user("kim")
    assert service.ask("GET", f"/training-jobs/{name}/status", kim).status_code == 200
    for method, rest in (("GET", ""), ("POST", "/stop"), ("DELETE", "")):
        assert service.ask(method, f"/training-jobs/{name}{rest}", kim).status_code == 403
    other = service.create(user("ben", groups=["fraud"]))
    assert service.ask("DELETE", f"/training-jobs/{other}", user("lea")).status_code == 403


def test_lists_hold_what_may_be_read(service: Service):
    name = service.create(user("lea"))
    for who, sees in (("lea", True), ("kim", True), ("ben", False)):
        answer = service.ask("GET", "/training-jobs", user(who))
        if who == "ben":
            assert answer.status_code == 403
        else:
            assert (name in [job["name"] for job in answer.json()]) == sees


@pytest.mark.parametrize(
    "credential",
    [
        "", "Bearer", "Bearer x", "Bearer x.y.z", "Basic bGVhOmxlYQ==",
        "Bearer mta_aaaaaaaa_" + "x" * 43,
    ],
)  # fmt: skip
def test_nobody_we_know_is_told_to_say_who_they_are(service: Service, credential: str):
    answer = service.ask("GET", "/training-jobs", headers={"Authorization": credential})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_refused_credential_is_told_as_such(service: Service):
    answer = service.ask("GET", "/training-jobs", user("lea", aud="other"))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert "audience" not in answer.text


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/training-jobs?access_token={}", {}),
        ("/training-jobs?TOKEN={}", {}),
        ("/training-jobs", {"X-API-Key": "{}"}),
        ("/training-jobs", {"Proxy-Authorization": "Bearer {}"}),
    ],
)
def test_a_credential_in_another_place_is_refused(service: Service, path: str, headers):
    lea = user("lea")
    given = {name: value.format(lea) for name, value in headers.items()}
    for token in (None, lea):
        answer = service.ask("GET", path.format(lea), token, headers=given)
        assert answer.status_code == 400
        assert lea not in answer.text


def test_the_local_token_is_good_no_more(service: Service):
    token = (service.root / "data/token").read_text().strip()
    assert service.ask("GET", "/training-jobs", token).status_code == 401


def test_a_key_is_good_for_what_it_was_made_for(service: Service):
    argv = [sys.executable, "-m", "model_training", "access", "key", "create", "nightly"]
    more = ("--actions", "create,read", "--pipelines", "fraud")
    made = subprocess.run(
        [*argv, *more], env=environment(service.root), capture_output=True, text=True, check=True
    )
    key = made.stdout.strip()
    name = service.create(key)

    assert service.ask("GET", f"/training-jobs/{name}/status", key).json()["owner"] == "key/nightly"
    assert service.ask("GET", f"/training-jobs/{name}", key).status_code == 403
    assert service.ask("DELETE", f"/training-jobs/{name}", key).status_code == 403
    assert service.ask("GET", "/training-jobs", key).status_code == 403


def test_every_decision_is_written_down_and_no_credential(service: Service):
    lea = user("lea", jti="canary-jti")
    name = service.create(lea)
    headers = {"X-Request-ID": "audit-1"}
    assert service.ask("DELETE", f"/training-jobs/{name}", lea, headers=headers).status_code == 202

    [line] = [line for line in service.audit() if line["request_id"] == "audit-1"]
    assert line["method"] == "DELETE"
    assert line["route"] == "/training-jobs/{name}"
    assert line["client"] == "127.0.0.1"
    assert line["subject"]["id"] == "corp/lea"
    assert line["action"] == "delete"
    assert line["resource"] == {
        "type": "training_job", "id": name, "pipeline": "fraud", "owner": "corp/lea",
    }  # fmt: skip
    assert (line["decision"], line["engine"]) == ("permit", "roles")
    text = (service.root / "data/audit.jsonl").read_text()
    assert lea not in text
    assert "canary-jti" not in text


# The start


@pytest.mark.parametrize(
    ("access", "roles", "words"),
    [
        ("", ROLES, "The setting decisions in"),
        (ACCESS.replace("corp.pem", "absent.pem"), ROLES, "issuers[corp].key"),
        (ACCESS.replace('"RS256"', '"HS256"'), ROLES, "issuers[corp].algorithms: HS256"),
        (ACCESS, ROLES.replace('"create"', '"fly"'), "decisions.file"),
        (ACCESS + '[kubernetes]\naudience = "a"\n', ROLES, "needs a cluster to ask"),
    ],
)
def test_a_broken_setting_ends_the_start(tmp_path: Path, access: str, roles: str, words: str):
    write_files(tmp_path, access, roles)
    done = subprocess.run(
        command(tmp_path), env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_beyond_this_machine_access_and_tls_are_needed(tmp_path: Path):
    write_files(tmp_path)
    plain = [sys.executable, "-m", "model_training", "serve", "--host", "0.0.0.0", "--port", "0"]
    for argv, words in (
        (plain, "no access control is configured"),
        (command(tmp_path, "--host", "0.0.0.0"), "without TLS"),
    ):
        done = subprocess.run(
            argv, env=environment(tmp_path), capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert words in done.stderr


def test_older_deployments_come_in_by_their_properties(tmp_path: Path):
    write_files(tmp_path)
    (tmp_path / "access.toml").rename(tmp_path / "unused.toml")
    (tmp_path / "auth.properties").write_text(
        "public_key_path=corp.pem\nis_authorization_enabled=false\n"
    )
    argv = ("--access", str(tmp_path / "auth.properties"))
    claims = {"iss": "aissemble.authority", "aud": "audience"}
    with serving(tmp_path, *argv) as service:
        token = FORGE.sign({"alg": "RS256"}, FORGE.claims(**claims), "RS256")
        assert service.ask("GET", "/training-jobs", token).status_code == 200
        assert service.ask("GET", "/training-jobs", user("lea")).status_code == 401
        assert service.ask("GET", "/training-jobs").status_code == 401
    assert "authorization is switched off" in (tmp_path / "server.log").read_text()
