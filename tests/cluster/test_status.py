"""Every row of the table of states, produced on the cluster and told by a server.

All cases are played at once in one namespace.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.kubeconfig import load_cluster
from model_training.executors.kubernetes.observation import TABLE
from testbed.cluster import Cluster
from testbed.control_plane import ControlPlane
from tests.cluster.conftest import Kubectl, kubectl_of
from tests.cluster.service import service
from tests.cluster.status_cases import CASES, EVICTED, LOST_NODE, Told, then_pod
from tests.cluster.status_lab import Lab, lab_in, options
from tests.waiting import until


async def forbid(lab: Lab) -> None:
    """A quota and a runtime that some of the cases want."""
    quota = {
        "metadata": {"name": "two-gpus"}, "spec": {"hard": {"requests.nvidia.com/gpu": "2"}},
    }  # fmt: skip
    await lab.create(f"/api/v1/namespaces/{lab.namespace}/resourcequotas", quota)
    runtime = {"metadata": {"name": lab.namespace}, "handler": "nothing"}
    await lab.create("/apis/node.k8s.io/v1/runtimeclasses", runtime)


async def play(lab: Lab, told: Told) -> None:
    name = await told.begin(lab, told)
    await lab.tells(name, told.state, told.reason, told.message, **told.more)
    if told.lasts:
        await until(lambda: answers(lab, name, told.row), 30, f"{name} is told by {told.row}")


async def answers(lab: Lab, name: str, row: str) -> bool:
    return await lab.row(name) == row


@pytest.fixture(scope="module")
def played(
    kubeconfig: Path,
    kubectl: Kubectl,
    namespace: str,
    registry: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, BaseException | None]]:
    """What came of each case: None, or what was wrong."""
    cases = {
        name: replace(told, pipeline=f"case-{number}")
        for number, (name, told) in enumerate(CASES.items())
    }

    async def play_all() -> list[BaseException | None]:
        async with lab_in(kubeconfig, kubectl, namespace, registry) as lab:
            templates = {c.pipeline: c.template for c in cases.values() if c.template is not None}
            await asyncio.to_thread(lab.push, *(each.pipeline for each in cases.values()))
            for pipeline, pod in templates.items():
                await lab.template(pipeline, lab.placed(pod))
            await forbid(lab)
            folder = tmp_path_factory.mktemp("status")
            async with service(folder, *options(kubeconfig, lab)) as running:
                await until(running.is_ready, within=30)
                lab.client = running.client
                playing = (play(lab, told) for told in cases.values())
                return await asyncio.gather(*playing, return_exceptions=True)

    yield dict(zip(cases, asyncio.run(play_all()), strict=True))
    kubectl("delete", "runtimeclass", namespace)
    kubectl("delete", "persistentvolume", namespace, "--wait=false")
    kubectl("delete", "priorityclass", f"{namespace}-low", f"{namespace}-high")
    both = [{"op": "remove", "path": f"/status/{each}/example.com~1{namespace}"}
            for each in ("capacity", "allocatable")]  # fmt: skip
    node = kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", json.dumps(both))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CASES)
def test_a_case_is_told(name: str, played: dict[str, BaseException | None]):
    if error := played[name]:
        raise error


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


SOON = ["--node-monitor-grace-period=4s", "--node-monitor-period=1s"]


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane that gives up a silent node after seconds."""
    with ControlPlane(tmp_path / "plane", controllers=True) as plane:
        plane.restart("kube-controller-manager", SOON)
        yield plane


@pytest.mark.anyio
async def test_a_node_that_does_not_answer(plane: ControlPlane, tmp_path: Path):
    """Recorded: there is no such node, so what its kubelet wrote before is written here. What the
    cluster makes of its silence is its own.
    """
    kubectl = kubectl_of(plane.kubeconfig)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "lost"}}
    kubectl("create", "-f", "-", given=node)
    kubectl(
        "patch", "node", "lost", "--subresource=status", "--type=merge",
        "-p", json.dumps({"status": {"conditions": [ready]}}),
    )  # fmt: skip
    async with KubernetesApi(load_cluster(plane.kubeconfig)) as api:
        lab = Lab(api, "default", "127.0.0.1:1/none", "lost", "", kubectl)
        running = {
            "name": "training", "image": "any", "imageID": "", "ready": True, "restartCount": 0,
            "state": {"running": {"startedAt": now}},
        }  # fmt: skip
        conditions = [{"type": "Ready", "status": "True"}]
        status = {"phase": "Running", "containerStatuses": [running], "conditions": conditions}
        async with service(tmp_path, *options(plane.kubeconfig, lab)) as served, lab.following():
            lab.client = served.client
            begun = then_pod(LOST_NODE.begin, status)
            await play(lab, replace(LOST_NODE, begin=begun))


@pytest.fixture
def limiting(cluster: Cluster, tmp_path: Path) -> Iterator[None]:
    """The node minds how much its pods write, for one test."""
    config = json.loads((cluster.node.folder / "kubelet.yaml").read_text())
    file = tmp_path / "kubelet.yaml"
    file.write_text(json.dumps(config | {"localStorageCapacityIsolation": True}))
    cluster.restart("kubelet", [f"--config={file}"])
    yield
    cluster.restart("kubelet")


@pytest.mark.anyio
@pytest.mark.usefixtures("limiting")
async def test_a_pod_that_writes_more_than_it_may(
    kubeconfig: Path, kubectl: Kubectl, namespace: str, registry: str, tmp_path: Path
):
    async with lab_in(kubeconfig, kubectl, namespace, registry) as lab:
        lab.push(EVICTED.pipeline)
        await lab.template(EVICTED.pipeline, EVICTED.template or {})
        async with service(tmp_path, *options(kubeconfig, lab)) as running:
            await until(running.is_ready, within=30)
            lab.client = running.client
            await play(lab, EVICTED)


def test_every_row_of_the_table_has_a_case():
    rows = {row.__name__ for row in TABLE}
    cases = (LOST_NODE, EVICTED, *CASES.values())
    assert rows == {told.row for told in cases} - {"_unrecognised"}
