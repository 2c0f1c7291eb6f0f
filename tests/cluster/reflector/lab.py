"""Jobs made by hand on a private API server, and a reflector that follows them."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import msgspec

from model_training.executors.kubernetes.api import Chunks, KubernetesApi
from model_training.executors.kubernetes.kubeconfig import load_cluster
from model_training.executors.kubernetes.objects import JobRow, decode_job
from model_training.executors.kubernetes.reflector import Reflector
from model_training.executors.kubernetes.row_store import Listener
from testbed.control_plane import ControlPlane
from tests.waiting import until

Decode = Callable[[msgspec.Raw], JobRow]


class Namespace:
    """A namespace of its own for one test, changed by the administrator."""

    def __init__(self, plane: ControlPlane, name: str) -> None:
        self.plane = plane
        self.name = name
        self.path = f"/apis/batch/v1/namespaces/{name}/jobs"
        plane.api.post("/api/v1/namespaces", {"metadata": {"name": name}})

    def create(self, *names: str, annotations: dict[str, str] | None = None) -> None:
        for name in names:
            self.plane.api.post(self.path, job(name, annotations))

    def change(self, name: str) -> None:
        """Set the number of active pods, as the job controller does."""
        patch = {"status": {"active": 1}}
        self._patch(f"{self.path}/{name}/status", patch)

    def annotate(self, name: str, value: str) -> None:
        self._patch(f"{self.path}/{name}", {"metadata": {"annotations": {"note": value}}})

    def delete(self, *names: str) -> None:
        for name in names:
            self.plane.api.delete(f"{self.path}/{name}")

    def truth(self) -> dict[str, str]:
        """Names and versions, as the API server lists them."""
        items = self.plane.api.get(self.path)["items"]
        return {i["metadata"]["name"]: i["metadata"]["resourceVersion"] for i in items}

    def _patch(self, path: str, patch: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/merge-patch+json"}
        status, _, content = self.plane.api.request("PATCH", path, patch, headers)
        assert status == 200, content


def job(name: str, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    """A Job that no controller touches."""
    container = {"name": "training", "image": "none"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"managedBy": "example.com/none", "template": template},
    }


class Followed:
    """A reflector at work, and what it told."""

    def __init__(self, api: KubernetesApi, path: str, decode: Decode) -> None:
        self.api = api
        self.told: list[tuple[JobRow | None, JobRow | None]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.pausing = False
        self.opening = False
        self.reflector = _Gated(self, path, decode)

    @property
    def names(self) -> set[str]:
        return {name for _, name in self.reflector.rows}

    @property
    def versions(self) -> dict[str, str]:
        return {row.name: row.resource_version for row in self.reflector.rows.values()}

    @property
    def is_stale(self) -> bool:
        return self.reflector.stale_since is not None

    def came(self) -> list[str]:
        return [after.name for before, after in self.told if before is None and after]

    def went(self) -> list[str]:
        return [before.name for before, after in self.told if before and after is None]

    async def in_step(self, namespace: Namespace, within: float = 10.0) -> None:
        """Wait until it knows what the API server lists, and knows that it does."""

        def same() -> bool:
            return not self.is_stale and self.versions == truth

        truth = namespace.truth()
        await until(same, within, f"{self.versions} is {truth}")


class _Gated(Reflector[JobRow]):
    """It pauses, and opens a watch, only while the test holds the gate open."""

    def __init__(self, lab: Followed, path: str, decode: Decode) -> None:
        self.lab = lab

        def changed(before: JobRow | None, after: JobRow | None) -> None:
            lab.told.append((before, after))

        super().__init__(lab.api, path, decode, listener=Listener(changed))

    async def _pause(self, longest_s: float, at_least_s: float = 0.0) -> None:
        self.lab.pausing = True
        await self.lab.gate.wait()
        self.lab.pausing = False
        await super()._pause(longest_s, at_least_s)

    async def _open(self, stack: AsyncExitStack) -> Chunks:
        self.lab.opening = True
        await self.lab.gate.wait()
        self.lab.opening = False
        return await super()._open(stack)


@asynccontextmanager
async def following(
    plane: ControlPlane, path: str, *, server: str | None = None, decode: Decode = decode_job
) -> AsyncGenerator[Followed]:
    """A running reflector; ``server`` is where the API server is reached, if not directly."""
    config = load_cluster(plane.kubeconfig)
    if server is not None:
        config = msgspec.structs.replace(config, server=server)
    async with KubernetesApi(config) as api:
        followed = Followed(api, path, decode)
        async with running(followed):
            yield followed


@asynccontextmanager
async def running(followed: Followed) -> AsyncGenerator[None]:
    """Run it; what it raises is raised here."""
    task = asyncio.create_task(followed.reflector.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def settled(followed: Followed, names: Iterable[str] = ()) -> None:
    """Wait for the first list and the watch."""
    await until(lambda: followed.names == set(names) and not followed.is_stale)
