"""Following a log over any number of connections, without a lost or doubled byte.

A log position names the same bytes for ever, so each connection begins where the last event
with an id ended. Only ``end`` ends the following: a stream that closes without it was cut,
whether politely (``bye``), by a restart of the server or by the network, and is asked for again.
"""

from typing import cast

from model_training.client.events import (
    Ended,
    EventParser,
    LogEvent,
    RawEvent,
    Reconnecting,
    log_event,
)
from model_training.client.exchange import (
    Answer,
    Close,
    Disconnected,
    Emit,
    Open,
    Operation,
    Pause,
    Read,
    Request,
)
from model_training.client.problems import error_of
from model_training.client.requests import log_request
from model_training.client.results import LogOptions
from model_training.client.retries import BUSY, LASTING_PATIENCE_S, Retries
from model_training.errors import ModelTrainingError, ServerUnreachable


class LogFollower:
    """What is known of the log so far; which events to hand on, and what to ask for next."""

    def __init__(self, name: str, options: LogOptions) -> None:
        self._name = name
        self._options = options
        self._position: str | None = None
        self.has_begun = False
        self.ended = False

    def request(self) -> Request:
        """Ask for everything that did not come yet."""
        return log_request(self._name, self._options, follow=True, position=self._position)

    def begin(self, answer: Answer) -> None:
        """A stream began.

        Where it begins is a position too: with ``tail`` or ``since``, a connection that is lost
        before the first byte must not choose anew what they mean.
        """
        self.has_begun = True
        self._position = self._position or answer.headers.get("model-training-position")

    def receive(self, raw: RawEvent) -> LogEvent | None:
        """Take one event; gives what is to be handed on.

        Raises:
            ModelTrainingError: the event is not what the contract says.
        """
        try:
            event = log_event(raw, self._position or "")
        except (ValueError, KeyError, TypeError) as error:
            msg = f"The server sent an event {raw.kind!r} that cannot be read: {error}"
            raise ModelTrainingError(msg) from error
        if raw.id:
            self._position = raw.id
        self.ended = isinstance(event, Ended)
        return event


def follow(name: str, options: LogOptions, patience_s: float) -> Operation[None]:
    """Emit every event of the log until the job has ended.

    ``patience_s`` is for the first answer; after it ``LASTING_PATIENCE_S`` holds.
    """
    follower, retries = LogFollower(name, options), Retries(patience_s)
    while True:
        busy: Answer | None = None
        try:
            answer = cast("Answer", (yield Open(follower.request())))
            if answer.status in BUSY:
                busy = answer
            elif answer.status >= 300:
                raise error_of(answer, follower.request())
            else:
                if not follower.has_begun:
                    retries = Retries(LASTING_PATIENCE_S)
                yield from _one_connection(follower, answer, retries)
                if follower.ended:
                    return
            why = f"the server answered {answer.status}" if busy else "the server closed the stream"
        except Disconnected as cut:
            why = cut.why
        delay = retries.delay_after_busy(busy) if busy else retries.delay_after_cut()
        if delay is None:
            raise _given_up(why, busy, follower.request())
        yield Close()
        yield Emit(Reconnecting(why))
        yield Pause(delay)


def _given_up(why: str, busy: Answer | None, request: Request) -> ModelTrainingError:
    if busy:
        return error_of(busy, request)
    return ServerUnreachable(f"The log cannot be followed to its end: {why}")


def _one_connection(follower: LogFollower, answer: Answer, retries: Retries) -> Operation[None]:
    """Emit the events of one connection, until it ends or the log does."""
    follower.begin(answer)
    parser = EventParser()
    while chunk := cast("bytes", (yield Read())):
        for raw in parser.feed(chunk):
            event = follower.receive(raw)
            retries.succeeded(progress=raw.id is not None)
            if event is not None:
                yield Emit(event)
            if follower.ended:
                return
