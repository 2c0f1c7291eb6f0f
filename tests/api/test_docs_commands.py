"""Every command of the tutorial, and every program in the documents, run as a reader would.

The tutorial's commands run in a real terminal against a real server, and what they print must be
what the page shows, but for ids and times.
"""

import contextlib
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SERVE = "model-training serve"
PATIENCE_S = 30.0


@dataclass
class Block:
    """One fenced block of a page; ``file`` is where the page says to save it."""

    kind: str
    file: str | None
    text: str


def blocks(page: str, kind: str | None = None) -> list[Block]:
    found = [Block(*match) for match in FENCE.findall((DOCS / page).read_text())]
    return [block for block in found if kind in (None, block.kind)]


class Reader:
    """Somebody who follows a page: a folder, a server if one was started, a terminal."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(root),
            "TERM": "dumb",
            "COLUMNS": "120",
            "MODEL_TRAINING_DATA": str(self.data),
        }
        self.status = 0
        self.server: subprocess.Popen[str] | None = None

    def save(self, page: str) -> None:
        """Save the files that the page shows."""
        for block in blocks(page):
            if block.file:
                file = self.root / block.file
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.text)

    def serve(self) -> str:
        """Run ``model-training serve`` as it stands in the page, on a free port; its first line."""
        with (self.root / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                shlex.split(SERVE), stdout=subprocess.PIPE, stderr=log, text=True, cwd=self.root,
                env=self.environment | {"MODEL_TRAINING_PORT": "0"},
            )  # fmt: skip
        assert self.server.stdout is not None
        return self.server.stdout.readline()

    def type(self, command: str, *, interrupted: bool = False) -> str:
        """What the terminal shows for this command; with Ctrl+C once it has shown something."""
        script = f"touch state; . ./state; (exit {self.status}); {command}\n"
        script += "status=$?; declare -p JOB > state 2> /dev/null; exit $status"
        outer, inner = pty.openpty()
        with subprocess.Popen(
            ["bash", "-c", script], stdin=inner, stdout=inner, stderr=inner, cwd=self.root,
            env=self.environment, start_new_session=True,
        ) as process:  # fmt: skip
            os.close(inner)
            shown = b""
            with contextlib.suppress(OSError):  # a terminal that nobody has open any more
                while piece := os.read(outer, 65_536):
                    if interrupted and not shown:
                        os.killpg(process.pid, signal.SIGINT)
                    shown += piece
            os.close(outer)
        self.status = process.returncode
        return shown.decode().replace("\r\n", "\n")

    def close(self) -> None:
        """Leave no job and no process behind."""
        if self.server is None:
            return
        for name in self.type("model-training list --state active | cut -f 1").split():
            self.type(f"model-training delete {name} --wait 20")
        self.server.send_signal(signal.SIGTERM)
        self.server.wait(PATIENCE_S)
        assert self.server.stdout is not None
        self.server.stdout.close()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    reader.close()


def steps(text: str) -> list[tuple[str, str]]:
    """Each command of a console block with what the page shows for it."""
    _, *parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]


def blurred(text: str) -> str:
    """Without what differs from run to run: ids, times, the port, the widths of columns."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", text)
    text = re.sub(r"request: [0-9a-f]{16}", "request: ID", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "HOST", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", text)
    return re.sub(r"[ \t]+(?=\n)", "", re.sub(r"[ \t]+", " ", text))


def shows(shown: str, expected: str) -> bool:
    """Whether the terminal shows what the page does; a line of dots stands for any lines."""
    lines = (
        r"(?:.*\n)*?" if line == "...\n" else re.escape(line)
        for line in blurred(expected).splitlines(keepends=True)
    )
    return re.fullmatch("".join(lines), blurred(shown)) is not None


def test_every_command_of_the_tutorial_shows_what_the_page_shows(reader: Reader):
    reader.save("tutorial.md")
    for block in blocks("tutorial.md", "console"):
        for command, expected in steps(block.text):
            if command == SERVE:
                shown = reader.serve()
            else:
                shown = reader.type(command, interrupted="^C" in expected)
            assert shows(shown, expected.replace("^C\n", "\n")), f"$ {command}\n{shown}"
