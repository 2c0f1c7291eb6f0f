"""What was printed, out of a log as the kubelet sends it with ``timestamps=true``. No I/O.

Each line begins with the time at which the node got it (``2026-11-25T15:06:07.123456789Z`` and a
space; a node that is not on UTC sends ``+02:00`` for the ``Z``), whatever its length. Two things
in such a stream were not printed:

- The kubelet has sent its ``200`` before it opens the log, so what goes wrong then is said in the
  text. It stands where a line begins, and has no time; or it follows the unfinished line that
  was sent last. For the sake of the latter, the end of an unfinished line is held back until more
  comes. That delays nothing that a person would see: the node passes on whole lines, and of a
  longer one 16 KiB at a time.
- With ``sinceTime`` the stream may begin with the rest of a line that is older. ``Seeker`` passes
  over it, on the way to the line from which to go on.
"""

import re
from datetime import datetime
from typing import Final, NamedTuple

from msgspec import Struct

HELD: Final = 1024  # bytes of an unfinished line; more than any message of the kubelet
_STAMP: Final = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(?:Z|[+-]\d\d:\d\d) ", re.ASCII)
_UTC: Final = 31  # bytes of a time in UTC and its space
_ZONED: Final = 36
_GROUP: Final = 22  # bytes of a time up to its hundredths of a second

# From the kubelet's sources: what GetKubeletContainerLogs and ReadLogs may return; first what they
# say before the log is opened, because there is none.
_NO_LOG: Final = (
    r"unable to retrieve container logs for |container status is nil"
    r"|pod \"[^\"\n]*\" cannot be found - no logs available"
    r"|(?:previous terminated )?container \"[^\"\n]*\" in pod \""
    r"|failed to (?:try resolving symlinks in path|open log file) [^\n]*: no such file or directory"
)
_says_no_log: Final = re.compile(_NO_LOG).match
_MESSAGE: Final = re.compile(
    rb"(?:%b|rpc error: code = |context cancelled\Z|unable to parse pod full name "
    rb"|failed to (?:try resolving symlinks in path|open log file|read log file|tail \d+ lines"
    rb"|reset seek in log file|create fsnotify watcher|watch directory|get parse function))"
    rb"[^\n]*\Z" % _NO_LOG.encode()
)


class Anchor(Struct, frozen=True, array_like=True, gc=False):
    """Where a line begins in our log, and its time as the node wrote it."""

    offset: int
    stamp: str


class Part(NamedTuple):
    """Printed bytes. The lines in it began within a hundredth of a second."""

    time_ns: int
    """of its first line, since 1970"""
    text: bytes


class Batch(NamedTuple):
    """What came of one chunk of the stream."""

    parts: list[Part]
    anchor: Anchor | None
    """the last line that begins in it, if its time is another than that of the lines before"""


class StampedText:
    """Takes the times out of a stream; each chunk may end anywhere.

    ``first`` is the first line of all, once it has come. ``message`` is what the kubelet said
    instead of text, once it said something: nothing that comes after it was printed. Where it
    stood behind an unfinished line, ``message_may_be_text``: that line may have ended so.
    """

    def __init__(self, offset: int, stored: int) -> None:
        """Begin where a line begins.

        Args:
            offset: of that line in our log.
            stored: end of our log. What lies before it comes once more, and is passed over.
        """
        self.first: Anchor | None = None
        self.message = ""
        self.message_may_be_text = False
        self._offset = offset
        self._stored = stored
        self._held = b""
        self._in_line = False
        self._time_ns = 0
        self._parts: list[Part] = []
        self._anchor: Anchor | None = None
        self._latest = b""
        self._second = (b"", 0)

    def feed(self, chunk: bytes) -> Batch:
        """Take the next chunk."""
        data, self._held = self._held + chunk, b""
        start = 0
        if self._in_line:
            start = data.find(b"\n") + 1
            if not start:
                self._hold(data)
                return self._batch()
            self._emit(data[:start])
            self._in_line = False
        end = data.rfind(b"\n", start) + 1
        if end:
            self._lines(data[start : end - 1].split(b"\n"))
            start = end
        if not self.message:
            self._begin(data[start:])
        return self._batch()

    def finish(self, *, followed: bool) -> Batch:
        """The stream has come to its end: what was held back.

        Args:
            followed: whether the log was followed; only then a message of the kubelet may stand
                behind an unfinished line.
        """
        held, self._held = self._held, b""
        if followed and (match := _MESSAGE.search(held)):
            self.message = _said(match[0])
            self.message_may_be_text = match.start() > 0 or self._in_line
            held = held[: match.start()]
        if held and not self.message and not self._in_line and not _STAMP.match(held):
            self.message = _said(held)
        elif held and (self._in_line or _STAMP.match(held)):
            self._unfinished(held)
        return self._batch()

    def _batch(self) -> Batch:
        batch = Batch(self._parts, self._anchor)
        self._parts, self._anchor = [], None
        return batch

    def _lines(self, lines: list[bytes]) -> None:
        """Whole lines, without their newlines."""
        begin = self._offset
        texts: list[bytes] = []
        group = b""
        for count, line in enumerate(lines):
            if line[:_GROUP] != group:
                self._emit_lines(texts)
                if not _STAMP.match(line):
                    self.message = _said(line)
                    lines = lines[:count]
                    break
                texts = []
                group = line[:_GROUP]
                self._time_ns = self._time_of(line)
            texts.append(line[_UTC if line[29:_UTC] == b"Z " else _ZONED :])
        else:
            self._emit_lines(texts)
        if lines:
            self._note(begin, lines[0])
            self._note_last(lines)

    def _emit_lines(self, texts: list[bytes]) -> None:
        if texts:
            texts.append(b"")
            self._emit(b"\n".join(texts))

    def _begin(self, data: bytes) -> None:
        """An unfinished line, at most."""
        if len(data) <= HELD + _ZONED:
            self._held = data
        elif not _STAMP.match(data):
            self.message = _said(data)
        else:
            self._unfinished(data[:-HELD])
            self._held = data[-HELD:]
            self._in_line = True

    def _hold(self, data: bytes) -> None:
        """More of an unfinished line."""
        self._held = data[-HELD:]
        self._emit(data[:-HELD])

    def _unfinished(self, data: bytes) -> None:
        if self._in_line:
            self._emit(data)
            return
        self._time_ns = self._time_of(data)
        self._note(self._offset, data)
        self._emit(data[_width(data) :])

    def _note_last(self, lines: list[bytes]) -> None:
        width = _width(lines[-1])
        stamp = lines[-1][:width]
        offset = self._offset
        for line in reversed(lines):
            if not line.startswith(stamp):
                break
            offset -= len(line) - width + 1
        self._note(offset, stamp)

    def _note(self, offset: int, line: bytes) -> None:
        """Of lines with the very same time only the first can be found again."""
        stamp = line[: _width(line) - 1]
        if stamp != self._latest:
            self._latest = stamp
            self._anchor = Anchor(offset, stamp.decode("ascii"))
            self.first = self.first or self._anchor

    def _emit(self, text: bytes) -> None:
        known = self._stored - self._offset
        self._offset += len(text)
        if known > 0:
            text = text[known:]
        if text:
            self._parts.append(Part(self._time_ns, text))

    def _time_of(self, line: bytes) -> int:
        second, nanoseconds = line[:19], int(line[20:29])
        if second != self._second[0] or line[29:30] != b"Z":
            self._second = (second, time_of(line[: _width(line) - 1].decode("ascii")) // 10**9)
        return self._second[1] * 10**9 + nanoseconds


class Seeker:
    """Looks for the line from which to go on, in a stream that begins before it.

    ``passed`` says that a later line came first: either the node no longer has that line, or
    its clock was set back. ``message`` is what the kubelet said instead, known at the end.
    ``lines`` says whether any line came at all.
    """

    def __init__(self, anchor: Anchor) -> None:
        self.passed = False
        self.lines = False
        self._time_ns = time_of(anchor.stamp)
        self._needle = b"\n" + anchor.stamp.encode("ascii") + b" "
        self._tail = b"\n"

    def feed(self, chunk: bytes) -> bytes | None:
        """The stream from that line on, once it has come."""
        data = self._tail + chunk
        found = data.find(self._needle)
        if found >= 0:
            return data[found + 1 :]
        self._judge(data)
        self._tail = data[-HELD:]
        return None

    @property
    def message(self) -> str:
        """What the kubelet said at the end of a stream without that line."""
        match = _MESSAGE.match(self._tail.rpartition(b"\n")[2])
        return _said(match[0]) if match else ""

    def _judge(self, data: bytes) -> None:
        start = len(data)
        while not self.passed and (start := data.rfind(b"\n", 0, start)) >= 0:
            if match := _STAMP.match(data, start + 1):
                self.lines = True
                self.passed = time_of(match[0][:-1].decode("ascii")) > self._time_ns
                return


def says_no_log(message: str) -> bool:
    """Whether this message of the kubelet means that it has no such log, or no longer."""
    return _says_no_log(message) is not None


def says_removed(message: str) -> bool:
    """Whether this message, at the end of a followed log, means that the container was removed."""
    return message.startswith("rpc error: code = NotFound ")


def time_of(stamp: str) -> int:
    """Nanoseconds since 1970 of the time before a line.

    Raises:
        ValueError: it is no such time.
    """
    second = datetime.fromisoformat(stamp[:19] + stamp[29:])
    return int(second.timestamp()) * 10**9 + int(stamp[20:29])


def stamp_of(time_ns: int, zone: str) -> str:
    """As a node writes the time, ``zone`` being ``Z`` or ``+02:00``."""
    second, nanoseconds = divmod(time_ns, 10**9)
    local = datetime.fromtimestamp(second, datetime.fromisoformat(f"2000-01-01T00:00{zone}").tzinfo)
    return f"{local:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}{zone}"


def _width(line: bytes) -> int:
    return _UTC if line[29:_UTC] == b"Z " else _ZONED


def _said(text: bytes) -> str:
    return text[:HELD].decode("utf-8", "replace").strip()
