"""What every campaign on the cluster needs beside a lab: a namespace, an image, kubectl.

The cluster is the one of ``testbed/up``, whose node is this machine: so the jobs write their
truth into a folder that their PodTemplate mounts by the same path.
"""

import json
import shutil
import subprocess
import sys
import uuid
from collections import Counter
from typing import Self

from lab import HERE, Lab, Promise
from service import ROOT, Service

sys.path.insert(0, str(ROOT))
from own_registry import OwnRegistry
from toxiproxy import Toxiproxy

from testbed import images
from testbed.binaries import programs_folder
from testbed.cluster import Cluster


class ClusterLab(Lab):
    """One campaign on the test cluster."""

    executor = "kubernetes"
    witness = "cluster_witness.py"
    may_refuse = True
    patience_s = 180.0  # after an outage Kubernetes' own parts wait up to half a minute each
    pieces = 120
    pauses = (0.02, 0.05)
    lingers = (0.0, 6.0)  # the latter for long enough that a log without a word of it is a loss

    def __init__(self, name: str, seed: int) -> None:
        self.cluster = Cluster()
        self.kubeconfig = self.cluster.kubeconfig
        self.namespace = f"faults-{uuid.uuid4().hex[:10]}"
        self.away: list[tuple[float, float]] = []  # from when to when what is broken here was
        self.unavoidable = Counter[str]()
        self.in_step: list[float] = []
        super().__init__(name, seed)

    def __enter__(self) -> Self:
        try:
            self._prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _prepare(self) -> None:
        self.truth.chmod(0o1777)  # jobs run as another user
        self.registry = OwnRegistry(self.root / "registry")
        self.at_end.callback(self.registry.stop)
        self.registry.start()
        self.at_end.callback(self._leave)
        self._make({"kind": "Namespace", "metadata": {"name": self.namespace}})
        self.image = self._image()
        self.publish("words")

    def kubectl(self, *arguments: str, given: object = None) -> str:
        """What kubectl printed."""
        argv = [
            *(str(programs_folder() / "kubectl"), f"--kubeconfig={self.cluster.kubeconfig}"),
            *("--namespace", self.namespace, *arguments),
        ]
        text = None if given is None else json.dumps(given)
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def publish(self, pipeline: str) -> None:
        """Make a pipeline of the job: its image, and a PodTemplate that mounts the truth."""
        self.registry.push(self.image, f"model-training-{pipeline}")
        mount = {"name": "truth", "mountPath": str(self.truth)}
        volume = {"name": "truth", "hostPath": {"path": str(self.truth)}}
        containers = [{"name": "training", "image": "by-the-service", "volumeMounts": [mount]}]
        metadata = {"name": f"model-training-{pipeline}"}
        spec = {"containers": containers, "volumes": [volume]}
        self._make({"kind": "PodTemplate", "metadata": metadata, "template": {"spec": spec}})

    def executor_options(self) -> list[str]:
        return [
            *("--executor", "kubernetes", "--namespace", self.namespace),
            *("--kubeconfig", str(self.kubeconfig), "--registry", self.registry.address),
        ]

    def put_network_between(self) -> None:
        """Let the services of this campaign reach the API server through a network to cut."""
        self.network = Toxiproxy(self.root / "toxiproxy.log")
        self.at_end.callback(self.network.end)
        self.network.lead_to(self.cluster.url)
        direct = self.cluster.kubeconfig.read_text()
        through = f"https://127.0.0.1:{self.network.port}"
        self.kubeconfig = self.root / "kubeconfig"
        self.kubeconfig.write_text(direct.replace(self.cluster.url, through))
        self.kubeconfig.chmod(0o600)

    def mend(self) -> None:
        """Start what does not run, as a machine's service manager does; until all of it works."""
        for name in self.cluster.components():
            self.cluster.start(name)
        self.cluster.wait_ready()
        self.until(self.cluster.node_ready, "the node is not ready", 60)

    def sit(self, service: Service, promises: list[Promise], **more: object) -> dict:
        place = {
            "kubectl": str(programs_folder() / "kubectl"),
            "kubeconfig": str(self.cluster.kubeconfig),
            "namespace": self.namespace,
            "away": self.away,
            "dead": service.dead,
            "cuts": self.away if self.name == "containerd-restart" else [],
            "node_breaks": self.name in {"kubelet-restart", "containerd-restart"},
        }
        verdict = super().sit(service, promises, cluster=place, **more)
        self.unavoidable.update(verdict["unavoidable"])
        return verdict

    def judge_step(self, service: Service, promises: list[Promise], recovered: float) -> None:
        verdict = self.sit(service, promises, recovered=recovered)
        self.in_step.append(verdict.get("in_step_s", float("inf")))

    def look_gone(self, name: str) -> None:
        left: list[str] = []

        def is_seen() -> bool:
            try:
                there = self.kubectl("get", "jobs,pods", "-o", "name", "--request-timeout=5s")
            except RuntimeError:  # the API server is away; what is there later was there before
                return False
            left.extend(line for line in there.split() if name in line)
            return True

        self.until(is_seen, f"nobody tells what is left of {name}", self.patience_s)
        self.expect(not left, f"{name} is told as gone, and there are still {left}")

    def finish(self, service: Service, promises: list[Promise]) -> None:
        super().finish(service, promises)
        self.judge(service, [])  # the cluster has nothing of them
        self.away.clear()
        service.dead.clear()
        self.figures |= {
            "in step again after at most, seconds": max(self.in_step, default=0.0),
            "unavoidable": dict(+self.unavoidable) or "nothing",
        }

    def _image(self) -> images.Image:
        folder = self.root / "image"
        folder.mkdir()
        shutil.copy(HERE / "job.py", folder)
        command = ["python3", "-S", "-E", "-u", "job.py"]
        (folder / "pipeline.toml").write_text(f'name = "words"\ncommand = {json.dumps(command)}\n')
        return images.pipeline(folder)

    def _make(self, wanted: dict) -> None:
        self.kubectl("create", "-f", "-", given={"apiVersion": "v1", **wanted})

    def _leave(self) -> None:
        self.kubectl("delete", "namespace", self.namespace, "--wait=false", "--ignore-not-found")


def heal() -> None:
    """Let what a killed campaign left paused go on, and start what does not run."""
    cluster = Cluster()
    for name in cluster.components():
        if cluster.condition(name).state == "paused":
            cluster.resume(name)
    subprocess.run([str(ROOT / "testbed/up")], stdout=subprocess.DEVNULL, check=True)
