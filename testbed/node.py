"""The node: containerd, kubelet and kube-proxy, and the files that they read.

Every folder that these programs keep is put below the state folder, as far as they let us;
``machine`` removes the rest.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from testbed import cri
from testbed.api import Api
from testbed.binaries import packages_folder, programs_folder
from testbed.components import Component
from testbed.processes import PATH

NAME = "127.0.0.1"  # so that the API server reaches the kubelet on loopback
BRIDGE = "mt-testbed0"
CGROUP = "model-training-testbed"
NETWORK = "model-training-testbed"
PODS = "10.244.0.0/16"


@dataclass(frozen=True)
class Node:
    """The node whose state is in a folder, below the cluster's."""

    folder: Path
    authority: Path
    kubeconfigs: Path
    pause_image: str

    @property
    def socket(self) -> Path:
        """Where containerd listens."""
        return self.folder / "containerd.sock"

    def prepare(self, registries: tuple[str, ...]) -> None:
        """Write all configuration."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "cni").mkdir(exist_ok=True)
        self._write("cni/10-bridge.conflist", json.dumps(self._network()))
        self._write("containerd.toml", self._containerd())
        for registry in registries:
            (self.folder / "certs.d" / registry).mkdir(parents=True, exist_ok=True)
            hosts = f'server = "http://{registry}"\n[host."http://{registry}"]\n'
            self._write(f"certs.d/{registry}/hosts.toml", hosts)
        self._write("kubelet.yaml", json.dumps(self._kubelet()))
        self._write("kube-proxy.yaml", json.dumps(self._proxy()))

    def components(self) -> dict[str, Component]:
        """What runs on the node."""
        programs = programs_folder()
        path = {"PATH": f"{programs}:{PATH}"}  # to containerd's shim
        kubelet, proxy = Api("http://127.0.0.1:10248"), Api("http://127.0.0.1:10256")
        return {
            "containerd": Component(
                (str(programs / "containerd"), f"--config={self.folder}/containerd.toml"),
                lambda: cri.serves(self.socket),
                path,
            ),
            "kubelet": Component(
                (
                    str(programs / "kubelet"),
                    f"--config={self.folder}/kubelet.yaml",
                    f"--kubeconfig={self.kubeconfigs}/kubelet.kubeconfig",
                    f"--hostname-override={NAME}",
                    f"--root-dir={self.folder}/kubelet",
                    f"--cert-dir={self.folder}/kubelet/pki",
                ),
                lambda: kubelet.answers("/healthz"),
            ),
            "kube-proxy": Component(
                (str(programs / "kube-proxy"), f"--config={self.folder}/kube-proxy.yaml"),
                lambda: proxy.answers("/healthz"),
            ),
        }

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def _network(self) -> dict[str, object]:
        # Nothing is masqueraded: pods reach this machine and each other, and nothing beyond.
        bridge = {
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": True,
            "ipMasq": False,
            "ipam": {
                "type": "host-local",
                "dataDir": str(self.folder / "addresses"),
                "ranges": [[{"subnet": PODS}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        return {"cniVersion": "0.4.0", "name": NETWORK, "plugins": [bridge]}

    def _containerd(self) -> str:
        images, runtime = (
            f'plugins."io.containerd.cri.v1.{part}"' for part in ("images", "runtime")
        )
        packages = packages_folder()
        return f"""\
version = 3
root = "{self.folder}/containerd"
state = "{self.folder}/run"
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing", "io.containerd.nri.v1.nri",
]
[grpc]
address = "{self.socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "{self.folder}/opt"
[{images}]
snapshotter = "overlayfs"
[{images}.pinned_images]
sandbox = "{self.pause_image}"
[{images}.registry]
config_path = "{self.folder}/certs.d"
[{runtime}]
restrict_oom_score_adj = true  # without CAP_SYS_RESOURCE no container would start otherwise
disable_apparmor = true
netns_mounts_under_state_dir = true
[{runtime}.cni]
bin_dirs = ["{packages}/containernetworking-plugins/usr/lib/cni"]
conf_dir = "{self.folder}/cni"
[{runtime}.containerd]
default_runtime_name = "runc"
[{runtime}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{runtime}.containerd.runtimes.runc.options]
BinaryName = "{packages}/runc/usr/sbin/runc"
Root = "{self.folder}/runc"
SystemdCgroup = false
"""

    def _kubelet(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(self.authority)},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "address": "127.0.0.1",
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "podLogsDir": str(self.folder / "pods"),
            "volumePluginDir": str(self.folder / "kubelet/volume-plugins"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{CGROUP}",
            "cgroupsPerQOS": True,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "maxOpenFiles": 20000,
            "maxPods": 250,
            "registryPullQPS": 0,  # tests start dozens of images at once, and the registry is here
            "resolvConf": "/etc/resolv.conf",
            "containerLogMonitorInterval": "3s",
            # The disk is shared with everything else on this machine: never evict for it.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "nodefs.available": "0%",
                "imagefs.available": "0%",
                "nodefs.inodesFree": "0%",
                "memory.available": "1Mi",
            },
            "localStorageCapacityIsolation": False,
            "protectKernelDefaults": False,
            "serializeImagePulls": False,
        }

    def _proxy(self) -> dict[str, object]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": PODS,
            "hostnameOverride": NAME,
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "conntrack": {"maxPerCore": 0, "min": 0},
            "clientConnection": {"kubeconfig": f"{self.kubeconfigs}/kube-proxy.kubeconfig"},
        }
