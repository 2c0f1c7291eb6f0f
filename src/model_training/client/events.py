"""Server-sent events: from bytes, cut anywhere, to what happened to a job and its log.

``EventParser`` is the parser of the WHATWG standard as far as this API uses it (the ``retry``
field is not). A blank line ends an event; what the stream ended in the middle of is no event.
"""

import base64
import json
from dataclasses import asdict, dataclass
from typing import ClassVar, TypeAlias, cast

from model_training.jobs import JSONObject


@dataclass(frozen=True, slots=True)
class RawEvent:
    """One event as it came."""

    kind: str
    id: str | None
    data: str


class EventParser:
    """Feed it bytes in pieces of any size; the same bytes always give the same events."""

    def __init__(self) -> None:
        self._rest = b""
        self._kind = ""
        self._id: str | None = None
        self._data: list[str] = []
        self._started = False

    def feed(self, chunk: bytes) -> list[RawEvent]:
        """The events that are complete with these bytes."""
        events: list[RawEvent] = []
        for line in self._lines(chunk):
            if line:
                self._field(line.decode("utf-8", "replace"))
            elif event := self._dispatch():
                events.append(event)
        return events

    def _lines(self, chunk: bytes) -> list[bytes]:
        data = self._rest + chunk
        if not self._started:
            if b"\xef\xbb\xbf".startswith(data[:3]) and len(data) < 3:
                self._rest = data  # perhaps the beginning of a byte order mark
                return []
            data = data.removeprefix(b"\xef\xbb\xbf")
            self._started = True
        # A carriage return at the end may be the first half of one line end.
        held = b"\r" if data.endswith(b"\r") else b""
        text = data.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        self._rest = rest + held
        return lines

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value

    def _dispatch(self) -> RawEvent | None:
        kind, data, event_id = self._kind, self._data, self._id
        self._kind, self._data, self._id = "", [], None
        return RawEvent(kind or "message", event_id, "\n".join(data)) if data else None


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The job's state, reason or message is another one, or the following began."""

    kind: ClassVar = "state"
    state: str
    reason: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class LogBytes:
    """The job printed this. ``position`` is where the log stands after it."""

    kind: ClassVar = "log"
    position: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """These bytes of the log are missing. ``start`` and ``end`` are byte offsets."""

    kind: ClassVar = "gap"
    position: str
    start: int
    end: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reset:
    """The log was collected anew; what follows starts at its beginning."""

    kind: ClassVar = "reset"
    position: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The job has ended and its log is complete. State ``deleted``: nothing is left of it."""

    kind: ClassVar = "end"
    state: str
    reason: str | None
    message: str | None
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The connection was lost; the client tries again and goes on where it was."""

    kind: ClassVar = "reconnecting"
    why: str


LogEvent: TypeAlias = StateChanged | LogBytes | Gap | Reset | Ended | Reconnecting


def event_to_json(event: LogEvent) -> JSONObject:
    """One event as JSON: its kind, its id where it has one, its data, as on the wire."""
    plain: JSONObject = {"event": event.kind, **asdict(event)}
    if "position" in plain:
        plain["id"] = plain.pop("position")
    if isinstance(event, LogBytes):
        del plain["data"]
        plain.update(_text_or_base64(event.data))
    if isinstance(event, Gap):
        plain["from"], plain["to"] = plain.pop("start"), plain.pop("end")
    return plain


def _text_or_base64(data: bytes) -> JSONObject:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def log_event(raw: RawEvent, position: str) -> LogEvent | None:
    """The typed event; None for one that this version does not know, and for ``bye``.

    ``position`` stands in where the event carries no id.

    Raises:
        ValueError, KeyError, TypeError: its data is not what the contract says.
    """
    data = cast("JSONObject", json.loads(raw.data))
    at = raw.id or position
    text = cast("dict[str, str]", data)
    match raw.kind:
        case "log":
            whole = text["text"].encode() if "text" in data else base64.b64decode(text["base64"])
            return LogBytes(at, whole)
        case "state":
            return StateChanged(text["state"], text.get("reason"), text.get("message"))
        case "gap":
            numbers = cast("dict[str, int]", data)
            return Gap(at, numbers["from"], numbers["to"], text.get("reason", ""))
        case "reset":
            return Reset(at, text.get("reason", ""))
        case "end":
            code = cast("int | None", data.get("exit_code"))
            return Ended(text["state"], text.get("reason"), text.get("message"), code)
        case _:
            return None
