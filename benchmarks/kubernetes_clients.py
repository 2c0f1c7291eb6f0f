"""HTTP clients against a real API server: ``python benchmarks/kubernetes_clients.py [--runs N]``.

Raw POSTs of one Job by one caller and by sixteen, and a watch of many Jobs, by aiohttp, httpx2 and
lightkube. Each client runs in a process of its own, so that its CPU time is its own, in an
environment made for this; their runs alternate, so that all of them meet the same machine. The
programs of the API server must have been built once (``testbed/up``).
"""

import argparse
import asyncio
import json
import resource
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".bench" / "kubernetes-clients-venv"
PACKAGES = ("lightkube==1.0.1", "httpx2", "aiohttp", "msgspec", "pyyaml")
CLIENTS = ("aiohttp", "httpx2", "lightkube")
ALONE, TOGETHER, CALLERS = 200, 800, 16
WATCHED = 5000  # Jobs
NAMESPACE = "clients"
PATH = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"


def manifest(name: str) -> dict:
    """A Job that no controller touches, as large as ours are."""
    env = [{"name": f"PARAMETER_{number}", "value": "x" * 40} for number in range(12)]
    container = {"name": "training", "image": "none", "command": ["python", "-m", "x"], "env": env}
    annotations = {f"example.com/note-{number}": "y" * 200 for number in range(3)}
    metadata = {"annotations": annotations, "labels": {"a": "b", "c": "d"}}
    template = {
        "metadata": metadata,
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": NAMESPACE, **metadata},
        "spec": {"managedBy": "example.com/none", "backoffLimit": 0, "template": template},
    }


Create = Callable[[str], Awaitable[None]]
Watch = Callable[[], AsyncIterator[int]]


class Aiohttp:
    """As the product asks: bytes in, bytes out."""

    def __init__(self, keys: dict[str, str], url: str) -> None:
        import aiohttp

        connector = aiohttp.TCPConnector(ssl=tls(keys), limit=64)
        self.session = aiohttp.ClientSession(connector=connector, read_bufsize=1 << 20)
        self.url = url + PATH

    async def create(self, name: str) -> None:
        body = json.dumps(manifest(name)).encode()
        headers = {"Content-Type": "application/json"}
        async with self.session.post(self.url, data=body, headers=headers) as response:
            assert response.status == 201, await response.text()
            await response.read()

    async def watch(self) -> AsyncIterator[int]:
        headers = {"Accept-Encoding": "identity"}
        async with self.session.get(self.url, params={"watch": "1"}, headers=headers) as response:
            async for chunk in decoded(response.content.iter_any()):
                yield chunk

    async def close(self) -> None:
        await self.session.close()


class Httpx2:
    """The same with httpx2."""

    def __init__(self, keys: dict[str, str], url: str) -> None:
        import httpx2

        limits = httpx2.Limits(max_connections=64, max_keepalive_connections=64)
        self.client = httpx2.AsyncClient(verify=tls(keys), limits=limits, timeout=30)
        self.url = url + PATH

    async def create(self, name: str) -> None:
        body = json.dumps(manifest(name)).encode()
        response = await self.client.post(
            self.url, content=body, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 201, response.text

    async def watch(self) -> AsyncIterator[int]:
        headers = {"Accept-Encoding": "identity"}
        get = self.client.stream("GET", self.url, params={"watch": "1"}, headers=headers)
        async with get as response:
            async for chunk in decoded(response.aiter_raw()):
                yield chunk

    async def close(self) -> None:
        await self.client.aclose()


class Lightkube:
    """Lightkube's own client, objects and watch."""

    def __init__(self, keys: dict[str, str], _url: str) -> None:
        import lightkube
        from lightkube.resources.batch_v1 import Job

        self.client = lightkube.AsyncClient(
            config=lightkube.KubeConfig.from_file(keys["kubeconfig"])
        )
        self.kind = Job

    async def create(self, name: str) -> None:
        await self.client.create(self.kind.from_dict(manifest(name)))

    async def watch(self) -> AsyncIterator[int]:
        async for _ in self.client.watch(self.kind, namespace=NAMESPACE):
            yield 1

    async def close(self) -> None:
        await self.client.close()


async def decoded(chunks: AsyncIterator[bytes]) -> AsyncIterator[int]:
    """The number of events in each chunk, decoded as the reflector does it."""
    sys.path.insert(0, str(ROOT / "src"))
    from model_training.executors.kubernetes.objects import decode_job
    from model_training.executors.kubernetes.watch_wire import EventLines, decode_event

    lines = EventLines()
    async for chunk in chunks:
        found = lines.feed(chunk)
        for line in found:
            decode_job(decode_event(line).object)
        yield len(found)


def tls(keys: dict[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=keys["ca"])
    context.load_cert_chain(keys["certificate"], keys["key"])
    return context


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measured(name: str, keys: dict[str, str], url: str, prefix: str) -> dict[str, float]:
    kind = {"aiohttp": Aiohttp, "httpx2": Httpx2, "lightkube": Lightkube}[name]
    client = kind(keys, url)
    figures: dict[str, float] = {}

    async def some(label: str, count: int, callers: int) -> None:
        numbers = iter(range(count))
        times: list[float] = []

        async def caller() -> None:
            for number in numbers:
                begun = time.perf_counter()
                await client.create(f"{prefix}-{label}-{number}")
                times.append(time.perf_counter() - begun)

        used, begun = cpu_s(), time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        figures[f"{label} p50 ms"] = statistics.median(times) * 1000
        figures[f"{label} per s"] = count / (time.perf_counter() - begun)
        figures[f"{label} CPU ms"] = (cpu_s() - used) / count * 1000

    await some("warm", 20, 1)
    await some("alone", ALONE, 1)
    await some("together", TOGETHER, CALLERS)
    used, begun, seen = cpu_s(), time.perf_counter(), 0
    async for count in client.watch():
        seen += count
        if seen >= WATCHED:
            break
    figures["watch events per s"] = seen / (time.perf_counter() - begun)
    figures["watch CPU us"] = (cpu_s() - used) / seen * 1e6
    await client.close()
    return {label: value for label, value in figures.items() if "warm" not in label}


def environment() -> Path:
    python = HOME / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", HOME], check=True)
        install = [python, "-m", "pip", "install", "--quiet", *PACKAGES]
        subprocess.run(install, check=True)
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--client", nargs=4, help=argparse.SUPPRESS)  # a run of one client
    args = parser.parse_args()
    if args.client:
        name, keys, url, prefix = args.client
        print(json.dumps(asyncio.run(measured(name, json.loads(keys), url, prefix))))
        return
    python = environment()
    sys.path.insert(0, str(ROOT))
    from testbed.control_plane import ControlPlane

    results: dict[str, list[dict[str, float]]] = {name: [] for name in CLIENTS}
    with ControlPlane(Path(tempfile.mkdtemp()) / "plane") as plane:
        plane.api.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        keys = {
            "ca": str(plane.keys.certificate("ca")),
            "certificate": str(plane.keys.certificate("admin")),
            "key": str(plane.keys.key("admin")),
            "kubeconfig": str(plane.kubeconfig),
        }
        for number in range(WATCHED):
            plane.api.post(PATH, manifest(f"watched-{number}"))
        for run in range(args.runs):
            for name in CLIENTS:
                one = ["--client", name, json.dumps(keys), plane.url, f"{name}-{run}"]
                argv = [python, __file__, *one]
                answer = subprocess.run(argv, check=True, capture_output=True, text=True)
                results[name].append(json.loads(answer.stdout))
    report(results)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


def report(results: dict[str, list[dict[str, float]]]) -> None:
    labels = list(next(iter(results.values()))[0])
    print(f"| median of {len(next(iter(results.values())))} runs | {' | '.join(results)} |")
    print("|---" * (len(results) + 1) + "|")
    for label in labels:
        cells = [f"{statistics.median(r[label] for r in runs):.2f}" for runs in results.values()]
        print(f"| {label} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
