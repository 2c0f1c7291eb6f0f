"""``pipeline list``, ``show``, ``add`` and ``remove``.

Listing asks the server, which knows all places. Adding and removing write the data folder, so
they work before the first start; a running server sees the change at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from model_training.cli.talk import Talk, json_option
from model_training.folders import DataFolder, default_data_folder
from model_training.jobs import JSONObject, canonical_json

if TYPE_CHECKING:
    from model_training.client.results import PipelineInfo
    from model_training.pipelines.folders import FolderSource


@click.group
def pipeline_command() -> None:
    """List, show, add and remove pipelines."""


@pipeline_command.command("list")
@json_option
@click.pass_obj
def list_command(talk: Talk) -> None:
    """List the pipelines that the server knows, broken ones too.

    In a pipe: name, description or problem, folder or image, separated by tabs.
    """
    talk.aim = "list pipelines"
    with talk.client() as client:
        found = client.pipelines()
    if talk.json:
        talk.give_json([each.to_json() for each in found])
        return
    talk.rows(("NAME", "DESCRIPTION", "FOLDER OR IMAGE"), (_row(each) for each in found))
    for each in found:
        for fault in each.problems:
            talk.say(f"broken: {fault.path}: {fault.message}")


def _row(pipeline: "PipelineInfo") -> tuple[object, ...]:
    broken = f"broken, {len(pipeline.problems)} problem(s)"
    text = broken if pipeline.problems else pipeline.description
    return pipeline.name, text or None, pipeline.folder or pipeline.image


@pipeline_command.command("show")
@click.argument("name")
@json_option
@click.pass_obj
def show_command(talk: Talk, name: str) -> None:
    """Show the pipeline NAME and the parameters that it declares.

    In a pipe: parameter, type, default, bounds, description, separated by tabs.
    """
    talk.aim = f"show the pipeline {name}"
    with talk.client() as client:
        found = client.pipeline(name)
    if talk.json:
        talk.give_json(found.to_json())
        return
    talk.say(f"{found.name}: {found.description or 'no description'}")
    if found.image:
        talk.say(f"image:   {found.image}")
    else:
        talk.say(f"command: {' '.join(found.command)}\nfolder:  {found.folder}")
    for fault in found.problems:
        talk.say(f"broken: {fault.path}: {fault.message}")
    if found.parameters is None:
        talk.say("parameters: any is accepted")
        return
    headings = ("PARAMETER", "TYPE", "DEFAULT", "BOUNDS", "DESCRIPTION")
    talk.rows(headings, (_declared(n, each) for n, each in found.parameters.items()))


def _declared(name: str, plain: JSONObject) -> tuple[object, ...]:
    default = canonical_json(plain["default"]) if "default" in plain else None
    if plain.get("required"):
        default = "required"
    bounds = [f"{word} {plain[key]}" for key, word in _BOUNDS if plain.get(key) is not None]
    return name, plain.get("type"), default, ", ".join(bounds) or None, plain.get("description")


_BOUNDS = (("minimum", "from"), ("maximum", "to"), ("choices", "one of"), ("pattern", "matching"))


@pipeline_command.command("add")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
@click.pass_obj
def add_command(talk: Talk, folder: Path) -> None:
    """Register the pipeline in FOLDER for good."""
    talk.aim = f"add the pipeline in {folder}"
    pipeline = _source().register(folder)
    if talk.json:
        talk.give_json(pipeline.to_json())
        return
    talk.data(pipeline.name)
    for warning in pipeline.warnings:
        talk.say(f"warning: {warning}")
    talk.say(f"train it: model-training run {pipeline.name}")


@pipeline_command.command("remove")
@click.argument("name")
@json_option
@click.pass_obj
def remove_command(talk: Talk, name: str) -> None:
    """Forget the registered pipeline NAME; its folder stays as it is."""
    talk.aim = f"remove the pipeline {name}"
    _source().unregister(name)
    if not talk.json:
        talk.data(name)


def _source() -> "FolderSource":
    from model_training.pipelines.folders import FolderSource

    data = DataFolder(default_data_folder())
    data.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    return FolderSource((), data.pipelines)
