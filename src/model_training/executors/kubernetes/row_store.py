"""The rows that a reflector keeps, and which of two words about an object is the newer one.

Resource versions of one kind of object are integers that only grow (KEP-5504 made that official)
as long as the API server's database is not replaced by an older one; a new list is right then, too.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

logger = logging.getLogger(__name__)


class ObjectRow(Protocol):
    """What must be known of a row."""

    @property
    def namespace(self) -> str:
        """Its namespace."""
        ...

    @property
    def name(self) -> str:
        """Its name there."""
        ...

    @property
    def uid(self) -> str:
        """Of this very object, never of a namesake."""
        ...

    @property
    def resource_version(self) -> str:
        """Of this state of it."""
        ...


Row = TypeVar("Row", bound=ObjectRow)
Key = tuple[str, str]
"""namespace, name"""


@dataclass(frozen=True, slots=True)
class Listener(Generic[Row]):
    """Is told what changes; must be quick."""

    changed: Callable[[Row | None, Row | None], None]
    """called with the row before and after: None before it is there, and after it is gone. What is
    gone is given as it was last, by the word of its deletion if there was one. A namesake with
    another UID is gone first, then there."""
    lost: Callable[[Row], None] | None = None
    """called instead with a row that a list no longer has: nobody saw how it went"""
    in_step: Callable[[], None] = lambda: None
    """called when the rows lag behind no longer"""


class RowStore(Generic[Row]):
    """Rows by namespace and name; tells every change. ``version``: what was seen so far."""

    def __init__(self, listener: Listener[Row]) -> None:
        self.rows: dict[Key, Row] = {}
        self.version = 0
        self._listener = listener
        self._meanwhile: dict[Key, Row] | None = None

    def begin_list(self) -> None:
        """A list is asked for: what is put from now on may be newer than it."""
        self._meanwhile = {}

    def end_list(self, rows: dict[Key, Row], version: int) -> None:
        """Take over a whole list, and tell what it says otherwise than we knew.

        Versions of old rows decide nothing here: they are higher than the list's after the
        database was replaced by an older one.
        """
        for key, put in (self._meanwhile or {}).items():
            if version_of(put) > max(version, version_of(rows[key]) if key in rows else 0):
                rows[key] = put
        self._meanwhile = None
        before, self.rows, self.version = self.rows, rows, version
        for key, row in rows.items():
            old = before.pop(key, None)
            if old is not None and old.uid != row.uid:
                self._tell_lost(old)
                old = None
            self._tell(old, row)
        for row in before.values():
            self._tell_lost(row)

    def put(self, row: Row) -> None:
        """What a call of our own returned, unless it is older than what was seen."""
        key = row.namespace, row.name
        if self._meanwhile is not None:
            self._meanwhile[key] = row
        # What was seen includes its end: putting it back would keep it for ever.
        if version_of(row) > self.version:
            self.set(row)

    def set(self, row: Row) -> None:
        """There is this now."""
        key = row.namespace, row.name
        before = self.rows.get(key)
        if before is None or version_of(before) < version_of(row):
            self.rows[key] = row
            if before is not None and before.uid != row.uid:
                self._tell(before, None)
                before = None
            self._tell(before, row)

    def remove(self, key: Key, version: int, last: Row | None = None) -> None:
        """It is gone since ``version``; ``last`` is how it was then, where that is known."""
        before = self.rows.get(key)
        if before is not None and version_of(before) <= version:
            del self.rows[key]
            same = last is not None and last.uid == before.uid
            self._tell(last if same else before, None)

    # Whatever is wrong with one row, the others are told: a new list would not tell them again.

    def _tell(self, before: Row | None, after: Row | None) -> None:
        if before and after and before.resource_version == after.resource_version:
            return
        try:
            self._listener.changed(before, after)
        except Exception:  # see above
            logger.exception("a change of %s was told in vain", _name_of(after or before))

    def _tell_lost(self, row: Row) -> None:
        if self._listener.lost is None:
            self._tell(row, None)
            return
        try:
            self._listener.lost(row)
        except Exception:  # see above
            logger.exception("the end of %s was told in vain", _name_of(row))


def _name_of(row: ObjectRow | None) -> str:
    return f"{row.namespace}/{row.name}" if row else "nothing"


def version_of(row: ObjectRow) -> int:
    """Raises ValueError where it is no number."""
    return int(row.resource_version)
