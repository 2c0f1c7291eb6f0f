"""What a job kept: files under its output folder, and nothing that a link leads to.

A job writes this folder, so nothing in it is trusted: every component is opened relative to its
parent without following links, and only regular files are listed or given out.
"""

import base64
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import ClassVar

from model_training import trees
from model_training.errors import OutputNotFound

BLOCK = 64 * 1024  # bytes read at a time
LISTING_LIMIT = 100_000  # files; more is not a listing but a mistake of the job
PATH_LIMIT = 4096  # characters; a longer path is none that programs can open (PATH_MAX)
LISTING_TRIES = 3  # a job may move its folders while they are listed
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CLOCK_TICK_NS = 20_000_000  # two writes this close may bear the same time
_EARLIEST_S, _LATEST_S = -62_135_596_800, 253_402_300_799  # years 1 to 9999, as RFC 3339 writes
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file that a job kept."""

    path: str
    """relative to the output folder, with ``/``"""
    size: int
    """bytes"""
    modified_at: datetime

    __pydantic_config__: ClassVar = {"use_attribute_docstrings": True}


def list_outputs(folder: Path) -> list[OutputFile]:
    """The regular files below the folder, by path; none if there is no folder."""
    found: list[OutputFile] = []
    for _ in range(LISTING_TRIES):
        found = []
        try:
            found.extend(islice(_walk(folder), LISTING_LIMIT))
        except (FileNotFoundError, NotADirectoryError):
            break
        except OSError:  # it was changed under our hands; what we have is true as well
            continue
        break
    return sorted(found, key=lambda file: file.path)


def _walk(folder: Path) -> Iterator[OutputFile]:
    for inner in trees.walk(folder):
        if not inner.files or sum(map(len, inner.parts)) > PATH_LIMIT:
            continue
        for name in inner.files:
            path = "/".join((*inner.parts, name))
            # A name that is no text cannot be asked for in a URL, so it is not listed.
            if len(path) > PATH_LIMIT or not _is_text(path):
                continue
            with suppress(FileNotFoundError):  # the job may remove it at any time
                found = os.stat(name, dir_fd=inner.descriptor, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield _described(path, found)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _described(path: str, found: os.stat_result) -> OutputFile:
    # A job may give a file any time, also one that no calendar of ours has.
    seconds = min(max(found.st_mtime, _EARLIEST_S), _LATEST_S)
    return OutputFile(path, found.st_size, datetime.fromtimestamp(seconds, UTC))


class OpenOutput:
    """A file held open: its size is fixed at this moment, whatever the job does to its name.

    It may be closed while a thread still reads: that thread then gets nothing more.
    """

    def __init__(self, file: OutputFile, descriptor: int, found: os.stat_result) -> None:
        self.file = file
        self.identity = _identity(found)
        """the same for the same content, as far as a file system tells"""
        self._was_at_rest = time.time_ns() - found.st_ctime_ns > _CLOCK_TICK_NS
        self._descriptor = descriptor
        self._lock = Lock()
        self._is_open = True

    def blocks(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from ``start`` up to ``end``; fewer if the job has cut the file meanwhile."""
        while start < end and (block := self._read(start, min(BLOCK, end - start))):
            start += len(block)
            yield block

    def _read(self, start: int, size: int) -> bytes:
        with self._lock:
            return os.pread(self._descriptor, size, start) if self._is_open else b""

    def is_unchanged(self) -> bool:
        """Whether nobody has written to the file since it was opened.

        Of a file that was being written at that very moment nobody can tell: no.
        """
        with self._lock:
            if not self._is_open or not self._was_at_rest:
                return False
            return _identity(os.fstat(self._descriptor)) == self.identity

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                os.close(self._descriptor)


def _identity(found: os.stat_result) -> tuple[int, int, int, int, int]:
    # The time of change too: a job may set the other one as it likes.
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def sha256_of(blocks: Iterable[bytes]) -> str:
    """SHA-256 in base64, as RFC 9530 wants it."""
    sha256 = hashlib.sha256()
    for block in blocks:
        sha256.update(block)
    return base64.b64encode(sha256.digest()).decode()


def open_output(folder: Path, path: str) -> OpenOutput:
    """Open one file for reading.

    Raises:
        OutputNotFound: it is not there, is no regular file, or the path leads out of the folder.
    """
    parts = path.split("/")
    if any(part in {"", ".", ".."} or "\0" in part for part in parts):
        raise _not_found(path)
    try:
        descriptor = _descend(folder, parts)
    except (OSError, UnicodeEncodeError):
        raise _not_found(path) from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise _not_found(path)
    return OpenOutput(_described(path, found), descriptor, found)


def _descend(folder: Path, parts: list[str]) -> int:
    place = os.open(folder, _FOLDER)
    for depth, part in enumerate(parts):
        try:
            inner = os.open(part, _FILE if depth == len(parts) - 1 else _FOLDER, dir_fd=place)
        finally:
            os.close(place)
        place = inner
    return place


def _not_found(path: str) -> OutputNotFound:
    return OutputNotFound(f"The job kept no output {path[:200]!r}.")
