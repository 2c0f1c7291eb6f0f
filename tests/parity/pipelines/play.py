"""The program of every parity pipeline: it runs the Python text of its parameter CODE.

So each scenario says beside its claim what its job does. Without CODE it shows its arguments and
its declared parameters. The standard library only: the same file is in the images.
"""

import json
import os
import signal
import subprocess
import sys
import time  # noqa: F401 - for the texts that are run
from pathlib import Path

OUTPUT = Path(os.environ["MODEL_TRAINING_OUTPUT"])


def say(data: bytes | str, to: int = 1) -> None:
    """Print exactly these bytes, at once."""
    rest = data.encode() if isinstance(data, str) else data
    while rest:
        rest = rest[os.write(to, rest) :]


def show(value: object) -> None:
    """Print a value as one line of ASCII."""
    say(json.dumps(value, sort_keys=True) + "\n")


def environment() -> dict[str, str]:
    """The variables as this process was given them, before Python has set its own."""
    given = Path("/proc/self/environ").read_bytes().decode("utf-8", "backslashreplace")
    return dict(variable.split("=", 1) for variable in given.split("\0") if variable)


def wait() -> None:
    """Wait for a signal that ends this process."""
    say("ready\n")
    while True:
        signal.pause()


def ignore() -> None:
    """From now on, do not mind SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def on_term(code: str) -> None:
    """Run Python text when SIGTERM comes."""
    signal.signal(signal.SIGTERM, lambda *_: exec(code, globals()))


def keep(path: str, data: bytes = b"") -> None:
    """Write an output."""
    file = OUTPUT / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def ask_python(code: str) -> int:
    """Run Python text in a child; its exit code as subprocess tells it."""
    return subprocess.run([sys.executable, "-c", code], check=False).returncode


def shown() -> dict[str, object]:
    """What a job without CODE shows."""
    file = Path(os.environ["MODEL_TRAINING_PARAMETERS_FILE"])
    return {
        "arguments": sys.argv[1:],
        "parameters": json.loads(os.environ["MODEL_TRAINING_PARAMETERS"]),
        "file": file.read_text(),
        "variables": {
            name: os.environ.get(name) for name in json.loads(file.read_text()) if name != "CODE"
        },
    }


if __name__ == "__main__":
    exec(os.environ.get("CODE", "show(shown())"))
