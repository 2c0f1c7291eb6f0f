"""Where secrets must not be: one is put into every place that may hold one, and then looked for.

A representative session over HTTPS, with everything that logs at its most talkative: good requests
and every kind of error, a decision point that refuses, talks nonsense and is away. Then all that
this leaves is searched: logs, audit, answers, what the decision point was asked, the process list,
the data folder.
"""

import base64
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anyio.from_thread import start_blocking_portal

from tests.api.access_world import KEYS, DecisionPoint, Question, jwt, wait
from tests.api.kept import states
from tests.api.test_access import FORGE, ISSUER, environment
from tests.api.test_network import make_certificate

ACCESS = f"""
local_token = true

[[issuers]]
name = "corp"
issuer = "{ISSUER}"
audience = "model-training"
algorithms = ["RS256"]
key = "corp.pem"

[api_keys]
file = "api-keys.json"

[decisions]
engine = "authzen"
url = "{{url}}"
token = "pdp-token"
"""
# The job's own command, told from every other process by the words behind the sharp.
COMMAND = "echo printed; echo kept > $MODEL_TRAINING_OUTPUT/model.json; sleep 600 # the-job"
PIPELINE = f"""
name = "{{name}}"
command = ["sh", "-c", "{COMMAND}", "the-job"]
{{more}}
[parameters.secret]
type = "string"
[parameters.epochs]
type = "integer"
"""
# Talkative from the first line on: the service sets a level only where there is none yet.
MAIN = (
    "import logging; logging.basicConfig(level=logging.DEBUG); "
    "from model_training.cli.main import main; main()"
)


def canary(name: str) -> str:
    """A text that stands nowhere by chance."""
    return f"canary{name}{os.urandom(9).hex()}"


BY_ENV, BY_FLAGS, REFUSED_VALUE = canary("env"), canary("flags"), canary("refused")
VALUES = {"by env": BY_ENV, "by flags": BY_FLAGS, "of a refused job": REFUSED_VALUE}
CLAIM, COOKIE, BASIC, DIGEST = canary("claim"), canary("cookie"), canary("basic"), canary("digest")
QUERY, HEADER, PDP_TOKEN, PROXY = canary("query"), canary("header"), canary("pdp"), canary("proxy")
LEA = jwt("lea", email=CLAIM)
EXPIRED = jwt("lea", exp=1)
BASIC_SENT = base64.b64encode(f"lea:{BASIC}".encode()).decode()


@dataclass
class Evidence:
    """What a session has left behind."""

    data: Path
    credentials: dict[str, str]
    """a part of each that no other text has"""
    answers: list[tuple[str, httpx2.Response]] = field(default_factory=list)
    processes: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    """command line and environment, while the jobs ran; the server's own aside"""
    modes: dict[str, int] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    """of the data folder, while the jobs ran and behind their end"""
    log: bytes = b""
    asked: bytes = b""
    """what the decision point was asked"""

    def errors(self) -> dict[str, bytes]:
        return {told: whole(answer) for told, answer in self.answers if answer.status_code >= 400}

    def about_the_service(self) -> dict[str, bytes]:
        paths = ("/metrics", "/openapi.json", "/docs", "/pipelines")
        return {
            told: whole(answer)
            for told, answer in self.answers
            if answer.request.url.path.startswith(paths)
        }

    def logs(self) -> dict[str, bytes]:
        return {"server's output": self.log, "audit log": self.files["audit.jsonl"]}


def whole(answer: httpx2.Response) -> bytes:
    return repr(answer.headers.multi_items()).encode() + answer.content


def found(secrets: dict[str, str], sinks: dict[str, bytes]) -> list[str]:
    """Each secret that is in a sink."""
    assert sinks
    return [
        f"{name} in {sink}"
        for name, secret in secrets.items()
        for sink, text in sinks.items()
        if secret.encode() in text
    ]


# The session


@contextmanager
def talkative(root: Path) -> Iterator[tuple[str, int]]:
    """The service, at its most talkative, with a password in its proxy's address; its process."""
    certificate, key = make_certificate(root, "server")
    options = {
        "access": root / "access.toml", "pipelines": root / "pipelines", "port": 0, "slots": 4,
        "tls-certificate": certificate, "tls-key": key,
    }  # fmt: skip
    argv = [f"--{name}={value}" for name, value in options.items()]
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), f"http://lea:{PROXY}@127.0.0.1:9")
    with (
        (root / "server.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-c", MAIN, "serve", *argv],
            env=environment(root) | proxies | {"PYTHONASYNCIODEBUG": "1"},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            log.write(line.encode())
            assert "ready at" in line, (root / "server.log").read_text()
            yield line.split()[-1], process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            rest, _ = process.communicate(timeout=30)
            log.write(rest.encode())


def write_files(root: Path, url: str) -> None:
    for name, more in (("quiet", ""), ("loud", 'arguments = "flags"')):
        folder = root / "pipelines" / name
        folder.mkdir(parents=True)
        (folder / "pipeline.toml").write_text(PIPELINE.format(name=name, more=more))
    (root / "corp.pem").write_bytes(FORGE.pem())
    (root / "access.toml").write_text(ACCESS.format(url=url))
    for name, text in (
        ("pdp-token", PDP_TOKEN),
        ("api-keys.json", json.dumps({"keys": [record for _, record in KEYS.values()]})),
    ):
        (root / name).touch(0o600)
        (root / name).write_text(text)


def by_name(question: Question) -> bool:
    """Lea may do everything; the API key's holder may read jobs and no more."""
    return question["subject"]["id"] != "key/nightly" or question["action"]["name"] == "read"


@dataclass
class Session:
    """Asks, and keeps every answer."""

    client: httpx2.Client
    kept: list[tuple[str, httpx2.Response]]

    def ask(self, method: str, path: str, token: str | None = LEA, **more: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= more.pop("headers", {})
        answer = self.client.request(method, path, headers=headers, **more)
        self.kept.append((f"{method} {path[:40]} -> {answer.status_code}", answer))
        return answer

    def create(self, pipeline: str, value: str, key: str | None = None) -> str:
        headers = {"Idempotency-Key": key} if key else {}
        path = f"/training-jobs?pipeline={pipeline}"
        answer = self.ask("POST", path, json={"secret": value, "epochs": 1}, headers=headers)
        assert answer.status_code == 201, answer.text
        return answer.json()["name"]


def good_requests(session: Session, names: list[str], local: str) -> None:
    key = KEYS["any"][0]
    for token in (LEA, local, key):
        for path in ("/training-jobs", "/pipelines", "/metrics", "/openapi.json", "/docs"):
            session.ask("GET", path, token)
    for name in names:
        for rest in ("", "/status", "/outputs", "/outputs/model.json"):
            session.ask("GET", f"/training-jobs/{name}{rest}")
            session.ask("GET", f"/training-jobs/{name}{rest}", key)
    session.ask("GET", "/pipelines/loud")


def bad_credentials(session: Session, name: str) -> None:
    path = f"/training-jobs/{name}/status"
    for authorization in (f"Basic {BASIC_SENT}", f'Digest username="{DIGEST}"', f"Bearer {LEA} x"):
        session.ask("GET", path, None, headers={"Authorization": authorization})
    for token in (EXPIRED, LEA[:-6] + "AAAAAA", KEYS["any"][0][:-1] + "_", "opaque" + DIGEST):
        session.ask("GET", path, token)
    session.ask("GET", path, None, headers={"Cookie": f"session={COOKIE}"})
    session.ask("GET", path, headers={"Cookie": f"session={COOKIE}"})
    for option in ("access_token", "token", "x"):
        session.ask("GET", f"{path}?{option}={QUERY}")
        session.ask("GET", f"/nowhere?{option}={QUERY}")
    for header in ("X-API-Key", "Proxy-Authorization", "X-Auth-Token"):
        session.ask("GET", path, headers={header: HEADER})


def bad_requests(session: Session, name: str) -> None:
    """Every kind of error, each with a good value beside what is wrong."""
    path, good = "/training-jobs?pipeline=quiet", {"secret": REFUSED_VALUE}
    session.ask("POST", path, json={**good, "epochs": "many"})
    session.ask("POST", path, json={**good, "unknown": 1})
    session.ask("POST", "/training-jobs?pipeline=absent", json=good)
    session.ask("POST", path + "&gpu=900", json=good)
    session.ask("POST", path, json={**good, "epochs": 2}, headers={"Idempotency-Key": "once"})
    session.ask("POST", path, KEYS["any"][0], json=good)
    half = json.dumps(good).encode()[:-1]
    for body in (half, half + b',"secret":1}', b"\xff" + half, half + b',"epochs":NaN}'):
        session.ask("POST", path, content=body, headers={"Content-Type": "application/json"})
    session.ask("POST", path, content=half, headers={"Content-Type": "text/plain"})
    session.ask("POST", path, content=half + b" " * 2_000_000)
    session.ask("PUT", path, json=good)
    for rest in ("/outputs/absent", "/x", "?tail=x", "?since=x"):
        session.ask("GET", f"/training-jobs/{name}{rest}")
    session.ask("GET", f"/training-jobs/{name}", headers={"Range": "bytes=999999-"})
    session.ask("GET", "/training-jobs", headers={"Origin": "https://evil.example"})
    session.ask("GET", "/training-jobs", headers={"Host": "evil.example"})


def unanswered_requests(session: Session, point: DecisionPoint, name: str) -> None:
    body = {"secret": REFUSED_VALUE}
    for decision in ("deny", "nonsense", "away"):
        with point.behaving(decision):
            for _ in range(7):  # the breaker opens meanwhile, and says so in the log
                session.ask("POST", "/training-jobs?pipeline=quiet", json=body)
            session.ask("GET", "/training-jobs")
            session.ask("DELETE", f"/training-jobs/{name}")
    wait(lambda: session.ask("GET", "/training-jobs").status_code == 200)


def followed(session: Session, name: str) -> None:
    """The log until the job ends, which is stopped meanwhile."""
    headers = {"Authorization": f"Bearer {LEA}", "Accept": "text/event-stream"}
    with session.client.stream("GET", f"/training-jobs/{name}", headers=headers) as answer:
        for line in answer.iter_lines():
            if line == "event: log":
                session.ask("POST", f"/training-jobs/{name}/stop")


def broken_log(session: Session, data: Path, name: str) -> None:
    """A fault of the service itself: what it keeps is not what it wrote."""
    [log] = data.glob(f"jobs/*/{name}/log/1")
    for index in log.glob("*.index"):
        index.unlink()
        index.mkdir()
    answer = session.ask("GET", f"/training-jobs/{name}?since=1h")
    assert answer.status_code == 500


def processes(server: int) -> dict[int, tuple[bytes, bytes]]:
    """Every process of this machine but the server and this one, with what of it can be read."""
    seen: dict[int, tuple[bytes, bytes]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line, own = ((folder / part).read_bytes() for part in ("cmdline", "environ"))
        except OSError:
            continue  # it has ended, or is somebody else's
        if int(folder.name) not in {server, os.getpid()}:
            seen[int(folder.name)] = (line, own)
    return seen


def files(data: Path) -> dict[str, Path]:
    return {str(path.relative_to(data)): path for path in data.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    root = tmp_path_factory.mktemp("canaries")
    data = root / "data"
    with start_blocking_portal() as portal:
        point = DecisionPoint(portal)
        point.decide(by_name)
        write_files(root, point.url)
        with talkative(root) as (url, pid):
            context = ssl.create_default_context(cafile=str(root / "server.pem"))
            local = (data / "token").read_text().strip()
            seen = Evidence(data, credentials(root, local))
            with httpx2.Client(base_url=url, verify=context, timeout=60) as client:
                session = Session(client, seen.answers)
                run(session, seen, point, local, pid)
        seen.log = (root / "server.log").read_bytes()
        seen.asked = repr([(asked.path, asked.body) for asked in point.asked]).encode()
        seen.files |= {name: path.read_bytes() for name, path in files(data).items()}
        point.close()
        yield seen


def run(session: Session, seen: Evidence, point: DecisionPoint, local: str, server: int) -> None:
    names = [session.create("quiet", BY_ENV, "once"), session.create("loud", BY_FLAGS)]
    wait(lambda: set(states(seen.data).values()) == {"running"})
    good_requests(session, names, local)
    bad_credentials(session, names[0])
    bad_requests(session, names[0])
    unanswered_requests(session, point, names[0])
    point.decide(by_name)
    seen.processes = processes(server)
    for name, path in files(seen.data).items():
        seen.modes[name], seen.files[name] = path.stat().st_mode & 0o777, path.read_bytes()
    for name in names:
        followed(session, name)
    broken_log(session, seen.data, names[0])
    for name in names:
        session.ask("DELETE", f"/training-jobs/{name}?wait=60")


def credentials(root: Path, local: str) -> dict[str, str]:
    return {
        "JWT": LEA.rpartition(".")[2][:40],
        "claims of the JWT": LEA.split(".")[1][-60:],
        "a claim of it": CLAIM,
        "expired JWT": EXPIRED.rpartition(".")[2][:40],
        "API key": KEYS["any"][0].rpartition("_")[2][:40],
        "local token": local,
        "cookie": COOKIE,
        "Basic": BASIC,
        "Basic, as it is sent": BASIC_SENT,
        "Digest": DIGEST,
        "token in the URL": QUERY,
        "header of another service": HEADER,
        "token for the decision point": PDP_TOKEN,
        "password in the proxy's address": PROXY,
        "private key": (root / "server.key").read_text().splitlines()[1],
    }


# What is held


def test_the_session_was_one_of_all_kinds(evidence: Evidence):
    statuses = {answer.status_code for _, answer in evidence.answers}
    assert statuses >= {
        200, 201, 202, 204, 400, 401, 403, 404, 405, 409, 413, 415, 416, 421, 422, 500, 503,
    }  # fmt: skip
    assert b"DEBUG" in evidence.log
    assert b"Traceback" in evidence.log
    assert b"is left alone" in evidence.log
    assert len(evidence.processes) > 2
    assert b'"decision"' in evidence.files["audit.jsonl"]


def test_no_credential_is_logged_answered_or_passed_on(evidence: Evidence):
    answers = {told: whole(answer) for told, answer in evidence.answers}
    sinks = evidence.logs() | answers | {"question": evidence.asked}
    assert found(evidence.credentials, sinks) == []


def test_no_credential_is_in_the_data_folder_but_the_local_token(evidence: Evidence):
    assert found(evidence.credentials, evidence.files) == ["local token in token"]
    assert evidence.modes["token"] == 0o600


def test_no_credential_is_in_the_process_list(evidence: Evidence):
    sinks = {f"process {pid}: {told}": told for pid, (line, own) in evidence.processes.items()
             for told in (line, own)}  # fmt: skip
    assert found(evidence.credentials, sinks) == []


def test_no_value_of_a_parameter_is_logged_or_told_in_an_error(evidence: Evidence):
    sinks = evidence.logs() | evidence.errors() | evidence.about_the_service()
    assert found(VALUES, sinks | {"question": evidence.asked}) == []


def test_values_are_kept_where_the_documentation_says_for_their_owner_alone(evidence: Evidence):
    holding = {
        name for name, text in evidence.files.items()
        if any(value.encode() in text for value in VALUES.values())
    }  # fmt: skip
    assert {path_kind(name) for name in holding} == {
        "ledger.sqlite3", "jobs/.open/NAME", "spec.json", "parameters.json",
    }  # fmt: skip
    open_to_others = {name: oct(evidence.modes[name]) for name in holding if name in evidence.modes
                      and evidence.modes[name] & 0o077}  # fmt: skip
    assert open_to_others == {}
    assert found({"refused": REFUSED_VALUE}, evidence.files) == []


def test_nobody_else_can_look_into_the_data_folder(evidence: Evidence):
    assert evidence.data.stat().st_mode & 0o777 == 0o700
    private = {name for name, mode in evidence.modes.items() if mode == 0o600}
    assert private >= {"token", "audit.jsonl", "ledger.sqlite3"}


def path_kind(name: str) -> str:
    """As docs/reference/files.md calls it."""
    if name.startswith("ledger.sqlite3"):
        return "ledger.sqlite3"
    return "jobs/.open/NAME" if name.startswith("jobs/.open/") else name.rpartition("/")[2]


def test_values_are_in_the_jobs_own_processes_alone(evidence: Evidence):
    lines = {pid: line for pid, (line, _) in evidence.processes.items()}
    with_flags = [line for line in lines.values() if BY_FLAGS.encode() in line]
    assert with_flags
    assert all(b"the-job" in line for line in with_flags)
    assert not [line for line in lines.values() if BY_ENV.encode() in line]
    with_values = {
        lines[pid] for pid, (_, own) in evidence.processes.items()
        if any(value.encode() in own for value in VALUES.values())
    }  # fmt: skip
    assert with_values
    assert all(b"the-job" in line or line.startswith(b"sleep") for line in with_values)
