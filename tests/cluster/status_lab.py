"""A server of a namespace, what it tells of every job, and a hand on the cluster beside it.

Many cases are played at once in one namespace: what is told is asked for once for all of them, and
kept, so that what shows for a moment only is not missed.
"""

import asyncio
import json
import re
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from model_training.executors.kubernetes import paths
from model_training.executors.kubernetes.api import ApiError, KubernetesApi
from model_training.executors.kubernetes.kubeconfig import load_cluster
from model_training.executors.kubernetes.objects import decode_events, decode_job, decode_pod
from model_training.executors.kubernetes.observation import TABLE, Case
from testbed import images
from testbed.binaries import packages
from testbed.cluster import LOGIN_REGISTRY
from tests.cluster.conftest import Kubectl
from tests.cluster.pods import job
from tests.waiting import until

Object = dict[str, Any]

PATIENCE_S = 120.0  # for what a busy node does in seconds
POLL_S = 0.2
SHELL = "shell"


def shell_image() -> images.Image:
    """A busybox that runs the text of the parameter CODE; 1 MB, so that many names cost little."""
    busybox = (packages() / "busybox-static/bin/busybox").read_bytes()
    applets = ("sh", "sleep", "tail", "echo", "env", "cat", "true", "test", "dd")
    members = [
        images._file("bin/busybox", busybox, 0o755),
        images._file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n", 0o644),
        images._directory("tmp", 0o1777, 0),
        *(images._link(f"bin/{name}", "busybox") for name in applets),
    ]
    entry = ["sh", "-c", 'eval "$CODE"']
    config = {"User": "10001:10001", "Env": ["PATH=/bin"], "Entrypoint": entry, "Cmd": []}
    return images.Image((images.Layer.of(dict(members)),), config)


class NoServer(Exception):
    """There is none at the moment."""


@dataclass
class Lab:
    """One namespace of the cluster. ``client`` asks the server that follows it."""

    api: KubernetesApi
    namespace: str
    registry: str
    """``HOST:PORT/PREFIX`` of the images"""
    node: str
    """the name of one"""
    silence: str
    """``HOST:PORT`` of a registry that takes connections and says nothing"""
    kubectl: Kubectl
    client: httpx2.AsyncClient | None = None
    told: dict[str, list[Object]] = field(default_factory=dict[str, list[Object]])
    """everything that was told of a job so far, by its name, each once and in order"""

    # Ours

    def push(self, *pipelines: str) -> None:
        """The shell under the names of these pipelines."""
        image = shell_image()
        for pipeline in pipelines:
            self.push_image(image, f"model-training-{pipeline}")

    def push_image(self, image: images.Image, name: str) -> None:
        """Any image."""
        host, _, prefix = self.registry.partition("/")
        images.push(image, f"{prefix}/{name}", host)

    async def template(self, pipeline: str, pod: Object) -> None:
        """The PodTemplate of a pipeline, as whoever deploys it writes it."""
        spec = {"dnsPolicy": "Default", "containers": [{"name": "training", "image": "any"}]} | pod
        await self.create(
            paths.templates(self.namespace),
            {
                "apiVersion": "v1",
                "kind": "PodTemplate",
                "metadata": {"name": f"model-training-{pipeline}"},
                "template": {"spec": spec},
            },
        )

    async def post(self, code: str = "true", pipeline: str = SHELL, **options: str) -> str:
        """Start a job that runs ``code``; its name."""
        body, answer = {"CODE": code}, None
        answer = await self.ask("POST", "/training-jobs", {"pipeline": pipeline, **options}, body)
        assert answer.status_code == 201, answer.text
        return answer.json()["name"]

    async def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
    ) -> Any:
        """One request to the server."""
        if self.client is None:
            raise NoServer
        return await self.client.request(method, path, params=query or {}, json=body)

    async def log(self, name: str) -> bytes:
        """Its log as the server has it."""
        answer = await self.ask("GET", f"/training-jobs/{name}")
        assert answer.status_code == 200, answer.text
        return answer.content

    # Made by others

    def job(self, name: str, code: str = "true", spec: Object | None = None, **pod: Any) -> Object:
        """A Job as somebody writes it by hand; ``spec`` adds to its own, ``pod`` to its pod's."""
        made = job(name, f"{self.registry}/model-training-{SHELL}", ["sh", "-c", code])
        container = made["spec"]["template"]["spec"]["containers"][0] | pod.pop("container", {})
        made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 2
        made["spec"] |= spec or {}
        made["spec"]["template"]["spec"] |= {"containers": [container], **pod}
        return made

    def placed(self, pod: Object) -> Object:
        """With the words that stand for what is known once there is a cluster."""
        text = json.dumps(pod)
        for word, known in {
            "<node>": self.node, "<runtime>": self.namespace, "<images>": self.registry,
            "<login registry>": LOGIN_REGISTRY,
        }.items():  # fmt: skip
            text = text.replace(word, known)
        return json.loads(text)

    async def make(self, made: Object) -> str:
        """Create a Job; its name."""
        await self.create(paths.jobs(self.namespace), made)
        return made["metadata"]["name"]

    async def create(self, path: str, made: Object) -> Object:
        """Create any object."""
        return json.loads(await self.api.post(path, json.dumps(made).encode()))

    async def get(self, path: str) -> Object | None:
        """Any object; None if there is none."""
        try:
            return json.loads(await self.api.get(path))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def pods(self, name: str) -> list[Object]:
        """The pods of a Job, oldest first."""
        query = {"labelSelector": f"batch.kubernetes.io/job-name={name}"}
        found = json.loads(await self.api.get(paths.pods(self.namespace), query))["items"]
        return sorted(found, key=lambda pod: (pod["metadata"]["creationTimestamp"],))

    async def pod(self, name: str) -> str:
        """The name of a Job's newest pod, once there is one."""
        return (await until(lambda: self.pods(name), PATIENCE_S))[-1]["metadata"]["name"]

    async def delete_job(self, name: str, propagation: str) -> None:
        """As a person does, or the controller of a TTL."""
        body = json.dumps({"propagationPolicy": propagation}).encode()
        await self.api.delete(paths.job(self.namespace, name), body)

    async def evict(self, name: str) -> None:
        """Have the Job's pod evicted, as a node is drained."""
        pod = await self.pod(name)
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        await self.create(f"{paths.pod(self.namespace, pod)}/eviction", eviction)

    async def patch_status(self, kind: str, name: str, status: Object) -> None:
        """Write a status in the stead of whoever should."""
        patch = json.dumps({"status": status})
        argv = ["patch", kind, name, "-n", self.namespace, "--subresource=status", "--type=merge"]
        await asyncio.to_thread(self.kubectl, *argv, "-p", patch)

    async def patch(self, kind: str, name: str, change: Object) -> None:
        """Change an object, as a person does."""
        argv = ["patch", kind, name, "-n", self.namespace, "--type=merge"]
        await asyncio.to_thread(self.kubectl, *argv, "-p", json.dumps(change))

    async def patch_node(self, status: Object) -> None:
        """Give the node something."""
        argv = ["patch", "node", self.node, "--subresource=status", "--type=merge"]
        await asyncio.to_thread(self.kubectl, *argv, "-p", json.dumps({"status": status}))

    async def priority(self, name: str, value: int) -> None:
        """A class of priority."""
        made = {"metadata": {"name": name}, "value": value}
        await self.create("/apis/scheduling.k8s.io/v1/priorityclasses", made)

    # What is told

    @asynccontextmanager
    async def following(self) -> AsyncGenerator[None]:
        """What is told is noted."""
        task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _follow(self) -> None:
        """Note what the server tells, for ever; not while it is down."""
        while True:
            with suppress(httpx2.HTTPError, NoServer):
                for record in (await self.ask("GET", "/training-jobs")).json():
                    self.note(record)
            await asyncio.sleep(POLL_S)

    def note(self, record: Object) -> None:
        """Keep what differs from what was told last."""
        known = self.told.setdefault(record["name"], [])
        if not known or known[-1] != record:
            known.append(record)

    async def tells(
        self,
        name: str,
        state: str,
        reason: str | None = None,
        message: str | None = None,
        within: float = PATIENCE_S,
        **more: object,
    ) -> Object:
        """Wait until this is told of the job, or was; ``message`` is a pattern.

        Raises:
            AssertionError: it was not; with everything that was told.
        """

        def look() -> Object | None:
            return next((each for each in self.told.get(name, ()) if fits(each)), None)

        def fits(record: Object) -> bool:
            words = record["message"] or ""
            exact = {"state": state, "reason": reason, **more}
            return all(record[key] == value for key, value in exact.items()) and (
                message is None or re.fullmatch(message, words, re.DOTALL) is not None
            )

        try:
            return await until(look, within)
        except AssertionError:
            shown = ("state", "reason", "message", "exit_code", "attempt")
            told = [{key: each[key] for key in shown} for each in self.told.get(name, ())]
            text = "\n".join(map(str, told))
            wanted = (state, reason, message, more)
            raise AssertionError(f"{name}: not {wanted}, but\n{text}") from None

    async def row(self, name: str) -> str:
        """Which row of the table answers for the objects that the cluster has of a Job now."""
        raw = await self.api.get(paths.job(self.namespace, name))
        pods = tuple(decode_pod(json.dumps(pod).encode()) for pod in await self.pods(name))
        row = decode_job(raw)
        query = {"fieldSelector": f"involvedObject.uid={pods[-1].uid if pods else row.uid}"}
        events = decode_events(await self.api.get(paths.events(self.namespace), query))
        case = Case(job=row, pods=pods, events=events, is_ours=row.spec is not None)
        return next((each.__name__ for each in TABLE if each(case)), "_unrecognised")


@asynccontextmanager
async def lab_in(
    kubeconfig: Path, kubectl: Kubectl, namespace: str, registry: str
) -> AsyncGenerator[Lab]:
    """A lab whose server is still to come; the shell's image is there."""
    silence = socket.create_server(("127.0.0.1", 0))
    address = "{}:{}".format(*silence.getsockname())
    node = kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    async with KubernetesApi(load_cluster(kubeconfig)) as api:
        lab = Lab(api, namespace, f"{registry}/{namespace}", node, address, kubectl)
        lab.push(SHELL)
        with silence:
            async with lab.following():
                yield lab


def options(kubeconfig: Path, lab: Lab) -> list[str]:
    """Of a server that follows the lab's namespace."""
    given = {
        "kubeconfig": str(kubeconfig), "namespace": lab.namespace, "registry": lab.registry,
    }  # fmt: skip
    return [word for name, value in given.items() for word in (f"--{name}", value)]
