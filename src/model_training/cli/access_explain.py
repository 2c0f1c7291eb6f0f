"""``access explain``: what a decision point is asked, and a policy to start from.

It asks nobody. Requests are shown as in ``.http`` files: some editors send these, and a person
reads them without being told how.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from model_training.cli.talk import Talk, json_option

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from model_training.access.access_file import DecisionsTable
    from model_training.access.starting_policies import PolicyFile
    from model_training.access.worked_requests import WorkedRequest

ENGINES: Final = ("roles", "authzen", "opa", "aissemble", "kubernetes")
_FIRST: Final = ""  # --policy without a name


@dataclass(frozen=True, slots=True)
class _Explained:
    """An engine: what it is sent, and what it may decide by."""

    engine: str
    questions: "Sequence[str]"
    requests: "Sequence[WorkedRequest]"
    policies: "Sequence[PolicyFile]"


@click.command("explain")
@click.option("--engine", type=click.Choice(ENGINES), help="This one alone.")
@click.option(
    "--access",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="That of this access file, with its address and its words.",
)
@click.option(
    "--policy",
    is_flag=False,
    flag_value=_FIRST,
    metavar="[NAME]",
    help="Print a policy to start from, and nothing else; NAME such as opa/data.json.",
)
@json_option
@click.pass_obj
def explain_command(
    talk: Talk, engine: str | None, access: Path | None, policy: str | None
) -> None:
    """Show what a decision point is asked, by examples, and a policy to start from.

    One for each engine, or for the one that is chosen. Nobody is asked by it.
    """
    talk.aim = "explain what is asked"
    if engine is not None and access is not None:
        raise click.UsageError("give --engine or --access, not both: the file names its engine")
    try:
        explained = [_explained(table) for table in _tables(engine, access)]
    except ModuleNotFoundError as error:
        msg = f"{error.name} is missing; install: pip install 'model-training-api[server,access]'"
        raise click.ClickException(msg) from error
    if policy is not None:
        _give_policy(talk, policy, [file for each in explained for file in each.policies])
    elif talk.json:
        talk.give_json([asdict(each) for each in explained])
    else:
        for each in explained:
            _show(talk, each)


def _tables(engine: str | None, access: Path | None) -> "list[DecisionsTable]":
    from model_training.access.access_file import read_access_file
    from model_training.access.worked_requests import EXAMPLES

    if access is not None:
        return [read_access_file(access).decisions]
    return [table for name, table in EXAMPLES.items() if engine in (None, name)]


def _explained(table: "DecisionsTable") -> _Explained:
    from model_training.access.starting_policies import starting_policies
    from model_training.access.worked_requests import WANTED, asker_of, worked_requests

    who = asker_of(table).id
    return _Explained(
        table.engine,
        [wanted.words(who) for wanted in WANTED],
        worked_requests(table),
        starting_policies(table.engine),
    )


def _give_policy(talk: Talk, name: str, files: "Sequence[PolicyFile]") -> None:
    """One file on stdout; which others belong to it on stderr."""
    folders = {file.name.partition("/")[0] for file in files}
    chosen = [file for file in files if file.name == name]
    if name == _FIRST and len(folders) == 1:
        chosen = [files[0]]
    if not chosen:
        known = ", ".join(file.name for file in files) or "there is none for this engine"
        raise click.BadParameter(f"say which; {known}", param_hint="--policy")
    [file] = chosen
    click.echo(file.text, nl=False)
    folder = file.name.partition("/")[0]
    others = [each.name for each in files if each.name.startswith(f"{folder}/") and each != file]
    if others:
        talk.say(f"{file.name} is used together with {', '.join(others)}")


def _show(talk: Talk, each: _Explained) -> None:
    for line in _page(each):
        talk.data(line)


def _page(each: _Explained) -> "Iterator[str]":
    yield f"##### engine {each.engine}"
    yield ""
    if not each.requests:
        yield "# This process decides, and sends nothing. What it decides about:"
        yield from (f"# {question}" for question in each.questions)
        yield ""
    for request in each.requests:
        yield f"### {request.asks}"
        yield f"{request.method} {request.url}"
        yield from (f"{name}: {value}" for name, value in request.headers.items())
        yield ""
        if request.body:
            yield request.body
            yield ""
    for file in each.policies:
        yield f"### a policy to start from: {file.name}"
        yield from file.text.splitlines()
        yield ""
