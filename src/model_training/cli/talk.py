"""How the command speaks: data on stdout, everything said to a person on stderr.

Tables are for a terminal. In a pipe a row is a line and a column a tab, without a heading, so
that ``cut`` and ``while read`` work; for programs there is ``--json``, which equals the HTTP
representation.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from model_training.cli.terminal import inert

if TYPE_CHECKING:
    from model_training.client.address import AddressFinder
    from model_training.client.clients import Client

F = TypeVar("F", bound=Callable[..., Any])

# A person waits at the prompt: long enough for a server that is being restarted, no longer.
PATIENCE_S = 2.0
_C1 = re.compile("[\x7f-\x9f]")
_STATE_STYLES = {
    "pending": "yellow",
    "running": "cyan",
    "stopping": "yellow",
    "deleting": "yellow",
    "succeeded": "green",
    "failed": "red",
    "stopped": "magenta",
}


class Talk:
    """One run of the command.

    ``aim`` says in an error what could not be done; ``token_file`` is what --token-file names.
    """

    def __init__(self) -> None:
        self.json = False
        self.aim = ""
        self.token_file: str | None = None

    @property
    def shows_tables(self) -> bool:
        """Whether stdout is a terminal."""
        return sys.stdout.isatty()

    def data(self, text: str) -> None:
        """One line of data."""
        click.echo(inert(text) if self.shows_tables else text)

    def say(self, text: str) -> None:
        """One or more lines for a person."""
        click.echo("\n".join(inert(line) for line in text.split("\n")), err=True)

    def give_json(self, value: object) -> None:
        """One JSON value as data."""
        text = json.dumps(value, indent=2, ensure_ascii=False)
        # JSON escapes the control characters of ASCII, but not those a terminal also knows.
        click.echo(_C1.sub(lambda match: f"\\u{ord(match[0]):04x}", text))

    def rows(self, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table, or tab-separated lines."""
        if not self.shows_tables:
            for row in rows:
                click.echo("\t".join(inert(_cell(value)) for value in row))
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for position, heading in enumerate(headings):
            # The first column names the thing and must stay whole, to be copied.
            table.add_column(heading, overflow="fold", no_wrap=position == 0)
        for row in rows:
            cells = [inert(_cell(value)) for value in row]
            table.add_row(*(Text(cell, _STATE_STYLES.get(cell, "")) for cell in cells))
        Console(soft_wrap=False).print(table)

    def client(self) -> "Client":
        """A client of the server that the environment or the data folder names."""
        from model_training.client.clients import Client

        return Client(token_file=self.token_file, patience=PATIENCE_S)

    def finder(self) -> "AddressFinder":
        """What finds that server for a client, and what to show it."""
        from model_training.client.address import AddressFinder

        return AddressFinder(token_file=self.token_file)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}"
    return str(value)


def json_option(command: F) -> F:
    """Give a command ``--json``; errors are then problem documents on stderr."""

    def note(context: click.Context, _option: click.Parameter, value: bool) -> None:  # noqa: FBT001 Click's own signature
        context.find_root().ensure_object(Talk).json = value

    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=note,
        help="Print JSON, as the HTTP API answers it.",
    )(command)
