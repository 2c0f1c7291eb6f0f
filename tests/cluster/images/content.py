"""Images of the tests: pushed over HTTP in the few requests that an image is.

They hold one file's layer and nothing that could run: what is asked about them is whether they
are there, and what their labels say.
"""

import gzip
import hashlib
import json
from dataclasses import dataclass

import httpx2

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_EMPTY_LAYER = gzip.compress(bytes(1024), mtime=0)  # an archive without a file


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def config_of(labels: dict[str, str] | None, architecture: str = "amd64") -> bytes:
    return json.dumps(
        {"architecture": architecture, "os": "linux", "config": {"Labels": labels}}
    ).encode()


def manifest_of(config: bytes, layer: bytes = _EMPTY_LAYER, **more: object) -> bytes:
    plain = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _descriptor(CONFIG, config),
        "layers": [_descriptor(LAYER, layer)],
        **more,
    }
    return json.dumps(plain).encode()


def index_of(manifests: dict[tuple[str, str], bytes]) -> bytes:
    entries = [
        _descriptor(MANIFEST, content) | {"platform": {"os": system, "architecture": machine}}
        for (system, machine), content in manifests.items()
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()


def _descriptor(kind: str, content: bytes) -> dict[str, object]:
    return {"mediaType": kind, "digest": digest_of(content), "size": len(content)}


@dataclass
class Pusher:
    """Writes into the registry at ``url``."""

    url: str

    def image(
        self,
        repository: str,
        tag: str = "latest",
        labels: dict[str, str] | None = None,
        architecture: str = "amd64",
    ) -> str:
        """Push an image; its digest."""
        return self.manifest(repository, tag, self.parts(repository, labels, architecture))

    def chart(self, repository: str) -> None:
        """Push what is no image, as a chart of Helm is none."""
        config = b"{}"
        for content in (_EMPTY_LAYER, config):
            self._blob(repository, content)
        plain = json.loads(manifest_of(config))
        plain["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
        self.manifest(repository, "latest", json.dumps(plain).encode())

    def index(
        self, repository: str, tag: str, platforms: dict[tuple[str, str], dict[str, str]]
    ) -> str:
        """Push an index of images with labels by platform; its digest."""
        manifests = {each: self.parts(repository, labels) for each, labels in platforms.items()}
        for content in manifests.values():
            self.manifest(repository, digest_of(content), content)
        return self.manifest(repository, tag, index_of(manifests), INDEX)

    def parts(
        self, repository: str, labels: dict[str, str] | None, architecture: str = "amd64"
    ) -> bytes:
        """Push all but the manifest, which is returned."""
        config = config_of(labels, architecture)
        for content in (_EMPTY_LAYER, config):
            self._blob(repository, content)
        return manifest_of(config)

    def manifest(self, repository: str, target: str, content: bytes, kind: str = MANIFEST) -> str:
        answer = httpx2.put(
            f"{self.url}/v2/{repository}/manifests/{target}",
            content=content,
            headers={"Content-Type": kind},
            trust_env=False,
        )
        answer.raise_for_status()
        return digest_of(content)

    def _blob(self, repository: str, content: bytes) -> None:
        begun = httpx2.post(f"{self.url}/v2/{repository}/blobs/uploads/", trust_env=False)
        begun.raise_for_status()
        where = httpx2.URL(begun.headers["location"])
        where = where.copy_merge_params({"digest": digest_of(content)})
        httpx2.put(where, content=content, trust_env=False).raise_for_status()
