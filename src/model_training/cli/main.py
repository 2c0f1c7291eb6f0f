"""The command ``model-training``.

Its start decides how it feels at a prompt and in completion, so a command's module is imported
when that command runs, and the table below holds the one line that ``--help`` shows. Click is
the only library that is imported here.
"""

import importlib
import sys
from typing import Final

import click

from model_training.cli import exits
from model_training.cli.reports import report
from model_training.cli.talk import Talk
from model_training.errors import ModelTrainingError

_COMMANDS: Final = {
    "demo": ("demo", "Train the bundled pipeline `digits` from start to end."),
    "serve": ("serve", "Run the service."),
    "run": ("submit", "Start a training job, show its log, give its exit code."),
    "create": ("submit", "Start a training job and print its name."),
    "list": ("jobs", "List training jobs, newest first."),
    "status": ("jobs", "Show how a job stands, and why."),
    "logs": ("logs", "Print or follow what a job prints."),
    "outputs": ("outputs", "List or fetch what a job keeps."),
    "wait": ("jobs", "Wait until a job has ended."),
    "stop": ("jobs", "Stop a job; its record, log and outputs stay."),
    "delete": ("jobs", "Stop a job and remove it with its log and outputs."),
    "pipeline": ("pipelines", "List, show, add and remove pipelines."),
    "login": ("login", "Log in at the OpenID provider of the server."),
    "logout": ("login", "Forget the login at the server, and end it."),
    "access": ("access", "API keys, and what a decision point is asked."),
    "doctor": ("doctor", "Check this installation, the server and the cluster."),
    "version": ("version", "Print the version."),
}


class LazyGroup(click.Group):
    """Imports a command's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table: as one would use them."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"model_training.cli.{_COMMANDS[cmd_name][0]}")
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)  # noqa: S101 a fault of ours, not of a user
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, without importing what it names."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=exits.HELP
    + """
\b
The server is found by MODEL_TRAINING_URL, or else by what `model-training serve` wrote into the
data folder (MODEL_TRAINING_DATA). The token for it is that of the first of --token-file,
MODEL_TRAINING_TOKEN, MODEL_TRAINING_TOKEN_FILE, the token_command in client.toml, the login of
`model-training login`, and the data folder's for a server on this machine.
Completion: eval "$(_MODEL_TRAINING_COMPLETE=bash_source model-training)"; also zsh, fish.
""",
)
@click.option(
    "--token-file",
    metavar="FILE",
    help="Show the server the token in this file, which is read again when it changes.",
)
@click.pass_obj
def cli(talk: Talk, token_file: str | None) -> None:
    """Train pipeline P with these parameters: one training job, its state, log and outputs."""
    talk.token_file = token_file


def main() -> None:
    """Run the command and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command; its exit code."""
    talk = Talk()
    try:
        result: object = cli.main(arguments, "model-training", standalone_mode=False, obj=talk)
    except ModelTrainingError as error:
        report(talk, error)
        return exits.of_error(error)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        talk.say("interrupted")
        return exits.INTERRUPTED
    return result if isinstance(result, int) else exits.OK
