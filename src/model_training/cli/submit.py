"""``create`` and ``run``."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from model_training.cli.logs import follow_log
from model_training.cli.parameters import read_file, split_assignments, typed
from model_training.cli.talk import Talk, json_option
from model_training.jobs import JSONObject

if TYPE_CHECKING:
    from model_training.client.clients import Client
    from model_training.client.results import JobOptions

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("pipeline"),
    click.option(
        "-p",
        "assignments",
        multiple=True,
        metavar="NAME=VALUE",
        help="A training parameter, typed by the pipeline's declaration; may be repeated.",
    ),
    click.option(
        "--params",
        metavar="FILE",
        help="Training parameters from a .json, .toml or .yaml file; - is JSON on stdin. "
        "-p goes over it.",
    ),
    click.option("--timeout", metavar="TIME", help="Stop it after this long: 90, 15m, 2h."),
    click.option("--grace", metavar="TIME", help="From SIGTERM to SIGKILL when it is stopped."),
    click.option("--cpu", metavar="N", help="CPUs: 2, 0.5, 500m."),
    click.option("--memory", metavar="SIZE", help="Memory: 512Mi, 4Gi."),
    click.option("--gpu", type=click.IntRange(min=0), metavar="N", help="GPUs."),
    click.option(
        "--idempotency-key",
        metavar="KEY",
        help="The same key and request is the same job, however often it is sent.",
    ),
)


def _submit_options(command: F) -> F:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _request(
    client: "Client", pipeline: str, chosen: dict[str, Any]
) -> tuple[JSONObject, "JobOptions"]:
    """Parameters and job options out of what the command line holds."""
    file, assignments = chosen.pop("params"), split_assignments(chosen.pop("assignments"))
    parameters = read_file(file) if file else {}
    if assignments:
        parameters |= typed(assignments, client.pipeline(pipeline).parameters)
    options = {name: value for name, value in chosen.items() if value is not None}
    return parameters, options  # pyright: ignore[reportReturnType] - names are Click's options


@click.command
@_submit_options
@click.option("--dry-run", is_flag=True, help="Show what would be started; start nothing.")
@json_option
@click.pass_obj
def create_command(talk: Talk, pipeline: str, *, dry_run: bool, **chosen: Any) -> None:  # noqa: ANN401 Click's values
    """Start a training job of PIPELINE and print its name, and nothing else, on stdout."""
    talk.aim = f"create a job of {pipeline}"
    with talk.client() as client:
        parameters, options = _request(client, pipeline, chosen)
        if dry_run:
            talk.give_json(client.plan(pipeline, parameters, **options))
            return
        job = client.create(pipeline, parameters, **options).record
    if talk.json:
        talk.give_json(job.to_json())
    else:
        talk.data(job.name)
        talk.say(
            f"follow it: model-training logs -f {job.name}\n"
            f"see it:    model-training status {job.name}\n"
            f"stop it:   model-training stop {job.name}"
        )
    for warning in job.warnings:
        talk.say(f"warning: {warning}")


@click.command
@_submit_options
@json_option
@click.pass_obj
def run_command(talk: Talk, pipeline: str, **chosen: Any) -> int:  # noqa: ANN401 Click's values
    """Start a training job of PIPELINE, show its log, and give its exit code.

    Ctrl+C leaves the job running. With --json the log goes unshown and the job, as it ended, is
    printed.
    """
    talk.aim = f"run {pipeline}"
    with talk.client() as client:
        parameters, options = _request(client, pipeline, chosen)
        job = client.create(pipeline, parameters, **options)
        talk.say(f"job: {job.name}")
        for warning in job.record.warnings:
            talk.say(f"warning: {warning}")
        talk.aim = f"follow {job.name}"
        if talk.json:
            return _run_as_json(talk, client, job.name)
        code = follow_log(talk, client, job.name, {})
    if code == 0:
        talk.say(f"what it keeps: model-training outputs {job.name}")
    return code


def _run_as_json(talk: Talk, client: "Client", name: str) -> int:
    from model_training.cli import exits
    from model_training.cli.jobs import say_how_to_return

    try:
        job = client.wait(name)
    except KeyboardInterrupt:
        say_how_to_return(talk, name)
        return exits.INTERRUPTED
    talk.give_json(job.to_json())
    return exits.of_job(job.state, job.exit_code)
