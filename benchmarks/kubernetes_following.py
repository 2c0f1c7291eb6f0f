"""What following many Jobs costs: ``python benchmarks/kubernetes_following.py [--jobs 50000]``.

A private API server with so many Jobs that no controller touches; then, in a process of its own,
the first whole list, the memory that the rows take, the way of a change into the rows at 100
changes a second, and being in step again after the API server was killed and restarted. The
programs of the API server must have been built once (``testbed/up``).
"""

import argparse
import asyncio
import http.client
import json
import resource
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(Path(__file__).parent))

from kubernetes_clients import manifest  # noqa: E402
from load import percentile  # noqa: E402

from testbed.control_plane import ControlPlane  # noqa: E402

PATH = "/apis/batch/v1/namespaces/clients/jobs"
WRITERS = 8
CHANGES = 1000
RATE = 100  # changes a second


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Writer:
    """One connection to the API server, as the administrator."""

    def __init__(self, plane: ControlPlane) -> None:
        context = ssl.create_default_context(cafile=plane.keys.certificate("ca"))
        context.load_cert_chain(plane.keys.certificate("admin"), plane.keys.key("admin"))
        host = plane.url.removeprefix("https://")
        self._connection = http.client.HTTPSConnection(host, context=context, timeout=30)

    def send(self, method: str, path: str, body: dict, kind: str = "application/json") -> dict:
        headers = {"Content-Type": kind}
        self._connection.request(method, path, json.dumps(body), headers)
        answer = self._connection.getresponse()
        content = answer.read()
        assert answer.status < 300, content
        return json.loads(content)


def fill(plane: ControlPlane, jobs: int) -> None:
    plane.api.post("/api/v1/namespaces", {"metadata": {"name": "clients"}})

    def write(first: int) -> None:
        writer = Writer(plane)
        for number in range(first, jobs, WRITERS):
            writer.send("POST", PATH, manifest(f"job-{number}"))

    threads = [threading.Thread(target=write, args=(first,)) for first in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def until(predicate: Callable[[], bool]) -> None:
    while not predicate():
        await asyncio.sleep(0.005)


async def followed(plane: ControlPlane, jobs: int) -> dict[str, float]:
    from model_training.executors.kubernetes.api import KubernetesApi
    from model_training.executors.kubernetes.kubeconfig import load_cluster
    from model_training.executors.kubernetes.objects import JobRow, decode_job
    from model_training.executors.kubernetes.reflector import Reflector
    from model_training.executors.kubernetes.row_store import Listener

    seen: dict[str, float] = {}

    def changed(_: JobRow | None, after: JobRow | None) -> None:
        if after is not None and watching:
            seen[after.resource_version] = time.perf_counter()

    watching = False
    figures: dict[str, float] = {"RSS before MB": rss_mb()}
    async with KubernetesApi(load_cluster(plane.kubeconfig)) as api:
        reflector = Reflector(api, PATH, decode_job, listener=Listener(changed))
        used, begun = cpu_s(), time.perf_counter()
        task = asyncio.create_task(reflector.run())
        await until(lambda: reflector.stale_since is None)
        assert len(reflector.rows) == jobs
        figures["first sync s"] = time.perf_counter() - begun
        figures["first sync CPU s"] = cpu_s() - used
        figures["RSS after first sync MB"] = rss_mb()
        figures["requests for first sync"] = api.counts.total()
        watching = True
        sent: dict[str, float] = {}
        used, begun = cpu_s(), time.perf_counter()
        await asyncio.to_thread(change, plane, sent)
        await until(lambda: sent.keys() <= seen.keys())
        figures["CPU share at 100 changes/s %"] = (
            (cpu_s() - used) / (time.perf_counter() - begun) * 100
        )
        lags = [(seen[version] - at) * 1000 for version, at in sent.items()]
        figures["change into rows p50 ms"] = percentile(lags, 0.5)
        figures["change into rows p99 ms"] = percentile(lags, 0.99)
        plane.kill("kube-apiserver")
        await until(lambda: reflector.stale_since is not None)
        plane.start("kube-apiserver")
        await asyncio.to_thread(plane.wait_ready)
        used, begun = cpu_s(), time.perf_counter()
        await until(lambda: reflector.stale_since is None)
        figures["in step after ready s"] = time.perf_counter() - begun
        figures["lists until then"] = reflector.lists
        figures["RSS after second list MB"] = rss_mb()
        assert len(reflector.rows) == jobs
        task.cancel()
    return figures


def change(plane: ControlPlane, sent: dict[str, float]) -> None:
    """From a process's thread: a version, and when the API server had answered with it."""
    writer = Writer(plane)
    begun = time.perf_counter()
    for number in range(CHANGES):
        threading.Event().wait(max(0.0, begun + number / RATE - time.perf_counter()))
        patch = {"metadata": {"annotations": {"note": f"{begun} {number}"}}}
        asked = time.perf_counter()
        path = f"{PATH}/job-{number}"
        answer = writer.send("PATCH", path, patch, "application/merge-patch+json")
        sent[answer["metadata"]["resourceVersion"]] = asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="of the Jobs: kept, and used again if there")
    parser.add_argument("--follow", type=Path, help=argparse.SUPPRESS)  # one run: the plane
    args = parser.parse_args()
    if args.follow:
        print(json.dumps(asyncio.run(followed(ControlPlane(args.follow), args.jobs))))
        return
    results: list[dict[str, float]] = []
    folder = (args.folder or Path(tempfile.mkdtemp())) / "plane"
    is_new = not folder.exists()
    plane = ControlPlane(folder)
    try:
        plane.up()
        if is_new:
            begun = time.perf_counter()
            fill(plane, args.jobs)
            print(f"{args.jobs} Jobs created in {time.perf_counter() - begun:.0f} s")
        for _ in range(args.runs):
            argv = [sys.executable, __file__, "--follow", str(folder), "--jobs", str(args.jobs)]
            answer = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
            results.append(json.loads(answer.stdout))
    finally:
        plane.down()
        if args.folder is None:
            shutil.rmtree(folder.parent)
    for label in results[0]:
        print(f"{label:32} {'  '.join(f'{run[label]:9.2f}' for run in results)}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
