"""Where the server is, and the token for it.

Argument before environment before what a server on this machine wrote into its data folder. The
data folder is read again for each request, because a server that was restarted may listen on
another port, and a client that follows a log must find it.

The token file belongs to the service of that data folder. It is sent to an address that was
named by hand only if that is this machine: never to a server elsewhere.
"""

import ipaddress
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from model_training.client.exchange import Disconnected
from model_training.errors import SettingsError
from model_training.folders import DataFolder, default_data_folder

START = "start one with: model-training serve"


@dataclass(frozen=True, slots=True)
class Address:
    """Where requests go. ``token`` None: none is sent."""

    url: str
    token: str | None


class AddressFinder:
    """Finds the server for one client."""

    def __init__(
        self, url: str | None = None, token: str | None = None, data: Path | str | None = None
    ) -> None:
        named = url or os.environ.get("MODEL_TRAINING_URL") or None
        self.named_url = _checked(named) if named else None
        self.data = DataFolder(Path(data) if data else default_data_folder())
        self._token = token or os.environ.get("MODEL_TRAINING_TOKEN") or None

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, so that no proxy stands between."""
        return self.named_url is None or is_loopback(self.named_url)

    def find(self) -> Address:
        """Where the server is now.

        Raises:
            Disconnected: no server has written its address into the data folder.
        """
        url = self.named_url or self._written_url()
        return Address(url, self._token or (self._written_token() if self.is_local else None))

    def address(self) -> str | None:
        """The server's address alone."""
        try:
            return self.find().url
        except Disconnected:
            return None

    def _written_url(self) -> str:
        try:
            written = cast("dict[str, object]", json.loads(self.data.server.read_bytes()))
            return _checked(str(written["url"]))
        except (OSError, ValueError, KeyError, TypeError, SettingsError) as error:
            why = f"no server has its address in {self.data.server}; {START}"
            raise Disconnected(why, sent=False) from error

    def _written_token(self) -> str | None:
        try:
            return self.data.token.read_text().strip() or None
        except (OSError, UnicodeDecodeError):
            return None  # the server then says that a token is missing


def is_loopback(url: str) -> bool:
    """Whether this address is this machine by its name alone."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        msg = f"{url!r} is no address of a server; write it like http://127.0.0.1:8642"
        raise SettingsError(msg)
    return url.rstrip("/")
