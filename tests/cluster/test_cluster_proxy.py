"""A cluster that is reached through a proxy, as its kubeconfig says."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tests.cluster.images.http_proxy import http_proxy
from tests.cluster.service import findings, service
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

SECRET = "s3cret"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_calls_and_watches_go_through_it(kubeconfig: Path, namespace: str, tmp_path: Path):
    plain = yaml.safe_load(kubeconfig.read_text())
    async with http_proxy(f"lea:{SECRET}") as proxy:
        for each in plain["clusters"]:
            each["cluster"]["proxy-url"] = proxy.url
        file = tmp_path / "kubeconfig"
        file.write_text(yaml.safe_dump(plain))
        options = ["--kubeconfig", str(file), "--namespace", namespace]
        async with service(tmp_path, *options, "--registry", "127.0.0.1:1") as running:
            await until(running.is_ready, within=30)
            address = urlsplit(plain["clusters"][0]["cluster"]["server"])
            assert set(proxy.asked) == {f"CONNECT {address.netloc}"}
            proxy.login = "lea:another"  # the one of the kubeconfig is no longer taken
            await proxy.end()
            await until(lambda: "through the proxy 127.0.0.1" in running.log(), within=30)
            assert SECRET not in running.log()
    [found] = findings(tmp_path, *options)
    assert "through the proxy 127.0.0.1" in found["found"]
    assert SECRET not in found["found"]
