"""The whole cluster: a control plane, one node, two registries, and images to run.

One at a time on a machine, because a node changes its network. Needs root.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from testbed import images, machine
from testbed.api import Api
from testbed.binaries import (
    locked,
    packages,
    packages_folder,
    programs,
    programs_folder,
    refuse_unbuildable,
    say,
)
from testbed.components import Component
from testbed.control_plane import ControlPlane
from testbed.errors import ClusterError
from testbed.node import NAME, Node
from testbed.registries import LOGIN, Registry

DIGITS = Path(__file__).parents[1] / "src/model_training/pipelines/bundled/digits"
OPEN_REGISTRY = "127.0.0.1:5000"
LOGIN_REGISTRY = "127.0.0.1:5001"
INSTALLED = {"iptables": "iptables", "iproute2": "ip", "openssl": "openssl"}  # package: program
STATE_BYTES = 3 * 2**30
SOCKET_LIMIT = 45  # characters of the state folder: sockets below it have names of up to 60


def default_folder() -> Path:
    """Where the state is: ``MODEL_TRAINING_TESTBED_STATE`` or a folder in /var/lib."""
    return Path(os.environ.get("MODEL_TRAINING_TESTBED_STATE") or "/var/lib/model-training-testbed")


def _refuse_others_than_root() -> None:
    if sys.platform != "linux":
        raise ClusterError("the test cluster runs on Linux; see docs/howto/test-cluster.md")
    if os.geteuid() != 0:
        raise ClusterError("the test cluster needs root, for containers, mounts, links, iptables")


class Cluster(ControlPlane):
    """The cluster whose state is in a folder.

    Args:
        folder: by default that of ``default_folder``; a short path.
    """

    address = machine.ADDRESS

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder or default_folder(), controllers=True)

    def up(self) -> None:
        """Start what does not run, and wait until a pod can run on the node.

        Raises:
            ClusterError: this machine cannot run it; the message says why.
        """
        _refuse_others_than_root()
        self._refuse()
        with locked("cluster"):
            self._announce()
            self._install()
            programs()
            packages()
            began = time.monotonic()
            self._start()
            say(f"the cluster is ready after {time.monotonic() - began:.1f} s")

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        machine.prepare(self.folder)
        super().up()
        self._push_images()
        self._wait("the node is ready", self.node_ready)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._wait("there is a service account", lambda: self.api.answers(account))

    def down(self) -> None:
        """End everything and remove every trace, in whatever state it is."""
        _refuse_others_than_root()
        with locked("cluster"):
            for name in ("kubelet", "kube-proxy", "containerd"):
                self.stop(name)
            super().down()
            machine.restore(self.folder, self.node.socket)
            shutil.rmtree(self.folder, ignore_errors=True)

    def leftovers(self) -> list[str]:
        """What is on this machine of the cluster, in words."""
        return machine.leftovers(self.folder, self.node.socket)

    @property
    def node(self) -> Node:
        """Its one node."""
        authority = self.folder / "keys/ca.crt"
        return Node(self.folder / "node", authority, self.folder, f"{OPEN_REGISTRY}/pause:latest")

    @property
    def registries(self) -> dict[str, Registry]:
        """The registries, by the name of their component."""
        return {
            "registry": Registry(OPEN_REGISTRY, self.folder / "registry", login=False),
            "registry-login": Registry(LOGIN_REGISTRY, self.folder / "registry-login", login=True),
        }

    def components(self) -> dict[str, Component]:
        """What runs, in the order of its start."""
        scheduler = Api("https://127.0.0.1:10259")
        return {
            **{name: registry.component() for name, registry in self.registries.items()},
            **super().components(),
            "kube-scheduler": Component(
                (
                    self._program("kube-scheduler"),
                    f"--kubeconfig={self.folder}/kube-scheduler.kubeconfig",
                    "--leader-elect=false",
                    "--bind-address=127.0.0.1",
                    "--kube-api-qps=1000",
                    "--kube-api-burst=2000",
                ),
                lambda: scheduler.answers("/healthz"),
            ),
            **self.node.components(),
        }

    def node_ready(self) -> bool:
        """Whether the node says that it is ready."""
        try:
            node = self.api.get(f"/api/v1/nodes/{NAME}")
        except ClusterError:  # no API server, or no such node yet
            return False
        conditions = {each["type"]: each["status"] for each in node["status"]["conditions"]}
        return conditions.get("Ready") == "True"

    def push(self, image: images.Image, name: str, registry: str = OPEN_REGISTRY) -> str:
        """Send an image to a registry, with its login where it asks for one; the digest."""
        login = LOGIN if registry == LOGIN_REGISTRY else None
        return images.push(image, name, registry, login)

    def _prepare(self, name: str) -> None:
        super()._prepare(name)
        if name in self.registries:
            self.registries[name].prepare()
        elif name == "containerd":
            self.node.prepare((OPEN_REGISTRY, LOGIN_REGISTRY))
        elif name in ("kube-scheduler", "kubelet", "kube-proxy"):
            self._client_config(name)
        if name == "kubelet":
            self.wait_ready("containerd")  # one that is refused at its start ends

    def _endpoint_flags(self) -> tuple[str, ...]:
        return ()  # the service `kubernetes` leads pods to our address

    def _port(self, name: str) -> int:
        return 6443 if name == "kube-apiserver" else super()._port(name)

    def _push_images(self) -> None:
        bottom = images.base()
        self.push(images.pause(), "pause")
        for name in ("model-training-base", "model-training-contract"):
            self.push(bottom, name)
        self.push(images.pipeline(DIGITS), "model-training-digits")

    def _wait(self, what: str, so: Callable[[], bool], within: float = 60.0) -> None:
        deadline = time.monotonic() + within
        while not so():
            if time.monotonic() > deadline:
                raise ClusterError(f"not within {within:.0f} s: {what}; see {self.folder}/logs")
            time.sleep(0.1)

    def _refuse(self) -> None:
        if len(str(self.folder)) > SOCKET_LIMIT:
            raise ClusterError(f"{self.folder} is too long for the sockets in it; choose another")
        refuse_unbuildable()
        existing = next(folder for folder in self.folder.parents if folder.exists())
        free = shutil.disk_usage(existing).free
        if free < STATE_BYTES:
            raise ClusterError(
                f"the cluster needs {STATE_BYTES >> 30} GiB in {self.folder}, "
                f"{free / 2**30:.1f} GiB are free; set MODEL_TRAINING_TESTBED_STATE elsewhere"
            )
        if not self.folder.exists():
            machine.refuse_strangers()

    def _announce(self) -> None:
        """Say what is about to happen to this machine, as far as it has not happened yet."""
        if missing := self._missing():
            say(f"will install with apt-get: {' '.join(missing)}")
        if not programs_folder().exists():
            say(f"will build Kubernetes and etcd from Go modules into {programs_folder()}")
        if not packages_folder().exists():
            say(f"will unpack Debian packages (not install them) into {packages_folder()}")
        if not self.folder.exists():
            say(
                f"will run as root: a Kubernetes node with its state in {self.folder}; the address "
                f"{self.address} on lo, a bridge, iptables chains KUBE-*, cgroups, mounts; "
                "testbed/down removes all of it"
            )

    def _missing(self) -> list[str]:
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        return [
            package
            for package, program in INSTALLED.items()
            if not shutil.which(program, path=path)
        ]

    def _install(self) -> None:
        missing = self._missing()
        if not missing:
            return
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing]
        for argv in (["apt-get", "update", "-q"], install):
            done = subprocess.run(
                argv, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise ClusterError(f"{' '.join(argv)} failed:\n{done.stderr[-2000:]}")
