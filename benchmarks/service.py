"""The figures of the service, measured from outside: ``scripts/bench [--only WORD] [--runs N]``.

Every row is one promise of the product with its target beside it. The server runs with its
default settings but for ``--slots``, which the row names. Load comes from this process, the
judging too; neither imports the product.
"""

import argparse
import asyncio
import hashlib
import http.client
import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from load import (
    COMMAND,
    ROOT,
    Row,
    Server,
    figures,
    machine,
    make_pipeline,
    open_stream,
    page_times,
    percentile,
    post_request,
    repeat,
    resident,
    send_many,
    serving,
    table,
)

ONE_LINE = "print('one line', flush=True)\n"
SLEEP = "import time\ntime.sleep(3600)\n"
FAST = """
import os, sys
megabytes = int(os.environ["megabytes"])
line = (b"%07d " + b"x" * 119 + b"\\n")
block = b"".join(line % n for n in range(8192))
for _ in range(megabytes):
    sys.stdout.buffer.write(block)
"""
TICK = """
import os, time
for n in range(10 * int(os.environ["seconds"])):
    print(n, time.time(), flush=True)
    time.sleep(0.1)
"""


def pipelines() -> Path:
    parent = Path(tempfile.mkdtemp(prefix="mt-bench-pipelines-"))
    make_pipeline(parent, "one-line", ONE_LINE)
    make_pipeline(parent, "sleep", SLEEP, "[job]", "grace = 1")
    make_pipeline(parent, "fast", FAST)
    make_pipeline(parent, "tick", TICK)
    return parent


# Start and idle


def help_cpu(runs: int, _: Path) -> list[Row]:
    def measure() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([COMMAND, "--help"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    measure()
    return [repeat("--help, CPU", "ms", "under 150", runs, measure)]


def start_and_idle(runs: int, where: Path) -> list[Row]:
    ready: list[float] = []
    idle: list[float] = []
    supervisor: list[float] = []
    for _ in range(runs):
        with serving("--slots", "1", pipelines=where) as server:
            ready.append(server.ready_s)
            time.sleep(1)
            idle.append(server.memory() / 2**20)
            name = server.create("sleep")
            until_running(server, name)
            supervisor.append(supervisor_memory(server) / 2**20)
    return [
        figures("serve to ready", "s", "under 2", ready),
        figures("idle memory of the server", "MiB", "under 80", idle),
        figures("memory of one supervisor", "MiB", "under 15", supervisor),
    ]


def until_running(server: Server, name: str) -> None:
    while server.status(name)["state"] == "pending":
        time.sleep(0.01)


def supervisor_memory(server: Server) -> int:
    """Resident memory of the one process that holds a job's folder open as its own."""
    found = [
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and is_supervisor(process, server)
    ]
    return max(resident(pid) for pid in found)


def is_supervisor(process: Path, server: Server) -> bool:
    try:
        argv = (process / "cmdline").read_bytes()
    except OSError:
        return False
    return b"supervisor" in argv and str(server.data).encode() in argv


# Submit


def submit_one(runs: int, where: Path) -> list[Row]:
    with serving("--slots", "1", pipelines=where) as server:
        server.create("sleep")

        def measure() -> float:
            connection = server.connection()
            took = []
            for _ in range(200):
                began = time.perf_counter()
                post(connection, server, "one-line")
                took.append(1000 * (time.perf_counter() - began))
            connection.close()
            return percentile(took, 0.5)

        return [repeat("POST to durable answer, one caller, p50", "ms", "under 30", runs, measure)]


def post(connection: http.client.HTTPConnection, server: Server, pipeline: str) -> str:
    connection.request(
        "POST",
        f"/training-jobs?pipeline={pipeline}",
        body=b"{}",
        headers={**server.headers, "Content-Type": "application/json"},
    )
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 201:
        raise RuntimeError(body.decode())
    return json.loads(body)["name"]


def post_many(server: Server, callers: int, each: int) -> None:
    path = "/training-jobs?pipeline=one-line"
    request = post_request(server.host, server.port, path, server.token)
    asyncio.run(send_many(server.host, server.port, request, callers, each))


def submit_many(runs: int, where: Path) -> list[Row]:
    rates: list[float] = []
    for _ in range(runs):
        with serving("--slots", "1", pipelines=where) as server:
            server.create("sleep")
            post_many(server, 16, 5)
            began = time.perf_counter()
            post_many(server, 16, 125)
            rates.append(2000 / (time.perf_counter() - began))
            server.stop()
            remove_waiting(server)
    return [figures("POST by 16 callers, queue full", "accepted/s", "500 or more", rates)]


def remove_waiting(server: Server) -> None:
    """Thousands of waiting jobs are of no more use: take their folders away."""
    server.start()
    for job in json.loads(server.request("GET", "/training-jobs?state=running")[1]):
        server.request("DELETE", f"/training-jobs/{job['name']}?wait=30")
    server.stop()
    shutil.rmtree(server.data / "jobs")
    (server.data / "ledger.sqlite3").unlink()


def first_line(runs: int, where: Path) -> list[Row]:
    with serving("--slots", "4", pipelines=where) as server:

        def measure() -> float:
            took = [asyncio.run(post_to_first_line(server)) for _ in range(10)]
            return percentile(took, 0.5)

        measure()
        return [repeat("POST to first log line at a follower", "ms", "under 150", runs, measure)]


async def post_to_first_line(server: Server) -> float:
    began = time.perf_counter()
    name = await asyncio.to_thread(server.create, "one-line")
    stream = await open_stream(server, f"/training-jobs/{name}", "Accept: text/event-stream")
    async for line in stream:
        if b"one line" in line:
            break
    took = 1000 * (time.perf_counter() - began)
    stream.writer.close()  # type: ignore[attr-defined]
    return took


def until_all_succeeded(
    connection: http.client.HTTPConnection, server: Server, names: set[str]
) -> None:
    while True:
        connection.request("GET", "/training-jobs?limit=1000", headers=server.headers)
        states = {j["name"]: j["state"] for j in json.loads(connection.getresponse().read())}
        if all(states[name] == "succeeded" for name in names):
            return
        if bad := [name for name in names if states[name] in {"failed", "stopped"}]:
            raise RuntimeError(f"{bad[0]} {states[bad[0]]}")
        time.sleep(0.05)


def start_rate(runs: int, where: Path) -> list[Row]:
    rates: list[float] = []
    for _ in range(runs):
        with serving("--slots", "50", pipelines=where) as server:
            began = time.perf_counter()
            connection = server.connection()
            names = {post(connection, server, "one-line") for _ in range(50)}
            until_all_succeeded(connection, server, names)
            rates.append(50 / (time.perf_counter() - began))
    return [
        figures("job starts (50 one-line jobs at once, slots 50)", "jobs/s", "20 or more", rates)
    ]


# A million jobs


def million(runs: int, where: Path) -> list[Row]:
    data = Path(tempfile.mkdtemp(prefix="mt-bench-million-"))
    try:
        print("filling a ledger with 1,000,000 jobs ...", file=sys.stderr)
        subprocess.run(
            [
                sys.executable,
                str(ROOT / "benchmarks/ledger.py"),
                "--fill",
                str(data / "ledger.sqlite3"),
            ],
            check=True,
        )
        starts: list[float] = []
        pages: dict[str, list[float]] = {"/training-jobs?limit=100": [], "": []}
        for _ in range(runs):
            server = Server(data=data, pipelines=where).start()
            starts.append(server.ready_s)
            name = json.loads(server.request("GET", "/training-jobs?limit=1")[1])[0]["pipeline"]
            paths = {
                "/training-jobs?limit=100": "/training-jobs?limit=100",
                "": f"/training-jobs?limit=100&pipeline={name}",
            }
            connection = server.connection()
            for key, path in paths.items():
                pages[key].append(percentile(page_times(connection, server, path), 0.99))
            connection.close()
            server.stop()
        return [
            figures("server start with 1,000,000 jobs", "s", "under 3", starts),
            figures(
                "first page of 100 among 1,000,000, p99",
                "ms",
                "under 20",
                pages["/training-jobs?limit=100"],
            ),
            figures("first page of one pipeline among 1,000,000, p99", "ms", "under 20", pages[""]),
        ]
    finally:
        shutil.rmtree(data, ignore_errors=True)


# Logs


def capture(runs: int, where: Path) -> list[Row]:
    line = b"%07d " + b"x" * 119 + b"\n"
    block = b"".join(line % n for n in range(8192))
    expected = hashlib.sha256(block * 512).hexdigest()
    with serving("--slots", "1", pipelines=where) as server:

        def measure() -> float:
            name = server.create("fast", {"megabytes": 512})
            job = server.wait(name)
            digest = hashlib.sha256()
            connection = server.connection()
            connection.request("GET", f"/training-jobs/{name}", headers=server.headers)
            answer = connection.getresponse()
            while block := answer.read(1 << 20):
                digest.update(block)
            connection.close()
            if digest.hexdigest() != expected:
                raise RuntimeError("the log differs from what was printed")
            server.request("DELETE", f"/training-jobs/{name}?wait=60")
            return 512 * 1.048576 / float(str(job["duration_s"]))

        return [
            repeat(
                "capture of a job printing as fast as it can, bytes equal",
                "MB/s",
                "50 or more",
                runs,
                measure,
            )
        ]


def long_log(runs: int, where: Path) -> list[Row]:
    with serving("--slots", "1", pipelines=where) as server:
        name = server.create("fast", {"megabytes": 1024})
        server.wait(name, 300)

        def tail() -> float:
            began = time.perf_counter()
            status, body = server.request("GET", f"/training-jobs/{name}?tail=100")
            took = 1000 * (time.perf_counter() - began)
            if status != 200 or body.count(b"\n") != 100:
                raise RuntimeError(f"{status}: {body[:200]!r}")
            return took

        tail()
        rows = [repeat("tail=100 of a 1 GB log", "ms", "under 50", runs, tail)]

        def growth() -> float:
            before = server.memory()
            peak = before
            connection = server.connection()
            connection.request("GET", f"/training-jobs/{name}", headers=server.headers)
            answer = connection.getresponse()
            total = 0
            while block := answer.read(1 << 20):
                total += len(block)
                peak = max(peak, server.memory())
            connection.close()
            if total != 1 << 30:
                raise RuntimeError(f"{total} bytes")
            return (peak - before) / 2**20

        return [
            *rows,
            repeat("memory growth while 1 GB is read whole", "MiB", "under 20", runs, growth),
        ]


def followers(runs: int, where: Path, count: int = 2000) -> list[Row]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    slowest: list[float] = []
    memory: list[float] = []
    for _ in range(runs):
        with serving("--slots", "1", pipelines=where) as server:
            name = server.create("tick", {"seconds": 40})
            until_running(server, name)
            server.request("GET", "/training-jobs?limit=1")
            before = server.memory()
            worst, after = asyncio.run(follow_many(server, name, count))
            slowest.append(worst)
            memory.append((after - before) / count / 1024)
            server.request("DELETE", f"/training-jobs/{name}?wait=30")
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return [
        figures(
            f"{count} followers, 10 lines/s: slowest follower's p99 delivery",
            "s",
            "under 1",
            slowest,
        ),
        figures(f"{count} followers: memory each", "KiB", "under 40", memory),
    ]


async def follow_many(server: Server, name: str, count: int) -> tuple[float, int]:
    gate = asyncio.Semaphore(50)

    async def connect() -> asyncio.StreamReader:
        async with gate:
            return await open_stream(
                server, f"/training-jobs/{name}?tail=0", "Accept: text/event-stream"
            )

    streams = await asyncio.gather(*(connect() for _ in range(count)))
    await asyncio.sleep(2)
    until = time.time() + 15
    delays = await asyncio.gather(*(delivery(stream, until) for stream in streams))
    memory = server.memory()
    for stream in streams:
        stream.writer.close()  # type: ignore[attr-defined]
    return max(percentile(each, 0.99) for each in delays), memory


async def delivery(stream: asyncio.StreamReader, until: float) -> list[float]:
    """How long each line took from the job's clock to here."""
    took: list[float] = []
    start = time.time()
    while time.time() < until:
        line = await stream.readline()
        if not line:
            raise RuntimeError("the stream was cut")
        if line.startswith(b"data: ") and b'"text"' in line:
            now = time.time()
            for printed in json.loads(line[6:])["text"].splitlines():
                at = float(printed.split()[1])
                # Lines from before the measurement came in one piece with the connection.
                if at > start:
                    took.append(now - at)
    return took


def livez(runs: int, where: Path) -> list[Row]:
    worst: list[float] = []
    for _ in range(runs):
        with serving("--slots", "100", pipelines=where) as server:
            took: list[float] = []
            done = threading.Event()

            def ask(
                server: Server = server, took: list[float] = took, done: threading.Event = done
            ) -> None:
                connection = server.connection()
                while not done.is_set():
                    began = time.perf_counter()
                    connection.request("GET", "/livez")
                    connection.getresponse().read()
                    took.append(1000 * (time.perf_counter() - began))
                    time.sleep(0.002)
                connection.close()

            asking = threading.Thread(target=ask)
            asking.start()
            names = [server.create("tick", {"seconds": 3}) for _ in range(100)]
            for name in names:
                server.wait(name)
            done.set()
            asking.join()
            worst.append(percentile(took, 0.99))
    return [figures("GET /livez p99 while 100 jobs start and print", "ms", "under 50", worst)]


PARTS: dict[str, Callable[[int, Path], list[Row]]] = {
    "help": help_cpu,
    "start": start_and_idle,
    "submit-one": submit_one,
    "submit-many": submit_many,
    "first-line": first_line,
    "start-rate": start_rate,
    "million": million,
    "capture": capture,
    "long-log": long_log,
    "followers": followers,
    "livez": livez,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", action="append", choices=sorted(PARTS), help="may be repeated")
    parser.add_argument("--json", type=Path, default=ROOT / ".bench" / "service.json")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what it started ends with it
    where = pipelines()
    rows: list[Row] = []
    try:
        for name, part in PARTS.items():
            if not given.only or name in given.only:
                rows += part(given.runs, where)
    finally:
        shutil.rmtree(where, ignore_errors=True)
    result = {"machine": machine(), "rows": rows}
    given.json.parent.mkdir(exist_ok=True)
    given.json.write_text(json.dumps(result, indent=2) + "\n")
    print(table(rows))
    print("\n" + json.dumps(result["machine"]))


if __name__ == "__main__":
    main()
