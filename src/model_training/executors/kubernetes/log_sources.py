"""Where the log of an attempt comes from, and up to which line it was copied: ``source.json``.

The latest line is noted before its bytes are written. From it on the log is read again, and what
is there already is passed over by counting bytes. Where we were killed in between, it lies beyond
the end of what is there; therefore the line before it stays noted. After a power failure both may
lie beyond what reached the disk; then the index of the log has an earlier one.
"""

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from model_training.executors.kubernetes.stamped_text import Anchor, stamp_of
from model_training.folders import JobFolder
from model_training.logs.index import IndexReader
from model_training.logs.layout import Piece, index_path
from model_training.logs.view import LogView


class Source(Struct, kw_only=True):
    """What is known of one attempt."""

    pod: str
    """its uid"""
    container: str = ""
    """which is copied, or was copied last; empty before the first"""
    instance: int = 0
    """how often that container was restarted before the one that is copied"""
    copied: bool = False
    """all of that instance"""
    begin: int = 0
    """offset of its first byte"""
    first: Anchor | None = None
    """its first line"""
    written: Anchor | None = None
    """the last line that was noted and surely written"""
    latest: Anchor | None = None
    """the last line that was noted"""
    complete: bool = False
    """nothing more will come of this attempt"""

    def start(self, container: str, instance: int, offset: int) -> None:
        """Turn to another instance, whose output begins at ``offset``."""
        self.container, self.instance, self.begin = container, instance, offset
        self.copied, self.first, self.written, self.latest = False, None, None, None

    def note(self, first: Anchor, latest: Anchor, end: int) -> None:
        """What is about to be written.

        Args:
            first: the first line of the instance, if none was noted yet.
            latest: the last line that begins in it.
            end: of what is written.
        """
        self.first = self.first or first
        if self.latest is not None and self.latest.offset <= end:
            self.written = self.latest
        self.latest = latest

    def resume_at(self, folder: Path, end: int) -> Anchor | None:
        """A line, the later the better, that begins at ``end`` or before; None if none is known.

        Raises:
            OSError: the disk cannot be read.
        """
        if self.first is None or self.latest is None:
            return None
        for anchor in (self.latest, self.written or self.first):
            if anchor.offset <= end:
                return anchor
        return _indexed(folder, self.begin, zone=self.latest.stamp[29:]) or self.first


class SourceFile:
    """The ``source.json`` of one attempt."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = 0

    def read(self) -> Source | None:
        """What was noted; None if nothing was, or it cannot be understood.

        Raises:
            OSError: the disk cannot be read.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        self._size = len(data)
        try:
            return _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def write(self, source: Source) -> None:
        """Note it, so that it survives the machine.

        Raises:
            OSError: there is no space, or the disk is broken.
        """
        data = _encode(source)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._path.with_suffix(".json.new")
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        new.replace(self._path)
        self._size = len(data)
        fd = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def update(self, source: Source) -> None:
        """Note it in place, so that it survives us; cheap enough to be done for each chunk.

        Raises:
            OSError: the file was never written, or the disk is broken.
        """
        data = _encode(source).ljust(self._size)  # spaces hide the end of what was longer
        fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(fd, data, 0)
        finally:
            os.close(fd)
        self._size = len(data)


def read_sources(job: JobFolder) -> dict[int, Source]:
    """By attempt, all that were noted.

    Raises:
        OSError: the disk cannot be read.
    """
    try:
        names = os.listdir(job.logs)  # noqa: PTH208 - done for each job at a start
    except FileNotFoundError:
        return {}
    found: dict[int, Source] = {}
    for number in (int(name) for name in names if name.isascii() and name.isdigit()):
        source = SourceFile(job.log_source(number)).read()
        if source is not None:
            found[number] = source
        elif LogView(job.log(number)).segments():
            # Damaged: it keeps its number, and belongs to no pod.
            found[number] = Source(pod="", complete=True)
    return found


def _indexed(folder: Path, begin: int, zone: str) -> Anchor | None:
    """By the index, the last line after ``begin`` that begins with a write at a new time."""
    view = LogView(folder)
    for start, end in reversed(view.segments()):
        with IndexReader(index_path(folder, start)) as index:
            writes = list(index.between(max(start, begin), end))
        for write in reversed(writes):
            before = view.read(write.offset - 1, 1)
            is_new = view.time_at(write.offset - 1) != write.time_ns
            if is_new and isinstance(before, Piece) and before.data == b"\n":
                return Anchor(write.offset, stamp_of(write.time_ns, zone))
    return None


_decode = msgspec.json.Decoder(Source).decode
_encode = msgspec.json.Encoder().encode
