"""Where the service is measured: a control plane of the benchmark's own, and Jobs on it.

etcd, kube-apiserver and a registry, without controllers and nodes: what is measured there is the
service and the API server, and nothing starts pods on the same two processors meanwhile.
"""

import asyncio
import base64
import contextlib
import json
import shutil
import ssl
import sys
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp
from load import ROOT, Server, free_port

sys.path.insert(0, str(ROOT))  # the test cluster stands beside the benchmarks, not in the product

from testbed import images
from testbed.binaries import packages
from testbed.cluster import Cluster
from testbed.components import Component
from testbed.control_plane import ControlPlane
from testbed.registries import Registry

__all__ = ["Cluster", "images"]
PIPELINES = tuple(f"train-{letter}" for letter in "abcdefghij")
PARAMETERS = {"epochs": "10", "learning_rate": "0.1", "dataset": "digits"}  # all strings: see below
"""The predecessor answers 500 to a number."""
NOBODY = "example.com/none"  # `managedBy` of Jobs that no controller touches
ID_LABEL = "model-training.io/id"
WRITERS = 32
Item = TypeVar("Item")
PATCH = {"Content-Type": "application/merge-patch+json"}


@dataclass(frozen=True)
class Access:
    """The API server, and files with an administrator's keys."""

    server: str
    authority: Path
    certificate: Path
    key: Path

    @classmethod
    def of(cls, kubeconfig: Path, folder: Path) -> "Access":
        """That of a kubeconfig written as JSON, which holds its keys."""
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        found = {
            "authority": cluster["certificate-authority-data"],
            "certificate": user["client-certificate-data"],
            "key": user["client-key-data"],
        }
        for name, content in found.items():
            (folder / name).touch(mode=0o600)
            (folder / name).write_bytes(base64.b64decode(content))
        return cls(cluster["server"], *(folder / name for name in found))

    @contextlib.asynccontextmanager
    async def session(self):
        """An aiohttp session that is not limited in connections."""
        context = ssl.create_default_context(cafile=str(self.authority))
        context.load_cert_chain(self.certificate, self.key)
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with aiohttp.ClientSession(
            self.server, connector=connector, timeout=timeout, read_bufsize=1 << 20
        ) as session:
            yield session


async def call(
    session: aiohttp.ClientSession, method: str, path: str, body: object = None, **headers: str
) -> dict:
    """One request; the object that it is answered with."""
    given = {"Content-Type": "application/json", **headers}
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    async with session.request(method, path, data=data, headers=given) as answer:
        content = await answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content.decode()[:500]}")
        return json.loads(content)


def jobs_path(namespace: str, name: str = "") -> str:
    return f"/apis/batch/v1/namespaces/{namespace}/jobs" + (f"/{name}" if name else "")


class Plane(ControlPlane):
    """The control plane with a registry that has the images of ``PIPELINES``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.registry = Registry(f"127.0.0.1:{free_port()}", folder / "registry", login=False)

    def components(self) -> dict[str, Component]:
        return {"registry": self.registry.component(), **super().components()}

    def _prepare(self, name: str) -> None:
        if name == "registry":
            self.registry.prepare()
        else:
            super()._prepare(name)

    def up(self) -> None:
        packages()
        super().up()
        for pipeline in PIPELINES:
            images.push(images.pause(), f"model-training-{pipeline}", self.registry.address)

    @property
    def access(self) -> Access:
        return Access.of(self.kubeconfig, self.folder)

    def make_namespace(self, name: str) -> str:
        self.api.post("/api/v1/namespaces", {"metadata": {"name": name}})
        return name

    def empty(self, namespace: str) -> None:
        """Delete every Job; nothing is left to be garbage-collected."""
        asyncio.run(self._empty(namespace))

    async def _empty(self, namespace: str) -> None:
        async with self.access.session() as session:
            path = jobs_path(namespace) + "?propagationPolicy=Background"
            await call(session, "DELETE", path)

    def server(self, namespace: str, *options: str) -> Server:
        """The service in front of it, not started."""
        return Server(
            "--executor", "kubernetes", "--kubeconfig", str(self.kubeconfig),
            "--namespace", namespace, "--registry", self.registry.address, *options,
        )  # fmt: skip


@contextmanager
def plane() -> Iterator[Plane]:
    """A control plane for the time of the block."""
    folder = Path(tempfile.mkdtemp(prefix="mt-bench-plane-"))
    running = Plane(folder / "plane")
    try:
        running.up()
        yield running
    finally:
        running.down()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def following(running: Plane, namespace: str, *options: str) -> Iterator[Server]:
    """The service, ready. Its jobs are left: no controller would finish their deletion."""
    server = running.server(namespace, *options)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(server.data, ignore_errors=True)


def manifest_of(server: Server, pipeline: str) -> dict:
    """The Job that the service would create, in its own words."""
    path = f"/training-jobs?pipeline={pipeline}&dry_run=true"
    status, body = server.request("POST", path, json.dumps(PARAMETERS).encode())
    if status != 200:
        raise RuntimeError(f"{status}: {body.decode()}")
    return find_manifest(json.loads(body))


def find_manifest(answer: dict) -> dict:
    """The part of an answer to ``dry_run`` that is a Job."""
    if answer.get("kind") == "Job":
        return answer
    for value in answer.values():
        if isinstance(value, dict) and (found := find_manifest(value)):
            return found
    return {}


def copies(manifests: list[dict], count: int) -> Iterator[tuple[str, bytes]]:
    """``count`` Jobs with identifiers of their own, by turns of each manifest: name and JSON.

    Suspended and managed by nobody: a Job that stays as it is, which costs the cluster nothing.
    """
    texts = []
    for manifest in manifests:
        spec = {**manifest["spec"], "suspend": True, "managedBy": NOBODY}
        texts.append((manifest, json.dumps({**manifest, "spec": spec})))
    for number in range(count):
        manifest, text = texts[number % len(texts)]
        old, new = manifest["metadata"]["labels"][ID_LABEL], str(uuid.uuid4())
        name = manifest["metadata"]["name"].replace(old, new)
        yield name, text.replace(old, new).encode()


async def create_all(
    access: Access, namespace: str, jobs: Iterable[tuple[str, bytes]], *, started: str = ""
) -> list[str]:
    """Create Jobs, many at once; with ``started`` their status says since when they run."""
    names: list[str] = []
    status = {"status": {"startTime": started}}
    async with access.session() as session:

        async def create(job: tuple[str, bytes]) -> None:
            name, body = job
            await call(session, "POST", jobs_path(namespace), body)
            if started:
                path = jobs_path(namespace, name) + "/status"
                await call(session, "PATCH", path, status, **PATCH)
            names.append(name)

        await in_parallel(jobs, create)
    return names


async def in_parallel(
    items: Iterable[Item], work: Callable[[Item], Awaitable[None]], workers: int = WRITERS
) -> None:
    """Do the work of every item, so many at a time."""
    source = iter(items)

    async def worker() -> None:
        for item in source:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(worker())
