"""The commands and programs of the documents, run as a reader would run them.

Commands run in a real terminal against a real server, and what they print must be
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

from model_training import Client

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

    def serve(self, port: str = "0") -> str:
        """Run ``model-training serve`` as it stands in the page; its first line."""
        with (self.root / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                shlex.split(SERVE), stdout=subprocess.PIPE, stderr=log, text=True, cwd=self.root,
                env=self.environment | {"MODEL_TRAINING_PORT": port},
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
        with self.client() as client:
            for job in client.list(state="active"):
                client.delete(job.name, wait=20)
        self.end()

    def client(self) -> Client:
        return Client(data=self.data)

    def add(self, name: str, code: str) -> None:
        """Register a pipeline of one script."""
        folder = self.root / name
        folder.mkdir()
        declaration = f'name = "{name}"\ncommand = ["python3", "main.py"]\n'
        (folder / "pipeline.toml").write_text(declaration)
        (folder / "main.py").write_text(code)
        self.type(f"model-training pipeline add {name}")
        assert self.status == 0

    def end(self) -> None:
        """End the server; jobs go on."""
        assert self.server is not None
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


@pytest.mark.parametrize("page", ["tutorial.md", "howto/checkpoint-on-stop.md"])
def test_every_command_of_a_page_shows_what_the_page_shows(reader: Reader, page: str):
    reader.save(page)
    commands = [step for block in blocks(page, "console") for step in steps(block.text)]
    if SERVE not in dict(commands):
        reader.serve()
    for command, expected in commands:
        if command == SERVE:
            shown = reader.serve()
        else:
            shown = reader.type(command, interrupted="^C" in expected)
        assert shows(shown, expected.replace("^C\n", "\n")), f"$ {command}\n{shown}"


def test_everything_that_stands_in_the_data_folder_is_drawn_in_its_page(reader: Reader):
    reader.serve()
    reader.add("later", "import time\ntime.sleep(60)\n")
    with reader.client() as client:
        client.create("digits", {"epochs": 1}).wait()
        client.create("later")
    drawn = drawn_paths()
    for path in reader.data.rglob("*"):
        finished = path.with_suffix("") if path.suffix in {".tmp", ".new"} else path
        place = finished.relative_to(reader.data).as_posix()
        assert any(pattern.fullmatch(place) for pattern in drawn), place


def drawn_paths() -> list[re.Pattern[str]]:
    """What the page draws, as patterns; a folder's parents may stand there, too."""
    [tree] = blocks("reference/files.md", "text")
    paths: set[str] = set()
    folder = ""
    for line in tree.text.splitlines():
        path = line.split()[0].rstrip("/")
        folder = folder if line.startswith(" ") else path
        paths |= {folder, f"{folder}/{path}" if line.startswith(" ") else path}
    paths |= {str(parent) for path in paths for parent in Path(path).parents}
    paths |= {"ledger.sqlite3-wal", "ledger.sqlite3-shm", "jobs/SHARD/NAME/output/.*"}
    words = {"NAME": "[a-z0-9-]+", "SHARD": "[0-9a-f]{2}", "OFFSET": "[0-9]{20}"}
    return [re.compile(re.sub("|".join(words), lambda m: words[m[0]], path)) for path in paths]


def test_the_program_that_follows_a_log_survives_a_restart_of_the_server(reader: Reader):
    reader.save("howto/read-logs-from-another-program.md")
    url = reader.serve().split()[-1]
    reader.add(
        "gated",
        "import os, time\nprint('before')\n"
        "while not os.path.exists('open'): time.sleep(0.02)\nprint('after'); raise SystemExit(7)\n",
    )
    with reader.client() as client:
        name = client.create("gated").name
    told = {"URL": url, "TOKEN": (reader.data / "token").read_text().strip(), "JOB": name}
    with subprocess.Popen(
        [sys.executable, "follow.py"], stdout=subprocess.PIPE, cwd=reader.root,
        env=reader.environment | told,
    ) as program:  # fmt: skip
        assert program.stdout is not None
        assert program.stdout.readline() == b"before\n"
        reader.end()
        reader.serve(url.rpartition(":")[2])
        (reader.root / "gated" / "open").touch()
        assert program.stdout.read() == b"after\n"
    assert program.returncode == 7


def test_the_programs_of_the_python_page_run(reader: Reader):
    reader.serve()
    for number, block in enumerate(blocks("reference/python.md", "python")):
        (reader.root / f"program{number}.py").write_text(block.text)
        shown = reader.type(f"python3 program{number}.py")
        assert reader.status == 0, shown
    assert (reader.root / "model.json").exists()
