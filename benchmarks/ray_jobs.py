"""The same one-line jobs through Ray's Jobs API and through ours: ``scripts/bench --ray``.

Ray is pinned and installed into an environment of its own; ours runs in the same call, so that
both meet the same machine. Both are asked over HTTP by this process. Ray gets a small object store
and as many CPUs as there are jobs, so that its scheduler never makes a job wait. Its log is polled
every 10 ms, ours too.

Ray is a scheduler of a cluster and does more than ours; this compares what a user of one machine
pays and waits for, and nothing else.
"""

import argparse
import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from load import ROOT, Server, figures, free_port, make_pipeline, percentile

RAY = "ray[default]==2.60.0"
HOME = ROOT / ".bench" / "ray-venv"
SINGLE = 10  # jobs one after the other
AT_ONCE = 50
LIMIT_S = 60.0  # for anything that is waited for
AT_ONCE_LIMIT_S = 120.0  # then those that ended until then count
POLL_S = 0.01
AT_ONCE_POLL_S = 0.2  # a list is work for a server that is busy starting jobs
ENTRY = f"{sys.executable} -S -E -c \"print('one line', flush=True)\""


class Ours:
    """Our server, as the other benchmarks start it."""

    def __init__(self) -> None:
        self.where = Path(tempfile.mkdtemp(prefix="mt-bench-pipelines-"))
        make_pipeline(self.where, "one-line", "print('one line', flush=True)\n")
        self.server = Server("--slots", str(AT_ONCE), pipelines=self.where)

    def start(self) -> None:
        self.server.start()
        self.host, self.port = self.server.host, self.server.port

    def pids(self) -> set[int]:
        assert self.server.process
        return tree(self.server.process.pid)

    def ask(self, connection: http.client.HTTPConnection, method: str, path: str) -> bytes:
        return answer(connection, method, path, self.server.headers)

    def create(self, connection: http.client.HTTPConnection) -> str:
        headers = {**self.server.headers, "Content-Type": "application/json"}
        path = "/training-jobs?pipeline=one-line"
        return json.loads(answer(connection, "POST", path, headers, b"{}"))["name"]

    def log(self, connection: http.client.HTTPConnection, name: str) -> bytes:
        return self.ask(connection, "GET", f"/training-jobs/{name}")

    def states(self, connection: http.client.HTTPConnection) -> dict[str, str]:
        jobs = json.loads(self.ask(connection, "GET", "/training-jobs?limit=1000"))
        return {job["name"]: job["state"] for job in jobs}

    def close(self) -> None:
        self.server.discard()
        shutil.rmtree(self.where, ignore_errors=True)


class Ray:
    """A Ray head node on loopback, ended by its own processes' ids and never by ``ray stop``."""

    def __init__(self) -> None:
        self.host, self.port = "127.0.0.1", free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="mt-ray-", dir="/tmp"))  # short, for sockets
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        options = {
            "node-ip-address": self.host,
            "port": free_port(),
            "dashboard-host": self.host,
            "dashboard-port": self.port,
            "dashboard-agent-listen-port": free_port(),
            "temp-dir": self.folder,
            "num-cpus": AT_ONCE,
            "object-store-memory": 100_000_000,
        }
        given = [f"--{name}={value}" for name, value in options.items()]
        with (self.folder / "start.log").open("wb") as log:
            self.process = subprocess.Popen(
                [HOME / "bin/ray", "start", "--head", "--block", "--disable-usage-stats", *given],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environment, "RAY_USAGE_STATS_ENABLED": "0"},
                start_new_session=True,
            )
        until(self._ready, "Ray to be ready")

    def _ready(self) -> bool:
        assert self.process
        if self.process.poll() is not None:
            raise RuntimeError((self.folder / "start.log").read_text()[-2000:])
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        with contextlib.closing(connection), contextlib.suppress(OSError, RuntimeError):
            answer(connection, "GET", "/api/jobs/", {})
            return True
        return False

    def pids(self) -> set[int]:
        """The tree of ``ray start`` and whoever names the session's folder."""
        assert self.process
        named = {pid for pid in all_pids() if bytes(self.folder) in command_line(pid)}
        return tree(self.process.pid).union(*(tree(pid) for pid in named))

    def create(self, connection: http.client.HTTPConnection) -> str:
        headers = {"Content-Type": "application/json"}
        body = json.dumps({"entrypoint": ENTRY}).encode()
        return json.loads(answer(connection, "POST", "/api/jobs/", headers, body))["submission_id"]

    def log(self, connection: http.client.HTTPConnection, name: str) -> bytes:
        return answer(connection, "GET", f"/api/jobs/{name}/logs", {})

    def states(self, connection: http.client.HTTPConnection) -> dict[str, str]:
        jobs = json.loads(answer(connection, "GET", "/api/jobs/", {}))
        return {job["submission_id"]: job["status"].lower() for job in jobs}

    def close(self) -> None:
        if self.process is not None:
            pids = self.pids()
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
            for pid in (pids | self.pids()) & all_pids():
                if pid != self.process.pid and self._is_ours(pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_ours(self, pid: int) -> bool:
        """Not somebody who got the number of one that has ended."""
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False
        return b"RAY_USAGE_STATS_ENABLED=0" in environment


def answer(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes | None = None,
) -> bytes:
    connection.request(method, path, body=body, headers=headers)
    given = connection.getresponse()
    content = given.read()
    if given.status not in {200, 201}:
        raise RuntimeError(f"{method} {path}: {given.status} {content[:500]!r}")
    return content


def until(so: Callable[[], bool], what: str) -> None:
    deadline = time.perf_counter() + LIMIT_S
    while not so():
        if time.perf_counter() > deadline:
            raise RuntimeError(f"waited {LIMIT_S:g} s for {what}")
        time.sleep(POLL_S)


def all_pids() -> set[int]:
    return {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def tree(root: int) -> set[int]:
    """A process and all that came of it."""
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        with contextlib.suppress(OSError):
            parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(pid)
    found, left = {root}, [root]
    while left:
        more = set(children.get(left.pop(), ())) - found
        found |= more
        left += more
    return found


def memory(pids: set[int]) -> dict[str, float]:
    """MiB, summed over processes; PSS counts what they share once."""
    sums = {"Rss:": 0, "Pss:": 0}
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, *rest = line.split()
                if name in sums:
                    sums[name] += int(rest[0])
    return {name: kib / 1024 for name, kib in sums.items()}


def measured(service: Ours | Ray) -> Iterator[tuple[str, str, float]]:
    """What is measured, its unit and the value."""
    began = time.perf_counter()
    service.start()
    yield "start to ready", "s", time.perf_counter() - began
    time.sleep(5)  # until what goes on after the start has settled
    pids = service.pids()
    yield "processes when idle", "", float(len(pids))
    idle = memory(pids)
    yield "idle memory, RSS of all processes", "MiB", idle["Rss:"]
    yield "idle memory, PSS of all processes", "MiB", idle["Pss:"]
    connection = http.client.HTTPConnection(service.host, service.port, timeout=2 * LIMIT_S)
    with contextlib.closing(connection):
        yield from one_by_one(service, connection)
        yield from at_once(service, connection)
        began = time.perf_counter()
        jobs = len(service.states(connection))
        took = 1000 * (time.perf_counter() - began)
        yield f"list of the {jobs} jobs so far", "ms", took


def one_by_one(
    service: Ours | Ray, connection: http.client.HTTPConnection
) -> Iterator[tuple[str, str, float]]:
    posts: list[float] = []
    lines: list[float] = []
    for _ in range(SINGLE + 1):
        began = time.perf_counter()
        name = service.create(connection)
        posts.append(1000 * (time.perf_counter() - began))
        until(lambda name=name: b"one line" in service.log(connection, name), "the first line")
        lines.append(1000 * (time.perf_counter() - began))
        until(lambda name=name: succeeded(service, connection, {name}) == 1, "the job's end")
    yield "POST, p50", "ms", percentile(posts[1:], 0.5)  # the first one warms up
    yield "POST to first log line, p50", "ms", percentile(lines[1:], 0.5)


def at_once(
    service: Ours | Ray, connection: http.client.HTTPConnection
) -> Iterator[tuple[str, str, float]]:
    began = time.perf_counter()
    names = {service.create(connection) for _ in range(AT_ONCE)}
    ended, took = 0, 0.0
    while ended < AT_ONCE and took < AT_ONCE_LIMIT_S:
        time.sleep(AT_ONCE_POLL_S)
        ended = succeeded(service, connection, names)
        took = time.perf_counter() - began
    yield f"of {AT_ONCE} one-line jobs at once, ended within {AT_ONCE_LIMIT_S:g} s", "", ended
    yield "their rate", "jobs/s", ended / took


def succeeded(service: Ours | Ray, connection: http.client.HTTPConnection, names: set[str]) -> int:
    states = service.states(connection)
    if bad := [name for name in names if states[name] in {"failed", "stopped"}]:
        raise RuntimeError(f"{bad[0]} {states[bad[0]]}")
    return sum(states[name] == "succeeded" for name in names)


@contextmanager
def closing(service: Ours | Ray) -> Iterator[Ours | Ray]:
    try:
        yield service
    finally:
        service.close()


def install() -> None:
    """Make Ray's environment, unless it is there.

    Raises:
        SystemExit: 2, Ray cannot be installed here.
    """
    python = HOME / "bin/python"
    uv = [str(ROOT / ".venv/bin/python"), "-m", "uv"]
    steps = (
        [*uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(HOME)],
        [*uv, "pip", "install", "--quiet", "--python", str(python), RAY],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{RAY} cannot be installed here, so there is nothing to compare:\n{done.stderr}")
            raise SystemExit(2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench --ray", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, default=ROOT / ".bench" / "ray.json")
    given = parser.parse_args()
    install()
    taken: dict[str, dict[str, list[float]]] = {}
    units: dict[str, str] = {}
    for _ in range(given.runs):
        for kind in (Ours, Ray):
            with closing(kind()) as service:
                for what, unit, value in measured(service):
                    units[what] = unit
                    taken.setdefault(what, {}).setdefault(kind.__name__, []).append(value)
                    print(f"{kind.__name__}: {what}: {value:.2f} {unit}", file=sys.stderr)
    given.json.parent.mkdir(exist_ok=True)
    given.json.write_text(json.dumps(taken, indent=2) + "\n")
    print(f"| what | unit | ours | {RAY} |\n|---|---|---|---|")
    for what, values in taken.items():
        cells = [shown(values[kind], units[what]) for kind in ("Ours", "Ray")]
        print(f"| {what} | {units[what]} | {cells[0]} | {cells[1]} |")


def shown(values: list[float], unit: str) -> str:
    row = figures("", unit, "", values)
    return f"{row['median']} ({row['min']}-{row['max']})"


if __name__ == "__main__":
    main()
