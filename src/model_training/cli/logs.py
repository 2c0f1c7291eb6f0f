"""``logs``, and following for ``run`` and ``demo``.

stdout gets the job's bytes and nothing else; what happens to job and connection is said on
stderr. Success is reported only when the server has said how the job ended.
"""

import json
import sys
from typing import TYPE_CHECKING

import click

from model_training.cli import exits
from model_training.cli.jobs import say_how_to_return
from model_training.cli.talk import Talk, json_option
from model_training.cli.terminal import TerminalFilter
from model_training.client.events import (
    Ended,
    Gap,
    LogBytes,
    LogEvent,
    Reconnecting,
    Reset,
    StateChanged,
    event_to_json,
)
from model_training.jobs import Reason

if TYPE_CHECKING:
    from model_training.client.clients import Client
    from model_training.client.results import LogOptions


class LogPrinter:
    """Puts a log on stdout: as it is in a pipe, harmless on a terminal."""

    def __init__(self, *, raw: bool = False) -> None:
        self._out = sys.stdout.buffer
        self._filter = TerminalFilter() if sys.stdout.isatty() and not raw else None
        self._last = b"\n"

    def write(self, data: bytes) -> None:
        """Show these bytes at once."""
        self._last = data[-1:] or self._last
        self._out.write(self._filter.feed(data) if self._filter else data)
        self._out.flush()

    def end(self) -> None:
        """The log is over. A terminal's next line is not begun behind its last."""
        if self._filter:
            self._out.write(self._filter.end())
            if self._last not in (b"\n", b"\r"):
                self._out.write(b"\n")
        self._out.flush()


class Narrator:
    """Says on stderr what happens to a job that is followed."""

    def __init__(self, talk: Talk, name: str) -> None:
        self._talk = talk
        self._name = name
        self._told: StateChanged | None = None
        self._lost = False
        self._waited = False

    def tell(self, event: LogEvent) -> None:
        """Say what is new in this event, if anything is."""
        self._tell_connection(event)
        match event:
            case StateChanged():
                self._tell_state(event)
            case Gap(start=start, end=end, reason=why):
                self._talk.say(f"[{end - start} bytes of the log are missing here: {why}]")
            case Reset(reason=why):
                self._talk.say(f"[the log was collected anew and begins again: {why}]")
            case Ended():
                self._tell_end(event)
            case LogBytes() | Reconnecting():
                pass

    def _tell_connection(self, event: LogEvent) -> None:
        lost = isinstance(event, Reconnecting)
        if lost and not self._lost:
            self._talk.say(f"connection lost ({event.why}); the job goes on; trying again")
        if self._lost and not lost:
            self._talk.say("connected again")
        self._lost = lost

    def _tell_state(self, event: StateChanged) -> None:
        if event == self._told:
            return  # each connection begins by telling the state
        self._told = event
        why = event.message or event.reason
        if event.reason == Reason.STARTING:
            return  # every job passes through this, within a moment
        if event.state == "pending":
            self._waited = True
            self._talk.say(f"waiting: {why}" if why else "waiting")
        elif event.state == "running" and self._waited:
            self._talk.say("running")
        elif event.state in ("stopping", "deleting"):
            self._talk.say(f"{event.state}: {why}" if why else event.state)

    def _tell_end(self, event: Ended) -> None:
        code = f"exit code {event.exit_code}" if event.exit_code else ""
        details = ", ".join(part for part in (event.reason, event.message or code) if part)
        said = f" ({details})" if details and event.state != "succeeded" else ""
        self._talk.say(f"{self._name} {event.state}{said}")


def follow_log(
    talk: Talk, client: "Client", name: str, options: "LogOptions", *, raw: bool = False
) -> int:
    """Show a job's log until it has ended; the exit code for that end."""
    printer, narrator = LogPrinter(raw=raw), Narrator(talk, name)
    try:
        for event in client.events(name, **options):
            if isinstance(event, LogBytes):
                printer.write(event.data)
            if isinstance(event, Ended):
                printer.end()
                narrator.tell(event)
                return exits.of_job(event.state, event.exit_code)
            narrator.tell(event)
    except KeyboardInterrupt:
        printer.end()
        say_how_to_return(talk, name)
        return exits.INTERRUPTED
    return exits.ERROR  # not reached: the client's events end with "end" or raise


def _follow_as_json(talk: Talk, client: "Client", name: str, options: "LogOptions") -> int:
    code = exits.ERROR
    try:
        for event in client.events(name, **options):
            click.echo(json.dumps(event_to_json(event), ensure_ascii=False))
            if isinstance(event, Ended):
                code = exits.of_job(event.state, event.exit_code)
    except KeyboardInterrupt:
        say_how_to_return(talk, name)
        return exits.INTERRUPTED
    return code


def _print_log(talk: Talk, client: "Client", name: str, options: "LogOptions", *, raw: bool) -> int:
    printer, printed = LogPrinter(raw=raw), False
    for piece in client.logs(name, **options):
        printer.write(piece)
        printed = True
    printer.end()
    if not printed:
        job = client.status(name)
        why = f" ({job.message or job.reason})" if job.message or job.reason else ""
        talk.say(f"nothing to show; the job is {job.state}{why}")
    return exits.OK


@click.command
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--tail", type=click.IntRange(0, 1_000_000), metavar="N", help="Its last N lines.")
@click.option("--since", metavar="WHEN", help="From a time (RFC 3339), or 90s, 10m, 2h ago.")
@click.option("--timestamps", is_flag=True, help="Begin each line with when it was printed.")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Of this attempt.")
@click.option("--raw", is_flag=True, help="Let escape sequences act on this terminal.")
@json_option
@click.pass_obj
def logs_command(talk: Talk, name: str, **chosen: object) -> int:
    """Print what the job NAME has printed, byte for byte.

    With -f also what it goes on to print, through restarts of the server, and end with the
    job's exit code. With -f --json: an event a line, as the API streams them.
    """
    talk.aim = f"read the log of {name}"
    follow, raw = chosen.pop("follow"), bool(chosen.pop("raw"))
    if talk.json and not follow:
        raise click.UsageError("a log is no JSON; --json goes with -f, where events are")
    options: LogOptions = {k: v for k, v in chosen.items() if v not in (None, False)}  # pyright: ignore[reportAssignmentType]
    with talk.client() as client:
        if talk.json:
            return _follow_as_json(talk, client, name, options)
        if follow:
            return follow_log(talk, client, name, options, raw=raw)
        return _print_log(talk, client, name, options, raw=raw)
