r"""Lists and watches as they come over the wire: pages, lines, events.

A watch is one JSON document a line. Only ``\n`` ends a line: other separators of Unicode, which
``str.splitlines`` knows, may stand in any annotation as they are, for Go does not escape U+0085.
"""

from typing import Final

import msgspec
from msgspec import Struct, field

LINE_LIMIT: Final = 16 * 1024 * 1024
"""bytes; etcd keeps objects of at most 1.5 MiB, which can be twice that as JSON"""


class EventLines:
    """Cuts lines out of chunks; a line over the limit is left out and counted."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self.too_long = 0
        self._limit = limit
        self._parts: list[bytes] = []  # of the line that is not complete
        self._size = 0
        self._skips = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that are complete with this chunk, without their ends."""
        first, *rest = chunk.split(b"\n")
        self._keep(first)
        if not rest:
            return []
        lines = self._taken()
        self._keep(rest.pop())
        lines.extend(line for line in rest if line)
        return lines

    def _keep(self, part: bytes) -> None:
        if self._skips or not part:
            return
        self._size += len(part)
        self._parts.append(part)
        if self._size > self._limit:
            self._skips = True
            self._parts.clear()

    def _taken(self) -> list[bytes]:
        line = b"".join(self._parts)
        self.too_long += self._skips
        self._parts.clear()
        self._size, self._skips = 0, False
        return [line] if line else []


class _ListMeta(Struct):
    resourceVersion: str  # noqa: N815 - the API's own name
    next: str = field(default="", name="continue")


class Page(Struct):
    """A part of a list; the objects are not decoded yet."""

    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class Event(Struct):
    """One line of a watch; the object is not decoded yet."""

    type: str
    object: msgspec.Raw


class _Meta(Struct):
    name: str = ""
    namespace: str = ""
    resourceVersion: str = ""  # noqa: N815 - the API's own name


class Outline(Struct):
    """What every object has; of an ``ERROR`` event, which holds a Status, code and message."""

    metadata: _Meta = field(default_factory=_Meta)
    code: int = 0
    message: str = ""


decode_page: Final = msgspec.json.Decoder(Page).decode
decode_event: Final = msgspec.json.Decoder(Event).decode
_decode_outline: Final = msgspec.json.Decoder(Outline).decode


def outline_of(raw: msgspec.Raw) -> Outline:
    """As much as can be read of an object that may be broken: an empty outline if nothing can."""
    try:
        return _decode_outline(raw)
    except (msgspec.DecodeError, ValueError):
        return Outline()
