"""POST of one Job by three clients, with nothing around it: ``raw_clients.py SERVER CA CERT KEY``.

Runs in an environment of its own, on the event loop that the service runs on, and measures what it
is told by lines of JSON on standard input::

    {"client": "aiohttp", "callers": 1, "each": 200, "namespace": "n", "manifest": {...}}

Each answer is a line: the milliseconds of every POST, the seconds of all together, and the
processor time that it took here. Each Job gets a name of its own.
"""

import asyncio
import json
import ssl
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import httpx2
import lightkube
import uvloop
from lightkube.config import kubeconfig
from lightkube.resources.batch_v1 import Job

Send = Callable[[], Awaitable[None]]
JSON = {"Content-Type": "application/json"}


class Lab:
    """The three clients, connected for as long as this process lives."""

    def __init__(self, server: str, *files: str) -> None:
        self.server = server
        self.files = tuple(Path(file) for file in files)
        ca, *pair = files
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(*pair)
        self.aiohttp = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=100), headers=JSON
        )
        self.httpx2 = httpx2.AsyncClient(verify=context, headers=JSON, timeout=60)
        self.lightkube: dict[str, lightkube.AsyncClient] = {}

    def sender(self, client: str, namespace: str, manifest: dict) -> Send:
        """What posts the next Job."""
        if client == "lightkube":
            return self._typed(namespace, manifest)
        bodies = _bodies(manifest)
        url = f"{self.server}/apis/batch/v1/namespaces/{namespace}/jobs"

        async def by_aiohttp() -> None:
            async with self.aiohttp.post(url, data=next(bodies)) as answer:
                content = await answer.read()
                if answer.status != 201:
                    raise RuntimeError(content.decode())

        async def by_httpx2() -> None:
            answer = await self.httpx2.post(url, content=next(bodies))
            if answer.status_code != 201:
                raise RuntimeError(answer.text)

        return {"aiohttp": by_aiohttp, "httpx2": by_httpx2}[client]

    def _typed(self, namespace: str, manifest: dict) -> Send:
        """lightkube's own way: an object is written as JSON, and the answer read into one."""
        client = self.lightkube.get(namespace)
        if client is None:
            client = lightkube.AsyncClient(config=self._config(), namespace=namespace)
            self.lightkube[namespace] = client
        job = Job.from_dict(manifest)
        stem = manifest["metadata"]["name"].removesuffix(_id(manifest))

        async def by_lightkube() -> None:
            job.metadata.name = stem + str(uuid.uuid4())
            await client.create(job)

        return by_lightkube

    def _config(self) -> kubeconfig.KubeConfig:
        ca, certificate, key = map(str, self.files)
        return kubeconfig.KubeConfig(
            clusters={"bench": kubeconfig.Cluster(server=self.server, certificate_auth=ca)},
            contexts={"bench": kubeconfig.Context(cluster="bench", user="bench")},
            users={"bench": kubeconfig.User(client_cert=certificate, client_key=key)},
            current_context="bench",
        )


def _id(manifest: dict) -> str:
    return manifest["metadata"]["labels"]["model-training.io/id"]


def _bodies(manifest: dict) -> Iterator[bytes]:
    """The Job under ever new identifiers, of which its name ends in one."""
    text, id_ = json.dumps(manifest), _id(manifest)
    while True:
        yield text.replace(id_, str(uuid.uuid4())).encode()


async def measure(send: Send, callers: int, each: int) -> dict[str, object]:
    took: list[float] = []

    async def call() -> None:
        for _ in range(each):
            began = time.perf_counter()
            await send()
            took.append(1000 * (time.perf_counter() - began))

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(call() for _ in range(callers)))
    seconds = time.perf_counter() - began
    return {"times": took, "seconds": seconds, "cpu_s": time.process_time() - cpu}


async def main() -> None:
    lab = Lab(*sys.argv[1:])
    while line := await asyncio.to_thread(sys.stdin.readline):
        wanted = json.loads(line)
        send = lab.sender(wanted["client"], wanted["namespace"], wanted["manifest"])
        print(json.dumps(await measure(send, wanted["callers"], wanted["each"])), flush=True)
    await lab.aiohttp.close()
    await lab.httpx2.aclose()


if __name__ == "__main__":
    uvloop.run(main())
