"""Pods made by hand on the real cluster, and a collector that copies their logs.

As a program it is a server of nothing but logs, to be killed:
``python -m tests.cluster.log_lab KUBECONFIG NAMESPACE DATA``.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from model_training.executors.kubernetes.api import ApiError, KubernetesApi
from model_training.executors.kubernetes.collector import Collector
from model_training.executors.kubernetes.kubeconfig import load_cluster
from model_training.executors.kubernetes.objects import PodRow, decode_pod
from model_training.executors.kubernetes.reflector import Reflector
from model_training.executors.kubernetes.row_store import Listener
from model_training.folders import DataFolder
from model_training.logs.layout import Gap
from model_training.logs.view import LogView
from tests.waiting import until

IMAGE = "127.0.0.1:5000/model-training-contract:latest"


class LogLab:
    """A collector at work, and the pods of its namespace."""

    def __init__(self, api: KubernetesApi, namespace: str, root: Path) -> None:
        self.api = api
        self.namespace = namespace
        self.data = DataFolder(root)
        self.pods = f"/api/v1/namespaces/{namespace}/pods"
        self.done: list[str] = []
        self.reflector = Reflector(api, self.pods, decode_pod, listener=Listener(self._changed))
        self.collector = Collector(api, self.data, log_limit=1 << 30, done=self.done.append)
        self._following: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._following = asyncio.create_task(self.reflector.run())
        await self.reflector.synced.wait()
        await self.collector.__aenter__()
        for job in {row.job for row in self.reflector.rows.values()} | set(self.known()):
            self._look(job)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._following.cancel()
        with suppress(asyncio.CancelledError):
            await self._following
        await self.collector.__aexit__()

    def known(self) -> list[str]:
        """The jobs that have a folder."""
        return [path.name for path in self.data.jobs.glob("*/*")]

    def _changed(self, before: PodRow | None, after: PodRow | None) -> None:
        if self.reflector.synced.is_set() and (row := after or before):
            self._look(row.job)

    def _look(self, job: str) -> None:
        self.collector.look(job, [r for r in self.reflector.rows.values() if r.job == job])

    def log(self, job: str, attempt: int = 1) -> LogView:
        return LogView(self.data.job(job).log(attempt))

    def text(self, job: str, attempt: int = 1) -> bytes:
        view = self.log(job, attempt)
        pieces = view.blocks(0, view.end)
        return b"".join(b"" if isinstance(piece, Gap) else piece.data for piece in pieces)

    async def complete(self, job: str, within: float = 30.0) -> bytes:
        """The whole log, once it is complete."""
        await until(lambda: self.collector.is_complete(job), within, f"{job} is complete")
        return self.text(job)

    async def run(self, job: str, *command: str, **more: Any) -> PodRow:
        return await create_pod(self.api, self.pods, job, *command, **more)

    async def pod(self, name: str) -> PodRow | None:
        try:
            return decode_pod(await self.api.get(f"{self.pods}/{name}"))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def delete(self, name: str, grace_s: int = 30) -> None:
        await self.api.delete(f"{self.pods}/{name}", b'{"gracePeriodSeconds": %d}' % grace_s)


async def create_pod(
    api: KubernetesApi,
    path: str,
    job: str,
    *command: str,
    init: dict[str, list[str]] | None = None,
    beside: dict[str, list[str]] | None = None,
    restart: str = "Never",
    grace_s: int = 2,
) -> PodRow:
    """A pod as a Job would make it.

    Args:
        api: open.
        path: of the pods.
        job: name of the Job that it claims to be of.
        command: of its container.
        init: commands of init containers by name; one that ends in ``~`` runs on beside the rest.
        beside: commands of other containers.
        restart: of containers that fail.
        grace_s: between SIGTERM and SIGKILL.
    """
    inits = [
        container(name.rstrip("~"), argv)
        | ({"restartPolicy": "Always"} if name.endswith("~") else {})
        for name, argv in (init or {}).items()
    ]
    others = [container(name, argv) for name, argv in (beside or {}).items()]
    pod = {
        "metadata": {"generateName": f"{job}-", "labels": {"batch.kubernetes.io/job-name": job}},
        "spec": {
            "restartPolicy": restart,
            "dnsPolicy": "Default",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": grace_s,
            "volumes": [{"name": "shared", "emptyDir": {}}],
            "initContainers": inits,
            "containers": [*others, container("training", list(command))],
        },
    }
    return decode_pod(await api.post(path, json.dumps(pod).encode()))


def container(name: str, command: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "image": IMAGE,
        "command": command,
        "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


@asynccontextmanager
async def namespace(api: KubernetesApi) -> AsyncGenerator[str]:
    """A namespace of its own, gone afterwards."""
    name = f"logs-{uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"metadata": {"name": name, "labels": labels}}
    await api.post("/api/v1/namespaces", json.dumps(body).encode())
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    await until(lambda: _is_there(api, account), 20, "the namespace has a service account")
    try:
        yield name
    finally:
        await api.delete(f"/api/v1/namespaces/{name}", b"{}")


async def _is_there(api: KubernetesApi, path: str) -> bool:
    with suppress(ApiError):
        await api.get(path)
        return True
    return False


class LogProcess:
    """A collector in a process of its own."""

    def __init__(self, kubeconfig: Path, namespace: str, root: Path) -> None:
        self._argv = [sys.executable, "-m", "tests.cluster.log_lab"]
        self._argv += [str(kubeconfig), namespace, str(root)]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(*self._argv)

    async def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()


async def serve(kubeconfig: str, name: str, root: str) -> None:
    async with (
        KubernetesApi(load_cluster(Path(kubeconfig))) as api,
        LogLab(api, name, Path(root)),
    ):
        while os.getppid() != 1:
            await asyncio.sleep(0.5)


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
