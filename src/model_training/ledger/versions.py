"""Which observation of each job was the last one applied, during this life of the service.

Kept in memory, because versions begin anew with each life. Jobs that have ended need none: no
observation changes them any more. Of removed jobs the last ones are remembered by their time of
creation, so that a belated observation does not bring one back, while a new job of the same name
(a repeated Idempotency-Key) is welcome.
"""

from datetime import datetime
from typing import Final

REMEMBERED: Final = 10_000  # removed jobs; far more than are removed within any delay


class Versions:
    """Used by the writing thread alone, but for ``is_kept``.

    Versions count once their transaction has been kept.
    """

    def __init__(self) -> None:
        self._kept: dict[str, int] = {}
        self._new: dict[str, int] = {}
        self._removed: dict[str, datetime] = {}

    def last(self, name: str) -> int:
        """The version applied last, -1 if there is none."""
        return self._new.get(name, self._kept.get(name, -1))

    def is_kept(self, name: str, version: int) -> bool:
        """Whether this version, or a later one, stands in the ledger for good.

        May be asked from any thread.
        """
        return version <= self._kept.get(name, -1)

    def note(self, name: str, version: int) -> None:
        """This version was applied."""
        self._new[name] = version

    def forget(self, name: str) -> None:
        """The job has ended."""
        self._new[name] = -1

    def note_removed(self, name: str, created_at: datetime) -> None:
        """The job was removed, and nothing seen of it before may bring it back."""
        self.forget(name)
        self._removed.pop(name, None)
        self._removed[name] = created_at
        if len(self._removed) > REMEMBERED:
            del self._removed[next(iter(self._removed))]

    def was_removed(self, name: str, created_at: datetime) -> bool:
        """Whether this very job was removed."""
        return self._removed.get(name) == created_at

    def keep(self) -> None:
        """The transaction was kept."""
        self._kept.update(self._new)
        for name, version in self._new.items():
            if version < 0:
                del self._kept[name]
        self._new.clear()

    def lose(self) -> None:
        """The transaction was rolled back."""
        self._new.clear()
