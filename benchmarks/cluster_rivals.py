"""What the service is measured beside: raw clients, and the predecessor's published package.

Each is installed by name into an environment of its own, outside of the tree, by what it holds.
"""

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster_site import Access
from load import free_port

HERE = Path(__file__).parent
CLIENTS = ("aiohttp==3.14.5", "httpx2==2.16.2", "lightkube==1.0.1", "uvloop==0.23.0")
PREDECESSOR = ("aissemble-foundation-model-training-api==2.0.0", "kubernetes==37.0.2")
PROPERTIES = "training-api-config.properties"
START_S = 60.0


def environment(*requirements: str) -> Path:
    """The interpreter of an environment that holds these, made once."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(repr((requirements, sys.version_info[:2])).encode()).hexdigest()[:16]
    folder = base / "model-training-bench" / digest
    if not folder.exists():
        print(f"installing {', '.join(requirements)} ...", file=sys.stderr)
        new = folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(new)], check=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([str(new / "bin/python"), *install, *requirements], check=True)
        new.rename(folder)  # its scripts name the old folder; only the interpreter is used
    return folder / "bin/python"


class Clients:
    """The raw clients, in a process of their own."""

    def __init__(self, access: Access) -> None:
        files = [str(file) for file in (access.authority, access.certificate, access.key)]
        self._process = subprocess.Popen(
            [environment(*CLIENTS), HERE / "raw_clients.py", access.server, *files],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def post(self, client: str, namespace: str, manifest: dict, callers: int, each: int) -> dict:
        """``{"times": [ms...], "seconds": s, "cpu_s": s}`` of so many Jobs."""
        wanted = {
            "client": client,
            "namespace": namespace,
            "manifest": manifest,
            "callers": callers,
            "each": each,
        }
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{client} ended with {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()


@contextmanager
def clients(access: Access) -> Iterator[Clients]:
    running = Clients(access)
    try:
        yield running
    finally:
        running.close()


class Predecessor:
    """Its service, as one uvicorn worker with default settings."""

    host = "127.0.0.1"

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mt-bench-predecessor-"))
        self.port = free_port()
        settings = {
            "project_name": "bench",
            "image_tag": "latest",
            "docker_registry": "127.0.0.1:5000/",
            "image_prefix": "model-training-",
            "image_pull_policy": "IfNotPresent",
        }
        lines = (f"{key}={value}\n" for key, value in settings.items())
        (self.folder / PROPERTIES).write_text("".join(lines))
        log = (self.folder / "log").open("wb")
        self.process = subprocess.Popen(
            [
                environment(*PREDECESSOR),
                HERE / "predecessor.py",
                str(kubeconfig),
                namespace,
                str(self.port),
            ],
            stdout=log,
            stderr=log,
            env={**os.environ, "KRAUSENING_BASE": str(self.folder)},
        )
        log.close()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if self.get("/")[0] == 200:
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError((self.folder / "log").read_text()[-3000:])

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=600)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def predecessor(kubeconfig: Path, namespace: str) -> Iterator[Predecessor]:
    running = Predecessor(kubeconfig, namespace)
    try:
        running.wait_ready()
        yield running
    finally:
        running.close()
