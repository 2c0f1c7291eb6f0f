"""``demo``: a trained model from nothing, by the same parts that everything else uses.

A server process on a free port of this machine, a job posted to it over HTTP, its log followed,
its model kept. The demo stops the server that it started, never one that ran before it.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from model_training.cli import exits
from model_training.cli.logs import LogPrinter, Narrator
from model_training.cli.talk import Talk
from model_training.client.events import Ended, LogBytes
from model_training.errors import ModelTrainingError, ServerUnreachable
from model_training.folders import DataFolder

if TYPE_CHECKING:
    from model_training.client.clients import Client

PIPELINE = "digits"
READY = "Model Training API ready at "
STOP_S = 10  # for the server to end by itself once it was asked
REMEMBERED = 65_536  # bytes of the log's end, in which the accuracy stands


@click.command
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Data folder of the demo; a new temporary one if not given. It stays.",
)
@click.option("--serve", is_flag=True, help="Leave the service running.")
@click.pass_obj
def demo_command(talk: Talk, data: Path | None, *, serve: bool) -> int:
    """Train the bundled pipeline `digits` through a service of its own; about 10 seconds.

    The exit code is the job's.
    """
    talk.aim = "run the demo"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop the server on the way out too
    folder = (data or Path(tempfile.mkdtemp(prefix="model-training-demo-"))).absolute()
    from model_training.client.clients import Client

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_server(talk, DataFolder(folder)))
        client = stack.enter_context(Client(url=server.url, data=folder))
        job = client.create(PIPELINE)
        talk.say(f"job:     {job.name}\n")
        code, accuracy = _watch(talk, client, job.name)
        if code == exits.OK:
            _say_result(talk, client, job.name, accuracy)
        if code == exits.INTERRUPTED:
            return code
        if serve:
            server.leave_running()
        _say_next(talk, folder, job.name, server, serves=serve or server.process is None)
        return code


class _Server:
    """A server, and its process if the demo started it."""

    def __init__(self, url: str, process: subprocess.Popen[str] | None) -> None:
        self.url = url
        self.process = process
        self.stays = False

    def leave_running(self) -> None:
        """Do not stop it at the end."""
        self.stays = True


@contextlib.contextmanager
def _server(talk: Talk, data: DataFolder) -> Generator[_Server]:
    if url := _running(data):
        talk.say(f"service: {url} (running already)\ndata:    {data.root}")
        yield _Server(url, None)
        return
    data.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = data.root / "server.log"
    command = [sys.executable, "-m", "model_training", "serve", "--port", "0"]
    command += ["--data", str(data.root)]
    with log.open("ab") as errors:
        # A session of its own: Ctrl+C reaches the demo, which then stops job and server in order.
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
    server = _Server("", process)
    try:
        server.url = _ready(process, log)
        talk.say(f"service: {server.url}\ndata:    {data.root}")
        yield server
    finally:
        if not server.stays:
            _end(process)
        if process.stdout:
            process.stdout.close()


def _running(data: DataFolder) -> str | None:
    """The address of a server that serves this data folder already."""
    from model_training.client.clients import Client

    if not data.server.exists():
        return None
    with Client(data=data.root, patience=0) as client:
        try:
            client.pipelines()
        except ModelTrainingError:
            return None  # left behind by a server that was killed
        return client.address


def _ready(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None  # noqa: S101 asked for above
    for line in process.stdout:
        if line.startswith(READY):
            return line.removeprefix(READY).strip()
    words = log.read_text(errors="replace").strip().splitlines()[-5:]
    raise ServerUnreachable("The service did not start:\n" + "\n".join(words))


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _watch(talk: Talk, client: "Client", name: str) -> tuple[int, str | None]:
    """Show the log; the exit code, and the line of the log that tells the accuracy."""
    printer, narrator, end = LogPrinter(), Narrator(talk, name), b""
    try:
        for event in client.events(name):
            if isinstance(event, LogBytes):
                printer.write(event.data)
                end = (end + event.data)[-REMEMBERED:]
            elif isinstance(event, Ended):
                printer.end()
                narrator.tell(event)
                return exits.of_job(event.state, event.exit_code), _accuracy(end)
            else:
                narrator.tell(event)
    except KeyboardInterrupt:
        printer.end()
        client.stop(name)
        talk.say("\ninterrupted; the job is stopped")
    return exits.INTERRUPTED, None


def _accuracy(log: bytes) -> str | None:
    lines = log.decode("utf-8", "replace").replace("\r", "\n").splitlines()
    return next((line.strip() for line in reversed(lines) if "accuracy" in line), None)


def _say_result(talk: Talk, client: "Client", name: str, accuracy: str | None) -> None:
    talk.data("")
    if accuracy:
        talk.data(accuracy)
    place = client.status(name).output
    for output in client.outputs(name):
        talk.data(f"model: {Path(place) / output.path if place else output.path}")
    talk.data(f"job:   {name}")


def _say_next(talk: Talk, folder: Path, name: str, server: _Server, *, serves: bool) -> None:
    command = _this_command()
    place = f"MODEL_TRAINING_DATA={shlex.quote(_short(folder))} {command}"
    if serves:
        commands = [f"{place} list", f"{place} run {PIPELINE} -p epochs=5", f"{place} logs {name}"]
    else:
        start = f"{command} serve --data {shlex.quote(_short(folder))}"
        commands = [f"{start} &", f"{place} run {PIPELINE} -p epochs=5", f"{place} list"]
    talk.data("\ntry next:")
    for each in commands:
        talk.data(f"  {each}")
    if server.stays and server.process:
        talk.say(f"\nthe service goes on at {server.url}; stop it: kill {server.process.pid}")


def _this_command() -> str:
    """How this command is called from here."""
    called = Path(sys.argv[0])
    if shutil.which("model-training") == str(called) or called.name != "model-training":
        return "model-training"
    return shlex.quote(_short(called.absolute()))


def _short(path: Path) -> str:
    """Relative where it lies below the current folder."""
    here = Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)
