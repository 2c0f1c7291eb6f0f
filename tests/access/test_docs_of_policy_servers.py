"""The howtos of policy servers, followed by a reader: their files, their commands, then a job.

Ports are the pages' but for being free, and tokens are by a key of ours, as the pages' issuer is
nobody's. Servers are started by the very command of the page.
"""

import asyncio
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.access.servers import cerbos
from tests.access.servers.tools import PolicyProcess, free_port, go_program, started
from tests.api.test_access import FORGE, serving, user
from tests.api.test_docs_commands import DOCS, Block, blocks, steps
from tests.waiting import until

PORT = re.compile(r"127\.0\.0\.1:(\d+)")
# What a page runs in the foreground of another terminal, and how it is seen to be ready.
SERVERS = {"opa run": "/health", "cerbos server": "/_cerbos/health", "openfga run": "/healthz"}
COMMAND = Path(sys.executable).with_name("model-training")
PIPELINE = 'name = "{}"\ncommand = ["true"]\n'
END = FORGE.now() + 7200  # beyond all of these tests
LEA = user("lea", groups=["data-science"], exp=END)


class Reader:
    """Somebody who follows one section of a page, in a folder of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._ports: dict[str, str] = {}
        self._servers = ExitStack()
        self._programs = root / "bin"
        self._programs.mkdir()
        programs = {name: go_program(name) for name in ("opa", "openfga")}
        for name, program in {**programs, "cerbos": cerbos.program()}.items():
            (self._programs / name).symlink_to(program)
        (self._programs / "model-training").symlink_to(COMMAND)

    def close(self) -> None:
        """Leave no process behind."""
        self._servers.close()

    def with_free_ports(self, text: str) -> str:
        """The same number has the same free port throughout a page."""

        def free(match: re.Match[str]) -> str:
            port = self._ports.setdefault(match[1], str(free_port()))
            return f"127.0.0.1:{port}"

        return PORT.sub(free, text)

    def follow(self, block: Block) -> None:
        """Save what is a file, and run what are commands; they show what the page shows."""
        text = self.with_free_ports(block.text)
        if block.kind == "console":
            for command, expected in steps(joined(text)):
                self._run(command, expected)
            return
        [name] = re.findall(r"\A# (\S+)\n", text)
        (self.root / name).write_text(text)

    def _run(self, command: str, expected: str) -> None:
        for server, health in SERVERS.items():
            if command.startswith(server):
                self._start(command, health)
                return
        # What a command sets is there for the next, as in one terminal.
        script = f"touch state; . ./state; {command}\nstatus=$?\n"
        script += "declare -p STORE > state 2> /dev/null; exit $status"
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.root, capture_output=True, text=True, check=False,
            env={"PATH": f"{self._programs}:/usr/bin:/bin", "HOME": str(self.root)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert blurred(done.stdout) == blurred(expected), command

    def _start(self, command: str, health: str) -> None:
        program, *arguments = shlex.split(command)
        ports = PORT.search(command) or PORT.search((self.root / "cerbos.yaml").read_text())
        assert ports is not None
        argv = [str(self._programs / program), *arguments]
        server = PolicyProcess(f"http://{ports[0]}", argv, self.root, health)
        self._servers.enter_context(started(server))


def joined(text: str) -> str:
    """Commands that go on in a next line, as one line; what is in quotes may have new lines."""
    return text.replace("\\\n> ", "").replace("\n> ", " ")


def blurred(text: str) -> str:
    """Without what differs from run to run, and blank lines: ids and times."""
    text = re.sub(r"01[0-9A-Z]{24}", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    return "\n".join(line for line in text.splitlines() if line)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    reader.close()


def section(page: str, title: str) -> list[Block]:
    """The blocks below a heading of a page; all of them for no title."""
    if not title:
        return blocks(page)
    text = (DOCS / page).read_text().split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    return [block for block in blocks(page) if block.text in text]


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("howto/decide-with-opa.md", ""),
        ("howto/decide-with-authzen.md", "Cerbos"),
        ("howto/decide-with-authzen.md", "OpenFGA"),
    ],
)
def test_whoever_follows_the_page_has_a_service_that_decides_so(
    reader: Reader, page: str, title: str
):
    for block in section(page, title):
        reader.follow(block)
    prepare_service(reader.root)

    with serving(reader.root) as service:
        name = service.create(LEA, "fraud-cards")
        for pipeline in ("churn", "fraud"):
            refused = service.ask("POST", f"/training-jobs?pipeline={pipeline}", LEA)
            assert refused.status_code == 403
        status = f"/training-jobs/{name}/status"
        assert service.ask("GET", status, LEA).json()["owner"] == "corp/lea"
        assert service.ask("GET", status, user("eve")).status_code == 404
        ended = {"succeeded", "failed"}
        asyncio.run(
            until(lambda: service.ask("GET", status, LEA).json()["state"] in ended, within=30)
        )
        assert service.ask("DELETE", f"/training-jobs/{name}", LEA).status_code == 202


def prepare_service(root: Path) -> None:
    """Pipelines, the issuer's key, and the store's id where the page says so."""
    for pipeline in ("fraud-cards", "churn", "fraud"):
        folder = root / "pipelines" / pipeline
        folder.mkdir(parents=True)
        (folder / "pipeline.toml").write_text(PIPELINE.format(pipeline))
    (root / "corp.pem").write_bytes(FORGE.pem())
    access = (root / "access.toml").read_text()
    if "STORE" in access:
        [store] = re.findall(r'STORE="\S*/stores/(\w+)"', (root / "state").read_text())
        access = access.replace("STORE", store)
    key = 'algorithms = ["RS256"]\nkey = "corp.pem"\n'
    (root / "access.toml").write_text(access.replace("[[issuers]]\n", f"[[issuers]]\n{key}"))
