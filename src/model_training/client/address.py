"""Where the server is, and the token for it.

Argument before environment before what a server on this machine wrote into its data folder. The
data folder is read again for each request, because a server that was restarted may listen on
another port, and a client that follows a log must find it.

The token file belongs to the service of that data folder. It is sent to an address that was
named by hand only if that is this machine: never to a server elsewhere. All other credentials are
the matter of ``credentials.py``.
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
from model_training.client.origins import checked_url, is_loopback, require_private
from model_training.client.token_command import TokenCommand
from model_training.errors import SettingsError
from model_training.folders import DataFolder, default_data_folder

START = "start one with: model-training serve"
_EXAMPLE = "http://127.0.0.1:8642"


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
        self.named_url = checked_url(named, _EXAMPLE) if named else None
        self.data = DataFolder(Path(data) if data else default_data_folder())
        self._given = given_credential(token, token_file)
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
        if self._given is not None:
            return self._given
        if command := self._command(url):
            return command
        login = LoginFile(url)
        if login.exists():
            return KeptLogin(login)
        return DataFolderToken(self.data.token) if self.is_local else None

    def _command(self, url: str) -> TokenCommand | None:
        """Made once: it remembers what was printed."""
        with self._lock:
            if url not in self._commands:
                argv = server_table(url).token_command
                self._commands[url] = TokenCommand(argv) if argv else None
            return self._commands[url]

    def _written_url(self) -> str:
        try:
            written = cast("dict[str, object]", json.loads(self.data.server.read_bytes()))
            return checked_url(str(written["url"]), _EXAMPLE)
        except (OSError, ValueError, KeyError, TypeError, SettingsError) as error:
            why = f"no server has its address in {self.data.server}; {START}"
            raise Disconnected(why, sent=False) from error
