"""``list``, ``status``, ``wait``, ``stop`` and ``delete``."""

import click

from model_training.cli import exits
from model_training.cli.talk import Talk, json_option
from model_training.jobs import JobState, TrainingJob, canonical_json, format_time

_STATES = [*(str(state) for state in JobState), "active", "completed"]


@click.command
@click.option("--pipeline", metavar="P", help="Only jobs of exactly this pipeline.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(_STATES),
    help="Only jobs in this state or group (active, completed, failed); may be repeated.",
)
@click.option("--owner", help="Only jobs of this owner.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many; else all.")
@json_option
@click.pass_obj
def list_command(
    talk: Talk,
    pipeline: str | None,
    states: tuple[str, ...],
    owner: str | None,
    limit: int | None,
) -> None:
    """List training jobs, newest first.

    In a pipe: name, state, reason, pipeline, created, seconds, exit code, separated by tabs.
    """
    talk.aim = "list jobs"
    filters = {"pipeline": pipeline, "state": states or None, "owner": owner}
    given = {name: value for name, value in filters.items() if value is not None}
    with talk.client() as client:
        jobs = client.list(limit=limit, **given)  # pyright: ignore[reportArgumentType]
        if talk.json:
            talk.give_json([job.to_json() for job in jobs])
            return
        headings = ("NAME", "STATE", "REASON", "PIPELINE", "CREATED", "SECONDS", "EXIT")
        talk.rows(headings, (_row(job) for job in jobs))


def _row(job: TrainingJob) -> tuple[object, ...]:
    created = format_time(job.created_at)[:19] + "Z"
    state = str(job.state)
    return job.name, state, job.reason, job.pipeline, created, job.duration_s, job.exit_code


@click.command
@click.argument("name")
@json_option
@click.pass_obj
def status_command(talk: Talk, name: str) -> None:
    """Show how the job NAME stands, and why."""
    talk.aim = f"show the job {name}"
    with talk.client() as client:
        show_job(talk, client.status(name))


def show_job(talk: Talk, job: TrainingJob) -> None:
    """All that is known of a job, a field a line."""
    plain = job.to_json()
    if talk.json:
        talk.give_json(plain)
        return
    known = {key: value for key, value in plain.items() if value not in (None, [], {})}
    rows = [(k, v if isinstance(v, str) else canonical_json(v)) for k, v in known.items()]
    talk.rows(("FIELD", "VALUE"), rows)


@click.command
@click.argument("name")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer.")
@json_option
@click.pass_context
def wait_command(context: click.Context, name: str, timeout: float | None) -> int:
    """Wait until the job NAME has ended; print its state, give its exit code."""
    talk = context.ensure_object(Talk)
    talk.aim = f"wait for the job {name}"
    try:
        with talk.client() as client:
            job = client.wait(name, timeout=timeout)
    except KeyboardInterrupt:
        say_how_to_return(talk, name)
        return exits.INTERRUPTED
    if talk.json:
        talk.give_json(job.to_json())
    else:
        talk.data(str(job.state))
        if job.state is not JobState.SUCCEEDED and job.message:
            talk.say(job.message)
    return exits.of_job(job.state, job.exit_code)


def say_how_to_return(talk: Talk, name: str) -> None:
    """After Ctrl+C: the job is not ours to end."""
    talk.say(
        f"\nThe job goes on.\n"
        f"  come back: model-training logs -f {name}\n"
        f"  stop it:   model-training stop {name}"
    )


@click.command
@click.argument("name")
@json_option
@click.pass_obj
def stop_command(talk: Talk, name: str) -> None:
    """Ask the job NAME to end: SIGTERM, its grace, SIGKILL. Record, log and outputs stay."""
    talk.aim = f"stop the job {name}"
    with talk.client() as client:
        job = client.stop(name)
    if talk.json:
        talk.give_json(job.to_json())
        return
    talk.data(str(job.state))
    if not job.state.is_terminal:
        talk.say(f"wait for its end: model-training wait {name}")


@click.command
@click.argument("name")
@click.option(
    "--wait",
    type=click.FloatRange(min=0, max=300),
    metavar="SECONDS",
    help="Wait up to this long until nothing of it is left.",
)
@json_option
@click.pass_obj
def delete_command(talk: Talk, name: str, wait: float | None) -> None:
    """Stop the job NAME and remove it, its log and its outputs.

    --json prints the job as it stands, or null once it is gone (HTTP answers 204 with nothing).
    """
    talk.aim = f"delete the job {name}"
    with talk.client() as client:
        job = client.delete(name, wait=wait)
    if talk.json:
        talk.give_json(job and job.to_json())
    else:
        talk.data(str(job.state) if job else "deleted")
