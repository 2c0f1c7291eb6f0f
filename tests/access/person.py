"""Somebody with a home folder of their own, who uses the command as a person does."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

APPROVE_S = 60.0


@dataclass(frozen=True)
class Person:
    """``server`` is the address of the service that they use."""

    home: Path
    server: str

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """The command at work."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MODEL_", "XDG_"))}
        return subprocess.Popen(
            [sys.executable, "-m", "model_training", *arguments],
            env=clean | {"HOME": str(self.home), "MODEL_TRAINING_URL": self.server},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, output, and what was said."""
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=APPROVE_S)
        return process.returncode, out, err

    def log_in(self, approve: Callable[[str], None], *arguments: str) -> tuple[int, str]:
        """Log in; ``approve`` is what they do in the browser with the address that is shown."""
        said = ""
        with self.start("login", *arguments) as process:
            assert process.stderr is not None
            try:
                for line in process.stderr:
                    said += line
                    if shown := re.match(r"or open: +(\S+)", line):
                        approve(shown[1])
                process.wait(APPROVE_S)
            finally:
                process.kill()
        return process.returncode, said

    @property
    def login(self) -> str:
        """What is kept of it; nothing where they are not logged in."""
        return self.login_file.read_text() if self.login_file.exists() else ""

    @property
    def login_file(self) -> Path:
        """Where it is kept, or was: whoever logs out leaves the lock there."""
        [lock] = (self.home / ".local/state/model-training/logins").glob("*.lock")
        return lock.with_suffix("")


def person(root: Path, name: str, server: str) -> Person:
    """Somebody new."""
    home = root / name
    home.mkdir()
    return Person(home, server)
