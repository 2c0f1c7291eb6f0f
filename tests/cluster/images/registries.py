"""Real registries on loopback: Debian's docker-registry, one process each."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = "docker-registry"
INSTALL = "apt-get install -y --no-install-recommends docker-registry openssl"
START_S = 20.0


def require_programs() -> None:
    """Fail, and say how to mend it, where a registry cannot be started."""
    missing = [program for program in (PROGRAM, "openssl") if shutil.which(program) is None]
    if missing:
        raise RuntimeError(f"these tests need {' and '.join(missing)}; run: {INSTALL}")


class RealRegistry:
    """A registry that is running, or was."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._process: subprocess.Popen[str] | None = None
        self._listening = threading.Event()
        self.port = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def start(self) -> None:
        """Start it, on the port that it had before, else on a free one; back once it listens."""
        plain = json.loads(self._config.read_text())
        plain["http"]["addr"] = self.host
        self._config.write_text(json.dumps(plain))  # YAML is JSON, too
        self._listening.clear()
        self._process = subprocess.Popen(
            [PROGRAM, "serve", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={"OTEL_TRACES_EXPORTER": "none"},
        )
        said: list[str] = []
        threading.Thread(target=self._read, args=(said,), daemon=True).start()
        if not self._listening.wait(START_S):
            self.stop()
            raise RuntimeError(f"{PROGRAM} does not listen:\n" + "".join(said))

    def stop(self) -> None:
        process = self._process
        assert process is not None
        process.terminate()
        process.wait(10)

    def _read(self, said: list[str]) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        for line in self._process.stderr:
            said.append(line)
            if found := re.search(r"listening on 127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                self._listening.set()
        self._process.stderr.close()


@contextmanager
def registry(folder: Path, storage: Path, **parts: object) -> Iterator[RealRegistry]:
    """Run a registry on a storage folder; ``parts`` join its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    http = {"addr": "127.0.0.1:0", "secret": "tests", **parts.pop("http", {})}  # pyright: ignore
    plain = {
        "version": 0.1,
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "http": http,
        **parts,
    }
    config = folder / "config.yml"
    config.write_text(json.dumps(plain))
    running = RealRegistry(config)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for a name, and its key."""
    folder.mkdir(parents=True, exist_ok=True)
    bundle, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    command += ["-keyout", str(key), "-out", str(bundle)]
    subprocess.run(command, check=True, capture_output=True)
    return bundle, key
