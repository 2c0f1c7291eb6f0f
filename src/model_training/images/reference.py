"""Which image a pipeline is: ``HOST[:PORT]/PREFIX/model-training-PIPELINE:TAG``.

The registry and the tag are settings and are read here, once, at the edge; the pipeline's name is
the caller's. The three meet in ``pipeline_image`` and nowhere else, so that no text of a caller
can move an image to another place. Names follow the grammar of the OCI distribution
specification; a registry without a host is Docker Hub, as everywhere.
"""

import ipaddress
import re
from dataclasses import dataclass, replace
from typing import Final

from model_training.names import PIPELINE_NAME_LIMIT, image_name
from model_training.proxies import is_loopback_name

DOCKER_HUB: Final = "docker.io"
REPOSITORY_LIMIT: Final = 255  # characters of a name with its host; the distribution's registry
TAG_LIMIT: Final = 128  # characters; OCI distribution specification

_HUB_NAMES: Final = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
_HUB_ADDRESS: Final = "registry-1.docker.io"  # where the API is; docker.io itself is a web page
_PREFIX_LIMIT: Final = REPOSITORY_LIMIT - len(image_name("x" * PIPELINE_NAME_LIMIT)) - 2

_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_HOST = re.compile(
    rf"(?P<name>{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{{1,5}}))?"
)
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{TAG_LIMIT - 1}}}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Registry:
    """Where the images of pipelines are: a host, and what their names begin with there."""

    host: str
    """with its port, if it has one of its own"""
    prefix: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join((self.host, *self.prefix))


@dataclass(frozen=True, slots=True)
class ImageReference:
    """One image: by tag, or by digest, which names the same bytes for ever."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        end = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"{self.host}/{self.repository}{end}"

    @property
    def address(self) -> str:
        """The host, with its port, that answers for this image."""
        return _HUB_ADDRESS if self.host == DOCKER_HUB else self.host

    @property
    def target(self) -> str:
        """What names it within its repository."""
        return self.digest or self.tag or ""

    def pinned(self, digest: str) -> "ImageReference":
        """The same image by its digest."""
        return replace(self, tag=None, digest=digest)


def pipeline_image(registry: Registry, pipeline: str, tag: str) -> ImageReference:
    """The image that is this pipeline.

    Args:
        registry: from ``parse_registry``.
        pipeline: a valid name (``names.pipeline_fault``).
        tag: from ``parse_tag``.
    """
    path = (*registry.prefix, image_name(pipeline))
    if registry.host == DOCKER_HUB and len(path) == 1:
        path = ("library", *path)  # where Docker Hub keeps names without an owner
    return ImageReference(registry.host, "/".join(path), tag=tag)


def parse_registry(text: str) -> Registry:
    """Read ``HOST[:PORT][/PREFIX]``; what begins with no host is a prefix on Docker Hub.

    A host is told by a dot, a port, brackets, or the name ``localhost``.

    Raises:
        ValueError: it is none, in words for people, as in all functions here.
    """
    if "://" in text:
        raise ValueError("is written without a scheme, such as registry.example.org:5000/team")
    first, *rest = text.removesuffix("/").split("/")
    if first == "localhost" or any(sign in first for sign in ".:["):
        host = parse_host(first)
    else:
        host, rest = DOCKER_HUB, [first, *rest]
    for part in rest:
        if not _COMPONENT.fullmatch(part):
            msg = (
                f"has the part {_cut(part)}, which no name of an image can have: "
                "a-z and 0-9, with single . _ or any - between them"
            )
            raise ValueError(msg)
    registry = Registry(host, tuple(rest))
    if len(str(registry)) > _PREFIX_LIMIT:
        raise ValueError(f"is longer than {_PREFIX_LIMIT} characters")
    return registry


def parse_host(text: str) -> str:
    """Read ``HOST[:PORT]``: lower case, and the names of Docker Hub as one."""
    host = text.lower()
    match = _HOST.fullmatch(host)
    if not match or not 0 < int(match["port"] or 1) <= 65_535 or not _is_name(match["name"]):
        raise ValueError(f"expects a host such as registry.example.org:5000, got {_cut(text)}")
    return DOCKER_HUB if host in _HUB_NAMES else host


def parse_tag(text: str) -> str:
    """Read the tag of an image."""
    if not _TAG.fullmatch(text):
        msg = f"expects a tag of at most {TAG_LIMIT} letters, digits and _ . -, got {_cut(text)}"
        raise ValueError(msg)
    return text


def is_digest(text: str) -> bool:
    """Whether this is a SHA-256 digest as registries write it."""
    return _DIGEST.fullmatch(text) is not None


def split_host(host: str) -> tuple[str, str | None]:
    """The name of a host without brackets, and its port if it has one."""
    name, _, port = host.rpartition(":") if re.search(r":[0-9]+$", host) else (host, "", "")
    return name.strip("[]"), port or None


def is_loopback(host: str) -> bool:
    """Whether a host (with or without port) says by itself that it is this machine."""
    name, _ = split_host(host)
    return is_loopback_name(name)


def _is_name(name: str) -> bool:
    if not name.startswith("["):
        return True
    try:
        ipaddress.IPv6Address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _cut(text: str) -> str:
    return repr(text) if len(text) <= 60 else repr(text[:57] + "...")
