"""A network between the service and the API server that can be cut in two ways: toxiproxy.

It is a process of its own, built from its Go module with the other programs of the test cluster.
"""

import http.client
import json
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

from testbed.binaries import programs_folder

START_S = 10.0


class Toxiproxy:
    """One process with one proxy, on a port of this machine."""

    def __init__(self, log: Path) -> None:
        self._control, self.port = free_port(), free_port()
        argv = [str(programs_folder() / "toxiproxy-server"), "-port", str(self._control)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                argv, stdout=output, stderr=output, start_new_session=True
            )

    def lead_to(self, upstream: str) -> None:
        """Once it is up, pass on what comes to ``port``."""
        self._until_up()
        address = urlsplit(upstream)
        listen = f"127.0.0.1:{self.port}"
        upstream = f"{address.hostname}:{address.port}"
        self._ask("POST", "/proxies", {"name": "api", "listen": listen, "upstream": upstream})

    def refuse(self) -> None:
        """Reset all connections and take no new ones."""
        self._ask("POST", "/proxies/api", {"enabled": False})

    def swallow(self) -> None:
        """Take everything, keep connections open, and let nothing through."""
        for stream in ("upstream", "downstream"):
            toxic = {"name": stream, "type": "timeout", "stream": stream}
            self._ask("POST", "/proxies/api/toxics", toxic | {"attributes": {"timeout": 0}})

    def restore(self) -> None:
        """A network as before; what was swallowed is lost, and its connections are cut."""
        self._ask("POST", "/reset", None)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _until_up(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                return self._ask("GET", "/version", None)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _ask(self, method: str, path: str, body: object) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._control, timeout=10)
        try:
            connection.request(method, path, body=json.dumps(body) if body else None)
            answer = connection.getresponse()
            words = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"toxiproxy: {method} {path}: {answer.status} {words.decode()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
