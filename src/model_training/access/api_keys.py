"""Keys of this service for programs that have no identity of their own elsewhere.

``mta_ID_SECRET``: the id finds the key, 256 random bits prove it, and the prefix lets scanners of
repositories tell that one was committed. Of the secret a digest is kept; a slow one would protect
what people make up, and nobody makes these up. A key ends by itself, is good for named actions
and pipelines at most, and is never there before somebody makes it.
"""

import base64
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from model_training.access.actions import Action
from model_training.access.key_file import KeyRecord, changing, read_keys
from model_training.access.principals import Ceiling, Principal, PrincipalKind, principal_id
from model_training.errors import AccessUnavailable, NotFound, SettingsError, Unauthenticated

logger = logging.getLogger(__name__)

SOURCE: Final = "key"  # before the slash in the ids of those who hold one
SECRET_BYTES: Final = 32
_UNREAD: Final = (0, 0, 0, 0)  # the status of no file: the next use reads it again
ID_BYTES: Final = 5  # 8 signs of base32; 10**12 of them are never guessed twice by chance
LIFETIME_LIMIT_S: Final = 366 * 86_400.0  # seconds: a key that nobody renews is one nobody minds
_KEY: Final = re.compile(r"mta_([a-z2-7]{8})_([A-Za-z0-9_-]{43})")


def make_key(
    path: Path,
    name: str,
    *,
    actions: Sequence[Action],
    pipelines: Sequence[str],
    lifetime_s: float,
    now: float | None = None,
) -> tuple[str, KeyRecord]:
    """Make a key and keep what is to be known of it; the key itself is told once, here.

    Raises:
        SettingsError: the file cannot be read or written.
    """
    now = time.time() if now is None else now
    identity = base64.b32encode(secrets.token_bytes(ID_BYTES)).decode().lower()
    secret = secrets.token_urlsafe(SECRET_BYTES)
    record = KeyRecord(
        id=identity,
        name=name,
        digest=_digest(secret),
        actions=tuple(sorted(actions)),
        pipelines=tuple(pipelines),
        created_at=round(now, 3),
        expires_at=round(now + lifetime_s, 3),
    )
    with changing(path) as write:
        write([*known_keys(path), record])
    return f"mta_{identity}_{secret}", record


def revoke_key(path: Path, identity: str, now: float | None = None) -> KeyRecord:
    """End a key before its time. One that was revoked already stays revoked since then.

    Raises:
        NotFound: there is none with this id.
        SettingsError: the file cannot be read or written.
    """
    with changing(path) as write:
        records = known_keys(path)
        for at, record in enumerate(records):
            if record.id == identity:
                if record.revoked_at is not None:
                    return record
                ended = replace(record, revoked_at=round(time.time() if now is None else now, 3))
                write([*records[:at], ended, *records[at + 1 :]])
                return ended
    raise NotFound(f"There is no API key with the id {identity!r} in {path}.")


def known_keys(path: Path) -> list[KeyRecord]:
    """All keys that were made.

    Raises:
        SettingsError: the file cannot be read.
    """
    try:
        return read_keys(path)
    except (OSError, ValueError) as error:
        msg = f"The file of API keys {path} cannot be used: it {_reason(error)}."
        raise SettingsError(msg) from None


def _reason(error: OSError | ValueError) -> str:
    """What the file is or has, to follow its name; without the path that an OSError repeats."""
    return f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)


class ApiKeys:
    """The keys that are good now; a change of the file counts from the next request on.

    Args:
        path: of the file.
        now: seconds since 1970.

    Raises:
        SettingsError: others can read the file, or it cannot be understood.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now = now
        self._told = ""
        try:
            self._seen = _status(path)
            self._records: dict[str, KeyRecord] | None = _by_id(path, self._seen)
        except (OSError, ValueError) as error:
            msg = f"The setting api_keys.file: {path} cannot be used: it {_reason(error)}."
            raise SettingsError(msg) from None

    def is_key(self, token: str) -> bool:
        """Whether the token has the form of one."""
        return _KEY.fullmatch(token) is not None

    def principal(self, token: str) -> Principal:
        """Who holds the key.

        Raises:
            Unauthenticated: it is none of ours, or good no more.
            AccessUnavailable: the file cannot be read, and may say that it is good no more.
        """
        match = _KEY.fullmatch(token)
        if match is None:
            raise Unauthenticated("The credential is not good here.")
        record = self._current().get(match[1])
        proves = hmac.compare_digest(_digest(match[2]), record.digest if record else "-")
        now = self._now()
        is_good = record is not None and record.revoked_at is None and now < record.expires_at
        if record is None or not proves or not is_good:
            raise Unauthenticated("The credential is not good here.")
        return Principal(
            PrincipalKind.API_KEY,
            principal_id(SOURCE, record.name),
            name=record.name,
            issuer=SOURCE,
            fingerprint=record.id,
            expires_at=record.expires_at,
            ceiling=Ceiling(frozenset(record.actions), record.pipelines),
        )

    def _current(self) -> dict[str, KeyRecord]:
        try:
            status = _status(self._path)
            if status != self._seen:
                self._seen = status
                self._records = _by_id(self._path, status)
                self._told = ""
        except OSError as error:
            # Perhaps only for now (too many open files): nothing says when it can be read again.
            self._seen = _UNREAD
            self._give_up(_reason(error))
        except ValueError as error:
            self._give_up(_reason(error))
        if self._records is None:
            raise AccessUnavailable("The file of API keys cannot be read now; try again.")
        return self._records

    def _give_up(self, reason: str) -> None:
        """The keys read before may hold one that was revoked since, so none of them is good."""
        self._records = None
        if reason != self._told:
            self._told = reason
            logger.error("the file of API keys %s %s; no key is good", self._path, reason)


def _by_id(path: Path, status: tuple[int, int, int, int] | None) -> dict[str, KeyRecord]:
    if status and status[3] & 0o077:
        raise ValueError(f"can be read by others; run: chmod 600 {path}")
    return {record.id: record for record in read_keys(path)}


def _status(path: Path) -> tuple[int, int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
