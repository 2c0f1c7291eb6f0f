"""What a log looks like on disk.

```
FOLDER/
  00000000000000000000.log     the bytes as printed and nothing else, so a person can cat them
  00000000000000000000.index   16 bytes a write: where it began, when
  00000000000016777216.log     named by the offset of its first byte
  gaps                         why bytes are missing: START END REASON, a line each
  generation                   absent = 0; another number once the log was collected anew
```

An offset means the same byte for ever. What is missing is a hole between two segments: it shows
in their names and sizes alone, so that it cannot be overlooked where there was no space left to
write down why. An index belongs to its segment and goes with it, so that a log that has reached
its limit grows no more at all.
"""

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DIGITS = 20  # as many as 2**64 has, so that names sort as numbers


class Gap(NamedTuple):
    """Bytes that are missing: from ``start`` up to, not including, ``end``."""

    start: int
    end: int
    reason: str


class Piece(NamedTuple):
    """Bytes that are there, from ``offset``."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.offset + len(self.data)


def log_path(folder: Path, start: int) -> Path:
    """The bytes of the segment that begins at offset ``start``."""
    return folder / f"{start:0{_DIGITS}d}.log"


def index_path(folder: Path, start: int) -> Path:
    """The times of that segment's writes."""
    return folder / f"{start:0{_DIGITS}d}.index"


def gaps_path(folder: Path) -> Path:
    """Why bytes are missing."""
    return folder / "gaps"


def generation_path(folder: Path) -> Path:
    """How often the log was collected anew."""
    return folder / "generation"


def segment_starts(names: Iterable[str]) -> list[int]:
    """Where the segments among these file names begin; other names are passed over."""
    stems = (name[:-4] for name in names if len(name) == _DIGITS + 4 and name.endswith(".log"))
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())
