"""What the benchmarks share: a server process, HTTP by the standard library, and figures.

Nothing here imports the product: the load and the judging come from outside of it.
"""

import asyncio
import http.client
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = str(ROOT / ".venv" / "bin" / "model-training")


class Server:
    """``model-training serve`` as a process of its own, with its own data folder."""

    def __init__(self, *options: str, data: Path | None = None, pipelines: Path | None = None):
        self._made = data is None
        self.data = data or Path(tempfile.mkdtemp(prefix="mt-bench-"))
        self.pipelines = pipelines
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.ready_s = 0.0

    def start(self) -> "Server":
        argv = [COMMAND, "serve", "--port", "0", "--data", str(self.data), *self.options]
        if self.pipelines:
            argv += ["--pipelines", str(self.pipelines)]
        began = time.perf_counter()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MODEL_TRAINING")}
        with (self.data / "server.err").open("ab") as errors:
            self.process = subprocess.Popen(
                argv, stdout=subprocess.PIPE, stderr=errors, env=environment
            )
        assert self.process.stdout
        line = self.process.stdout.readline().decode()
        if "ready at" not in line:
            raise RuntimeError(f"server did not start: {(self.data / 'server.err').read_text()}")
        self.host, port = line.strip().rsplit("/", 1)[-1].rsplit(":", 1)
        self.port = int(port)
        self.token = (self.data / "token").read_text().strip()
        while self.request("GET", "/readyz")[0] != 200:
            time.sleep(0.005)
        self.ready_s = time.perf_counter() - began
        return self

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=120)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes]:
        connection = self.connection()
        try:
            given = {**self.headers, **headers}
            if body is not None:
                given["Content-Type"] = "application/json"
            connection.request(method, path, body=body, headers=given)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def create(
        self, pipeline: str, parameters: dict[str, object] | None = None, query: str = ""
    ) -> str:
        status, body = self.request(
            "POST",
            f"/training-jobs?pipeline={pipeline}{query}",
            json.dumps(parameters or {}).encode(),
        )
        if status != 201:
            raise RuntimeError(f"{status}: {body.decode()}")
        return json.loads(body)["name"]

    def status(self, name: str) -> dict[str, object]:
        return json.loads(self.request("GET", f"/training-jobs/{name}/status")[1])

    def wait(self, name: str, seconds: float = 120.0) -> dict[str, object]:
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            job = self.status(name)
            if job["state"] in {"succeeded", "failed", "stopped"}:
                return job
            time.sleep(0.02)
        raise RuntimeError(f"{name} did not end within {seconds} s: {job}")

    def memory(self) -> int:
        assert self.process
        return resident(self.process.pid)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=20)
            assert self.process.stdout
            self.process.stdout.close()
            self.process = None

    def discard(self) -> None:
        """Delete every job, so that no process stays, then the folder."""
        if self.process is None:
            self.start()
        jobs = json.loads(self.request("GET", "/training-jobs?state=active")[1])
        for job in jobs:
            self.request("DELETE", f"/training-jobs/{job['name']}")
        for job in jobs:
            self.request("DELETE", f"/training-jobs/{job['name']}?wait=60")
        self.stop()
        if self._made:
            shutil.rmtree(self.data, ignore_errors=True)


@contextmanager
def serving(*options: str, **places: Path) -> Iterator[Server]:
    server = Server(*options, **places)
    try:
        yield server.start()
    finally:
        server.discard()


def resident(pid: int, field: str = "VmRSS") -> int:
    """Bytes resident; with ``VmHWM`` the most that ever were."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def cpu_s(pid: int) -> float:
    """Processor time used so far, its own and the kernel's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def make_pipeline(parent: Path, name: str, script: str, *more: str) -> None:
    """A pipeline folder whose ``train.py`` is the script.

    Run by this very interpreter: what ``python3`` on PATH is (on many a machine a shell script
    that looks for a Python) is no cost of ours.
    """
    folder = parent / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.py").write_text(script)
    command = json.dumps([sys.executable, "-S", "-E", "train.py"])
    lines = [f'name = "{name}"', f"command = {command}", *more]
    (folder / "pipeline.toml").write_text("\n".join(lines) + "\n")


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def post_request(host: str, port: int, path: str, token: str = "", body: bytes = b"") -> bytes:
    """A whole POST on the wire."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}:{port}", f"Content-Length: {len(body)}"]
    if body:
        lines.append("Content-Type: application/json")
    if token:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def send_many(
    host: str, port: int, request: bytes, callers: int, each: int, *, status: int = 201
) -> list[float]:
    """Milliseconds of every request, sent over one connection a caller.

    As light as a caller can be, for it shares the processors with the server.
    """
    took: list[float] = []

    async def call() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        for _ in range(each):
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if b" %d " % status not in head[:16]:
                raise RuntimeError(head.decode() + (await reader.read(2000)).decode())
            lower = head.lower()
            at = lower.index(b"content-length:") + 15
            await reader.readexactly(int(lower[at : lower.index(b"\r\n", at)]))
            took.append(1000 * (time.perf_counter() - began))
        writer.close()

    await asyncio.gather(*(call() for _ in range(callers)))
    return took


def page_times(
    connection: http.client.HTTPConnection,
    server: Server,
    path: str,
    *,
    jobs: int = 100,
    times: int = 200,
) -> list[float]:
    """Milliseconds of every answer to the same list, which has so many jobs."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        connection.request("GET", path, headers=server.headers)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        took.append(1000 * (time.perf_counter() - began))
        if answer.status != 200 or len(found) != jobs:
            raise RuntimeError(f"{answer.status}, {len(found)} jobs")
    return took


async def open_stream(server: Server, path: str, *headers: str) -> asyncio.StreamReader:
    """An open server-sent event stream, after its response head."""
    reader, writer = await asyncio.open_connection(server.host, server.port, limit=1 << 20)
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {server.host}:{server.port}",
        f"Authorization: Bearer {server.token}",
        *headers,
        "",
        "",
    ]
    writer.write("\r\n".join(lines).encode())
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise RuntimeError(head.decode())
    reader.writer = writer  # type: ignore[attr-defined] - kept alive with the reader
    return reader


def machine() -> dict[str, object]:
    versions = subprocess.run(
        [
            str(ROOT / ".venv/bin/python"),
            "-c",
            "import json,sys;from importlib.metadata import version as v;"
            "print(json.dumps({'python':sys.version.split()[0],**{n:v(n) for n in "
            "('model-training-api','fastapi','uvicorn','starlette','pydantic','httptools','uvloop')}}))",
        ],
        capture_output=True,
        check=True,
    ).stdout
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": f"{platform.system()} {platform.release()}",
        "cpus": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        **json.loads(versions),
    }


Row = dict[str, object]


def repeat(what: str, unit: str, target: str, runs: int, measure: Callable[[], float]) -> Row:
    """Run ``measure`` and keep the median and the spread."""
    values: list[float] = []
    for _ in range(runs):
        values.append(measure())
        print(".", end="", file=sys.stderr, flush=True)
    row = figures(what, unit, target, values)
    print(f" {what}: {row['median']} {unit} ({target})", file=sys.stderr, flush=True)
    return row


def figures(what: str, unit: str, target: str, values: list[float]) -> Row:
    return {
        "what": what,
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
        "unit": unit,
        "target": target,
        "runs": len(values),
    }


def table(rows: list[Row]) -> str:
    lines = ["| what | median | min-max | unit | target |", "|---|---|---|---|---|"]
    lines += [
        f"| {r['what']} | {r['median']} | {r['min']}-{r['max']} | {r['unit']} | {r['target']} |"
        for r in rows
    ]
    return "\n".join(lines)


def no_delay(connection: http.client.HTTPConnection) -> None:
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
