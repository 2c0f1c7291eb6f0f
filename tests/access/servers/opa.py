"""Open Policy Agent: one question at a time, by its data API."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.access.servers.tools import PolicyProcess, free_port, go_program, output, started


def version() -> str:
    """As it says itself."""
    return output(str(go_program("opa")), "version").split()[1]


@contextmanager
def opa(root: Path, policies: Path) -> Iterator[PolicyProcess]:
    """A server that decides by the policies and data in a folder; its log is in ``root``."""
    port = free_port()
    argv = [
        str(go_program("opa")), "run", "--server", "--addr", f"127.0.0.1:{port}",
        "--disable-telemetry", "--log-level", "error", str(policies),
    ]  # fmt: skip
    with started(PolicyProcess(f"http://127.0.0.1:{port}", argv, root, "/health")) as server:
        yield server
