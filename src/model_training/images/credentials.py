"""Logins for registries, from a mounted docker ``config.json`` and from nowhere else.

The file is looked at on each use, because a mounted Secret is replaced while the service runs.
Programs that the file names (``credsStore``, ``credHelpers``) are never started: that a login
would have to come from one is said instead. No message holds anything that the file holds, but
for the names of hosts and of keys.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, cast

from model_training.errors import SettingsError
from model_training.images.reference import DOCKER_HUB, split_host

CONFIG_LIMIT: Final = 1024 * 1024  # bytes; a Secret holds no more
_HUB_KEYS: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_API_PATHS: Final = frozenset({(), ("v1",), ("v2",)})  # of the whole host, as older tools wrote it


@dataclass(frozen=True, slots=True)
class Login:
    """Name and password, or an identity token that stands for both."""

    username: str
    password: str = field(repr=False)
    identity_token: str | None = field(default=None, repr=False)

    @property
    def basic(self) -> str:
        """As a header: ``Basic ...``."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()


@dataclass(frozen=True, slots=True)
class _Key:
    """One key of ``auths``: scheme left out, host with wildcards, port, path."""

    host: str
    port: str | None
    path: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "_Key":
        text = text.lower().partition("://")[2] or text.lower()
        host, *path = text.strip("/").split("/")
        name, port = split_host(host)
        parts = tuple(path)
        if name in _HUB_KEYS:
            name = DOCKER_HUB
        return cls(name, port, () if parts in _API_PATHS else parts)

    def fits(self, asked: "_Key") -> bool:
        mine, theirs = self.host.split("."), asked.host.split(".")
        return (
            self.port == asked.port
            and len(mine) == len(theirs)  # a wildcard stands for one part of a name
            and all(fnmatchcase(part, wild) for part, wild in zip(theirs, mine, strict=True))
            and asked.path[: len(self.path)] == self.path
        )

    @property
    def rank(self) -> tuple[int, int]:
        """Greater is closer: the longer path, then the fewer wildcards."""
        return len(self.path), -self.host.count("*")


class DockerConfig:
    """The logins in one file.

    Args:
        path: the file itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: tuple[tuple[int, int, int], JSONTable] | None = None

    def login(self, host: str, repository: str) -> Login | None:
        """The login for an image; None where the file has none for it.

        Args:
            host: as in references, with its port.
            repository: the name of the image there.

        Raises:
            SettingsError: the file is broken, or names a program that would know the login.
        """
        config = self._config()
        asked = _Key.of(f"{host}/{repository}")
        entry = _closest(_table(config, "auths", self.path), asked)
        if entry is not None:
            key, value = entry
            if (login := self._login(key, value)) is not None:
                return login
        self._refuse_programs(config, asked)
        return None

    def _config(self) -> "JSONTable":
        try:
            found = self.path.stat()
            seen = (found.st_ino, found.st_size, found.st_mtime_ns)
            if self._read is None or self._read[0] != seen:
                self._read = seen, self._parsed()
        except OSError as error:
            raise self._broken(f"cannot be read: {error.strerror}") from None
        return self._read[1]

    def _parsed(self) -> "JSONTable":
        with self.path.open("rb") as stream:
            content = stream.read(CONFIG_LIMIT + 1)
        if len(content) > CONFIG_LIMIT:
            raise self._broken(f"is larger than {CONFIG_LIMIT} bytes")
        try:
            value: object = json.loads(content)
        except (ValueError, RecursionError):  # its text could hold a password: not told
            raise self._broken("is no JSON") from None
        if not isinstance(value, dict):
            raise self._broken("is no JSON object")
        return cast("JSONTable", value)

    def _login(self, key: str, value: object) -> Login | None:
        """What an entry of ``auths`` holds; None for an empty one, as programs leave it."""
        if not isinstance(value, dict):
            raise self._broken(f"has no object at auths, {key!r}")
        entry = cast("JSONTable", value)
        texts = {
            name: self._text(entry, name, key)
            for name in ("auth", "username", "password", "identitytoken")
        }
        if texts["auth"]:
            username, password = self._pair(texts["auth"], key)
        else:
            username, password = texts["username"], texts["password"]
        if not (username and password) and not texts["identitytoken"]:
            return None
        return Login(username, password, texts["identitytoken"] or None)

    def _text(self, entry: "JSONTable", name: str, key: str) -> str:
        value = entry.get(name, "")
        if not isinstance(value, str):
            raise self._broken(f"has no text at auths, {key!r}, {name}")
        return value

    def _pair(self, text: str, key: str) -> tuple[str, str]:
        try:
            username, colon, password = (
                base64.b64decode(text, validate=True).decode().partition(":")
            )
        except ValueError:
            colon = username = password = ""
        if not colon:
            raise self._broken(f"has an auth at auths, {key!r}, that is no base64 of NAME:PASSWORD")
        return username, password.strip("\0")  # as the docker client does

    def _refuse_programs(self, config: "JSONTable", asked: _Key) -> None:
        helper = _closest(_table(config, "credHelpers", self.path), asked)
        names = [
            ("credHelpers", helper[1] if helper else None),
            ("credsStore", config.get("credsStore")),
        ]
        for name, program in names:
            if program:
                raise self._broken(
                    f"leaves the login for {asked.host} to a program ({name}), and this service "
                    "starts none; write a file that holds the login itself, under auths"
                )

    def _broken(self, what: str) -> SettingsError:
        return SettingsError(f"The docker config {self.path} {what}.")


def config_of(environ: Mapping[str, str]) -> Path | None:
    """The file in the folder that ``DOCKER_CONFIG`` names, as for the tools of containers."""
    folder = environ.get("DOCKER_CONFIG")
    return Path(folder).absolute() / "config.json" if folder else None


JSONTable = Mapping[str, object]


def _table(config: JSONTable, name: str, path: Path) -> JSONTable:
    value = config.get(name, {})
    if not isinstance(value, dict):
        raise SettingsError(f"The docker config {path} has no object at {name}.")
    return cast("JSONTable", value)


def _closest(table: JSONTable, asked: _Key) -> tuple[str, object] | None:
    """The entry whose key fits best, with that key."""
    fitting = [(key, value) for key, value in table.items() if _Key.of(key).fits(asked)]
    return max(fitting, key=lambda entry: _Key.of(entry[0]).rank, default=None)
