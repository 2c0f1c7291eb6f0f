"""The digest of a pipeline's code, kept in each job's record: what exactly was trained with.

A folder may hold thousands of files and a job may be submitted every few milliseconds, so the
digest of each file is kept and used again while its size, times and inode stay the same. A file
that changed within the last two seconds is always read: a second change could share its time
stamp on a file system that counts in seconds.
"""

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

FILES_LIMIT: Final = 20_000  # files; a folder with more holds data, not code
CONTENT_LIMIT: Final = 64 * 1024 * 1024  # bytes; a larger file is told by its size and time
SETTLED_NS: Final = 2_000_000_000  # the coarsest time stamps in use (FAT)
_SKIPPED_FOLDERS: Final = frozenset({".git", "__pycache__", ".venv", "node_modules"})

_Signature = tuple[int, int, int, int]


class FolderDigests:
    """Digests of folders; may be used from several threads."""

    def __init__(self) -> None:
        self._known: dict[Path, dict[str, tuple[_Signature, bytes]]] = {}

    def digest(self, folder: Path) -> str | None:
        """SHA-256, in hexadecimal, of the folder's files: paths, executable bits and contents.

        ``.git``, ``__pycache__``, ``.venv``, ``node_modules`` and ``*.pyc`` are left out; a link
        counts by its text, a file above 64 MiB by its size and time instead of its content.

        Returns:
            None if there are more than 20,000 files.
        """
        before = self._known.get(folder, {})
        now: dict[str, tuple[_Signature, bytes]] = {}
        parts: list[tuple[bytes, bytes]] = []
        files = list(islice(_files(folder), FILES_LIMIT + 1))
        if len(files) > FILES_LIMIT:
            return None
        for path, entry in files:
            try:
                parts.append((os.fsencode(path), _entry_digest(path, entry, before, now)))
            except OSError:
                # Gone or closed to us since the folder was listed: it is no part of the code
                # that a job could read either.
                continue
        self._known[folder] = now
        total = hashlib.sha256()
        for name, content in sorted(parts):
            total.update(len(name).to_bytes(4) + name + content)
        return total.hexdigest()


def _entry_digest(
    path: str,
    entry: os.DirEntry[str],
    before: dict[str, tuple[_Signature, bytes]],
    now: dict[str, tuple[_Signature, bytes]],
) -> bytes:
    """33 bytes: the kind of the entry, and the digest of what it holds."""
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return b"l" + hashlib.sha256(os.fsencode(Path(entry.path).readlink())).digest()
    if not stat.S_ISREG(status.st_mode):
        return b"s" + bytes(32)  # a socket, pipe or device: never opened
    kind = b"x" if status.st_mode & stat.S_IXUSR else b"f"
    if status.st_size > CONTENT_LIMIT:
        about = f"{status.st_size} {status.st_mtime_ns}"
        return kind + hashlib.sha256(about.encode()).digest()
    signature = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    known = before.get(path)
    if known is not None and known[0] == signature:
        content = known[1]
    else:
        content = _content_digest(entry.path)
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS:
        now[path] = (signature, content)
    return kind + content


def _content_digest(path: str) -> bytes:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _files(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every entry that is no folder, with its path relative to ``folder``."""
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        try:
            entries = list(os.scandir(folder / inner))
        except OSError:
            continue  # removed or closed to us: as for files
        for entry in entries:
            path = f"{inner}/{entry.name}" if inner else entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _SKIPPED_FOLDERS:
                    waiting.append(path)
            elif not entry.name.endswith(".pyc"):
                yield path, entry
