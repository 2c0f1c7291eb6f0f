"""Python environments for pipelines with requirements: one per content, built by who needs it.

An environment cannot be moved once it is built, so it is built at its final place and is good
only with the file ``.complete`` in it; whatever lacks that is a leftover and goes first. The lock
beside it makes other jobs wait for the one that builds. What a requirements file includes
(``-r other.txt``) is not part of its digest.

Standard library only: the supervisor uses it.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from model_training.executors.local import records

COMPLETE = ".complete"
LOCK_POLL_S = 0.1  # seconds between tries while another job builds


class CannotBuild(Exception):
    """The environment could not be built; the message says why."""


def place_of(environments: Path, requirements: Path) -> Path:
    """Where the environment for this content of the file stands, built or not.

    Raises:
        CannotBuild: the file cannot be read.
    """
    try:
        content = requirements.read_bytes()
    except OSError as error:
        raise CannotBuild(f"{requirements} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(f"{sys.implementation.name} {sys.version}\n".encode() + content)
    return environments / digest.hexdigest()[:32]


def is_complete(place: Path) -> bool:
    """Whether it is ready for use."""
    return (place / COMPLETE).exists()


def build(
    place: Path,
    requirements: Path,
    run: Callable[[list[str]], int],
    wait: Callable[[float], bool],
) -> bool:
    """See to it that the environment is there; False if the job shall stop.

    Args:
        place: from ``place_of``.
        requirements: the file.
        run: runs a command with its output in the job's log; the exit code.
        wait: waits so many seconds; False if the job shall stop.

    Raises:
        CannotBuild: a tool failed; nothing half-built is left.
        OSError: the folder cannot be written.
    """
    place.parent.mkdir(exist_ok=True)
    while (lock := records.lock(place.with_name(place.name + ".lock"))) is None:
        if not wait(LOCK_POLL_S):
            return False
    try:
        if not is_complete(place):
            shutil.rmtree(place, ignore_errors=True)
            return _install(place, requirements, run)
    finally:
        os.close(lock)
    return True


def _install(place: Path, requirements: Path, run: Callable[[list[str]], int]) -> bool:
    try:
        for step in _steps(place, requirements):
            code = run(step)
            if code:
                tool = " ".join(Path(word).name for word in step[:3])
                raise CannotBuild(f"{tool} ended with exit code {code}; its words are in the log")
        os.sync()  # once per environment: a power cut must not leave half of one that says so
        (place / COMPLETE).touch()
    finally:
        if not is_complete(place):
            shutil.rmtree(place, ignore_errors=True)
    return True


def _steps(place: Path, requirements: Path) -> list[list[str]]:
    python = str(place / "bin" / "python")
    beside = str(Path(sys.executable).parent)
    uv = shutil.which("uv") or shutil.which("uv", path=beside)
    if uv:
        return [
            [uv, "venv", "--python", sys.executable, str(place)],
            [uv, "pip", "install", "--python", python, "-r", str(requirements)],
        ]
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "-r", str(requirements)]
    return [[sys.executable, "-m", "venv", str(place)], pip]
