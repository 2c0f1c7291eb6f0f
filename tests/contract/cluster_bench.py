"""Puts the kubernetes executor under the contract suite, on a cluster of this machine.

Jobs and tests share folders by the same path: a PodTemplate mounts them from the node. The suite
runs any argv, so its pipeline's image is one with a shell and Python and no entrypoint of its own.
"""

import json
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from uuid import uuid4

from model_training.executors.base import Executor
from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.executor import KubernetesExecutor
from model_training.executors.kubernetes.kubeconfig import load_cluster
from model_training.executors.kubernetes.manifest import Site
from model_training.folders import DataFolder
from model_training.jobs import JobSpec, Reason
from model_training.names import job_name
from testbed.binaries import programs_folder
from testbed.cluster import OPEN_REGISTRY
from tests.cluster import target
from tests.contract.lab import Case

PIPELINE = "contract"
CLAIM = "outputs"


class Ground:
    """A namespace of its own, for one run of the suite."""

    def __init__(self, outputs: Path) -> None:
        self.kubeconfig = target.kubeconfig()
        self.namespace = f"contract-{uuid.uuid4().hex[:10]}"
        self.outputs = outputs

    def kubectl(self, *arguments: str, given: object = None) -> str:
        """Run kubectl; what it printed."""
        argv = [str(programs_folder() / "kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        text = None if given is None else json.dumps(given)
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def make(self) -> None:
        """The namespace, and a claim on a folder of the node."""
        self.outputs.mkdir(parents=True)
        self.outputs.chmod(0o777)
        size = {"storage": "1Gi"}
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": self.namespace},
            "spec": {
                "capacity": size,
                "accessModes": ["ReadWriteMany"],
                "hostPath": {"path": str(self.outputs)},
                "storageClassName": self.namespace,
            },
        }
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM, "namespace": self.namespace},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": size},
                "storageClassName": self.namespace,
                "volumeName": self.namespace,
            },
        }
        namespace = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": self.namespace},
        }
        for each in (namespace, volume, claim):
            self.kubectl("create", "-f", "-", given=each)

    def share(self, folder: Path) -> None:
        """Let the jobs reach a folder of the node by the same path."""
        mount = {"name": "shared", "mountPath": str(folder)}
        volume = {"name": "shared", "hostPath": {"path": str(folder)}}
        containers = [{"name": "training", "image": "by-the-service", "volumeMounts": [mount]}]
        template = {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": f"model-training-{PIPELINE}", "namespace": self.namespace},
            "template": {"spec": {"containers": containers, "volumes": [volume]}},
        }
        self.kubectl("apply", "-f", "-", given=template)

    def left(self) -> list[str]:
        """Jobs and pods that are there."""
        return self.kubectl("get", "jobs,pods", "-o", "name", "-n", self.namespace).split()

    def remove(self) -> None:
        """Everything of it; the namespace goes in its own time."""
        self.kubectl("delete", "namespace", self.namespace, "--wait=false")
        self.kubectl("delete", "persistentvolume", self.namespace, "--wait=false")


@contextmanager
def ground(outputs: Path) -> Iterator[Ground]:
    """A namespace for as long as it is needed."""
    made = Ground(outputs)
    made.make()
    try:
        yield made
    finally:
        made.remove()


def kubernetes_executor(root: str, kubeconfig: str, namespace: str, outputs: str) -> Executor:
    """As ``server_process.py`` calls it: with words."""
    site = Site(namespace=namespace, outputs_claim=CLAIM, outputs_folder=Path(outputs))
    return KubernetesExecutor(
        KubernetesApi(load_cluster(Path(kubeconfig))), DataFolder(Path(root)), site
    )


class ClusterBench:
    """Pods of a cluster whose node is this machine."""

    cannot: Mapping[Case, str] = MappingProxyType({
        Case.QUEUE: "the cluster's scheduler is the queue, and hands out devices",
        Case.FOLDER: "the code is in the image, and so is what it needs",
        Case.SIGNALS: "the cluster tells exit code 128 + N for both",
        Case.RAW_OUTPUT: "a node keeps whole lines, of two pipes, and drops a CR before a LF",
        Case.DESCENDANTS: "the node ends a container with its first process",
        Case.PASSED_VALUES: "what a pod needs comes from the secrets that its PodTemplate names",
        Case.LOG_MEANWHILE: "the server copies the log, and has the rest of it when it is back",
        Case.SETTLED_MARK: "it tells whatever the cluster has; finished Jobs go after an hour",
        Case.THREE_HUNDRED: "a node of two cores starts about two pods a second",
    })  # fmt: skip
    late_s = 5.0  # whole seconds of grace and time, and the kubelet's loops
    python = ("python3", "-S")
    out_of_memory = str(Reason.OUT_OF_MEMORY)

    def __init__(self, tmp: Path, ground: Ground) -> None:
        self.data = DataFolder(tmp / "data")
        self.shared = tmp / "shared"
        self.shared.mkdir()
        self.shared.chmod(0o777)
        self.ground = ground
        ground.share(self.shared)

    def _words(self) -> tuple[str, str, str, str]:
        ground = self.ground
        return (str(self.data.root), str(ground.kubeconfig), ground.namespace, str(ground.outputs))

    def executor(self, *, slots: int, gpus: Sequence[int]) -> Executor:
        return kubernetes_executor(*self._words())

    def server(self, *, slots: int, gpus: Sequence[int]) -> tuple[str, ...]:
        import sys

        factory = "tests.contract.cluster_bench:kubernetes_executor"
        return (sys.executable, "-m", "tests.contract.server_process", factory, *self._words())

    def spec(self, argv: Sequence[str], folder: str | None) -> JobSpec:
        job_id = uuid4()
        return JobSpec(
            name=job_name(PIPELINE, job_id),
            id=str(job_id),
            pipeline=PIPELINE,
            namespace=self.ground.namespace,
            owner="tester",
            created_at=datetime.now(UTC),
            parameters={},
            request_digest="",
            executor="kubernetes",
            image=f"{OPEN_REGISTRY}/model-training-{PIPELINE}:latest",
            command=tuple(argv),
        )

    def log(self, name: str) -> bytes:
        segments = sorted(self.data.job(name).log(1).glob("*.log"))
        return b"".join(segment.read_bytes() for segment in segments)

    def output(self, name: str) -> Path:
        return self.ground.outputs / name

    def traces(self) -> list[str]:
        kept = [*self.data.jobs.glob("[!.]*/*"), *self.data.open_jobs.glob("*")]
        return [*map(str, kept), *map(str, self.ground.outputs.iterdir()), *self.ground.left()]
