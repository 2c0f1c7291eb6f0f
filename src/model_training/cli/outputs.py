"""``outputs``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from model_training.cli.talk import Talk, json_option
from model_training.errors import OutputNotFound
from model_training.jobs import format_time

if TYPE_CHECKING:
    from model_training.client.results import Output


@click.command
@click.argument("name")
@click.argument("path", required=False)
@click.option(
    "-o",
    "--output",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Fetch into this folder, which is made if it is not there.",
)
@json_option
@click.pass_obj
def outputs_command(talk: Talk, name: str, path: str | None, folder: Path | None) -> None:
    """List what the job NAME keeps, or fetch it.

    \b
      outputs NAME              list
      outputs NAME PATH         fetch one file, or all below a folder, into this folder
      outputs NAME -o DIR       fetch everything
    In a pipe: path, bytes, modified, separated by tabs; when fetching, the files written.
    """  # noqa: D301 Click reads the \b
    talk.aim = f"read the outputs of {name}"
    with talk.client() as client:
        found = client.outputs(name)
        if path is None and folder is None:
            _show(talk, found)
            return
        chosen = [each for each in found if path is None or _is_below(each.path, path)]
        if not chosen:
            msg = f"{name} keeps no {path!r}." if path else f"{name} keeps nothing yet."
            raise OutputNotFound(msg)
        target = folder or Path()
        target.mkdir(parents=True, exist_ok=True)
        for each in chosen:
            written = client.download(name, each.path, target)
            if not talk.json:
                talk.data(str(written))
        if talk.json:
            _show(talk, chosen)


def _is_below(path: str, chosen: str) -> bool:
    chosen = chosen.rstrip("/")
    return path == chosen or path.startswith(chosen + "/")


def _show(talk: Talk, found: "tuple[Output, ...] | list[Output]") -> None:
    if talk.json:
        talk.give_json([each.to_json() for each in found])
        return
    talk.rows(
        ("PATH", "BYTES", "MODIFIED"),
        [(each.path, each.size, format_time(each.modified_at)[:19] + "Z") for each in found],
    )
