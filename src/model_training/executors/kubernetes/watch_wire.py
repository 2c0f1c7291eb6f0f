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
    """Cuts lines out of chunks.

    Of a line over the limit only the beginning is given, which cannot be decoded.
    """

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._parts: list[bytes] = []  # of the line that is not complete
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that are complete with this chunk, without their ends."""
        first, *rest = chunk.split(b"\n")
        self._keep(first)
        if not rest:
            return []
        line = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._keep(rest.pop())
        return [line for line in (line, *rest) if line]

    def _keep(self, part: bytes) -> None:
        if not part or self._size > self._limit:
            return
        self._size += len(part)
        self._parts.append(part)
        if self._size > self._limit:
            self._parts[:] = [self._parts[0][:_BEGINNING]]


_BEGINNING: Final = 100  # bytes; shorter than any event


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
