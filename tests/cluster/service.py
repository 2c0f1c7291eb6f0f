"""The command as a person runs it: ``serve`` as a process, whether it becomes ready or not."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from model_training.folders import DataFolder

NOT_READY = "not ready\n"
END_S = 20.0


def ran(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command of ours that ends by itself; nothing of this machine's settings reaches it."""
    return subprocess.run(
        [sys.executable, "-m", "model_training", *arguments],
        env=_environment(folder, variables), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def _environment(folder: Path, variables: dict[str, str]) -> dict[str, str]:
    (folder / "home").mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "MODEL_TRAINING_DATA": str(folder / "data"),
        **variables,
    }


def findings(folder: Path, *options: str) -> list[dict[str, str]]:
    """What ``doctor`` finds on a cluster."""
    done = ran(folder, "doctor", "--json", "--executor", "kubernetes", *options)
    assert not done.stderr, done.stderr
    found = [each for each in json.loads(done.stdout) if each["what"] in PARTS]
    assert done.returncode == any(each["level"] == "fail" for each in found)
    return found


PARTS = {"settings", "cluster", "right", "rights"}


@dataclass
class Service:
    """One that was started; ``client`` is logged in."""

    process: subprocess.Popen[str]
    log_file: Path
    client: httpx2.AsyncClient

    async def readyz(self) -> tuple[int, str]:
        answer = await self.client.get("/readyz")
        return answer.status_code, answer.text

    async def is_ready(self) -> bool:
        return await self.readyz() == (200, "ok\n")

    async def is_not_ready(self) -> bool:
        return await self.readyz() == (503, NOT_READY)

    def log(self) -> str:
        return self.log_file.read_text()

    def obstacles(self) -> list[str]:
        """What the log said to be in the way."""
        return [line for line in self.log().splitlines() if "Not ready" in line]


@asynccontextmanager
async def service(folder: Path, *options: str, **variables: str) -> AsyncGenerator[Service]:
    """``serve`` with these options, and ``--executor kubernetes``; it listens."""
    process = start(folder, *options, **variables)
    try:
        async with client_of(process, folder) as client:
            yield Service(process, folder / LOG, client)
        assert process.poll() is None, "it ended by itself"
    finally:
        with process:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(END_S)
            finally:
                process.kill()


LOG = "server.log"


def start(folder: Path, *options: str, **variables: str) -> subprocess.Popen[str]:
    """``serve`` with these options, and ``--executor kubernetes``, as whoever starts it ends it."""
    argv = [sys.executable, "-m", "model_training", "serve", "--port", "0"]
    environment = _environment(folder, variables)
    with (folder / LOG).open("a") as log:
        return subprocess.Popen(
            [*argv, "--executor", "kubernetes", *options],
            stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
        )  # fmt: skip


def client_of(process: subprocess.Popen[str], folder: Path) -> httpx2.AsyncClient:
    """Logged in at the server, once it listens."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "ready at" in line, (folder / LOG).read_text()
    token = DataFolder(folder / "data").token.read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    return httpx2.AsyncClient(
        base_url=line.split()[-1], headers=headers, trust_env=False, timeout=90
    )
