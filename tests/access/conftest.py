"""Real servers, of policies and of identities.

They are had before the first test, as building two of them takes longer than a test may; which
ones, and of which version, is told at the top of the run.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import model_training
from tests.access.servers import authzforce, cerbos, keycloak, oidc_provider, opa, openfga
from tests.access.servers.tools import ServerMissing

POLICIES = Path(model_training.__file__).parent / "access/policies"
VERSIONS: dict[str, Callable[[], str]] = {
    "Cerbos": cerbos.version,
    "OPA": opa.version,
    "OpenFGA": openfga.version,
    "oidc-provider": oidc_provider.version,
    "AuthzForce": authzforce.version,
    "Keycloak": keycloak.version,
}


@cache
def versions() -> list[str]:
    """A line a server: its version, or why it cannot be had."""
    lines: list[str] = []
    for name, version in VERSIONS.items():
        try:
            lines.append(f"{name}: {version()}")
        except ServerMissing as error:
            lines.append(f"{name}: MISSING, and each test of it fails: {error}")
    return lines


def pytest_sessionstart(session: pytest.Session) -> None:
    """Have the servers, however quiet the run is."""
    if not session.config.option.collectonly:
        versions()


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Which servers the tests speak to."""
    return [] if config.option.collectonly else versions()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
