"""Where the cluster says who somebody is or what they may do, and the service may not ask it.

The service is not ready, its log names the right, and so does doctor; the API server is a fake, as
only that can be told in a moment what it allows.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from model_training.api.access import access_of
from model_training.cli.doctor import _executor
from model_training.executors.kubernetes import readiness
from model_training.executors.kubernetes.rights import RIGHTS
from model_training.folders import DataFolder
from model_training.settings import load_settings
from tests.unit.fake_api_server import fake_api_server
from tests.waiting import until

pytestmark = pytest.mark.anyio
TOKENS = '[kubernetes]\naudience = "model-training"\n'
BY_CLUSTER = TOKENS + '[decisions]\nengine = "kubernetes"\n'
BY_ROLES = TOKENS + '[decisions]\nengine = "roles"\nfile = "roles.toml"\n'
ROLES = '[roles.reader]\nservice = ["list"]\n'


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Cluster:
    """Says yes to whether we have a right, but to those that are withheld."""

    def __init__(self) -> None:
        self.withheld: set[str] = set()
        self.asked: list[tuple[str, str | None]] = []

    async def answer(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        attributes = body["spec"]["resourceAttributes"]
        self.asked.append((attributes["resource"], attributes.get("namespace")))
        allowed = attributes["resource"] not in self.withheld
        return web.json_response({**body, "status": {"allowed": allowed}}, status=201)


@asynccontextmanager
async def cluster(root: Path) -> AsyncGenerator[Cluster]:
    """One whose kubeconfig is in the folder."""
    fake = Cluster()
    async with fake_api_server(fake.answer) as server:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [
                {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "training"}}
            ],
            "clusters": [{"name": "c", "cluster": {"server": server.url}}],
            "users": [{"name": "u", "user": {"token": "t0ken"}}],
        }
        (root / "kubeconfig").write_text(yaml.safe_dump(config))
        yield fake


def chosen(root: Path, access: str) -> dict[str, object]:
    (root / "access.toml").write_text(access)
    (root / "roles.toml").write_text(ROLES)
    (root / "roles.toml").chmod(0o644)
    return {
        "executor": "kubernetes",
        "kubeconfig": root / "kubeconfig",
        "access": root / "access.toml",
    }


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(readiness, "RETRY_S", 0.01)
    return


@pytest.mark.parametrize(
    ("access", "withheld", "told"),
    [
        (
            BY_CLUSTER,
            "localsubjectaccessreviews",
            "The service may not create localsubjectaccessreviews in the namespace training, which "
            "it needs to ask what the cluster's roles permit somebody; ",
        ),
        (
            BY_ROLES,
            "tokenreviews",
            "The service may not create tokenreviews in all namespaces, which it needs to tell "
            "whose token of the cluster somebody shows; ",
        ),
    ],
)
async def test_it_is_not_ready_and_says_which_right_is_missing(
    tmp_path: Path,
    impatient: None,
    caplog: pytest.LogCaptureFixture,
    access: str,
    withheld: str,
    told: str,
):
    settings = load_settings(data=tmp_path / "data", **chosen(tmp_path, access))
    (tmp_path / "data").mkdir(mode=0o700)
    with caplog.at_level(logging.INFO):
        async with cluster(tmp_path) as there, AsyncExitStack() as stack:
            there.withheld = {withheld}
            opened = await access_of(settings, DataFolder(tmp_path / "data"), stack)
            await until(lambda: f"Not ready: {told}" in caplog.text)
            assert not opened.is_ready()
            there.withheld = set()
            await until(opened.is_ready)
    assert caplog.text.count("Not ready: The service may not") == 1
    assert "Nothing is in the way any more" in caplog.text


async def test_only_the_rights_that_are_needed_are_asked_for(tmp_path: Path):
    settings = load_settings(data=tmp_path / "data", **chosen(tmp_path, BY_ROLES))
    (tmp_path / "data").mkdir(mode=0o700)
    async with cluster(tmp_path) as there, AsyncExitStack() as stack:
        opened = await access_of(settings, DataFolder(tmp_path / "data"), stack)
        await until(opened.is_ready)
    assert there.asked == [("tokenreviews", None)]


async def test_the_doctor_names_it_too(tmp_path: Path):
    def found() -> list[tuple[str, str, str]]:
        told = _executor(chosen(tmp_path, BY_CLUSTER))
        return [(each.level, each.what, each.found) for each in told]

    async with cluster(tmp_path) as there:
        all_of_them = await asyncio.to_thread(found)
        there.withheld = {"localsubjectaccessreviews"}
        one_less = await asyncio.to_thread(found)
    number = len(RIGHTS) + 2
    assert ("ok", "rights", f"all {number} in the namespace training") in all_of_them
    assert [each for each in one_less if each[0] == "fail"] == [
        (
            "fail",
            "right",
            "may not create localsubjectaccessreviews in the namespace training, needed to ask "
            "what the cluster's roles permit somebody",
        )
    ]
