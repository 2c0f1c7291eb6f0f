"""What a registry keeps of an image: manifest, index of platforms, configuration. Pure.

Every document is held against its own digest before it is read, so that whatever led to it, it
is what the tag stood for.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

from model_training.errors import Fault, InvalidDeclaration, RegistryUnavailable
from model_training.images.reference import is_digest

DOCUMENT_LIMIT: Final = 4 * 1024 * 1024  # bytes; what registries themselves take for a manifest

_INDEXES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_CONFIGS: Final = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
# All of them, always: a registry answers 404 for an image that is there in another form.
ACCEPT: Final = ", ".join((*_INDEXES, *_MANIFESTS))
# The words of a registry that there is no such thing, in the body of a 404.
_ABSENT: Final = frozenset({"NAME_UNKNOWN", "MANIFEST_UNKNOWN", "NOT_FOUND"})

Platform: TypeAlias = tuple[str, str]
"""operating system and architecture, such as ``linux``, ``amd64``"""
_Table: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image for one platform, or an index of such."""

    config: str | None
    """digest of the configuration; None for an index"""
    platforms: tuple[tuple[Platform, str], ...] = ()
    """of an index: each platform, and the digest of its manifest"""

    def chosen(self, wanted: Platform, name: str) -> str:
        """The digest for a platform; else of the first for its operating system, or for none.

        Raises:
            InvalidDeclaration: there is none.
        """
        fitting = [digest for platform, digest in self.platforms if platform == wanted]
        fitting += [digest for (system, _), digest in self.platforms if system in (wanted[0], "")]
        if not fitting:
            raise InvalidDeclaration(Fault(name, f"holds no image for {wanted[0]}"))
        return fitting[0]


def digest_of(content: bytes) -> str:
    """As registries write it."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def verified(content: bytes, digest: str, name: str) -> bytes:
    """The content, if its digest is this one.

    Raises:
        RegistryUnavailable: it is another.
    """
    if digest_of(content) != digest:
        raise RegistryUnavailable(f"the registry gave other content than {digest} for {name}")
    return content


def read_manifest(content: bytes, name: str) -> Manifest:
    """A manifest, or an index.

    Raises:
        RegistryUnavailable: it is no document of a registry at all.
        InvalidDeclaration: it is neither; what is there is no image.
    """
    table = _table(content)
    if table is None:
        raise RegistryUnavailable(f"the manifest of {name} cannot be read")
    entries = table.get("manifests")
    if isinstance(entries, list):
        read = [_entry(entry) for entry in cast("list[object]", entries)]
        return Manifest(None, tuple(entry for entry in read if entry is not None))
    config = _inner(table, "config")
    digest = config.get("digest")
    if config.get("mediaType") not in _CONFIGS or not _is_digest(digest):
        raise InvalidDeclaration(Fault(name, "is no container image"))
    return Manifest(cast("str", digest))


def read_labels(content: bytes, name: str) -> dict[str, str]:
    """The labels in an image's configuration.

    Raises:
        InvalidDeclaration: it cannot be read.
    """
    table = _table(content)
    if table is None:
        raise InvalidDeclaration(Fault(name, "has a configuration that cannot be read"))
    labels = _inner(_inner(table, "config"), "Labels")
    if not all(isinstance(value, str) for value in labels.values()):
        raise InvalidDeclaration(Fault(name, "has labels that are no text"))
    return cast("dict[str, str]", dict(labels))


def says_absent(content: bytes) -> bool:
    """Whether the body of a 404 is a registry's own word that there is no such image."""
    errors = (_table(content) or {}).get("errors")
    if not isinstance(errors, list):
        return False
    codes = [members(each).get("code") for each in cast("list[object]", errors)]
    return any(isinstance(code, str) and code in _ABSENT for code in codes)


def _table(content: bytes) -> _Table | None:
    try:
        value: object = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return cast("_Table", value) if isinstance(value, dict) else None


def _inner(table: _Table, key: str) -> _Table:
    return members(table.get(key))


def members(value: object) -> Mapping[str, object]:
    """What a JSON object holds; nothing for any other value."""
    return cast("_Table", value) if isinstance(value, dict) else cast("_Table", {})


def _entry(entry: object) -> tuple[Platform, str] | None:
    """One entry of an index; None if it is no image, such as a signature or attestation."""
    table = members(entry)
    platform = _inner(table, "platform")
    digest = table.get("digest")
    if table.get("mediaType") not in _MANIFESTS or not _is_digest(digest):
        return None
    told = str(platform.get("os", "")), str(platform.get("architecture", ""))
    return told, cast("str", digest)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and is_digest(value)
