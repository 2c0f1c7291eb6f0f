"""Policy servers as processes of the tests: had by name, started, frozen, killed, and left by none.

What is built is built once, into the cache that the test cluster's programs are in, by the content
of what pins it. A server that cannot be had is an error of each test that needs it, with the
reason: a test that was left out in silence looks like one that passed.

Each is started on a port that was free a moment ago and not on one of its own choice, because it
must come back on the same port after it was killed.
"""

import asyncio
import hashlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx2

from testbed.binaries import cache, made_once, say
from tests.waiting import until

READY_S = 240.0  # Keycloak takes half a minute on two idle cores
END_S = 10.0
GO = Path(__file__).with_name("go")
PINS = (GO / "go.mod").read_text() + (GO / "go.sum").read_text()
_OPENFGA = "github.com/openfga/openfga"
# What does not say by itself of which version it is gets it from what pins it.
_VERSION = PINS.partition(f"\t{_OPENFGA} ")[2].split()[0]
# Name of the program, its package, and what is linked into it.
PROGRAMS = {
    "opa": ("github.com/open-policy-agent/opa", "-s -w"),
    "openfga": (
        f"{_OPENFGA}/cmd/openfga",
        f"-s -w -X {_OPENFGA}/internal/build.Version={_VERSION}",
    ),
}


class ServerMissing(Exception):
    """A server cannot be had here; what the tests of it need."""


def go_program(name: str) -> Path:
    """A program of ``PROGRAMS``, built now if it was not yet (some minutes).

    Raises:
        ServerMissing: it cannot be built.
    """
    package, linked = PROGRAMS[name]
    digest = hashlib.sha256(f"{PINS} {package} {linked}".encode()).hexdigest()[:16]
    folder = made_once(cache() / f"{name}-{digest}", partial(_build, name, package, linked))
    return folder / name


def _build(name: str, package: str, linked: str, folder: Path) -> None:
    say(f"building {name} into {folder.parent} (some minutes, once)")
    argv = ["go", "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", linked]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    output(*argv, "-o", str(folder / name), package, cwd=GO, env=environment)


def output(*argv: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """What a command prints, and what it complains about.

    Raises:
        ServerMissing: it is not there, or it failed.
    """
    try:
        done = subprocess.run(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise ServerMissing(f"there is no {argv[0]} on PATH") from None
    if done.returncode:
        raise ServerMissing(f"{' '.join(argv[:2])} failed:\n{done.stdout[-2000:]}")
    return done.stdout


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@dataclass
class PolicyProcess:
    """A policy server, and the process that it is now."""

    url: str
    argv: list[str]
    root: Path
    """its folder, with what it says in ``server.log``"""
    health: str
    """path that answers 200 once it is ready"""
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def start(self) -> None:
        """Run it, and return when it is ready."""
        with (self.root / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.root
            )
        asyncio.run(until(self._is_ready, within=READY_S, what=f"{self.argv[0]} is ready"))

    def _is_ready(self) -> bool:
        assert self._running().poll() is None, (self.root / "server.log").read_text()[-2000:]
        try:
            return httpx2.get(self.url + self.health, timeout=2).status_code == 200
        except httpx2.TransportError:
            return False

    def freeze(self) -> None:
        """It keeps its connections, and does nothing."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        self._running().send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """It is gone."""
        self._running().kill()
        self._running().wait()

    def stop(self) -> None:
        """End it, whatever was done to it."""
        if self._process is None or self._process.poll() is not None:
            return
        self.thaw()
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None
        return self._process


@contextmanager
def started(server: PolicyProcess) -> Iterator[PolicyProcess]:
    """A server at work."""
    try:
        server.start()
        yield server
    finally:
        server.stop()
