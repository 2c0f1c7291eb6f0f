"""What ``model-training login`` keeps: a file a server, which only its owner can read.

Not a keyring of the desktop: the command runs on machines that have none, where a file would be
the fallback, and two places for one secret are one too many. They are in the user's state folder
and not in the data folder of a service, which is another person's where the service is elsewhere.

A provider may give a new refresh token each time and take the use of an old one for theft, upon
which it ends the whole login. So whoever refreshes holds the lock beside the file from before it
reads the old one until after the new one is on the disk.
"""

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, cast
from urllib.parse import urlsplit

from model_training.client.exchange import Disconnected
from model_training.client.origins import server_key
from model_training.client.user_folders import state_folder
from model_training.errors import SettingsError

LOGIN_FILE_BYTES: Final = 2**20
LOCK_S: Final = 10.0  # seconds for somebody else's refresh; a provider that hangs must not hang all
LOOK_AGAIN_S: Final = 0.02
_EARLY_S: Final = 30.0  # seconds before its end: for requests on their way, and clocks that differ
_EARLY_PART: Final = 0.2  # of its life at most: a token of one minute is not renewed each time


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What the command is to an OpenID provider, and what it asks for there."""

    issuer: str
    client_id: str
    scope: str
    audience: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a provider gave. Times are in seconds since 1970."""

    access_token: str = field(repr=False)
    obtained_at: float
    expires_at: float | None
    refresh_token: str | None = field(repr=False)

    def is_fresh(self, now: float) -> bool:
        """Whether the access token is good for a while yet, as far as is known."""
        if self.expires_at is None:
            return True
        early = min(_EARLY_S, (self.expires_at - self.obtained_at) * _EARLY_PART)
        return now < self.expires_at - early

    def is_over(self, now: float) -> bool:
        """Whether the access token has ended."""
        return self.expires_at is not None and now >= self.expires_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """One user's login at one server."""

    server: str
    registration: Registration
    tokens: Tokens


class LoginFile:
    """The login at one server, if there is one.

    Args:
        url: of the server.
    """

    def __init__(self, url: str) -> None:
        self.server = server_key(url)
        parts = urlsplit(self.server)
        # The host is for people; what tells addresses apart is the digest.
        host = re.sub(r"[^a-z0-9.-]", "_", parts.hostname or "")[:100]
        digest = hashlib.sha256(self.server.encode()).hexdigest()[:16]
        self.path = state_folder() / "logins" / f"{host}-{digest}.json"

    def exists(self) -> bool:
        """Whether there is one, good or not."""
        try:
            self.path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            pass  # it cannot be told, which to read it says
        return True

    def read(self, *, to_end_it: bool = False) -> Login | None:
        """The login; None where there is none.

        Args:
            to_end_it: read it also where others can, as it is theirs no longer then.

        Raises:
            SettingsError: it cannot be used, or others can read it.
        """
        try:
            with self.path.open("rb") as file:
                found = os.fstat(file.fileno())
                body = file.read(LOGIN_FILE_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unusable(f"cannot be read: {error.strerror}") from None
        if found.st_uid != os.geteuid():
            raise self._unusable("is somebody else's")
        if found.st_mode & 0o077 and not to_end_it:
            raise SettingsError(
                f"The login in {self.path} can be read by others, so it may be theirs by now. "
                "Log out and in again: model-training logout, model-training login"
            )
        try:
            login = _login(body)
        except (ValueError, KeyError, TypeError, RecursionError):
            login = None  # never with the reason: it would show what is in the file
        if login is None or login.server != self.server:
            raise self._unusable("is damaged")
        return login

    def write(self, login: Login) -> None:
        """Keep it, in place of the one before: on the disk when this returns.

        Raises:
            SettingsError: it cannot be written.
        """
        try:
            self._make_folder()
            self._replace(json.dumps(asdict(login), indent=1).encode() + b"\n")
        except OSError as error:
            raise self._unwritable(error) from None

    def remove(self) -> None:
        """Forget it.

        Raises:
            SettingsError: it is still there.
        """
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            msg = f"The login in {self.path} cannot be removed: {error.strerror}."
            raise SettingsError(msg) from None

    @contextmanager
    def locked(self) -> Generator[None]:
        """Nobody else refreshes, writes or removes it meanwhile.

        Raises:
            SettingsError: the lock cannot be had.
            Disconnected: somebody else has held it for ``LOCK_S`` seconds.
        """
        try:
            self._make_folder()
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            lock = os.open(self.path.with_name(self.path.name + ".lock"), flags, 0o600)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            deadline = time.monotonic() + LOCK_S
            while not _is_taken(lock):
                if time.monotonic() > deadline:
                    why = f"another process has refreshed {self.path} for {LOCK_S:g} s"
                    raise Disconnected(why, sent=False)
                threading.Event().wait(LOOK_AGAIN_S)
            yield
        finally:
            os.close(lock)

    def _make_folder(self) -> None:
        self.path.parent.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.parent.mkdir(exist_ok=True, mode=0o700)

    def _replace(self, body: bytes) -> None:
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(fresh, flags, 0o600), "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _unusable(self, reason: str) -> SettingsError:
        return SettingsError(
            f"The login in {self.path} {reason}. "
            "Log out and in again: model-training logout, model-training login"
        )

    def _unwritable(self, error: OSError) -> SettingsError:
        return SettingsError(f"The login in {self.path} cannot be written: {error.strerror}.")


def _is_taken(lock: int) -> bool:
    """Take the lock, if nobody has it; whether it is ours now."""
    import fcntl  # not on every system on which a client without a login runs

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _login(body: bytes) -> Login:
    """What ``write`` wrote; any other content is a ValueError, KeyError or TypeError."""
    plain = cast("dict[str, Any]", json.loads(body[:LOGIN_FILE_BYTES]))
    registration, tokens = plain["registration"], plain["tokens"]
    login = Login(
        server=plain["server"], registration=Registration(**registration), tokens=Tokens(**tokens)
    )
    _require_types(login.registration, {"audience": (str, type(None))}, (str,))
    times = {"obtained_at": (int, float), "expires_at": (int, float, type(None))}
    _require_types(login.tokens, {**times, "refresh_token": (str, type(None))}, (str,))
    return login


def _require_types(
    value: Registration | Tokens, exceptions: dict[str, tuple[type, ...]], default: tuple[type, ...]
) -> None:
    for one in fields(value):
        if not isinstance(getattr(value, one.name), exceptions.get(one.name, default)):
            raise TypeError(one.name)
