"""The service as the campaigns see it: a process with a data folder, which dies and comes back.

Requests are made by many threads, to whom a dead server is nothing special: ``Service.ask`` says
``Cut`` where there was no whole answer, and ``Service.insist`` tries again when the next life has
begun. Imports nothing of the product.
"""

import http.client
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
COMMAND = str(ROOT / ".venv" / "bin" / "model-training")
START_S = 20.0  # seconds until a server that says nothing is called stuck
REFUSED_S = 60.0  # seconds of trying the same request again


class Cut(Exception):
    """No whole answer came."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> dict:
        return json.loads(self.body)


class Service:
    """``model-training serve``, one life after the other, on one data folder."""

    def __init__(self, data: Path, *options: str, **variables: str) -> None:
        self.data = data
        self.argv = [COMMAND, "serve", "--port", "0", "--data", str(data), *options]
        self.variables = variables
        self.process: subprocess.Popen[bytes] | None = None
        self.errors = data.parent / f"{data.name}.stderr"
        self.address: tuple[str, int] = ("", 0)
        self.headers: dict[str, str] = {}
        self.is_up = threading.Event()
        self.started_at = 0.0
        self.dead: list[tuple[float, float]] = []  # from when to when, between its lives
        self.died_at: float | None = None
        self.patience_s = 60.0  # see Lab

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.address)

    def start(self, **variables: str) -> bool:
        """Begin a life; whether it came so far as to listen."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("MODEL_TRAINING")}
        self.started_at = time.monotonic()
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=inherited | self.variables | variables,
                start_new_session=True,  # a Ctrl+C of the campaign is not for it
            )
        assert self.process.stdout
        line = self.process.stdout.readline().decode()
        if "ready at" not in line:
            return False
        host, port = line.strip().rsplit("/", 1)[-1].rsplit(":", 1)
        self.address = (host, int(port))
        token = (self.data / "token").read_text().strip()
        self.headers = {"Authorization": f"Bearer {token}"}
        if self.died_at is not None:
            self.dead.append((self.died_at, time.monotonic()))
            self.died_at = None
        self.is_up.set()
        return True

    def wait_ready(self) -> float:
        """Until readyz says so; seconds since the start of the process."""
        deadline = time.monotonic() + START_S
        while self.ask("GET", "/readyz").status != 200:
            if time.monotonic() > deadline:
                raise RuntimeError("the server is not ready; see " + str(self.errors))
            time.sleep(0.005)
        return time.monotonic() - self.started_at

    def up(self, **variables: str) -> "Service":
        """``start`` and ``wait_ready`` where nothing may go wrong."""
        if not self.start(**variables):
            raise RuntimeError("the server did not start:\n" + self.last_words())
        self.wait_ready()
        return self

    def last_words(self) -> str:
        """The last fault that it logged, with what led to it, or else its last lines."""
        lines = self.errors.read_text(errors="replace").splitlines()
        faults = [at for at, line in enumerate(lines) if line.startswith("Traceback")]
        begin = max(0, faults[-1] - 1) if faults else -15
        return "\n".join(lines[begin:][:60])

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def end(self, number: int = signal.SIGKILL, seconds: float = 20.0) -> float:
        """End this life; seconds that it took."""
        process = self.process
        if process is None:
            return 0.0
        began = time.monotonic()
        self._goes_down()
        process.send_signal(number)
        process.wait(timeout=seconds)
        took = time.monotonic() - began
        self.bury()
        return took

    def bury(self) -> int:
        """After its death; the return code."""
        assert self.process
        assert self.process.stdout
        self._goes_down()
        code = self.process.wait()
        self.process.stdout.close()
        self.process = None
        return code

    def _goes_down(self) -> None:
        self.is_up.clear()
        if self.died_at is None:  # else it did not come up since
            self.died_at = time.monotonic()

    # Asking

    def connection(self, timeout: float = 30.0) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self.address, timeout=timeout)

    def ask(
        self, method: str, path: str, body: object = None, timeout: float = 30.0, **headers: str
    ) -> Answer:
        """One request.

        Raises:
            Cut: no whole answer came.
        """
        connection = self.connection(timeout)
        given = {**self.headers, **{k.replace("_", "-"): v for k, v in headers.items()}}
        data = None
        if body is not None:
            data, given["Content-Type"] = json.dumps(body).encode(), "application/json"
        try:
            connection.request(method, path, body=data, headers=given)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), dict(answer.getheaders()))
        except (OSError, http.client.HTTPException) as error:
            raise Cut(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()

    def insist(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """The first whole answer that is no 503, however many lives it takes."""
        deadline = time.monotonic() + REFUSED_S
        while time.monotonic() < deadline:
            self.is_up.wait(deadline - time.monotonic())
            try:
                answer = self.ask(method, path, body, **headers)
            except Cut:
                time.sleep(0.02)
                continue
            if answer.status != 503:
                return answer
            time.sleep(0.05)
        raise RuntimeError(f"{method} {path}: no answer within {REFUSED_S:g} s")

    def create(self, pipeline: str, parameters: object, query: str = "") -> str:
        answer = self.ask("POST", f"/training-jobs?pipeline={pipeline}{query}", parameters)
        if answer.status != 201:
            raise RuntimeError(f"{answer.status}: {answer.body.decode()}")
        return answer.json["name"]

    def status(self, name: str) -> dict | None:
        """The job, or None if there is none, across lives."""
        answer = self.insist("GET", f"/training-jobs/{name}/status")
        return None if answer.status == 404 else answer.json

    def wait_for(self, name: str, *states: str, seconds: float | None = None) -> dict:
        """The job, once it is in one of the states (``ended`` stands for the three ends)."""
        wanted = set(states)
        if "ended" in wanted:
            wanted |= {"succeeded", "failed", "stopped"}
        seconds = seconds or self.patience_s
        deadline = time.monotonic() + seconds
        while True:
            job = self.status(name)
            if job is None or job["state"] in wanted:
                return job or {"state": "gone"}
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} is not {'/'.join(states)} in {seconds:g} s: {job}")
            time.sleep(0.02)

    def wait_gone(self, name: str, seconds: float | None = None) -> None:
        seconds = seconds or self.patience_s
        deadline = time.monotonic() + seconds
        while (job := self.status(name)) is not None:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} is still there after {seconds:g} s: {job}")
            time.sleep(0.02)
