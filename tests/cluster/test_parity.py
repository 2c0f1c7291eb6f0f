"""A cluster plays every scenario as this machine does, but for the differences that are told."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import Kubectl
from tests.parity.differences import DIFFERENCES, told_of
from tests.parity.images import push_all
from tests.parity.scenarios import SCENARIOS
from tests.parity.server import serving
from tests.parity.stage import Trace, play_all
from tests.parity.traces import differing, plain, promised

PROMISED = promised()
AT_ONCE = 12  # scenarios: each pod costs the node a second of one CPU to start
CLAIM = "outputs"


@pytest.fixture(scope="module")
def outputs(
    kubectl: Kubectl, namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A folder of the node, which is this machine, behind a claim."""
    folder = tmp_path_factory.mktemp("outputs")
    folder.chmod(0o777)  # pods run as another user
    size = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"]}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": namespace},
        "spec": {
            **size,
            "storageClassName": "",
            "hostPath": {"path": str(folder)},
            "claimRef": {"namespace": namespace, "name": CLAIM},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "volumeName": namespace,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    for each in (volume, claim):
        kubectl("create", "-f", "-", given=each)
    yield folder
    kubectl("delete", "persistentvolume", namespace, "--wait=false")


@pytest.fixture(scope="module")
def pipelines(kubectl: Kubectl, namespace: str, registry: str) -> list[str]:
    """The images, and a PodTemplate for each as whoever deploys a pipeline writes it."""
    names = push_all(registry)
    for name in names:
        spec = {"dnsPolicy": "Default", "containers": [{"name": "training", "image": "any"}]}
        template = {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": f"model-training-{name}", "namespace": namespace},
            "template": {"spec": spec},
        }
        kubectl("create", "-f", "-", given=template)
    return names


@pytest.fixture(scope="module")
def options(kubeconfig: Path, namespace: str, registry: str, pipelines: list[str]) -> list[str]:
    """Of a server for the namespace; its pipelines are there."""
    given = {
        "executor": "kubernetes", "kubeconfig": kubeconfig, "namespace": namespace,
        "registry": registry, "outputs-claim": CLAIM,
    }  # fmt: skip
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def traces(
    outputs: Path, options: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Trace]:
    async def play() -> dict[str, Trace]:
        root = tmp_path_factory.mktemp("cluster")
        variables = {"MODEL_TRAINING_OUTPUTS_FOLDER": str(outputs)}
        async with serving(root, options, variables) as stage:
            return await play_all(stage, SCENARIOS, at_once=AT_ONCE)

    return asyncio.run(play())


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_played_as_on_one_machine(name: str, traces: dict[str, Trace]):
    found = differing(PROMISED[name], plain(traces[name]))
    told = {path: seen for path, (_, seen) in found.items()}
    assert told == told_of(name)


def test_no_more_than_ten_differences_are_told():
    assert len(DIFFERENCES) <= 10
    for difference in DIFFERENCES:
        assert set(difference.seen) <= set(SCENARIOS), difference.name
