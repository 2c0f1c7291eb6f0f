"""Registries behind a proxy. Their names are known to the proxy alone."""

import socket

import pytest

from model_training.images.outcomes import Absent, Present, Unknown
from model_training.images.reach import Reach
from model_training.images.reference import ImageReference
from tests.cluster.images.http_proxy import http_proxy
from tests.cluster.images.registries import certificate, registry

pytestmark = pytest.mark.anyio

NAME = "registry.invalid"  # resolved by nobody
SECRET = "s3cret-proxy"


@pytest.fixture
async def proxy():
    async with http_proxy() as running:
        yield running


@pytest.fixture
def behind(tmp_path, storage, monkeypatch):
    """Where an image is, in a registry with TLS that is trusted."""
    bundle, key = certificate(tmp_path / "tls", NAME)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    http = {"tls": {"certificate": str(bundle), "key": str(key)}}
    with registry(tmp_path / "registry", storage, http=http) as running:
        yield ImageReference(f"{NAME}:{running.port}", "there", "latest")


def through(proxy, **more):
    return Reach(environ={"HTTPS_PROXY": proxy.url, **more})


async def test_a_registry_behind_a_proxy(behind, proxy, push, client):
    digest = push.image("there", labels={"a": "b"})
    asking = client(reach=through(proxy))
    assert await asking.check(behind) == Present(digest, {"a": "b"})
    missing = ImageReference(behind.host, "not/there", "latest")
    assert await asking.check(missing) == Absent()
    assert set(proxy.asked) == {f"CONNECT {behind.host}"}


async def test_a_proxy_that_wants_a_login(behind, push, client):
    digest = push.image("there")
    async with http_proxy(f"lea:{SECRET}") as guarded:
        assert await client(reach=through(guarded)).check(behind) == Present(digest)
        bare = Reach(environ={"HTTPS_PROXY": f"http://lea:wrong-{SECRET}@127.0.0.1:{guarded.port}"})
        found = await client(reach=bare).check(behind)
        hop = f"{behind.host} (through the proxy 127.0.0.1:{guarded.port})"
        assert found == Unknown(f"{hop} is not reached: the proxy refuses")


async def test_a_proxy_over_tls(behind, push, client, tmp_path, monkeypatch):
    digest = push.image("there")
    tls = certificate(tmp_path / "proxy", "localhost")
    both = tmp_path / "both.pem"
    both.write_text((tmp_path / "tls" / "certificate.pem").read_text() + tls[0].read_text())
    async with http_proxy(tls=tls) as running:
        found = await client(reach=through(running)).check(behind)
        assert found.reason.startswith(
            f"the certificate of {behind.host} (through the proxy localhost:{running.port}) "
            "is not accepted"
        )
        monkeypatch.setenv("SSL_CERT_FILE", str(both))
        assert await client(reach=through(running)).check(behind) == Present(digest)


async def test_a_proxy_that_is_away(behind, client):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        hop = f"127.0.0.1:{taken.getsockname()[1]}"
    asking = client(reach=Reach(environ={"https_proxy": f"http://lea:{SECRET}@{hop}"}))
    found = await asking.check(behind)
    assert found == Unknown(f"{behind.host} (through the proxy {hop}) refuses the connection")


async def test_a_proxy_that_is_none_of_ours(behind, client):
    asking = client(reach=Reach(environ={"HTTPS_PROXY": f"socks5://lea:{SECRET}@127.0.0.1:1"}))
    found = await asking.check(behind)
    assert found.reason == (
        "the variable HTTPS_PROXY names no HTTP proxy (http://HOST:PORT); others are not spoken"
    )


async def test_no_proxy_for_what_is_named_and_for_loopback(
    behind, proxy, open_registry, push, client
):
    digest = push.image("there")
    found = await client(reach=through(proxy, NO_PROXY=".invalid")).check(behind)
    assert found == Unknown(f"the name of {behind.host} cannot be resolved")
    image = ImageReference(open_registry.host, "there", "latest")
    every = Reach(environ=dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), proxy.url))
    assert await client(reach=every).check(image) == Present(digest)
    assert proxy.asked == []


async def test_plain_http_through_a_proxy(proxy, open_registry, push, client):
    digest = push.image("there", labels={"a": "b"})
    image = ImageReference(f"{NAME}:{open_registry.port}", "there", "latest")
    asking = client(reach=Reach([NAME], {"HTTP_PROXY": proxy.url}))
    assert await asking.check(image) == Present(digest, {"a": "b"})
    assert proxy.asked[0] == f"HEAD http://{image.host}/v2/there/manifests/latest"


async def test_a_login_through_a_proxy(proxy, closed_registry, push, client, docker_config):
    digest = push.image("there")
    image = ImageReference(f"{NAME}:{closed_registry.port}", "there", "latest")
    asking = client(docker_config(image.host), reach=Reach([NAME], {"HTTP_PROXY": proxy.url}))
    assert await asking.check(image) == Present(digest)


async def test_a_registry_behind_a_proxy_may_not_send_us_to_this_machine(
    proxy, token_registry, tokens, push, client, docker_config
):
    push.image("there")
    image = ImageReference(f"{NAME}:{token_registry.port}", "there", "latest")
    asking = client(docker_config(image.host), reach=Reach([NAME], {"HTTP_PROXY": proxy.url}))
    tokens.asked.clear()
    found = await asking.check(image)
    assert found == Unknown(
        f"{image.host} points to 127.0.0.1:{tokens.server_port}, "
        "an address that no registry may send this service to from where it is"
    )
    assert tokens.asked == []
