"""The file of API keys: who holds one, for what and until when, and a digest of each.

JSON in one piece, replaced as a whole, so that a reader sees all of it or all of what was before.
When a key was used last is not kept: that would be a write a request, and the audit log tells it.
"""

import fcntl
import json
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from model_training.access.actions import Action
from model_training.access.patterns import parse_pattern
from model_training.errors import SettingsError

KEY_FILE_BYTES: Final = 8 * 2**20  # some 20,000 keys; read at once when one of them changes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """One key, without what proves that somebody has it."""

    id: str
    name: str
    """of its holder, who stays the owner of their jobs when they get another key"""
    digest: str
    """SHA-256 of the secret, hexadecimal"""
    actions: tuple[str, ...]
    pipelines: tuple[str, ...]
    created_at: float
    """seconds since 1970, as the following"""
    expires_at: float
    revoked_at: float | None = None


@dataclass(frozen=True, slots=True)
class _KeyFile:
    keys: tuple[KeyRecord, ...]


_FILE: Final = TypeAdapter(_KeyFile)


def read_keys(path: Path) -> list[KeyRecord]:
    """All keys; none if there is no file yet.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not what this module writes; with the reason.
    """
    try:
        with path.open("rb") as file:
            body = file.read(KEY_FILE_BYTES + 1)
    except FileNotFoundError:
        return []
    if len(body) > KEY_FILE_BYTES:
        raise ValueError(f"is larger than {KEY_FILE_BYTES} bytes")
    try:
        records = _FILE.validate_json(body, strict=True).keys
        for record in records:
            _ = [Action(action) for action in record.actions]
            _ = [parse_pattern(pattern) for pattern in record.pipelines]
    except ValidationError as error:
        raise ValueError(f"is not a file of API keys: {error.errors()[0]['msg']}") from None
    return list(records)


@contextmanager
def changing(path: Path) -> Generator[Callable[[Sequence[KeyRecord]], None]]:
    """What writes the keys, while nobody else does.

    Raises:
        SettingsError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        msg = f"The file of API keys {path} cannot be written: {error.strerror}."
        raise SettingsError(msg) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lambda records: _replace(path, records)
    finally:
        os.close(lock)


def _replace(path: Path, records: Sequence[KeyRecord]) -> None:
    text = json.dumps({"keys": [asdict(record) for record in records]}, indent=1)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
