"""``version``."""

import platform

import click

from model_training import __version__
from model_training.cli.talk import Talk, json_option


@click.command
@json_option
@click.pass_obj
def version_command(talk: Talk) -> None:
    """Print the version of this command."""
    if talk.json:
        talk.give_json({"version": __version__, "python": platform.python_version()})
    else:
        talk.data(f"model-training {__version__}")
