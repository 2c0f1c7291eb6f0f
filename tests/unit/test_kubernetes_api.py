"""How the API server is asked: with rotated credentials, through a proxy, and telling no secret."""

import logging
import socket
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from model_training.errors import ExecutorUnavailable
from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.credentials import (
    Credentials,
    FixedCredentials,
    Grant,
    TokenFile,
)
from tests.cluster.images.http_proxy import http_proxy
from tests.unit.fake_api_server import FakeApiServer, fake_api_server, no, text

pytestmark = pytest.mark.anyio

SECRET = "s3cret"
NAME = "cluster.invalid"  # resolved by nobody


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def tokens(server: FakeApiServer) -> list[str]:
    return [request.headers["Authorization"] for request in server.requests]


async def test_a_token_that_was_replaced_is_read_when_the_old_one_is_refused(tmp_path: Path):
    file = tmp_path / "token"
    file.write_text("one")
    async with fake_api_server(text(200, "{}")) as server:
        async with KubernetesApi(server.config(TokenFile(file))) as api:
            await api.get("/api")
            (tmp_path / "new").write_text("two")
            (tmp_path / "new").replace(file)  # as the kubelet does
            await api.get("/api")
            server.answers[:] = [no(401, "Unauthorized", "x"), text(200, "{}")]
            await api.get("/api")
            async with api.stream("/api", stall_s=5):
                pass
        assert tokens(server) == [f"Bearer {name}" for name in ("one", "one", "one", "two", "two")]


@dataclass
class Said:
    """All that was said of one refusal."""

    text: str
    error: ExecutorUnavailable


async def refused(credentials: Credentials, caplog: pytest.LogCaptureFixture) -> Said:
    caplog.set_level(logging.DEBUG)
    answer = no(401, "Unauthorized", f"token {SECRET} is none")
    async with fake_api_server(answer) as server, KubernetesApi(server.config(credentials)) as api:
        with pytest.raises(ExecutorUnavailable) as caught:
            await api.get("/api")
        shown = f"{caught.value}{caught.value!r}{api.config!r}{credentials!r}{caplog.text}"
        assert "does not accept our credentials" in caught.value.message
        assert len(server.requests) == 2
        return Said(shown, caught.value)


async def test_a_refused_login_says_who_must_log_in_and_shows_no_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    fixed = await refused(FixedCredentials(Grant(SECRET)), caplog)
    assert "start the service again" in fixed.error.message
    file = tmp_path / "token"
    file.write_text(SECRET)
    rotated = await refused(TokenFile(file), caplog)
    assert "start the service again" not in rotated.error.message
    assert SECRET not in fixed.text + rotated.text


async def test_a_proxy_leads_to_the_api_server():
    async with fake_api_server(text(200, "{}")) as server, http_proxy(f"lea:{SECRET}") as proxy:
        port = server.url.rpartition(":")[2]
        far = msgspec.structs.replace(server.config(), server=f"http://{NAME}:{port}")
        async with KubernetesApi(msgspec.structs.replace(far, proxy=proxy.url)) as api:
            assert await api.get("/api") == b"{}"
            async with api.stream("/api", stall_s=5) as chunks:
                assert b"".join([chunk async for chunk in chunks]) == b"{}"
        assert proxy.asked == [f"GET http://{NAME}:{port}/api"] * 2
        assert tokens(server) == ["Bearer t0ken"] * 2


async def test_a_proxy_in_the_way_is_named_without_its_login():
    config = msgspec.structs.replace(FakeApiServer().config(), server=f"https://{NAME}:6443")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gone = f"127.0.0.1:{taken.getsockname()[1]}"
    async with http_proxy(f"lea:{SECRET}") as proxy:
        wants = f"127.0.0.1:{proxy.port}"
        for hop, words in ((gone, "Connection refused"), (wants, "407")):
            away = msgspec.structs.replace(config, proxy=f"http://lea:{SECRET}-2@{hop}")
            async with KubernetesApi(away) as api:
                with pytest.raises(ExecutorUnavailable) as caught:
                    await api.get("/api")
            said = caught.value.message
            assert f"{config.server} (through the proxy {hop}) cannot be asked now" in said
            assert words in said
            assert SECRET not in f"{said}{caught.value!r}{away!r}"
