"""Fixtures of the API's tests."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.api.lab import Lab, lab


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def running(tmp_path: Path) -> AsyncGenerator[Lab]:
    async with lab(tmp_path) as one:
        yield one
