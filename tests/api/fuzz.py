"""Thousands of generated requests against a real server: ``scripts/fuzz``, and a test.

(The tokens of ``scripts/fuzz`` are those of ``tests/unit/token_fuzz.py``.)

schemathesis reads our own OpenAPI document and tries to find an answer that it does not
describe, an operation that asks nobody who they are (``ignored_auth``), and a job that somebody
else may read (``object_level_authorization``). Two users by API keys may do everything with their
own jobs and nothing with the other's; ``ann`` sends what is generated, and jobs of ``ben`` must be
as if they were not there. As schemathesis asks for each operation only once as somebody else, and
understands JSON alone, ``fuzz_hooks.py`` adds a check of its own, which also holds for logs,
outputs, stops and deletes.

Jobs are real ones of a pipeline that only writes a file. schemathesis judges by all of its checks
but three: that every request which fits the schema is accepted (a pipeline's own declaration
refuses more, and so do made-up cursors); that what a POST tells of is there (a dry run tells of a
job that it does not make; ``tests/contract`` looks for each that is made); that nothing is there
after a DELETE (a job is shown until nothing of it is left).
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from schemathesis import __version__ as schemathesis_version

from tests.unit.token_fuzz import fuzz_tokens
from tests.waiting import until

PIPELINES = {
    "digits": ["sh", "-c", "echo printed; echo kept > $MODEL_TRAINING_OUTPUT/model.json"],
    "patient": ["sleep", "3600"],
}
ACCESS = """
[api_keys]
file = "keys.json"

[decisions]
engine = "roles"
file = "roles.toml"
"""
ROLES = """
[roles.trainer]
service = ["list", "read"]

[[roles.trainer.allow]]
actions = ["create", "list"]
pipelines = ["digits"]

[[roles.trainer.allow]]
actions = ["read", "read_logs", "read_outputs", "stop", "delete"]
pipelines = ["*"]
owner = "self"

[roles.patient]
allow = [{ actions = ["create"], pipelines = ["patient"] }]

[[bindings]]
role = "trainer"
principals = ["key/ann", "key/ben"]

[[bindings]]
role = "patient"
principals = ["key/ben"]
"""
OPERATIONS = 26  # about; turns a number of cases into schemathesis' number of examples
ROUNDS = 20
LEFT_OUT = "positive_data_acceptance,ensure_resource_availability,use_after_free"
HOOKS = Path(__file__).with_name("fuzz_hooks.py")


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs, and who uses it."""

    url: str
    keys: dict[str, str]
    """by user; the first sends what is generated"""
    theirs: tuple[str, ...]
    """jobs of the second: one that has ended, one that runs"""

    def ask(self, user: str, method: str, path: str) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.keys[user]}"}
        return httpx2.request(method, self.url + path, headers=headers, timeout=60)


@contextmanager
def fuzzed_server(root: Path) -> Iterator[Server]:
    """A server process with two users; ended, and its jobs with it, on leaving."""
    _write_files(root)
    keys = {user: _make_key(root, user) for user in ("ann", "ben")}
    argv = [
        sys.executable, "-m", "model_training", "serve", "--port", "0", "--slots", "4",
        "--data", str(root / "data"), "--pipelines", str(root / "pipelines"),
        "--access", str(root / "access.toml"),
    ]  # fmt: skip
    with (
        (root / "server.log").open("w") as log,
        subprocess.Popen(
            argv,
            # More than schemathesis ever sends in a second: a 429 would prove nothing.
            env={**os.environ, "MODEL_TRAINING_PRINCIPAL_RATE": "100000"},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            yield from _with_jobs(Server(url, keys, ()))
        finally:
            process.terminate()
            process.wait(timeout=30)


def _write_files(root: Path) -> None:
    for name, command in PIPELINES.items():
        folder = root / "pipelines" / name
        folder.mkdir(parents=True)
        text = f'name = "{name}"\ncommand = {json.dumps(command)}\n'
        (folder / "pipeline.toml").write_text(text)
    (root / "access.toml").write_text(ACCESS)
    (root / "roles.toml").write_text(ROLES)
    (root / "roles.toml").chmod(0o644)


def _make_key(root: Path, user: str) -> str:
    argv = [
        sys.executable, "-m", "model_training", "access", "key", "create", user,
        "--actions", "*", "--pipelines", "*", "--expires", "1d", "--file", str(root / "keys.json"),
    ]  # fmt: skip
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def _with_jobs(server: Server) -> Iterator[Server]:
    """The server once ben's jobs are there; afterwards they must still be as they were."""
    ended, running = (_start(server, pipeline) for pipeline in PIPELINES)
    states = {ended: "succeeded", running: "running"}
    for name, state in states.items():
        _wait_for(server, name, state)
    try:
        yield Server(server.url, server.keys, (ended, running))
        for name, state in states.items():
            now = server.ask("ben", "GET", f"/training-jobs/{name}/status").json()["state"]
            assert now == state, f"a job of ben that was {state} is {now}"
    finally:
        server.ask("ben", "DELETE", f"/training-jobs/{running}?wait=30")


def _start(server: Server, pipeline: str) -> str:
    answer = server.ask("ben", "POST", f"/training-jobs?pipeline={pipeline}")
    assert answer.status_code == 201, answer.text
    return answer.json()["name"]


def _wait_for(server: Server, name: str, state: str) -> None:
    path = f"/training-jobs/{name}/status"
    asyncio.run(until(lambda: server.ask("ben", "GET", path).json()["state"] == state, within=60))


def fuzz(root: Path, cases: int) -> int:
    """Send at least ``cases`` requests; how many it were.

    Raises:
        AssertionError: an answer was not as described, or told of what is somebody else's; with
            schemathesis' report.
    """
    sent = 0
    with fuzzed_server(root) as server:
        _write_settings(root, server)
        for _ in range(ROUNDS):
            sent += _one_round(root, server, cases - sent)
            if sent >= cases:
                break
    log = (root / "server.log").read_text()
    assert "Traceback" not in log, log[log.index("Traceback") :][:5000]
    tried = [len(re.findall(f'"key/ann",.*{name}.*"status":404', log)) for name in server.theirs]
    assert min(tried) >= cases // 100, f"jobs of somebody else were asked for only {tried} times"
    return sent


def _write_settings(root: Path, server: Server) -> None:
    """schemathesis' own, and the document that it reads, for which one must be somebody."""
    document = server.ask("ann", "GET", "/openapi.json")
    assert document.status_code == 200, document.text
    (root / "openapi.json").write_text(document.text)
    users = [
        {"name": user, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {key}"}]}
        for user, key in server.keys.items()
    ]
    (root / "users.json").write_text(json.dumps({"auth": users}))
    settings = f'hooks = "{HOOKS}"\n[auth.wfc]\npath = "users.json"\npeers = ["ann", "ben"]\n'
    (root / "schemathesis.toml").write_text(settings)


def _one_round(root: Path, server: Server, cases: int) -> int:
    argv = [
        str(Path(sys.executable).parent / "schemathesis"), "run", "openapi.json",
        "--url", server.url,
        "--phases", "examples,coverage,fuzzing,stateful",
        "--checks", "all", "--exclude-checks", LEFT_OUT,
        "--max-examples", str(max(10, cases // OPERATIONS)),
        "--generation-database", "none", "--request-timeout", "20", "--no-color",
        "--continue-on-failure",
    ]  # fmt: skip
    told = {"url": server.url, "key": server.keys["ann"], "theirs": server.theirs}
    done = subprocess.run(
        argv,
        check=False,
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONWARNINGS": "", "FUZZED_SERVER": json.dumps(told)},
    )
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert found, done.stdout[-2000:]
    return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000, help="requests; 0: none")
    parser.add_argument("--tokens", type=int, default=100_000, help="JSON Web Tokens; 0: none")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()) % 100_000, help="to repeat the tokens"
    )
    given = parser.parse_args()
    if given.tokens:
        _judge_tokens(given.tokens, given.seed)
    if given.cases:
        _send_cases(given.cases)


def _judge_tokens(number: int, seed: int) -> None:
    report = asyncio.run(fuzz_tokens(number, seed))
    sys.stdout.write(f"{report}\n")
    if report.wrong:
        sys.exit("\n".join(map(str, report.wrong[:20])))


def _send_cases(cases: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        try:
            sent = fuzz(Path(root), cases)
        except AssertionError as error:
            sys.exit(str(error))
    sys.stdout.write(
        f"{sent:,} cases by schemathesis {schemathesis_version}: every answer as described, "
        "nobody unknown let in, nothing told of what is somebody else's\n"
    )


if __name__ == "__main__":
    main()
