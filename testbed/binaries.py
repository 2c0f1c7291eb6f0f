"""The programs of the cluster: Go modules built once, Debian packages unpacked once.

Both are kept outside the tree, in ``$XDG_CACHE_HOME/model-training-testbed`` (``~/.cache``), by
the content of what pins them. The packages are unpacked, not installed: an installed containerd
would be started by the system, and would push out the one that is there.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.errors import ClusterError

HERE = Path(__file__).parent
KUBERNETES = "v1.36.3"  # as in go.mod, whose staging modules are v0.36.3
PROGRAMS = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "toxiproxy-server": "github.com/Shopify/toxiproxy/v2/cmd/server",
    **{
        name: f"k8s.io/kubernetes/cmd/{name}"
        for name in (
            "kube-apiserver",
            "kube-controller-manager",
            "kube-proxy",
            "kube-scheduler",
            "kubectl",
            "kubelet",
        )
    },
}
# Debian's containerd 1.6 closes a container's pipe when its process has ended, read or not: up to
# some hundred KB printed just before are lost now and then, which no later version does.
RUNTIME = {
    name: f"github.com/containerd/containerd/v2/cmd/{name}"
    for name in ("containerd", "containerd-shim-runc-v2")
}
# Clients read the version; without these it would be v0.0.0-master.
LINKED = " ".join((
    "-s -w",
    f"-X k8s.io/component-base/version.gitVersion={KUBERNETES}",
    "-X k8s.io/component-base/version.gitMajor=1",
    f"-X k8s.io/component-base/version.gitMinor={KUBERNETES.split('.', 2)[1]}",
    f"-X k8s.io/client-go/pkg/version.gitVersion={KUBERNETES}",
))  # fmt: skip
FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", LINKED)
PACKAGES = (
    "runc", "containernetworking-plugins", "docker-registry",
    # for the images
    "busybox-static", "catatonit", "libbz2-1.0", "libc6", "libexpat1", "libffi8", "libgcc-s1",
    "liblzma5", "libpython3.11-minimal", "libpython3.11-stdlib", "libsqlite3-0", "libssl3",
    "libuuid1", "python3.11-minimal", "zlib1g",
)  # fmt: skip
COLD_BYTES = 9 * 2**30  # Go's module cache 1.7 GB, its build cache 4.3 GB, and the results


def cache() -> Path:
    """Where everything made once is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "model-training-testbed"


def say(text: str) -> None:
    """Tell the person in front of it what is going on; standard output is for the result."""
    print(text, file=sys.stderr, flush=True)


def programs() -> Path:
    """The folder with the Go programs, built now if they are not there yet (some minutes)."""
    return made_once(programs_folder(), _build)


def packages() -> Path:
    """The folder with the unpacked Debian packages, fetched now if they are not there yet."""
    return made_once(packages_folder(), _unpack)


def programs_folder() -> Path:
    """Where the programs of these pins are, or will be."""
    pins = [
        folder / name for folder in (HERE, HERE / "containerd") for name in ("go.mod", "go.sum")
    ]
    made_of = repr((PROGRAMS, RUNTIME, FLAGS)).encode()
    return cache() / f"programs-{_digest(*(pin.read_bytes() for pin in pins), made_of)}"


def packages_folder() -> Path:
    """Where the unpacked packages are, or will be."""
    release = Path("/etc/debian_version").read_bytes()
    return cache() / f"packages-{_digest(repr(PACKAGES).encode(), release)}"


def refuse_unbuildable() -> None:
    """Stop now rather than in the middle where something that building needs is missing.

    Raises:
        ClusterError: no Go, no apt, or too little disk.
    """
    if not packages_folder().exists() and not shutil.which("apt-get"):
        raise ClusterError("the test cluster is made of Debian packages; this system has no apt")
    if programs_folder().exists():
        return
    if not shutil.which("go"):
        raise ClusterError("building Kubernetes needs Go 1.26 or newer on PATH; see go.dev/dl")
    existing = next(folder for folder in (cache(), *cache().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < COLD_BYTES:
        raise ClusterError(
            f"building Kubernetes needs {COLD_BYTES >> 30} GiB in {existing} and Go's caches, "
            f"{free / 2**30:.1f} GiB are free; set XDG_CACHE_HOME, GOCACHE and GOMODCACHE elsewhere"
        )


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold one lock of the cache; others wait."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process holds {file.name}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder of the cache, made as a whole by the first who needs it; others wait."""
    if folder.exists():
        return folder
    with locked(folder.name.partition("-")[0]):
        if not folder.exists():
            new = folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            make(new)
            new.rename(folder)
    return folder


def _build(folder: Path) -> None:
    say(f"building Kubernetes {KUBERNETES} into {folder.parent} (about 6 minutes on 2 cores)")
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    for module, packages in ((HERE, PROGRAMS), (HERE / "containerd", RUNTIME)):
        for name, package in packages.items():
            argv = ["go", "build", *FLAGS, "-o", str(folder / name), package]
            say(f"  {name}")
            _run(argv, module, environment)


def _unpack(folder: Path) -> None:
    say(f"fetching and unpacking {len(PACKAGES)} Debian packages into {folder.parent}")
    fetched = folder / "fetched"
    fetched.mkdir()
    try:
        _run(["apt-get", "download", "-q", *PACKAGES], fetched)
    except ClusterError:  # no package lists yet, or old ones
        _run(["apt-get", "update", "-q"], fetched)
        _run(["apt-get", "download", "-q", *PACKAGES], fetched)
    for package in PACKAGES:
        (found,) = fetched.glob(f"{package}_*.deb")
        _run(["dpkg", "-x", str(found), str(folder / package)], folder)
    shutil.rmtree(fetched)


def _run(argv: list[str], folder: Path, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        argv, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ClusterError(f"{' '.join(argv[:2])} failed:\n{done.stderr[-2000:]}")


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
