"""Images made here: layers and manifests as OCI says, pushed over the registry's HTTP.

The same input gives the same digest: files are sorted, without times and owners of this machine.
"""

import gzip
import hashlib
import io
import json
import platform
import subprocess
import tarfile
import tomllib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.api import Api
from testbed.binaries import made_once, packages
from testbed.errors import ClusterError

USER = 10001
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
NOT_NEEDED = ("usr/share/doc/", "usr/share/man/", "usr/share/lintian/", "usr/share/menu/")
NOT_COPIED = {"__pycache__", "output", ".venv", ".git"}
HERE = Path(__file__)


@dataclass(frozen=True)
class Layer:
    """A compressed layer, and the digest of what it holds."""

    content: bytes
    diff: str

    @classmethod
    def of(cls, members: Mapping[str, tuple[tarfile.TarInfo, bytes]]) -> "Layer":
        """The layer of these files."""
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for _, (info, content) in sorted(members.items()):
                tar.addfile(info, io.BytesIO(content))
        return cls(gzip.compress(plain.getvalue(), 6, mtime=0), _digest(plain.getvalue()))


@dataclass(frozen=True)
class Image:
    """An image in memory.

    Attributes:
        config: the part ``config`` of the OCI configuration: User, Env, Entrypoint, Labels, ...
    """

    layers: tuple[Layer, ...]
    config: Mapping[str, object]

    def documents(self) -> tuple[bytes, bytes]:
        """Configuration and manifest."""
        diffs = [layer.diff for layer in self.layers]
        configuration = _json(
            {
                "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
                "os": "linux",
                "created": "1970-01-01T00:00:00Z",
                "config": self.config,
                "rootfs": {"type": "layers", "diff_ids": diffs},
            }
        )
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": _descriptor(CONFIG, configuration),
                "layers": [_descriptor(LAYER, layer.content) for layer in self.layers],
            }
        )
        return configuration, manifest


def base() -> Image:
    """Python and a busybox shell, run as user 10001."""
    environment = ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "HOME=/home/training"]
    config = {"User": f"{USER}:{USER}", "Env": environment, "WorkingDir": "/app", "Cmd": ["sh"]}
    return Image((_base_layer(),), config)


def pause() -> Image:
    """What holds a pod's namespaces; ends on SIGTERM and reaps when its pid 1 is shared."""
    program = (packages() / "catatonit/usr/bin/catatonit").read_bytes()
    layer = Layer.of(dict([_file("pause", program, 0o755)]))
    return Image((layer,), {"Entrypoint": ["/pause", "-P"], "User": f"{USER}:{USER}"})


def pipeline(folder: Path, labels: Mapping[str, str] | None = None) -> Image:
    """The image of a pipeline's folder, which is its working folder ``/app``.

    The command of its ``pipeline.toml`` is the entry point; what that declares is in labels.

    Raises:
        ClusterError: there is no such file, or it names packages, which are not installed here.
    """
    try:
        told = tomllib.loads((folder / "pipeline.toml").read_text())
    except FileNotFoundError:
        raise ClusterError(f"{folder} has no pipeline.toml; name a pipeline's folder") from None
    if "requirements" in told:
        raise ClusterError(f"{folder} has requirements, and this image holds Python alone")
    below = base()
    found = {f"model-training.{key}": told[key] for key in ("description", "arguments")
             if key in told}  # fmt: skip
    if "parameters" in told:
        found["model-training.parameters"] = json.dumps(told["parameters"], ensure_ascii=False)
    environment = [f"{name}={value}" for name, value in told.get("env", {}).items()]
    config = {
        **below.config,
        "Env": [*below.config["Env"], *environment],
        "Entrypoint": told["command"],
        "Cmd": [],
        "Labels": {**found, **(labels or {})},
    }
    return Image((*below.layers, Layer.of(dict(_folder(folder, "app")))), config)


def push(image: Image, name: str, registry: str, login: tuple[str, str] | None = None) -> str:
    """Send an image to a registry over plain HTTP; its digest.

    Args:
        image: what is sent.
        name: ``NAME:TAG``, or ``NAME`` for ``latest``.
        registry: ``HOST:PORT``.
        login: user and password.

    Raises:
        ClusterError: the registry refused, or is not there.
    """
    repository, _, tag = name.partition(":")
    headers = {}
    if login:
        headers["Authorization"] = f"Basic {b64encode(':'.join(login).encode()).decode()}"
    sender = _Sender(Api(f"http://{registry}"), f"/v2/{repository}", headers)
    configuration, manifest = image.documents()
    for blob in (*(layer.content for layer in image.layers), configuration):
        sender.blob(blob)
    sender.ask("PUT", f"/manifests/{tag or 'latest'}", manifest, {"Content-Type": MANIFEST})
    return _digest(manifest)


@dataclass(frozen=True)
class _Sender:
    api: Api
    repository: str
    headers: dict[str, str]

    def blob(self, content: bytes) -> None:
        """Send a blob that is not there yet."""
        digest = _digest(content)
        if self.ask("HEAD", f"/blobs/{digest}", refused=(404,))[0] == 200:
            return
        _, answer, _ = self.ask("POST", "/blobs/uploads/")
        place = answer["location"]
        place = place.removeprefix(self.api.url).removeprefix(self.repository)
        octets = {"Content-Type": "application/octet-stream"}
        self.ask("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", content, octets)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        refused: tuple[int, ...] = (),
    ) -> tuple[int, dict[str, str], bytes]:
        """One request of the repository."""
        where = self.repository + path
        try:
            answer = self.api.request(method, where, body, {**self.headers, **(headers or {})}, 60)
        except OSError as error:
            raise ClusterError(f"no registry at {self.api.url}: {error}") from error
        if answer[0] >= 300 and answer[0] not in refused:
            words = answer[2].decode(errors="replace")[:300]
            raise ClusterError(
                f"{self.api.url} answered {method} {where} with {answer[0]}: {words}"
            )
        return answer


def _base_layer() -> Layer:
    key = hashlib.sha256(HERE.read_bytes() + packages().name.encode()).hexdigest()[:16]
    folder = made_once(packages().parent / f"base-{key}", _make_base_layer)
    return Layer((folder / "layer.tar.gz").read_bytes(), (folder / "diff").read_text())


def _make_base_layer(folder: Path) -> None:
    layer = Layer.of(_base_members())
    (folder / "layer.tar.gz").write_bytes(layer.content)
    (folder / "diff").write_text(layer.diff)


def _base_members() -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    members: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
    others = {"runc", "containernetworking-plugins", "docker-registry", "catatonit"}
    for package in sorted(packages().iterdir()):
        if package.name not in others:
            members |= dict(_folder(package, "", owner=0))
    busybox = packages() / "busybox-static/bin/busybox"
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for applet in applets.stdout.split():
        members |= dict([_link(f"bin/{applet}", "busybox")] if applet != "busybox" else [])
    home = f"training:x:{USER}:{USER}::/home/training:/bin/sh\n"
    members |= dict(
        [
            _link("usr/bin/env", "/bin/busybox"),
            _link("usr/bin/python3", "python3.11"),
            _file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n" + home.encode(), 0o644),
            _file("etc/group", f"root:x:0:\ntraining:x:{USER}:\n".encode(), 0o644),
            _directory("tmp", 0o1777, 0),
            _directory("app", 0o755, USER),
            _directory("home/training", 0o755, USER),
        ]
    )
    return members


def _folder(
    folder: Path, prefix: str, owner: int = USER
) -> Iterator[tuple[str, tuple[tarfile.TarInfo, bytes]]]:
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        name = str(Path(prefix) / inner)
        if name.startswith(NOT_NEEDED) or NOT_COPIED & set(inner.parts):
            continue
        if path.is_symlink():
            yield _link(name, str(path.readlink()))
        elif path.is_dir():
            yield _directory(name, 0o755, owner)
        else:
            mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            yield _file(name, path.read_bytes(), mode, owner)


def _file(
    name: str, content: bytes, mode: int, owner: int = 0
) -> tuple[str, tuple[tarfile.TarInfo, bytes]]:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uid, info.gid = len(content), mode, owner, owner
    return name, (info, content)


def _directory(name: str, mode: int, owner: int) -> tuple[str, tuple[tarfile.TarInfo, bytes]]:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, mode, owner, owner
    return name, (info, b"")


def _link(name: str, target: str) -> tuple[str, tuple[tarfile.TarInfo, bytes]]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return name, (info, b"")


def _descriptor(kind: str, content: bytes) -> dict[str, object]:
    return {"mediaType": kind, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False).encode()
