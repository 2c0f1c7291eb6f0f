"""Fixtures of the API's tests."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.api.lab import Lab, lab


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def running(tmp_path: Path) -> AsyncGenerator[Lab]:
    """An application of the test's own."""
    async with lab(tmp_path) as one:
        yield one


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Lab]:
    """One application for the tests of a module that do not mind each other's jobs."""
    async with lab(tmp_path_factory.mktemp("shared")) as one:
        yield one
