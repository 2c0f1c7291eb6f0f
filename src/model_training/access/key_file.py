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
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from model_training.access.actions import Action
from model_training.access.patterns import parse_pattern
from model_training.errors import MalformedRequest, SettingsError
from model_training.strict_json import parse_json

KEY_FILE_BYTES: Final = 8 * 2**20  # some 20,000 keys; read at once when one of them changes
NAME_SIGNS: Final = 64  # of a holder's name, which stands in the owner of every job of theirs

# Strict: a time that is a text, or true, is a mistake.
_Time = Annotated[float, Field(strict=True, ge=0)]
_Pattern = Annotated[str, AfterValidator(parse_pattern)]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """One key, without what proves that somebody has it."""

    # A field that we do not know may be there to restrict the key.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    id: Annotated[str, Field(pattern=r"^[a-z2-7]{8}$")]
    name: Annotated[str, Field(min_length=1, max_length=NAME_SIGNS)]
    """of its holder, who stays the owner of their jobs when they get another key"""
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the secret, hexadecimal"""
    actions: tuple[Action, ...]
    pipelines: tuple[_Pattern, ...]
    created_at: _Time
    """seconds since 1970, as the following"""
    expires_at: _Time
    revoked_at: _Time | None = None


@dataclass(frozen=True, slots=True)
class _KeyFile:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

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
        # By the strict parser: of two revoked_at the other one counts, Infinity never comes.
        records = _FILE.validate_python(parse_json(body)).keys
    except MalformedRequest as error:
        reason = error.message.replace("The body", "it", 1).removesuffix(".")
        raise ValueError(f"is not a file of API keys: {reason}") from None
    except ValidationError as error:
        raise ValueError(f"is not a file of API keys: {_first_fault(error)}") from None
    if len({record.id for record in records}) < len(records):
        raise ValueError("has two keys with the same id")
    return list(records)


def _first_fault(error: ValidationError) -> str:
    """``keys.0.digest: ...``; without the value, which may be a key pasted in the wrong place."""
    fault = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    return f"{place}: {fault['msg'].removeprefix('Value error, ')}"


@contextmanager
def changing(path: Path) -> Generator[Callable[[Sequence[KeyRecord]], None]]:
    """What writes the keys, while nobody else does.

    Raises:
        SettingsError: it cannot be written, or would be too large to be read; it is as it was.
    """
    with _told_as_setting(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(_beside(path, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with _told_as_setting(path):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lambda records: _replace(path, records)
    finally:
        os.close(lock)


@contextmanager
def _told_as_setting(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        msg = f"The file of API keys {path} cannot be written: {error.strerror}."
        raise SettingsError(msg) from None


def _beside(path: Path, ending: str) -> Path:
    """Added, not put in place of another: ``keys.lock`` may be the name of the file itself."""
    return path.with_name(path.name + ending)


def _replace(path: Path, records: Sequence[KeyRecord]) -> None:
    body = json.dumps({"keys": [asdict(record) for record in records]}, indent=1).encode() + b"\n"
    if len(body) > KEY_FILE_BYTES:
        raise SettingsError(
            f"The file of API keys {path} would be larger than {KEY_FILE_BYTES} bytes, and no key "
            "in it would be good. Remove those that have ended from it."
        )
    with _told_as_setting(path):
        _write_whole(path, body)


def _write_whole(path: Path, body: bytes) -> None:
    fresh = _beside(path, ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
