"""Where the server is, and the token for it.

Argument before environment before what a server on this machine wrote into its data folder. The
data folder is read again for each request, because a server that was restarted may listen on
another port, and a client that follows a log must find it.

The token file belongs to the service of that data folder, and goes to that service alone: to the
address that it wrote there, while the process that wrote it lives. Another address of this machine
may be a tunnel to a server elsewhere, and a port that nobody has any more, anybody may take. All
other credentials are the matter of ``credentials.py``.
"""

import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from model_training.client.client_file import server_table
from model_training.client.credentials import (
    Credential,
    DataFolderToken,
    KeptLogin,
    given_credential,
)
from model_training.client.exchange import Disconnected
from model_training.client.logins import LoginFile
from model_training.client.origins import (
    checked_server,
    is_loopback,
    require_private,
    server_key,
)
from model_training.client.token_command import TokenCommand
from model_training.errors import SettingsError
from model_training.folders import DataFolder, default_data_folder

START = "start one with: model-training serve"
_EXAMPLE = "http://127.0.0.1:8642"
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, SettingsError)


@dataclass(frozen=True, slots=True)
class Address:
    """Where requests go. ``token`` None: none is sent."""

    url: str
    token: str | None = field(repr=False)


class AddressFinder:
    """Finds the server for one client, and what to show it."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        data: Path | str | None = None,
        token_file: Path | str | None = None,
    ) -> None:
        named = url or os.environ.get("MODEL_TRAINING_URL") or None
        self.named_url = checked_server(named, _EXAMPLE) if named else None
        self.data = DataFolder(Path(data) if data else default_data_folder())
        self._read_given = lambda: given_credential(token, token_file)
        self._given: Credential | None = None
        self._is_read = False
        self._commands: dict[str, TokenCommand | None] = {}
        self._lock = threading.Lock()

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, so that no proxy stands between."""
        return self.named_url is None or is_loopback(self.named_url)

    def url(self) -> str:
        """Where the server is now.

        Raises:
            Disconnected: no server has written its address into the data folder.
        """
        return self.named_url or self._written_url()

    def given(self) -> Credential | None:
        """What was given by argument or variable. Not read before: to log out needs none of it.

        Raises:
            SettingsError: it cannot be used.
        """
        if not self._is_read:
            self._given = self._read_given()
            self._is_read = True
        return self._given

    def find(self) -> Address:
        """Where the server is now, and what to show it. May take as long as a person does.

        Raises:
            Disconnected: no server has written its address, or a token cannot be had now.
            SettingsError, Unauthenticated: no token can be had.
        """
        url = self.url()
        credential = self._credential(url)
        token = credential.token() if credential else None
        if token is not None:
            require_private(url, "A token")
        return Address(url, token)

    def renew(self, refused: Address) -> bool:
        """Whether there is something else to show, after the server refused this. Raises as find.

        A server that was not shown anything may be shown what there is since then.
        """
        credential = self._credential(refused.url)
        if credential is None:
            return False
        if refused.token is None:
            return credential.token() is not None
        return credential.renew(refused.token)

    def shows_login(self, url: str) -> bool:
        """Whether it is what ``model-training login`` keeps that this server is shown."""
        return isinstance(self._credential(url), KeptLogin)

    def address(self) -> str | None:
        """The server's address alone."""
        try:
            return self.url()
        except Disconnected:
            return None

    def _credential(self, url: str) -> Credential | None:
        if (given := self.given()) is not None:
            return given
        if command := self._command(url):
            return command
        login = LoginFile(url)
        if login.exists():
            return KeptLogin(login)
        return DataFolderToken(self.data.token) if self._is_of_the_folder(url) else None

    def _is_of_the_folder(self, url: str) -> bool:
        """Whether the server at this address is the one of the data folder, as far as can be told.

        On a full disk it could not write where it is, and says so to whoever started it: then an
        address of this machine that is named by hand is believed.
        """
        if self.named_url is None:
            return True  # it was read there, and its process lives
        if not is_loopback(url):
            return False
        try:
            written = self._written()
        except FileNotFoundError:
            return True
        except _UNREADABLE:
            return False
        return server_key(written.url) == server_key(url) and written.lives

    def _command(self, url: str) -> TokenCommand | None:
        """Made once: it remembers what was printed."""
        with self._lock:
            if url not in self._commands:
                argv = server_table(url).token_command
                self._commands[url] = TokenCommand(argv) if argv else None
            return self._commands[url]

    def _written_url(self) -> str:
        try:
            written = self._written()
        except _UNREADABLE as error:
            why = f"no server has its address in {self.data.server}; {START}"
            raise Disconnected(why, sent=False) from error
        if not written.lives:
            why = f"the server that has its address in {self.data.server} has ended; {START}"
            raise Disconnected(why, sent=False)
        return written.url

    def _written(self) -> "_Written":
        plain = cast("dict[str, object]", json.loads(self.data.server.read_bytes()))
        return _Written(checked_server(str(plain["url"]), _EXAMPLE), int(str(plain["pid"])))


@dataclass(frozen=True, slots=True)
class _Written:
    """What a server wrote into its data folder."""

    url: str
    pid: int

    @property
    def lives(self) -> bool:
        """Whether there is such a process; it may be somebody else's."""
        if os.name != "posix":  # where signal 0 would end it
            return True
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:
            return True
        return True
