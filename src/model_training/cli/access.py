"""``access key create``, ``list`` and ``revoke``, and beside them ``explain``.

They write the file of keys themselves and need no server: a key is made by whoever may write that
file, before the first start as well. A running server sees the change at the next request.
"""

import time
from datetime import UTC, datetime
from pathlib import Path

import click

from model_training.access.actions import Action
from model_training.cli.access_explain import explain_command
from model_training.cli.talk import Talk, json_option
from model_training.folders import DataFolder, default_data_folder

_FILE = click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="F",
    help="The file of keys.  [default: api-keys.json in the data folder]",
)


@click.group
def access_command() -> None:
    """Say who may do what: API keys, and what a decision point is asked."""


access_command.add_command(explain_command)


@access_command.group("key")
def key_group() -> None:
    """Make, list and revoke API keys."""


class _Actions(click.ParamType[frozenset[Action]]):
    name = "actions"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> frozenset[Action]:
        """``create,read`` or ``*``."""
        words = str(value).split(",")
        if words == ["*"]:
            return frozenset(Action)
        try:
            return frozenset(Action(word.strip()) for word in words)
        except ValueError:
            known = ", ".join(Action)
            self.fail(f"{value!r} names an action that is none; they are {known}, or *", param, ctx)


class _Pipelines(click.ParamType[tuple[str, ...]]):
    name = "pipelines"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """``digits,fraud-*``."""
        from model_training.access.patterns import parse_pattern

        try:
            return tuple(parse_pattern(part.strip()) for part in str(value).split(","))
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)


class _Lifetime(click.ParamType[float]):
    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """``90d``."""
        from model_training.access.api_keys import LIFETIME_LIMIT_S
        from model_training.options import parse_duration

        try:
            seconds = parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not 0 < seconds <= LIFETIME_LIMIT_S:
            self.fail(f"a key lives at most {LIFETIME_LIMIT_S / 86_400:.0f} days", param, ctx)
        return seconds


@key_group.command("create")
@click.argument("name")
@_FILE
@click.option("--actions", type=_Actions(), required=True, help="Such as create,read,read_logs.")
@click.option("--pipelines", type=_Pipelines(), required=True, help="Such as 'digits,fraud-*'.")
@click.option("--expires", type=_Lifetime(), default="90d", show_default=True, help="In this time.")
@click.pass_obj
def create_command(
    talk: Talk,
    name: str,
    path: Path | None,
    actions: frozenset[Action],
    pipelines: tuple[str, ...],
    expires: float,
) -> None:
    """Make a key for NAME, who owns the jobs that it starts; it is shown this once.

    It is good for at most these actions on these pipelines, whatever the decision point says of
    its holder. Two keys of one name are one holder: make the new one before the old one ends.
    """
    from model_training.access.api_keys import make_key
    from model_training.access.key_file import NAME_SIGNS

    talk.aim = "make an API key"
    if not name.isprintable() or not 0 < len(name) <= NAME_SIGNS:
        msg = f"expects 1 to {NAME_SIGNS} printable signs"
        raise click.BadParameter(msg, param_hint="NAME")
    key, record = make_key(
        _file(path), name, actions=sorted(actions), pipelines=pipelines, lifetime_s=expires
    )
    talk.say(f"the key {record.id} of {name} ends {_day(record.expires_at)}; it is not shown again")
    talk.data(key)


@key_group.command("list")
@_FILE
@json_option
@click.pass_obj
def list_command(talk: Talk, path: Path | None) -> None:
    """List the keys, without what proves that somebody has them."""
    from model_training.access.api_keys import known_keys

    talk.aim = "list API keys"
    columns = ("id", "name", "state", "ends", "actions", "pipelines")
    rows = [
        (
            record.id,
            record.name,
            _state(record.revoked_at, record.expires_at),
            _day(record.expires_at),
            ",".join(record.actions),
            ",".join(record.pipelines),
        )
        for record in known_keys(_file(path))
    ]
    if talk.json:
        talk.give_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        talk.rows([column.upper() for column in columns], rows)


@key_group.command("revoke")
@click.argument("key_id", metavar="ID")
@_FILE
@click.pass_obj
def revoke_command(talk: Talk, key_id: str, path: Path | None) -> None:
    """End the key ID now."""
    from model_training.access.api_keys import revoke_key

    talk.aim = "revoke an API key"
    record = revoke_key(_file(path), key_id)
    talk.say(f"the key {record.id} of {record.name} is good no more")


def _file(path: Path | None) -> Path:
    return path or DataFolder(default_data_folder()).api_keys


def _state(revoked_at: float | None, expires_at: float) -> str:
    if revoked_at is not None:
        return "revoked"
    return "good" if time.time() < expires_at else "expired"


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
