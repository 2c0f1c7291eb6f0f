"""Cerbos, which speaks AuthZEN: one question, and several in a batch of at most 50.

Its package is the program itself. It is installed with the other servers of npm.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.access.servers.node_modules import node_folder
from tests.access.servers.tools import PolicyProcess, free_port, output, started


def program() -> Path:
    """The program, installed now if it was not yet."""
    return node_folder() / "node_modules/@cerbos/cerbos-linux-x64/cerbos-linux-x64"


def version() -> str:
    """As it says itself."""
    return output(str(program()), "--version").split()[0]


@contextmanager
def cerbos(root: Path, policies: Path) -> Iterator[PolicyProcess]:
    """A server that decides by the policies in a folder; its own files are in ``root``."""
    port = free_port()
    settings = {
        "server": {
            "httpListenAddr": f"127.0.0.1:{port}",
            "grpcListenAddr": f"unix:{root}/grpc.sock",
        },
        "storage": {"driver": "disk", "disk": {"directory": str(policies)}},
        "telemetry": {"disabled": True},
    }
    (root / "settings.yaml").write_text(json.dumps(settings))  # JSON is YAML, too
    argv = [str(program()), "server", "--config", str(root / "settings.yaml")]
    with started(
        PolicyProcess(f"http://127.0.0.1:{port}", argv, root, "/_cerbos/health")
    ) as server:
        yield server
