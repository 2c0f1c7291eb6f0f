"""OpenFGA: AuthZEN below the address of a store, decided by relations and no policy.

It keeps its store in a file, because one that is killed and started again must still have it.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests.access.servers.tools import PolicyProcess, free_port, go_program, output, started


def version() -> str:
    """As it says itself."""
    [found] = re.findall(r"`v([0-9.]+)`", output(str(go_program("openfga")), "version"))
    return found


@dataclass
class Store:
    """A server, and the one store in it."""

    server: PolicyProcess
    url: str
    """of its AuthZEN API"""


@contextmanager
def openfga(root: Path, folder: Path, key: str = "") -> Iterator[Store]:
    """A server with a store of the ``model.json`` and ``tuples.json`` of a folder.

    Args:
        root: for its own files.
        folder: of the two.
        key: that it wants to be shown with each request, if any.
    """
    port, program = free_port(), str(go_program("openfga"))
    database = ("--datastore-engine", "sqlite", "--datastore-uri", f"file:{root}/store.sqlite3")
    output(program, "migrate", *database)
    url = f"http://127.0.0.1:{port}"
    argv = [
        program, "run", *database,
        "--http-addr", f"127.0.0.1:{port}", "--grpc-addr", f"127.0.0.1:{free_port()}",
        "--playground-enabled=false", "--metrics-enabled=false", "--log-level", "error",
        "--experimentals", "authzen", "--authzen-base-url", url,
    ]  # fmt: skip
    if key:
        argv += ["--authn-method", "preshared", "--authn-preshared-keys", key]
    headers = {"Authorization": f"Bearer {key}"} if key else {}

    def posted(url: str, body: dict[str, object]) -> dict[str, str]:
        answer = httpx2.post(url, json=body, headers=headers, timeout=10)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    with started(PolicyProcess(url, argv, root, "/healthz")) as server:
        store = posted(f"{url}/stores", {"name": "training"})["id"]
        base = f"{url}/stores/{store}"
        posted(f"{base}/authorization-models", json.loads((folder / "model.json").read_text()))
        posted(f"{base}/write", json.loads((folder / "tuples.json").read_text()))
        yield Store(server, base)
