"""Registries for these tests, started once for all of them or for one."""

import base64
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from model_training.images.credentials import DockerConfig
from model_training.images.registry import RegistryClient
from tests.cluster.images.content import Pusher
from tests.cluster.images.registries import RealRegistry, certificate, registry, require_programs
from tests.cluster.images.tokens import ISSUER, SERVICE, TokenServer, token_server

# Name lea, password s3cret, hashed as htpasswd -B does: the registry takes nothing else.
HTPASSWD = "lea:$2b$05$g3XDM1hboCN5IQDneFyUEugA/otS2iAD/hIOkE8kjQ1UN7pVa4TGS\n"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all registries of these tests hold."""
    require_programs()
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="session")
def open_registry(
    tmp_path_factory: pytest.TempPathFactory, storage: Path
) -> Iterator[RealRegistry]:
    """A registry that wants no login."""
    with registry(tmp_path_factory.mktemp("open"), storage) as running:
        yield running


@pytest.fixture(scope="session")
def push(open_registry: RealRegistry) -> Pusher:
    """Writes into what all registries hold."""
    return Pusher(open_registry.url)


@pytest.fixture(scope="session")
def closed_registry(
    tmp_path_factory: pytest.TempPathFactory, storage: Path
) -> Iterator[RealRegistry]:
    """A registry that wants a name and password."""
    folder = tmp_path_factory.mktemp("closed")
    (folder / "htpasswd").write_text(HTPASSWD)
    login = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    with registry(folder, storage, auth=login) as running:
        yield running


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    """A server that gives tokens for ``token_registry``."""
    require_programs()
    with token_server(*certificate(tmp_path_factory.mktemp("tokens"), "tokens")) as running:
        yield running


@pytest.fixture(scope="session")
def token_registry(
    tmp_path_factory: pytest.TempPathFactory, storage: Path, tokens: TokenServer
) -> Iterator[RealRegistry]:
    """A registry that wants a token."""
    bundle = str(tokens.certificate)
    flow = {"realm": tokens.realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": bundle}
    with registry(tmp_path_factory.mktemp("token"), storage, auth={"token": flow}) as running:
        yield running


@pytest.fixture
async def client() -> AsyncGenerator[Callable[..., RegistryClient]]:
    """Makes clients, and closes them with the test."""
    async with AsyncExitStack() as stack:

        def make(config: Path | None = None, **options: object) -> RegistryClient:
            found = DockerConfig(config) if config else None
            made = RegistryClient(found, **options)  # pyright: ignore
            stack.push_async_callback(made.aclose)
            return made

        yield make


@pytest.fixture
def docker_config(tmp_path: Path) -> Callable[..., Path]:
    """Writes a docker config with one login."""

    def write(host: str, password: str = "s3cret", **more: str) -> Path:
        entry = {"auth": base64.b64encode(f"lea:{password}".encode()).decode(), **more}
        file = tmp_path / "config.json"
        file.write_text(json.dumps({"auths": {host: entry}}))
        return file

    return write
