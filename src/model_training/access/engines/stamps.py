"""What tells one content of a file from the next, without reading it."""

from pathlib import Path
from typing import Final

Stamp = tuple[int, int, int, int] | None
AGAIN_S: Final = 1.0  # seconds after which what could not be read is read again, as it is


def stamp(path: Path) -> Stamp:
    """Of the file as it is now; None where none can be seen.

    The time of change is among it, since a mode that is corrected changes nothing else.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size, status.st_ctime_ns
