"""The howto of aiSSEMBLE's decision point, followed by a reader.

The real one is no process that can be had: in its place is our own, in its honest mode, which says
what the policy of the page says. That the policy says so is proved by ``tests/access``.
"""

import json
import os
import re
import signal
import subprocess
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from tests.api.test_access import FORGE
from tests.api.test_docs_commands import Reader, blocks, shows, steps
from tests.unit.access_lab.lying_pdp import FakePdp, fake_pdp

PAGE = "howto/decide-with-aissemble.md"
SERVE = "model-training serve --access access.toml"
PIPELINE = 'name = "{}"\ncommand = ["true"]\n'
URL = "http://127.0.0.1:8080"


def token(subject: str) -> str:
    """As aiSSEMBLE makes them: no ``kid`` and no ``typ``."""
    claims = FORGE.claims(sub=subject, iss="aissemble.authority", aud="audience")
    return FORGE.sign({"alg": "RS256"}, claims, "RS256")


def permits(question: dict[str, Any]) -> bool:
    claims = question["jwt"].split(".")[1]
    subject = json.loads(urlsafe_b64decode(claims + "=="))["sub"]
    action = question["action"].removeprefix("training-job-")
    return subject == "lea" and (
        (question["resource"].startswith("model-training/fraud-") and action != "delete")
        or (question["resource"] == "model-training/" and action == "list")
    )


@contextmanager
def honest_pdp() -> Iterator[FakePdp]:
    """It listens in a thread, so that this one can wait for commands."""
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(fake_pdp(permits)) as fake,
    ):
        yield fake


class AccessReader(Reader):
    """One who was given a token, a key, and a decision point that listens somewhere."""

    def __init__(self, root: Path, pdp: str) -> None:
        super().__init__(root)
        self.pdp = pdp
        self.environment |= {"TOKEN": token("lea")}
        (root / "public.pem").write_bytes(FORGE.pem())
        for name in ("fraud-cards", "churn"):
            (root / "pipelines" / name).mkdir(parents=True)
            (root / "pipelines" / name / "pipeline.toml").write_text(PIPELINE.format(name))

    def there(self, text: str) -> str:
        return text.replace(URL, self.pdp)

    def save(self, page: str) -> None:
        """The files that name themselves in their first line."""
        for block in blocks(page):
            if named := re.match(r"# (\S+)\n", block.text):
                (self.root / named[1]).write_text(self.there(block.text))

    def start(self, command: str) -> None:
        """Run a service, and wait until it is there."""
        argv = [*command.split(), "--port", "0", "--pipelines", "pipelines"]
        with (self.root / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                argv, stdout=subprocess.PIPE, stderr=log, text=True, cwd=self.root,
                env=self.environment,
            )  # fmt: skip
        assert self.server.stdout is not None
        assert "ready at" in self.server.stdout.readline(), self.log()

    def log(self) -> str:
        return (self.root / "server.log").read_text()

    def run(self, command: str) -> str:
        """What it shows; what it exports is there for the next."""
        if export := re.fullmatch(r"export (\w+)=\$(\w+)", command):
            self.environment[export[1]] = self.environment[export[2]]
            return ""
        return self.type(command)

    def close(self) -> None:
        if self.server is not None and self.server.poll() is None:
            self.server.send_signal(signal.SIGTERM)
            self.server.wait(20)
            assert self.server.stdout is not None
            self.server.stdout.close()


@pytest.fixture
def pdp() -> Iterator[FakePdp]:
    with honest_pdp() as fake:
        yield fake


@pytest.fixture
def reader(tmp_path: Path, pdp: FakePdp) -> Iterator[AccessReader]:
    reader = AccessReader(tmp_path, pdp.url)
    reader.save(PAGE)
    yield reader
    reader.close()


def test_every_command_of_the_page_shows_what_the_page_shows(reader: AccessReader, pdp: FakePdp):
    commands = [step for block in blocks(PAGE, "console") for step in steps(block.text)]
    assert SERVE in dict(commands)
    for command, expected in commands:
        if command == SERVE:
            reader.start(command)
            continue
        shown = reader.run(reader.there(command))
        assert shows(shown, reader.there(expected)), f"$ {command}\n{shown}"
    assert '<Policy xmlns="urn:oasis:names:tc:xacml:3.0' in (reader.root / "policy.xml").read_text()
    asked = {(each.body["resource"], each.body["action"]) for each in pdp.asked}
    assert ("model-training/fraud-cards", "training-job-delete") in asked
    assert {each.path for each in pdp.asked} == {"/api/pdp"}


def test_the_older_file_of_the_page_does_the_same(reader: AccessReader):
    reader.start("model-training serve --access auth.properties")
    reader.run("export MODEL_TRAINING_TOKEN=$TOKEN")
    assert "model-training-fraud-cards-" in reader.run("model-training create fraud-cards")
    assert "You may not create training_pipeline 'churn'" in reader.run(
        "model-training create churn"
    )
    assert "switched off" not in reader.log()


def test_its_switch_lets_everybody_in_who_has_a_token_and_says_so(reader: AccessReader):
    path = reader.root / "auth.properties"
    path.write_text(path.read_text().replace("enabled=true", "enabled=false"))
    reader.start("model-training serve --access auth.properties")
    reader.environment["MODEL_TRAINING_TOKEN"] = token("eve")
    reader.run("model-training create churn")
    assert reader.status == 0
    reader.environment["MODEL_TRAINING_TOKEN"] = token("eve")[:-8] + "AAAAAAAA"
    reader.run("model-training create churn")
    assert reader.status == 4
    assert "authorization is switched off" in reader.log()


def test_words_of_ones_own_are_sent(reader: AccessReader, pdp: FakePdp):
    [ours] = [block.text for block in blocks(PAGE, "toml") if "{owner}" in block.text]
    path = reader.root / "access.toml"
    issuers = path.read_text().partition("[decisions]")[0]
    path.write_text(issuers + reader.there(ours))
    pdp.permits = lambda question: True
    reader.start(SERVE)
    reader.run("export MODEL_TRAINING_TOKEN=$TOKEN")
    reader.run("JOB=$(model-training create fraud-cards)")
    reader.run("model-training status $JOB")
    asked = [(each.body["resource"], each.body["action"]) for each in pdp.asked[-2:]]
    assert asked == [
        ("local/training_pipeline/fraud-cards/", "create"),
        ("local/training_job/fraud-cards/aissemble/lea", "read"),
    ]
    assert {each.body["jwt"] for each in pdp.asked[-2:]} == {reader.environment["TOKEN"]}


def test_the_caller_without_a_token_of_an_issuer_has_no_way_in(reader: AccessReader):
    path = reader.root / "access.toml"
    path.write_text(path.read_text() + '\n[api_keys]\nfile = "keys.json"\n')
    done = subprocess.run(
        SERVE.split(), capture_output=True, text=True, check=False, cwd=reader.root,
        env=reader.environment | {"PATH": os.environ["PATH"] + ":" + reader.environment["PATH"]},
    )  # fmt: skip
    assert done.returncode != 0
    assert "aissemble cannot be asked about those who come in by api_keys" in done.stderr
