"""The client's own file, ``client.toml``: for each server, how to get credentials for it.

A table a server, so that what gets a token for one is never asked for another:

    [servers."https://training.example.org"]
    token_command = ["vault", "read", "-field=token", "identity/oidc/token/training"]

It is not the ``config.toml`` beside it, which says how to run a service and belongs to whoever
does. There is no token in it: files like this one end up in repositories.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, cast

from model_training.client.origins import checked_server, server_key
from model_training.client.user_folders import config_folder
from model_training.errors import SettingsError

EXAMPLE: Final = "https://training.example.org"
CLIENT_FILE_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTable:
    """What the file says of one server."""

    token_command: tuple[str, ...] = ()
    """a program and its arguments, run without a shell; what it prints is the token"""
    issuer: str | None = None
    """the OpenID provider that ``login`` asks; this and the following are its options"""
    client_id: str | None = None
    scope: str | None = None
    audience: str | None = None


def client_file() -> Path:
    """Where it is, or would be."""
    return config_folder() / "client.toml"


def server_table(url: str) -> ServerTable:
    """What the file says of the server at this address; nothing where there is no file.

    Raises:
        SettingsError: it cannot be read, or has a mistake anywhere.
    """
    path = client_file()
    try:
        with path.open("rb") as file:
            body = file.read(CLIENT_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return ServerTable()
    except OSError as error:
        raise SettingsError(f"The file {path} cannot be read: {error.strerror}.") from None
    try:
        return _tables(body).get(server_key(url), ServerTable())
    except ValueError as error:
        raise SettingsError(f"The file {path} cannot be used: {error}.") from None


def _tables(body: bytes) -> dict[str, ServerTable]:
    import tomllib

    if len(body) > CLIENT_FILE_BYTES:
        raise ValueError(f"it is larger than {CLIENT_FILE_BYTES} bytes")
    document = cast("dict[str, object]", tomllib.loads(body.decode()))
    servers = document.pop("servers", {})
    if document:
        raise ValueError(f"it has the unknown key {next(iter(document))!r}; there is only servers")
    if not isinstance(servers, dict):
        msg = f'servers is no table; write [servers."{EXAMPLE}"]'
        raise ValueError(msg)  # noqa: TRY004 as every other mistake in the file
    found: dict[str, ServerTable] = {}
    for url, table in cast("dict[str, object]", servers).items():
        key = server_key(_address(url))
        if key in found:
            raise ValueError(f"it has two tables for {key}")
        found[key] = _table(url, table)
    return found


def _address(url: str) -> str:
    try:
        return checked_server(url, EXAMPLE)
    except SettingsError as error:
        raise ValueError(error.message.rstrip(".")) from None


def _table(url: str, table: object) -> ServerTable:
    known = [field.name for field in fields(ServerTable)]
    if not isinstance(table, dict):
        msg = f'the entry of {url} is no table; write [servers."{url}"]'
        raise ValueError(msg)  # noqa: TRY004 as every other mistake in the file
    values = cast("dict[str, object]", table)
    if strangers := [name for name in values if name not in known]:
        raise ValueError(f"{strangers[0]!r} of {url} is unknown; known are {', '.join(known)}")
    texts = {name: _text(url, values, name) for name in known[1:]}
    return ServerTable(token_command=_argv(url, values.get("token_command")), **texts)


def _text(url: str, values: Mapping[str, object], name: str) -> str | None:
    value = values.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise ValueError(f"{name} of {url} expects a text")
    return value


def _argv(url: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    words = cast("list[object]", value) if isinstance(value, list) else []
    argv = tuple(word for word in words if isinstance(word, str) and "\0" not in word)
    if not argv or len(argv) != len(words) or not argv[0]:
        raise ValueError(
            f"token_command of {url} expects a program and its arguments as a list of texts, "
            'such as ["vault", "read", "-field=token", "PATH"]; it is run without a shell'
        )
    return argv
