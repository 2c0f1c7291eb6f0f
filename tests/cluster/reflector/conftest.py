"""A control plane of the reflector's own, which its tests may break."""

import itertools
from collections.abc import AsyncGenerator, Iterator

import pytest

from testbed.control_plane import ControlPlane
from tests.cluster.reflector.lab import Namespace
from tests.cluster.tcp_proxy import TcpProxy

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("reflector") / "plane") as made:
        yield made


@pytest.fixture
def namespace(plane: ControlPlane) -> Namespace:
    return Namespace(plane, f"reflector-{next(_numbers)}")


@pytest.fixture
async def proxy(plane: ControlPlane) -> AsyncGenerator[TcpProxy]:
    async with TcpProxy(plane.url) as made:
        yield made
