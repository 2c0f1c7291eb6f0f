"""A download becomes a file only when it is whole.

It is written beside its place under a temporary name, compared with the size and digest that the
server told, and renamed. What was cut or damaged leaves nothing behind.
"""

import base64
import hashlib
import os
import secrets
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from model_training.client.exchange import Answer
from model_training.errors import Fault, InvalidRequest, ServerUnreachable


def target_of(path: str, to: Path | str) -> Path:
    """The file for the output ``path``: ``to`` itself, or under it if it is a folder.

    Raises:
        InvalidRequest: the output's path would lead out of the folder.
    """
    to = Path(to)
    if not to.is_dir():
        return to
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts:
        raise InvalidRequest(Fault("path", f"{path!r} leads out of {to}"))
    return to / relative


class PartialFile:
    """Takes what the download operation emits."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self._size: int | None = None
        self._wanted: str | None = None

    def __enter__(self) -> Self:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self._path = self.target.with_name(f".download-{secrets.token_hex(8)}")
        # Not by mkstemp, whose files are 0600: the umask decides, as for any file of a command.
        # It can be asked for only by setting it, which other threads would notice.
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._file = os.fdopen(descriptor, "wb")
        self._digest = hashlib.sha256()
        return self

    def receive(self, item: object) -> None:
        """The head of an answer (everything begins anew), or bytes."""
        if isinstance(item, Answer):
            length = item.headers.get("content-length")
            self._size = int(length) if length else None
            self._wanted = _sha256_of(item.headers.get("repr-digest", ""))
            self._file.seek(0)
            self._file.truncate()
            self._digest = hashlib.sha256()
        elif isinstance(item, bytes):
            self._file.write(item)
            self._digest.update(item)

    def keep(self) -> Path:
        """Put the file in its place.

        Raises:
            ServerUnreachable: it is not what the server told.
        """
        found = base64.b64encode(self._digest.digest()).decode()
        if self._size is not None and self._file.tell() != self._size:
            msg = f"{self._file.tell()} bytes came of {self._size} for {self.target}; ask again"
            raise ServerUnreachable(msg)
        if self._wanted is not None and self._wanted != found:
            msg = f"what came for {self.target} does not fit its SHA-256 digest; ask again"
            raise ServerUnreachable(msg)
        self._file.close()
        return self._path.replace(self.target)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def _sha256_of(digest: str) -> str | None:
    for part in digest.split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "sha-256":
            return value.strip(":")
    return None
