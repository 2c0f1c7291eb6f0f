"""What every test needs."""

import signal

import pytest

from tests.cluster import target  # noqa: F401 - takes its variable out of the environment

# A shell ignores SIGINT for what it runs in the background, and all children inherit that: the
# servers and commands that the tests start must see a Ctrl+C wherever the tests are run.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which executor comes under the contract suite; ``scripts/test --cluster`` tries both."""
    parser.addoption("--executor", choices=["local", "kubernetes"], default="local")
