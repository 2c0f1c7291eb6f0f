"""Logs of real pods, and what a job costs the API server: on the test cluster.

The pods belong to a namespace of this run, which is deleted afterwards.
"""

import asyncio
import contextlib
import hashlib
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from cluster_site import Access, Cluster, call, images
from load import ROOT, Row, Server, cpu_s, figures, free_port, open_stream, percentile

ONE_LINE = "import time\nprint('one line', flush=True)\ntime.sleep(1)\n"
SAMPLES = 10  # jobs a run
LINES_PER_S = 1_000
PRINTING_S = 60
FLUSHES_PER_S = 10
# All begin at the same moment, wherever the node is with starting them.
PRINTER = f"""
import os, time
begin, number = float(os.environ["begin"]), int(os.environ["number"])
time.sleep(max(0.0, begin - time.time()))
began = time.time()
block = {LINES_PER_S // FLUSHES_PER_S}
for turn in range({PRINTING_S * FLUSHES_PER_S}):
    numbers = range(turn * block, (turn + 1) * block)
    os.write(1, b"".join(b"%03d %07d a line of a training job\\n" % (number, n) for n in numbers))
    time.sleep(max(0.0, began + (turn + 1) / {FLUSHES_PER_S} - time.time()))
print("late by %.1f s" % (time.time() - began - {PRINTING_S}), flush=True)
"""
COUNTED_JOBS = 20
SECURITY = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass(frozen=True)
class Node:
    """The running test cluster, and a namespace on it."""

    cluster: Cluster
    access: Access
    namespace: str

    def server(self, kubeconfig: Path | None = None) -> Server:
        return Server(
            "--executor", "kubernetes", "--kubeconfig", str(kubeconfig or self.cluster.kubeconfig),
            "--namespace", self.namespace, "--registry", "127.0.0.1:5000",
        )  # fmt: skip


@contextmanager
def node() -> Iterator[Node]:
    cluster = Cluster()
    if not cluster.node_ready():
        raise SystemExit("The test cluster does not run: start it with testbed/up.")
    folder = Path(tempfile.mkdtemp(prefix="mt-bench-node-"))
    namespace = f"bench-{uuid.uuid4().hex[:8]}"
    for name, script in (("bench-one-line", ONE_LINE), ("bench-printer", PRINTER)):
        (folder / name).mkdir()
        (folder / name / "train.py").write_text(script)
        (folder / name / "pipeline.toml").write_text(
            f'name = "{name}"\ncommand = ["python3", "-S", "-E", "train.py"]\n'
        )
        cluster.push(images.pipeline(folder / name), f"model-training-{name}")
    made = {"metadata": {"name": namespace, "labels": SECURITY}}
    cluster.api.post("/api/v1/namespaces", made)
    try:
        yield Node(cluster, Access.of(cluster.kubeconfig, folder), namespace)
    finally:
        cluster.api.delete(f"/api/v1/namespaces/{namespace}")
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def serving(site: Node, kubeconfig: Path | None = None) -> Iterator[Server]:
    server = site.server(kubeconfig)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(server.data, ignore_errors=True)


# The first line


def first_line(runs: int) -> list[Row]:
    """One job, followed through the service and raw at the same time: which is told first?"""
    ours: list[float] = []
    raw: list[float] = []
    later: list[float] = []
    worst: list[float] = []
    with node() as site, serving(site) as server:
        asyncio.run(_first_line(site, server))
        for _ in range(runs):
            pairs = [asyncio.run(_first_line(site, server)) for _ in range(SAMPLES)]
            ours.append(percentile([one for one, _ in pairs], 0.5))
            raw.append(percentile([other for _, other in pairs], 0.5))
            later.append(percentile([one - other for one, other in pairs], 0.5))
            worst.append(max(one - other for one, other in pairs))
    what = "first line after POST"
    return [
        figures(f"{what}: follower of the service", "s", "", ours),
        figures(f"{what}: raw watch and follow", "s", "", raw),
        figures(f"{what}: service later than raw, p50", "s", "at most 0.2", later),
        figures(f"{what}: service later than raw, worst of {SAMPLES}", "s", "", worst),
    ]


async def _first_line(site: Node, server: Server) -> tuple[float, float]:
    """Seconds from the POST to the first line, through the service and raw."""
    async with site.access.session() as session:
        pods = f"/api/v1/namespaces/{site.namespace}/pods"
        listed = await call(session, "GET", pods)
        since = listed["metadata"]["resourceVersion"]
        began = time.perf_counter()
        name = await asyncio.to_thread(server.create, "bench-one-line")
        async with asyncio.TaskGroup() as group:
            ours = group.create_task(_through_service(server, name))
            raw = group.create_task(_watch_and_follow(session, pods, since, name))
    await asyncio.to_thread(server.request, "DELETE", f"/training-jobs/{name}?wait=30")
    return ours.result() - began, raw.result() - began


async def _through_service(server: Server, name: str) -> float:
    stream = await open_stream(server, f"/training-jobs/{name}", "Accept: text/event-stream")
    async for line in stream:
        if b"one line" in line:
            stream.writer.close()  # type: ignore[attr-defined]
            return time.perf_counter()
    raise RuntimeError(f"the stream of {name} ended without its line")


async def _watch_and_follow(
    session: aiohttp.ClientSession, pods: str, since: str, job: str
) -> float:
    """Watch until the container runs, follow its log: the least that anybody could do."""
    watch = {
        "watch": "1",
        "resourceVersion": since,
        "labelSelector": f"batch.kubernetes.io/job-name={job}",
    }
    async with session.get(pods, params=watch) as events:
        async for line in events.content:
            pod = json.loads(line)["object"]
            states = [each["state"] for each in pod["status"].get("containerStatuses", ())]
            if any("waiting" not in state for state in states):
                break
    follow = {"follow": "true", "container": "training"}
    async with session.get(f"{pods}/{pod['metadata']['name']}/log", params=follow) as log:
        async for line in log.content:
            if b"one line" in line:
                return time.perf_counter()
    raise RuntimeError(f"the log of {job} ended without its line: {log.status}")


# Many pods that print


def many_lines(runs: int, pods: int) -> list[Row]:
    """Pods print at a fixed rate at the same time; every byte is compared afterwards."""
    cores: list[float] = []
    wrong: list[float] = []
    lateness: list[float] = []
    memory: list[float] = []
    with node() as site:
        for _ in range(runs):
            with serving(site) as server:
                used, bad, late = _print_all(server, pods)
                memory.append(server.memory() / 2**20)
            cores.append(used)
            wrong.append(float(bad))
            lateness.append(late)
    what = f"{pods} pods printing {LINES_PER_S} lines/s for {PRINTING_S} s"
    return [
        figures(f"{what}: logs that differ from what was printed", "logs", "0", wrong),
        figures(f"{what}: cores used by the server", "cores", "under 1", cores),
        figures(f"{what}: memory of the server", "MiB", "", memory),
        figures(f"{what}: how late the last pod was done (the node's limit)", "s", "", lateness),
    ]


def _print_all(server: Server, pods: int) -> tuple[float, int, float]:
    """Cores used by the server while they print, how many logs are wrong, seconds late."""
    assert server.process
    begin = time.time() + 20 + 0.6 * pods  # by then all run
    names = [
        server.create("bench-printer", {"begin": begin, "number": number}, "&memory=64Mi")
        for number in range(pods)
    ]
    while time.time() < begin:
        time.sleep(0.1)
    running = json.loads(server.request("GET", "/training-jobs?state=running&limit=1000")[1])
    if len(running) != pods:
        print(f"only {len(running)} of {pods} pods run when they should print", file=sys.stderr)
    cpu, began = cpu_s(server.process.pid), time.perf_counter()
    time.sleep(PRINTING_S)
    used = (cpu_s(server.process.pid) - cpu) / (time.perf_counter() - began)
    late, wrong = 0.0, 0
    for number, name in enumerate(names):
        server.wait(name, 300)
        text = server.request("GET", f"/training-jobs/{name}")[1]
        body, _, last = text.rstrip(b"\n").rpartition(b"\n")
        if hashlib.sha256(body + b"\n").digest() != _printed(number):
            wrong += 1
            print(_difference(name, number, body), file=sys.stderr)
        else:
            late = max(late, float(last.split()[2]))
    for name in names:
        server.request("DELETE", f"/training-jobs/{name}")
    for name in names:
        server.request("DELETE", f"/training-jobs/{name}?wait=60")
    return used, wrong, late


def _lines(number: int) -> Iterator[bytes]:
    for n in range(LINES_PER_S * PRINTING_S):
        yield b"%03d %07d a line of a training job\n" % (number, n)


def _printed(number: int) -> bytes:
    return hashlib.sha256(b"".join(_lines(number))).digest()


def _difference(name: str, number: int, body: bytes) -> str:
    expected, found = set(_lines(number)), Counter(body.splitlines(keepends=True))
    lost = len(expected - found.keys())
    doubled = sum(count - 1 for count in found.values())
    strange = len(found.keys() - expected)
    return f"{name}: {lost} lines lost, {doubled} doubled, {strange} strange"


# Requests


def requests(runs: int) -> list[Row]:
    """API requests a job over its whole life: counted by a proxy between service and API server."""
    rounds: list[Counter[str]] = []
    idle: Counter[str] = Counter()
    with node() as site, proxy(site) as (kubeconfig, counts), serving(site, kubeconfig) as server:
        server.create("bench-one-line")
        time.sleep(15)
        before = counts()
        time.sleep(15)
        idle = counts() - before
        for _ in range(runs):
            before = counts()
            names = [server.create("bench-one-line") for _ in range(COUNTED_JOBS)]
            for name in names:
                server.wait(name)
                server.request("DELETE", f"/training-jobs/{name}?wait=60")
            rounds.append(counts() - before)
    kinds = sorted(set().union(*rounds))
    rows = [
        figures(
            f"API requests a job, whole life: {kind}",
            "requests",
            "",
            [each[kind] / COUNTED_JOBS for each in rounds],
        )
        for kind in kinds
    ]
    totals = [each.total() / COUNTED_JOBS for each in rounds]
    rows.append(
        figures("API requests a job, whole life: all", "requests", "as few as can be", totals)
    )
    rows.append(
        figures("API requests in 15 s without a job", "requests", "", [float(idle.total())])
    )
    return rows


@contextmanager
def proxy(site: Node) -> Iterator[tuple[Path, "CountReader"]]:
    """A counting proxy in a process of its own: a kubeconfig that leads to it, and its counts."""
    folder = Path(tempfile.mkdtemp(prefix="mt-bench-proxy-"))
    port = free_port()
    access = site.access
    files = [str(file) for file in (access.authority, access.certificate, access.key)]
    script = str(ROOT / "benchmarks/counting_proxy.py")
    running = subprocess.Popen([sys.executable, script, str(port), access.server, *files])
    kubeconfig = folder / "kubeconfig"
    config = json.loads(site.cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{port}"}
    config["users"][0]["user"] = {}
    kubeconfig.write_text(json.dumps(config))
    try:
        reader = CountReader(port)
        reader.wait()
        yield kubeconfig, reader
    finally:
        running.kill()  # it would wait for its open watches
        running.wait()
        shutil.rmtree(folder, ignore_errors=True)


class CountReader:
    def __init__(self, port: int) -> None:
        self._port = port

    def __call__(self) -> Counter[str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/counts")
            return Counter(json.loads(connection.getresponse().read()))

    def wait(self) -> None:
        for _ in range(200):
            with contextlib.suppress(OSError):
                self()
                return
            time.sleep(0.05)
        raise RuntimeError("the counting proxy did not start")
