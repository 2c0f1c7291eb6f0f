"""etcd and kube-apiserver alone, private to whoever wants to break them; ready in seconds.

    with ControlPlane(tmp_path / "plane", ["--min-request-timeout=5"]) as plane:
        plane.kubeconfig               # of the administrator
        plane.pause("kube-apiserver")  # a half-open connection
        plane.restart("kube-apiserver", ["--max-requests-inflight=1"])

Needs no root, when the programs were built once (``testbed/up`` does, ``binaries.programs``).
"""

import base64
import json
import random
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.api import Api
from testbed.binaries import programs, programs_folder
from testbed.components import Component, Components
from testbed.errors import ClusterError
from testbed.keys import Keys, write_kubeconfig

SERVICES = "10.96.0.0/16"
ISSUER = "https://kubernetes.default.svc"
CLOCK_LEEWAY = 60  # seconds after its end for which the API server still takes a token
PORTS = ("etcd", "etcd-peer", "kube-apiserver", "kube-controller-manager")


class ControlPlane(Components):
    """A Kubernetes API without nodes.

    Args:
        folder: for its state; made, and removed by ``with`` unless the block raised.
        api_flags: for kube-apiserver at every start, after its own.
        controllers: whether kube-controller-manager runs too (Jobs get pods, though no node runs
            them; deletion in the foreground and default service accounts work).
    """

    address = "127.0.0.1"

    def __init__(
        self, folder: Path, api_flags: Iterable[str] = (), *, controllers: bool = False
    ) -> None:
        self.folder = folder
        self._api_flags = tuple(api_flags)
        self._controllers = controllers

    def __enter__(self) -> Self:
        """Start it."""
        self.up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it; its folder stays where the block raised, for its logs."""
        self.down()
        if kind is None:
            shutil.rmtree(self.folder)

    def up(self) -> None:
        """Start what does not run, and wait until all is ready."""
        programs()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._choose_ports()
        Keys.make(self.keys.folder, (self.address, "127.0.0.1", "10.96.0.1"))
        self.keys.kubeconfig("admin", self.url, self.kubeconfig)
        for name in self.components():
            if self.condition(name).pid is None:  # some watch their files, and end on a new one
                self._prepare(name)
                self.start(name)
        self.wait_ready()

    def down(self) -> None:
        """End every process."""
        for name in reversed(self.components()):
            self.stop(name)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.folder / "kubeconfig"

    @property
    def url(self) -> str:
        """Where the API server is."""
        return f"https://{self.address}:{self._port('kube-apiserver')}"

    @property
    def keys(self) -> Keys:
        """All keys, once ``up`` has made them."""
        return Keys(self.folder / "keys")

    @property
    def api(self) -> Api:
        """The API server, asked as the administrator."""
        pair = (self.keys.certificate("admin"), self.keys.key("admin"))
        return Api(self.url, self.keys.certificate("ca"), pair)

    @property
    def etcd(self) -> Api:
        """The JSON gateway of etcd."""
        return Api(f"http://127.0.0.1:{self._port('etcd')}")

    def components(self) -> dict[str, Component]:
        """What runs here."""
        found = {
            "etcd": Component(self._etcd_argv(), lambda: self.etcd.answers("/health")),
            "kube-apiserver": Component(self._apiserver_argv(), self._serves),
        }
        if self._controllers:
            port = self._port("kube-controller-manager")
            health = Api(f"https://127.0.0.1:{port}")
            found["kube-controller-manager"] = Component(
                self._controllers_argv(), lambda: health.answers("/healthz")
            )
        return found

    def _serves(self) -> bool:
        """Ready, and past its first start, in which it makes this namespace a moment later."""
        return self.api.answers("/readyz") and self.api.answers("/api/v1/namespaces/default")

    def service_account_token(
        self, namespace: str = "default", name: str = "default", seconds: int = 3600
    ) -> str:
        """A token of a service account, which is made if it is not there.

        The API server refuses it after so many seconds, however few; one that it has accepted it
        remembers for up to 10 s more.
        """
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        if not self.api.answers(f"{path}/{name}"):
            self.api.post(path, {"metadata": {"name": name}})
        account = self.api.get(f"{path}/{name}")["metadata"]
        about = {
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": account["uid"]},
        }
        claims = {
            "iss": ISSUER,
            "aud": [ISSUER],
            "sub": f"system:serviceaccount:{namespace}:{name}",
            "kubernetes.io": about,
        }
        return self.keys.token(claims, seconds - CLOCK_LEEWAY)

    def kubeconfig_of(self, user: dict[str, str], file: Path) -> Path:
        """Write the kubeconfig of somebody else: ``{"token": ...}``, ``{"tokenFile": ...}``."""
        return write_kubeconfig(file, self.url, self.keys.certificate("ca"), "other", user)

    def revision(self) -> int:
        """The newest revision in etcd: the newest resourceVersion of all."""
        key = base64.b64encode(b"/").decode()
        return int(self._ask_etcd("/v3/kv/range", {"key": key})["header"]["revision"])

    def compact(self, revision: int | None = None) -> None:
        """Forget every revision before this one, or before the newest.

        The API server answers from its watch cache what that still holds: restart it, or run it
        with ``--watch-cache=false``, to be told 410.
        """
        body = {"revision": str(revision or self.revision()), "physical": True}
        self._ask_etcd("/v3/kv/compaction", body)

    def snapshot(self, name: str = "snapshot") -> Path:
        """Keep a copy of the database, as it would be found after a kill -9 now."""
        copy = self.folder / f"etcd-{name}"
        shutil.rmtree(copy, ignore_errors=True)
        self.pause("etcd")
        try:
            shutil.copytree(self._database, copy)
        finally:
            self.resume("etcd")
        return copy

    def restore(self, name: str = "snapshot") -> None:
        """Go back to the copy: etcd and kube-apiserver are restarted on the older database."""
        self.stop("kube-apiserver")
        self.stop("etcd")
        shutil.rmtree(self._database)
        shutil.copytree(self.folder / f"etcd-{name}", self._database)
        for component in ("etcd", "kube-apiserver"):
            self.start(component)
        self.wait_ready("etcd", "kube-apiserver")

    @property
    def _database(self) -> Path:
        return self.folder / "etcd"

    def _ask_etcd(self, path: str, body: dict[str, object]) -> dict:
        status, _, content = self.etcd.request("POST", path, body)
        if status != 200:
            raise ClusterError(f"etcd answered {path} with {status}: {content.decode()}")
        return json.loads(content)

    def _choose_ports(self) -> None:
        """Ports below those that the system gives to connections; kept for every restart."""
        file = self.folder / "ports.json"
        if not file.exists():
            new = file.with_suffix(".new")
            new.write_text(json.dumps(dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))))
            new.rename(file)

    def _port(self, name: str) -> int:
        try:
            return json.loads((self.folder / "ports.json").read_text())[name]
        except FileNotFoundError:  # nothing was started yet
            return 0

    def _prepare(self, name: str) -> None:
        """Write what a component reads at its start."""
        if name == "kube-controller-manager":
            self._client_config(name)

    def _client_config(self, name: str) -> Path:
        return self.keys.kubeconfig(name, self.url, self.folder / f"{name}.kubeconfig")

    def _program(self, name: str) -> str:
        return str(programs_folder() / name)

    def _etcd_argv(self) -> tuple[str, ...]:
        client = f"http://127.0.0.1:{self._port('etcd')}"
        peer = f"http://127.0.0.1:{self._port('etcd-peer')}"
        return (
            self._program("etcd"),
            f"--data-dir={self._database}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            f"--quota-backend-bytes={8 << 30}",
            "--unsafe-no-fsync",  # a killed process loses nothing by it, only a killed machine
        )

    def _apiserver_argv(self) -> tuple[str, ...]:
        keys = self.folder / "keys"
        return (
            self._program("kube-apiserver"),
            f"--etcd-servers={self.etcd.url}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self._port('kube-apiserver')}",
            f"--client-ca-file={keys}/ca.crt",
            f"--tls-cert-file={keys}/apiserver.crt",
            f"--tls-private-key-file={keys}/apiserver.key",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={keys}/tokens.pub",
            f"--service-account-signing-key-file={keys}/tokens.key",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--kubelet-client-certificate={keys}/kubelet-client.crt",
            f"--kubelet-client-key={keys}/kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP,Hostname",
            "--max-requests-inflight=1000",
            "--max-mutating-requests-inflight=500",
            "--profiling=false",
            *self._endpoint_flags(),
            *self._api_flags,
        )

    def _endpoint_flags(self) -> tuple[str, ...]:
        """Nobody uses the service address here; a loopback address would be refused for it."""
        return ("--endpoint-reconciler-type=none",)

    def _controllers_argv(self) -> tuple[str, ...]:
        keys = self.folder / "keys"
        return (
            self._program("kube-controller-manager"),
            f"--kubeconfig={self.folder}/kube-controller-manager.kubeconfig",
            "--leader-elect=false",
            # Its own certificate lacks the rights of its controllers; their accounts have them.
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={keys}/tokens.key",
            f"--root-ca-file={keys}/ca.crt",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port('kube-controller-manager')}",
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
            "--concurrent-job-syncs=20",
            "--concurrent-gc-syncs=20",
            "--terminated-pod-gc-threshold=0",
            "--profiling=false",
            f"--flex-volume-plugin-dir={self.folder}/volume-plugins",  # it makes that folder
        )


def _free_ports(count: int) -> list[int]:
    found: set[int] = set()
    while len(found) < count:
        port = random.randint(20000, 29999)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.add(port)
    return sorted(found)
