"""Which token is sent to a server, and another one once that is refused.

The first of these that there is: what was given by argument (``token``, ``token_file``; the
command has only ``--token-file``, because everybody can read the arguments of a process), the
variable ``MODEL_TRAINING_TOKEN``, the file named by ``MODEL_TRAINING_TOKEN_FILE``, the
``token_command`` of ``client.toml`` for this server, what ``model-training login`` keeps for it,
and for a server on this machine the token in the data folder. One that is there and cannot be used
is an error and never a reason to try the next: a person must know as whom they act.

What was given, by argument or variable, goes to whatever server is named beside it; all else
belongs to one server. No redirect is followed by the client, so that none is taken elsewhere.
"""

import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from model_training.client.bearer_tokens import TOKEN_BYTES, checked_token
from model_training.client.logins import LoginFile
from model_training.errors import SettingsError


class Credential(Protocol):
    """Where a token comes from."""

    def token(self) -> str | None:
        """The one to send now; None: none is sent.

        Raises:
            SettingsError, Unauthenticated: there is none; the message says why, and what to do.
            Disconnected: there may be one later.
        """
        ...

    def renew(self, refused: str) -> bool:
        """After the server refused this one: whether there is another now.

        Raises: as ``token``.
        """
        ...


class GivenToken:
    """One token, for ever."""

    def __init__(self, token: str, source: str) -> None:
        self._token = checked_token(token, source)

    def token(self) -> str:
        """That one."""
        return self._token

    def renew(self, refused: str) -> bool:  # noqa: ARG002 there is no other
        """There is none."""
        return False


class TokenFile:
    """A file that somebody else replaces before its token ends, as Kubernetes does in a pod.

    It is read for each request: that is cheaper than the request by far, and no rule about when a
    change is seen can be wrong. A pipe (``--token-file <(...)``) is read once, as it can be.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._kept: str | None = None

    def token(self) -> str:
        """What is in it now."""
        with self._lock:
            if self._kept is None:
                text, is_regular = self._read()
                token = checked_token(text, f"The token file {self._path}")
                if is_regular:
                    return token
                self._kept = token
            return self._kept

    def renew(self, refused: str) -> bool:
        """Whether it was replaced."""
        return self.token() != refused

    def _read(self) -> tuple[str, bool]:
        try:
            with self._path.open("rb") as file:
                is_regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
                body = file.read(TOKEN_BYTES + 1)
        except OSError as error:
            msg = f"The token file {self._path} cannot be read: {error.strerror}."
            raise SettingsError(msg) from None
        return body.decode("ascii", "replace"), is_regular


class KeptLogin:
    """What ``model-training login`` keeps, refreshed before it ends."""

    def __init__(self, file: LoginFile, now: Callable[[], float] = time.time) -> None:
        self._file = file
        self._now = now

    def token(self) -> str | None:
        """The access token; None where nobody is logged in."""
        login = self._file.read()
        if login is None or login.tokens.is_fresh(self._now()):
            return login and login.tokens.access_token
        return self._refreshed(login.tokens.access_token)

    def renew(self, refused: str) -> bool:
        """Refresh it, unless somebody else did so meanwhile."""
        return self._refreshed(refused) != refused

    def _refreshed(self, stale: str) -> str:
        from model_training.client.refreshing import refreshed

        return refreshed(self._file, stale, self._now)


class DataFolderToken:
    """The token that a server on this machine wrote into its data folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def token(self) -> str | None:
        """The token; without one, the server then says that it is missing."""
        try:
            return checked_token(self._path.read_text(), f"The file {self._path}")
        except (OSError, UnicodeDecodeError, SettingsError):
            return None

    def renew(self, refused: str) -> bool:
        """Whether the server has made another."""
        return self.token() not in (None, refused)


def given_credential(token: str | None, token_file: Path | str | None) -> Credential | None:
    """What was given by argument or else by variable, if anything was.

    Raises:
        SettingsError: it cannot be a token, or there are two.
    """
    if token is not None and token_file is not None:
        raise SettingsError("Give token or token_file, not both: they may be of two people.")
    if token is not None:
        return GivenToken(token, "The argument token")
    if token_file is not None:
        return TokenFile(token_file)
    if token := os.environ.get("MODEL_TRAINING_TOKEN"):
        return GivenToken(token, "The variable MODEL_TRAINING_TOKEN")
    if token_file := os.environ.get("MODEL_TRAINING_TOKEN_FILE"):
        return TokenFile(token_file)
    return None
