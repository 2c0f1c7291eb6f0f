"""TLS to registries, and plain HTTP where it is allowed.

A registry on a loopback address is asked over plain HTTP, so these tests need names that are
not loopback and lead here. The resolver of Python is told such names; all else is real.
"""

import socket

import pytest

from model_training.images.outcomes import Present, Unknown
from model_training.images.reach import Reach
from model_training.images.reference import ImageReference
from tests.cluster.images.registries import certificate, registry

pytestmark = pytest.mark.anyio

NAME = "registry.example.org"


@pytest.fixture(autouse=True)
def names_of_this_machine(monkeypatch):
    """Names under example.org lead to this machine."""
    real = socket.getaddrinfo

    def resolve(host, *args, **options):
        text = host.decode() if isinstance(host, bytes) else host
        return real(
            "127.0.0.1" if text and text.endswith("example.org") else host, *args, **options
        )

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.fixture
def tls(tmp_path, storage):
    """A registry with a self-signed certificate, and that certificate."""
    bundle, key = certificate(tmp_path / "tls", NAME)
    http = {"tls": {"certificate": str(bundle), "key": str(key)}}
    with registry(tmp_path / "registry", storage, http=http) as running:
        yield running, bundle


def image_at(running, name=NAME):
    return ImageReference(f"{name}:{running.port}", "there", "latest")


async def test_a_certificate_that_the_system_trusts(tls, push, client, monkeypatch):
    running, bundle = tls
    digest = push.image("there", labels={"a": "b"})
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    assert await client().check(image_at(running)) == Present(digest, {"a": "b"})


async def test_a_certificate_that_nobody_trusts(tls, push, client):
    running, _ = tls
    push.image("there")
    found = await client().check(image_at(running))
    words = f"the certificate of {NAME}:{running.port} is not accepted: self-signed certificate"
    assert found == Unknown(words)


async def test_a_certificate_for_another_name(tls, push, client, monkeypatch):
    running, bundle = tls
    push.image("there")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    found = await client().check(image_at(running, "other.example.org"))
    start = (
        f"the certificate of other.example.org:{running.port} is not accepted: Hostname mismatch"
    )
    assert found.reason.startswith(start)


async def test_plain_http_only_where_a_host_is_named_insecure(open_registry, push, client):
    digest = push.image("there")
    image = image_at(open_registry)
    assert await client().check(image) == Unknown(
        f"{image.host} does not speak TLS; plain HTTP is used only for hosts named insecure"
    )
    for insecure in (NAME, image.host):
        assert await client(reach=Reach([insecure])).check(image) == Present(digest)
    for insecure in ("example.org", f"{NAME}:1"):
        assert isinstance(await client(reach=Reach([insecure])).check(image), Unknown)


async def test_a_name_that_leads_nowhere(client):
    found = await client().check(ImageReference("registry.invalid", "there", "latest"))
    assert found == Unknown("the name of registry.invalid cannot be resolved")
