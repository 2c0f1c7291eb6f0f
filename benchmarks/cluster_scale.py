"""Lists, memory, synchronisation and latency of the service that follows many Jobs.

The Jobs are suspended and managed by nobody (``managedBy``), so that they cost their cluster
nothing but their place in etcd and in the API server's cache.
"""

import asyncio
import json
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import aiohttp
from cluster_rivals import predecessor
from cluster_site import (
    PATCH,
    PIPELINES,
    Plane,
    call,
    copies,
    create_all,
    following,
    jobs_path,
    manifest_of,
    plane,
)
from load import Row, Server, figures, page_times, percentile, resident

LISTED = 5_000
SETTLE_S = 5.0
CHANGES_PER_S = 100
CHANGED = 2_000  # Jobs a run: 20 s
NAMESPACE = "bench"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def filled(count: int, started: str = "") -> Iterator[Plane]:
    """A control plane with so many Jobs, the same number of every pipeline."""
    with plane() as site:
        site.make_namespace(NAMESPACE)
        fill(site, count, started)
        yield site


def fill(site: Plane, count: int, started: str = "") -> list[str]:
    with following(site, NAMESPACE) as server:
        manifests = [manifest_of(server, pipeline) for pipeline in PIPELINES]
    say(f"creating {count} Jobs ...")
    began = time.perf_counter()
    names = asyncio.run(
        create_all(site.access, NAMESPACE, copies(manifests, count), started=started)
    )
    say(f"... in {time.perf_counter() - began:.0f} s")
    return names


def jobs_known(server: Server) -> int:
    """How many jobs are in the ledger, as the service itself counts them."""
    lines = server.request("GET", "/metrics")[1].decode().splitlines()
    return sum(
        int(float(line.split()[1])) for line in lines if line.startswith("model_training_jobs{")
    )


def until_known(server: Server, count: int, within: float = 300.0) -> float:
    """Seconds until the ledger has so many jobs."""
    began = time.perf_counter()
    while (known := jobs_known(server)) < count:
        if time.perf_counter() - began > within:
            raise RuntimeError(f"{known} of {count} jobs are known after {within:.0f} s")
        time.sleep(0.1)
    return time.perf_counter() - began


# Lists


def lists(runs: int) -> list[Row]:
    """Pages of the service and the predecessor's list, of the same Jobs, by turns."""
    since = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    each = LISTED // len(PIPELINES)
    paths = {
        "page of 100": ("/training-jobs?limit=100", 100),
        f"all {each} of one pipeline": (f"/training-jobs?pipeline={PIPELINES[3]}", each),
        f"all {LISTED}": ("/training-jobs", LISTED),
    }
    took: dict[str, list[float]] = {name: [] for name in (*paths, "predecessor")}
    # Every Job says since when it runs: without that the predecessor cannot sort, and answers 500.
    with (
        filled(LISTED, since) as site,
        following(site, NAMESPACE) as server,
        predecessor(site.kubeconfig, NAMESPACE) as old,
    ):
        until_known(server, LISTED)
        for _ in range(runs):
            # Anew, as the server closes one that idles for as long as the predecessor takes.
            connection = server.connection()
            for name, (path, count) in paths.items():
                times = 100 if count <= 100 else 20
                found = page_times(connection, server, path, jobs=count, times=times)
                took[name].append(percentile(found, 0.5))
            connection.close()
            began = time.perf_counter()
            status, body = old.get("/training-jobs")
            took["predecessor"].append(1000 * (time.perf_counter() - began))
            if status != 200 or len(json.loads(json.loads(body))) != LISTED:
                raise RuntimeError(f"the predecessor answered {status}: {body[:200]!r}")
        memory = resident(old.process.pid, "VmHWM") / 2**20
    return [
        *_list_rows(paths, took),
        figures("memory of the predecessor, most", "MiB", "", [memory]),
    ]


def _list_rows(paths: dict[str, tuple[str, int]], took: dict[str, list[float]]) -> list[Row]:
    rows = []
    for name in paths:
        target = "" if name.endswith(str(LISTED)) else "under 20"
        rows.append(figures(f"list of {LISTED} Jobs, p50: {name}", "ms", target, took[name]))
    rows.append(figures(f"list of {LISTED} Jobs: predecessor, all", "ms", "", took["predecessor"]))
    for name in paths:
        pairs = zip(took["predecessor"], took[name], strict=True)
        target = "" if name.endswith(str(LISTED)) else "at least 100"
        what = f"list of {LISTED} Jobs: predecessor, all / {name}"
        rows.append(figures(what, "x", target, [old / new for old, new in pairs]))
    return rows


# Memory and synchronisation


def scale(runs: int, count: int) -> list[Row]:
    """Memory with 5,000 and with ``count`` Jobs, first sync, and back in step after a restart."""
    rows = []
    with filled(min(LISTED, count)) as site:
        rows += follow(runs, site, min(LISTED, count), "under 120", "")
        if count > LISTED:
            fill(site, count - LISTED)
            rows += follow(runs, site, count, "under 250", "under 30")
        rows += back_in_step(runs, site, count)
    return rows


def follow(runs: int, site: Plane, count: int, memory_target: str, sync_target: str) -> list[Row]:
    synced: list[float] = []
    settled: list[float] = []
    most: list[float] = []
    for _ in range(runs):
        began = time.perf_counter()
        with following(site, NAMESPACE) as server:
            until_known(server, count)
            synced.append(time.perf_counter() - began)
            time.sleep(SETTLE_S)
            assert server.process
            settled.append(server.memory() / 2**20)
            most.append(resident(server.process.pid, "VmHWM") / 2**20)
    return [
        figures(f"start to {count} Jobs in the ledger", "s", sync_target, synced),
        figures(f"memory following {count} Jobs", "MiB", memory_target, settled),
        figures(f"memory following {count} Jobs, most ever", "MiB", "", most),
    ]


def back_in_step(runs: int, site: Plane, count: int) -> list[Row]:
    """kube-apiserver is killed and started; a Job made as soon as it is ready is looked for."""
    took: list[float] = []
    with following(site, NAMESPACE) as server:
        until_known(server, count)
        manifest = manifest_of(server, PIPELINES[0])
        for _ in range(runs):
            site.kill("kube-apiserver")
            time.sleep(2)
            site.start("kube-apiserver")
            site.wait_ready("kube-apiserver")
            began = time.perf_counter()
            (name,) = asyncio.run(create_all(site.access, NAMESPACE, copies([manifest], 1)))
            while server.request("GET", f"/training-jobs/{name}/status")[0] != 200:
                time.sleep(0.02)
            took.append(time.perf_counter() - began)
    what = f"back in step after the API server's restart, {count} Jobs"
    return [figures(what, "s", "under 10", took)]


# From the API server to the ledger


class Watcher(threading.Thread):
    """Reads the ledger's file from outside: which of these jobs have succeeded, and since when."""

    def __init__(self, server: Server, names: set[str]) -> None:
        super().__init__(daemon=True)
        self.seen: dict[str, float] = {}
        self._file = server.data / "ledger.sqlite3"
        self._names = names
        self.stopped = threading.Event()

    def run(self) -> None:
        ledger = sqlite3.connect(f"file:{self._file}?mode=ro", uri=True)
        version = None
        while not self.stopped.is_set():
            (found,) = ledger.execute("PRAGMA data_version").fetchone()
            if found == version:
                time.sleep(0.002)
                continue
            version = found
            rows = ledger.execute("SELECT name FROM jobs WHERE state = 'succeeded'").fetchall()
            now = time.perf_counter()
            for (name,) in rows:
                if name in self._names:
                    self.seen.setdefault(name, now)
        ledger.close()


def changes(runs: int) -> list[Row]:
    """Jobs end at a steady rate; how long after the write was sent does the ledger's file say so?

    A raw watch of the same Jobs stands beside it: what it is late by is the API server's own.
    """
    found: dict[str, list[float]] = {"p50": [], "p99": [], "raw p99": [], "beyond p99": []}
    with plane() as site:
        site.make_namespace(NAMESPACE)
        for _ in range(runs):
            names = fill(site, CHANGED)
            with following(site, NAMESPACE) as server:
                until_known(server, CHANGED)
                watcher = Watcher(server, set(names))
                watcher.start()
                sent, raw = asyncio.run(end_all(site, names))
                deadline = time.perf_counter() + 30
                while len(watcher.seen) < len(names) and time.perf_counter() < deadline:
                    time.sleep(0.05)
                watcher.stopped.set()
                watcher.join()
            if lost := set(names) - set(watcher.seen):
                raise RuntimeError(f"{len(lost)} ends never came to the ledger")
            took = [1000 * (watcher.seen[name] - sent[name]) for name in names]
            found["p50"].append(percentile(took, 0.5))
            found["p99"].append(percentile(took, 0.99))
            raw_took = [1000 * (raw[name] - sent[name]) for name in names]
            found["raw p99"].append(percentile(raw_took, 0.99))
            beyond = [1000 * (watcher.seen[name] - raw[name]) for name in names]
            found["beyond p99"].append(percentile(beyond, 0.99))
            site.empty(NAMESPACE)
    what = f"Job change to the ledger, {CHANGES_PER_S} changes a second"
    return [
        figures(f"{what}, p50", "ms", "", found["p50"]),
        figures(f"{what}, p99", "ms", "under 250", found["p99"]),
        figures(f"{what}: to a raw watch, p99", "ms", "", found["raw p99"]),
        figures(f"{what}: later than the raw watch, p99", "ms", "", found["beyond p99"]),
    ]


async def end_all(site: Plane, names: list[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Write the end of each Job at the rate; when each was sent, and when a watch told of it."""
    sent: dict[str, float] = {}
    async with site.access.session() as session:

        async def end(name: str) -> None:
            sent[name] = time.perf_counter()
            await call(session, "PATCH", jobs_path(NAMESPACE, name) + "/status", ended(), **PATCH)

        listed = await call(session, "GET", jobs_path(NAMESPACE) + "?limit=1")
        watching = asyncio.create_task(
            watch_ends(session, listed["metadata"]["resourceVersion"], len(names))
        )
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number, name in enumerate(names):
                await asyncio.sleep(max(0.0, began + number / CHANGES_PER_S - time.perf_counter()))
                group.create_task(end(name))
        raw = await asyncio.wait_for(watching, 30)
    return sent, raw


async def watch_ends(session: aiohttp.ClientSession, since: str, count: int) -> dict[str, float]:
    """When each end was told, as bytes: nothing of an object is looked at but its name."""
    seen: dict[str, float] = {}
    params = {"watch": "1", "resourceVersion": since}
    async with session.get(jobs_path(NAMESPACE), params=params) as events:
        async for line in events.content:
            at = line.index(b'"metadata":{"name":"') + 20
            if b'"Complete"' in line:
                seen[line[at : line.index(b'"', at)].decode()] = time.perf_counter()
                if len(seen) == count:
                    break
    return seen


def ended() -> dict:
    """The status of a Job that has succeeded."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": now, "lastProbeTime": now}
        for kind in ("SuccessCriteriaMet", "Complete")
    ]
    return {
        "status": {
            "startTime": now,
            "completionTime": now,
            "succeeded": 1,
            "conditions": conditions,
        }
    }
