"""Client and command against a server that misbehaves on purpose, over real connections.

The server is a scripted one of these tests, which speaks as much of the contract as they need:
it loses answers, cuts streams and moves, at the moment a test chooses.
"""

import base64
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from model_training import AsyncClient, Client, errors
from model_training.client.address import AddressFinder
from model_training.client.events import Ended, LogBytes
from model_training.client.exchange import Disconnected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

NAME = "model-training-digits-0a1b2c3d-0000-4000-8000-000000000000"
LOG = b"epoch 1\r\x1b[31mred\x1b[0m \x1b]0;title\x07 caf\xc3\xa9 \xff\x00 end without newline"
MODEL = os.urandom(300_000)


class Script:
    """What the server does to the next requests."""

    def __init__(self) -> None:
        self.jobs: dict[str, str] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.answers_to_lose = 0
        self.busy_answers = 0
        self.stream_lives: list[int] = []
        self.download_lives: list[int] = []
        self.models = [MODEL]
        self.damaged = False
        self.log_open = threading.Event()
        self.log_open.set()
        self.hangs = False
        self.hung_up = threading.Event()
        self.end = {"state": "succeeded", "reason": None, "message": None, "exit_code": 0}

    def job(self) -> dict[str, object]:
        return {
            "name": NAME, "id": "x", "pipeline": "digits", "namespace": "default",
            "executor": "local", "owner": "local", "created_at": "2026-01-01T00:00:00.000000Z",
            "state": self.end["state"], "exit_code": self.end["exit_code"],
        }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script

    def log_message(self, *args: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a command that went away in the middle
            super().handle()

    def _note(self) -> dict[str, str]:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.script.seen.append((self.command, self.path, headers))
        self.body = self.rfile.read(int(headers.get("content-length", 0)))
        return headers

    def _json(self, status: int, value: object, **headers: str) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _loses_the_answer(self) -> bool:
        if self.script.answers_to_lose > 0:
            self.script.answers_to_lose -= 1
            self.close_connection = True
            return True
        return False

    def do_POST(self) -> None:
        headers = self._note()
        if self.script.busy_answers > 0:
            self.script.busy_answers -= 1
            self._json(503, {"status": 503, "type": "/problems/unavailable"}, retry_after="0")
            return
        self.script.jobs.setdefault(headers["idempotency-key"], NAME)
        if not self._loses_the_answer():
            self._json(201, self.script.job())

    def do_DELETE(self) -> None:
        self._note()
        gone = not self.script.jobs
        self.script.jobs.clear()
        if gone:
            self._json(404, {"status": 404, "type": "/problems/job-not-found", "detail": "no"})
        elif not self._loses_the_answer():
            self.send_response(204)
            self.end_headers()

    def do_GET(self) -> None:
        headers = self._note()
        path = urlsplit(self.path).path
        if path == f"/training-jobs/{NAME}/status":
            if self.script.hangs:
                self._until_hung_up()
            else:
                self._json(200, self.script.job())
        elif path == "/pipelines/digits":
            parameters = {"epochs": {"type": "integer"}, "name": {"type": "string"}}
            self._json(200, {"name": "digits", "parameters": parameters})
        elif path.endswith("/outputs/model.bin"):
            self._download()
        elif path.endswith("/outputs"):
            at = "2026-01-01T00:00:00.000000Z"
            self._json(200, [{"path": "model.bin", "size": len(MODEL), "modified_at": at}])
        elif path == f"/training-jobs/{NAME}" and "event-stream" in headers.get("accept", ""):
            self._follow(headers)
        else:
            query = parse_qs(urlsplit(self.path).query)
            self._json(
                404, {"status": 404, "type": "/problems/job-not-found", "detail": f"{query}"}
            )

    def _until_hung_up(self) -> None:
        self.close_connection = True
        self.connection.settimeout(30)
        with contextlib.suppress(ConnectionError):
            self.connection.recv(1)
        self.script.hung_up.set()

    def _download(self) -> None:
        models = self.script.models
        model = models.pop(0) if len(models) > 1 else models[0]
        told = b"other" if self.script.damaged else model
        digest = base64.b64encode(hashlib.sha256(told).digest()).decode()
        self.send_response(200)
        self.send_header("content-length", str(len(model)))
        self.send_header("repr-digest", f"sha-256=:{digest}:")
        self.end_headers()
        life = self.script.download_lives.pop(0) if self.script.download_lives else len(model)
        self.wfile.write(model[:life])
        self.close_connection = True

    def _follow(self, headers: dict[str, str]) -> None:
        start = int(headers.get("last-event-id", "1.0").partition(".")[2])
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("model-training-position", f"1.{start}")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        left = self.script.stream_lives.pop(0) if self.script.stream_lives else 1 << 30
        for event in self._events(start):
            self.wfile.write(event[:left])
            self.wfile.flush()
            if self.script.hangs and b"event: log" in event:
                self._until_hung_up()
                return
            left -= len(event)
            if left <= 0:
                return

    def _events(self, start: int) -> "Iterator[bytes]":
        yield b'event: state\ndata: {"state": "pending", "reason": "WaitingForSlot", '
        yield b'"message": "waits for one of 2 slots"}\n\n: ping\n\n'
        self.script.log_open.wait(30)
        yield b'event: state\ndata: {"state": "running"}\n\n'
        for at in range(start, len(LOG), 7):
            piece = LOG[at : at + 7]
            data = json.dumps({"base64": base64.b64encode(piece).decode()})
            yield f"event: log\nid: 1.{at + len(piece)}\ndata: {data}\n\n".encode()
        yield f"event: end\ndata: {json.dumps(self.script.end)}\n\n".encode()


class Running:
    def __init__(self, data: "Path") -> None:
        self.script = Script()
        self.data = data
        handler = type("Scripted", (Handler,), {"script": self.script})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.block_on_close = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        (data / "server.json").write_text(json.dumps({"url": self.url, "pid": os.getpid()}))
        (data / "token").write_text("secret\n")

    def close(self) -> None:
        self.script.log_open.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def server(tmp_path: "Path") -> "Iterator[Running]":
    running = Running(tmp_path)
    yield running
    running.close()


@pytest.fixture
def client(server: Running) -> "Iterator[Client]":
    with Client(data=server.data) as client:
        yield client


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def command(server: Running, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
    environment = {
        "PATH": os.environ["PATH"], "MODEL_TRAINING_DATA": str(server.data), **more
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "model_training", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
        bufsize=0,
    )  # fmt: skip


def outcome(process: subprocess.Popen[bytes]) -> tuple[int, bytes, str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err.decode()


def until_asked(server: Running) -> None:
    deadline = time.monotonic() + 30
    while not server.script.seen:
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def test_a_create_whose_answer_is_lost_makes_one_job(server: Running, client: Client):
    server.script.answers_to_lose = 2
    assert client.create("digits", {"epochs": 1}).name == NAME
    assert len(server.script.seen) == 3
    assert len(server.script.jobs) == 1


def test_a_busy_server_is_asked_again(server: Running, client: Client):
    server.script.busy_answers = 2
    assert client.create("digits").name == NAME


def test_a_delete_whose_answer_is_lost_is_done(server: Running, client: Client):
    client.create("digits")
    server.script.answers_to_lose = 1
    assert client.delete(NAME) is None


def test_following_survives_cuts_without_a_lost_or_doubled_byte(server: Running, client: Client):
    server.script.stream_lives = [10, 400, 300, 150, 1]
    assert b"".join(client.follow(NAME)) == LOG
    assert len(server.script.seen) == 6


async def test_the_asynchronous_client_follows_alike(server: Running):
    server.script.stream_lives = [400, 1]
    async with AsyncClient(data=server.data) as client:
        events = [event async for event in client.events(NAME)]
        job = await (await client.create("digits")).wait(check=True)
    assert b"".join(e.data for e in events if isinstance(e, LogBytes)) == LOG
    assert isinstance(events[-1], Ended)
    assert job.exit_code == 0


async def test_an_asynchronous_follower_that_stops_reading_hangs_up_at_once(server: Running):
    server.script.hangs = True
    async with AsyncClient(data=server.data) as client:
        async with aclosing(client.follow(NAME)) as pieces:
            async for piece in pieces:
                assert piece == LOG[:7]
                break
        # The event loop does not run meanwhile, so nothing else can do it later.
        assert server.script.hung_up.wait(5)


def test_waiting_for_a_job_of_a_server_that_went_away_ends_with_its_timeout(tmp_path: "Path"):
    running = Running(tmp_path)
    running.script.end = {"state": "running", "exit_code": None}
    running.server.RequestHandlerClass.protocol_version = "HTTP/1.0"  # so that none stays open
    try:
        process = command(running, "wait", NAME, "--timeout", "2")
        until_asked(running)
    finally:
        running.close()
    began = time.monotonic()
    code, out, err = outcome(process)
    assert time.monotonic() - began < 5
    assert (code, out) == (5, b"")
    assert f"could not wait for the job {NAME}" in err


def test_waiting_for_a_job_of_a_server_that_hangs_ends_with_its_timeout(server: Running):
    server.script.hangs = True
    with Client(data=server.data) as client:
        began = time.monotonic()
        with pytest.raises(errors.ServerUnreachable):
            client.wait(NAME, timeout=0.3)
        assert time.monotonic() - began < 5


def test_a_created_job_can_be_waited_for(client: Client):
    assert client.create("digits").wait().state == "succeeded"


def test_waiting_with_check_raises_for_a_failed_job(server: Running, client: Client):
    server.script.end = {"state": "failed", "exit_code": 7}
    assert client.create("digits").wait().exit_code == 7
    with pytest.raises(errors.JobFailed, match="exit code 7"):
        client.wait(NAME, check=True)


def test_a_download_that_is_cut_begins_anew_and_is_whole(
    server: Running, client: Client, tmp_path: "Path"
):
    server.script.download_lives = [1000, 250_000]
    folder = tmp_path / "to"
    folder.mkdir()
    assert client.download(NAME, "model.bin", folder).read_bytes() == MODEL
    assert [each.name for each in folder.iterdir()] == ["model.bin"]


def test_a_downloaded_file_has_the_mode_that_the_umask_gives(server: Running, tmp_path: "Path"):
    code = (
        "import os, sys; from model_training import Client; os.umask(0o027)\n"
        "with Client(data=sys.argv[1]) as c: c.download(sys.argv[2], 'model.bin', sys.argv[3])"
    )
    argv = [sys.executable, "-c", code, str(server.data), NAME, str(tmp_path / "model")]
    subprocess.run(argv, check=True, timeout=30)
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(sys.platform != "linux", reason="the umask is read from /proc")
def test_no_other_thread_sees_another_umask_during_a_download(tmp_path: "Path"):
    code = """
import os, sys
from pathlib import Path
from model_training.client.downloads import PartialFile
os.umask(0o077)
seen = set()
def look(frame, event, argument):
    lines = Path("/proc/self/status").read_text().splitlines()
    seen.add(next(line for line in lines if line.startswith("Umask")))
with PartialFile(Path(sys.argv[1]) / "download") as file:
    sys.setprofile(look)
    file.keep()
    sys.setprofile(None)
print(seen)
"""
    argv = [sys.executable, "-c", code, str(tmp_path)]
    found = subprocess.run(argv, check=True, timeout=60, capture_output=True, text=True)
    assert found.stdout == "{'Umask:\\t0077'}\n"


def test_a_file_that_shrinks_while_it_is_fetched_is_the_new_one_alone(
    server: Running, client: Client, tmp_path: "Path"
):
    server.script.models = [MODEL, b"short"]
    server.script.download_lives = [100_000]
    assert client.download(NAME, "model.bin", tmp_path / "m").read_bytes() == b"short"


def test_a_download_that_is_damaged_leaves_nothing(
    server: Running, client: Client, tmp_path: "Path"
):
    server.script.damaged = True
    folder = tmp_path / "to"
    folder.mkdir()
    with pytest.raises(errors.ServerUnreachable, match="digest"):
        client.download(NAME, "model.bin", folder / "model.bin")
    assert list(folder.iterdir()) == []


def test_the_local_token_is_sent_without_passing_through_a_proxy(
    server: Running, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with Client(data=server.data) as client:
        client.status(NAME)
    assert server.script.seen[0][2]["authorization"] == "Bearer secret"


@pytest.mark.parametrize("url", ["http://training.example", "http://127.evil.co.uk"])
def test_the_local_token_goes_to_no_server_elsewhere(server: Running, url: str):
    assert AddressFinder(url, data=server.data).find().token is None
    with pytest.raises(errors.SettingsError, match="without TLS"):
        AddressFinder(url, "given", server.data).find()
    assert AddressFinder(server.url, data=server.data).find().token == "secret"


def test_the_local_token_goes_to_the_server_of_its_folder_alone(server: Running):
    """Not into a tunnel to another, and not to whoever has the port of a server that died."""
    assert AddressFinder("http://localhost:1", data=server.data).find().token is None
    with subprocess.Popen(["true"]) as ended:
        pass
    written = server.data / "server.json"
    written.write_text(json.dumps({"url": server.url, "pid": ended.pid}))
    assert AddressFinder(server.url, data=server.data).find().token is None
    with pytest.raises(Disconnected, match="has ended"):
        AddressFinder(data=server.data).find()
    written.unlink()  # a full disk, of which the server told whoever started it
    assert AddressFinder(server.url, data=server.data).find().token == "secret"


def test_a_server_that_moved_is_found_again(server: Running, client: Client):
    client.status(NAME)
    again = Running(server.data)
    try:
        client.status(NAME)
        assert len(again.script.seen) == 1
    finally:
        again.close()


def test_a_server_that_is_not_there_is_named(tmp_path: "Path"):
    with (
        Client(data=tmp_path, patience=0) as client,
        pytest.raises(errors.ServerUnreachable, match="model-training serve"),
    ):
        client.status(NAME)


def test_logs_in_a_pipe_are_the_job_s_bytes_and_its_exit_code(server: Running):
    server.script.stream_lives = [400]
    server.script.end = {"state": "failed", "reason": "Error", "exit_code": 42}
    code, out, err = outcome(command(server, "logs", "-f", NAME))
    assert (code, out) == (42, LOG)
    assert "waits for one of 2 slots" in err
    assert err.count("connection lost") == err.count("connected again") == 1
    assert f"{NAME} failed (Error, exit code 42)" in err


def test_following_as_json_gives_the_events_of_the_api(server: Running):
    code, out, _ = outcome(command(server, "logs", "-f", "--json", NAME))
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert events[0]["reason"] == "WaitingForSlot"
    assert events[-1] == {"event": "end", **server.script.end}
    assert all(e["id"].startswith("1.") for e in events if e["event"] == "log")


def test_ctrl_c_while_events_are_shown_as_json_tells_how_to_come_back(server: Running):
    server.script.log_open.clear()
    process = command(server, "logs", "-f", "--json", NAME)
    assert process.stdout is not None
    assert b"WaitingForSlot" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    code, out, err = outcome(process)
    assert (code, out) == (130, b"")
    assert f"model-training logs -f {NAME}" in err
    assert f"model-training stop {NAME}" in err


def test_a_deleted_job_is_null_as_json(server: Running, client: Client):
    client.create("digits")
    code, out, _ = outcome(command(server, "delete", NAME, "--json"))
    assert (code, json.loads(out)) == (0, None)


def test_ctrl_c_leaves_the_job_and_tells_how_to_come_back(server: Running):
    server.script.log_open.clear()
    process = command(server, "run", "digits")
    assert process.stderr is not None
    assert any(b"waiting" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    code, out, err = outcome(process)
    assert (code, out) == (130, b"")
    assert f"model-training logs -f {NAME}" in err
    assert f"model-training stop {NAME}" in err
    assert [method for method, _, _ in server.script.seen] == ["POST", "GET"]


def test_create_prints_the_name_and_nothing_else(server: Running):
    code, out, err = outcome(command(server, "create", "digits", "-p", "epochs=3", "-p", "name=3"))
    assert (code, out) == (0, f"{NAME}\n".encode())
    assert f"model-training logs -f {NAME}" in err


def test_a_parameter_of_the_wrong_type_is_refused_before_anything_is_sent(server: Running):
    code, out, err = outcome(command(server, "create", "digits", "-p", "epochs=many"))
    assert (code, out) == (6, b"")
    assert "-p epochs: 'many' is no integer" in err
    assert not server.script.jobs


def test_errors_tell_what_why_and_what_next(server: Running):
    code, out, err = outcome(command(server, "status", "model-training-none"))
    assert (code, out) == (3, b"")
    assert [line.split(":")[0].strip() for line in err.splitlines()] == ["error", "why", "next"]


def test_an_error_as_json_is_the_problem_of_the_server(server: Running):
    code, _, err = outcome(command(server, "logs", "-f", "model-training-none", "--json"))
    assert code == 3
    assert json.loads(err)["type"] == "/problems/job-not-found"


def test_outputs_are_listed_and_fetched(server: Running, tmp_path: "Path"):
    assert outcome(command(server, "outputs", NAME))[1] == (
        b"model.bin\t300000\t2026-01-01T00:00:00Z\n"
    )
    folder = tmp_path / "new"
    code, out, _ = outcome(command(server, "outputs", NAME, "-o", str(folder)))
    assert (code, out) == (0, f"{folder}/model.bin\n".encode())
    assert (folder / "model.bin").read_bytes() == MODEL
    assert outcome(command(server, "outputs", NAME, "other", "-o", str(folder)))[0] == 3


def test_a_reader_that_goes_away_ends_the_command_quietly(server: Running):
    process = command(server, "logs", "-f", NAME)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 1
    assert b"Traceback" not in err


def on_a_terminal(server: Running, *arguments: str, **more: str) -> tuple[int, bytes]:
    """What a command writes to a terminal, and its exit code."""
    master, slave = os.openpty()
    environment = {
        "PATH": os.environ["PATH"], "TERM": "xterm", "MODEL_TRAINING_DATA": str(server.data), **more
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "model_training", *arguments],
        stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    os.close(slave)
    written = b""
    with contextlib.suppress(OSError):  # how Linux tells that nobody has the other end any more
        while piece := os.read(master, 65536):
            written += piece
    os.close(master)
    return process.wait(30), written


def test_a_log_cannot_command_the_terminal_unless_it_is_asked_to(server: Running):
    code, shown = on_a_terminal(server, "logs", "-f", NAME)
    assert code == 0
    assert b"\x1b[31mred\x1b[0m" in shown
    assert b"\x1b]" not in shown
    assert LOG in on_a_terminal(server, "logs", "-f", "--raw", NAME)[1]


def test_a_terminal_gets_a_table_and_no_color_means_none(server: Running):
    assert b"FIELD" in on_a_terminal(server, "status", NAME)[1]
    assert b"\x1b[32m" in on_a_terminal(server, "status", NAME)[1]
    assert b"\x1b[32m" not in on_a_terminal(server, "status", NAME, NO_COLOR="1")[1]
