"""What the cluster changes on this machine outside of its folder, and how that is undone.

Undoing looks at what is there, not at what was done: it works after any crash, and twice.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from testbed.errors import ClusterError
from testbed.node import BRIDGE, CGROUP
from testbed.processes import carrying

ADDRESS = "10.243.0.1"  # of the API server, on lo: pods reach it, and nobody from outside
TABLES = ("filter", "mangle", "nat")
CGROUPS = Path("/sys/fs/cgroup")
SHIM_SOCKETS = Path("/run/containerd/s")  # compiled into containerd's shims
WANTED_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "fs/inotify/max_user_instances": "1024",  # one for every log that is followed
}
# Set by kubelet and kube-proxy.
TOUCHED_SYSCTLS = (
    "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes", "net/ipv4/conf/all/route_localnet",
    "net/bridge/bridge-nf-call-iptables", "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
)  # fmt: skip


def prepare(folder: Path) -> None:
    """Give the machine the address and the kernel settings that the cluster needs."""
    for module in ("overlay", "br_netfilter"):  # most kernels have them built in or loaded
        _try("modprobe", module)
    saved = folder / "sysctls.json"
    if not saved.exists():
        new = saved.with_suffix(".new")
        new.write_text(json.dumps(dict(_sysctls())))
        new.rename(saved)
    for hierarchy in _hierarchies():  # the kubelet wants to find its root there
        (hierarchy / CGROUP).mkdir(exist_ok=True)
    _set_sysctls(WANTED_SYSCTLS)
    if ADDRESS not in _try("ip", "-o", "address", "show", "dev", "lo"):
        _must("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")


def refuse_strangers() -> None:
    """Stop where another Kubernetes runs in this network namespace: rules would be mixed.

    Raises:
        ClusterError: there are chains of a kube-proxy or kubelet.
    """
    if any(_chains("iptables", table) for table in TABLES):
        raise ClusterError(
            "there are iptables chains KUBE-* on this machine, so another Kubernetes runs or ran "
            "here; end it and remove them, or use its kubeconfig in MODEL_TRAINING_TEST_KUBECONFIG"
        )


def restore(folder: Path, socket: Path) -> None:
    """Undo everything, once the components have ended.

    Args:
        folder: the state folder, which holds the mounts.
        socket: containerd's, by which its shims are known.
    """
    _end_containers(socket)
    _remove_shim_sockets(folder)
    _unmount(folder)
    _remove_network()
    _remove_files(folder)
    saved = folder / "sysctls.json"
    if saved.exists():
        _set_sysctls(json.loads(saved.read_text()))


def leftovers(folder: Path, socket: Path) -> list[str]:
    """What is left of the cluster on this machine, in words; nothing after ``restore``."""
    found = [f"process {shim.pid}" for shim in carrying(str(folder))]
    found += [f"process {pid} in {group}" for group in _cgroups() for pid in _inside(group)]
    found += [f"cgroup {group}" for group in _cgroups()]
    found += [f"mount {mount}" for mount in _mounts(folder)]
    found += [f"link {link}" for link in _links()]
    found += [f"address {ADDRESS}"] * (ADDRESS in _try("ip", "-o", "address", "show", "dev", "lo"))
    for program in ("iptables", "ip6tables"):
        for table in TABLES:
            found += [f"{program} {table} {chain}" for chain in _chains(program, table)]
    found += [f"socket {file}" for file in _shim_sockets(folder)]
    found += [str(path) for path in (folder, socket) if path.exists()]
    return found + [str(file) for file in _stray_files(folder)]


def _end_containers(socket: Path) -> None:
    """End what runs in containers, and the shims above them, until nobody is left."""
    deadline = time.monotonic() + 20
    while True:
        shims = list(carrying("containerd-shim", str(socket)))
        inside = [pid for group in _cgroups() for pid in _inside(group)]
        if not shims and not inside:
            break
        for pid in inside:
            _kill_inside(pid)
        for shim in shims:
            shim.send(signal.SIGKILL)
        if time.monotonic() > deadline:
            raise ClusterError(f"processes of containers do not end: {inside}, {shims}")
        time.sleep(0.05)
    for group in sorted(_cgroups(), reverse=True):  # children first
        group.rmdir()


def _kill_inside(pid: int) -> None:
    """Kill it if it is in our cgroup still: the number may be another's by now."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if any(pid in _inside(group) for group in _cgroups()):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def _cgroups() -> list[Path]:
    """Our cgroups in every hierarchy, and all below them."""
    roots = [hierarchy / CGROUP for hierarchy in _hierarchies()]
    return [group for root in roots if root.is_dir() for group in (root, *_folders(root))]


def _hierarchies() -> list[Path]:
    """The one of version 2, or those of version 1 with a version 2 beside them."""
    return [found.parent for found in sorted(CGROUPS.glob("cgroup.procs"))] or [
        found.parent for found in sorted(CGROUPS.glob("*/cgroup.procs"))
    ]


def _folders(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_dir())


def _inside(group: Path) -> list[int]:
    try:
        return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    except OSError:  # it has just been removed
        return []


def _shim_sockets(folder: Path) -> list[Path]:
    files = folder.glob("node/run/io.containerd.runtime.v2.task/*/*/address")
    sockets = {Path(file.read_text().removeprefix("unix://")) for file in files}
    return [path for path in sockets if path.exists() and path.is_relative_to(SHIM_SOCKETS)]


def _remove_shim_sockets(folder: Path) -> None:
    for path in _shim_sockets(folder):
        path.unlink()
    for empty in (SHIM_SOCKETS, SHIM_SOCKETS.parent):
        _remove_empty(empty)


def _mounts(folder: Path) -> list[str]:
    """Mount points below the folder, the newest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return [point for point in reversed(points) if Path(point).is_relative_to(folder)]


def _unmount(folder: Path) -> None:
    for point in _mounts(folder):
        _must("umount", "--lazy", point)


def _links() -> list[str]:
    """The bridge and everything that is plugged into it."""
    plugged = _try("ip", "-o", "link", "show", "master", BRIDGE)
    itself = _try("ip", "-o", "link", "show", BRIDGE)
    # A line is such as "7: veth5c5f8154@if2: <BROADCAST,...".
    return [
        line.split()[1].partition("@")[0].rstrip(":") for line in (plugged + itself).splitlines()
    ]


def _remove_network() -> None:
    for link in _links():
        _try("ip", "link", "delete", link)
    if ADDRESS in _try("ip", "-o", "address", "show", "dev", "lo"):
        _must("ip", "address", "delete", f"{ADDRESS}/32", "dev", "lo")
    for program in ("iptables", "ip6tables"):
        for table in TABLES:
            _remove_chains(program, table)


def _chains(program: str, table: str) -> list[str]:
    rules = _try(f"{program}-save", "-t", table).splitlines()
    return [line[1:].split()[0] for line in rules if line.startswith(":KUBE-")]


def _remove_chains(program: str, table: str) -> None:
    chains = _chains(program, table)
    if not chains:
        return
    rules = _try(f"{program}-save", "-t", table).splitlines()
    jumps = [
        line.replace("-A", "-D", 1)
        for line in rules
        if line.startswith("-A") and not line.startswith("-A KUBE-") and "-j KUBE-" in line
    ]
    flushed = [f"-F {chain}" for chain in chains] + [f"-X {chain}" for chain in chains]
    text = "\n".join([f"*{table}", *jumps, *flushed, "COMMIT", ""])
    _must(f"{program}-restore", "--noflush", given=text)


def _stray_files(folder: Path) -> list[Path]:
    """Files outside of the folder that name it, or our network."""
    links = [path for path in Path("/var/log/containers").glob("*") if path.is_symlink()]
    ours = [path for path in links if path.readlink().is_relative_to(folder)]
    networks = Path("/var/lib/cni/results").glob("*")
    return ours + [path for path in networks if str(folder) in path.read_text()]


def _remove_files(folder: Path) -> None:
    for path in _stray_files(folder):
        path.unlink()
    plugins = Path("/var/lib/kubelet/device-plugins")  # compiled into kubelet
    for path in (plugins / "kubelet.sock", plugins / "kubelet_internal_checkpoint"):
        path.unlink(missing_ok=True)
    for empty in (
        Path("/var/log/containers"),
        Path("/var/lib/cni/results"),
        Path("/var/lib/cni"),
        plugins,
        plugins.parent,
    ):
        _remove_empty(empty)


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _sysctls() -> Iterator[tuple[str, str]]:
    for name in (*WANTED_SYSCTLS, *TOUCHED_SYSCTLS):
        file = Path("/proc/sys", name)
        if file.exists():
            yield name, file.read_text().strip()


def _set_sysctls(values: Mapping[str, str]) -> None:
    """Write what differs: some may not be written at all where root is not everywhere root."""
    for name, value in values.items():
        file = Path("/proc/sys", name)
        if file.exists() and file.read_text().strip() != value:
            file.write_text(value)


def _try(*argv: str) -> str:
    """What a program printed; nothing where it failed or is not there."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def _must(*argv: str, given: str | None = None) -> None:
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{' '.join(argv)} failed: {done.stderr.strip()}")
