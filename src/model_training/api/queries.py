"""What a request asks for, read strictly into frozen types.

A misspelt option that is passed over is a job with other limits than its owner believes, so
every option is known or a fault, given once (but for those that repeat), and every fault of a
request is named in one answer. Parsers raise ValueError in words for people; ``Query`` turns
each into a Fault with its path.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar
from urllib.parse import parse_qsl

from model_training.errors import Fault, InvalidRequest, MalformedRequest, RangeNotSatisfiable
from model_training.jobs import JobState
from model_training.ledger.ledger import JobFilter
from model_training.logs.positions import Position
from model_training.names import nearest, parse_pipeline
from model_training.options import OPTION_NAMES, JobOptions, parse_duration, parse_options
from model_training.reading import LogSelection
from model_training.strict_json import shortened

T = TypeVar("T")

QUERY_FIELDS: Final = 100  # more is no request of a person or a client of ours
PAGE_LIMIT: Final = 1000  # jobs
TAIL_LIMIT: Final = 1_000_000  # lines
ATTEMPT_LIMIT: Final = 1_000_000
WAIT_LIMIT_S: Final = 300.0
KEY_LIMIT: Final = 255  # characters of an Idempotency-Key

_WHOLE = re.compile(r"[0-9]{1,9}")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_RANGE = re.compile(r"bytes=(?:([0-9]{1,40})-([0-9]{1,40})?|-([0-9]{1,40}))", re.IGNORECASE)
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_STATES: Final = {
    "active": (JobState.PENDING, JobState.RUNNING, JobState.STOPPING, JobState.DELETING),
    "completed": (JobState.SUCCEEDED,),
    "failed": (JobState.FAILED, JobState.STOPPED),
    "pending": (JobState.PENDING,),
    "running": (JobState.RUNNING,),
    "stopping": (JobState.STOPPING,),
    "deleting": (JobState.DELETING,),
    "succeeded": (JobState.SUCCEEDED,),
    "stopped": (JobState.STOPPED,),
}


class Query:
    """The options of one request. Take each by name; ``close`` faults those not taken."""

    def __init__(self, raw: bytes) -> None:
        self.faults: list[Fault] = []
        self._known: list[str] = []
        self._values: dict[str, list[str]] = {}
        for name, value in _pairs(raw):
            self._values.setdefault(name, []).append(value)

    def one(self, name: str, parse: Callable[[str], T]) -> T | None:
        """The option's value, or None where it is not given or has a fault."""
        self._known.append(name)
        values = self._values.pop(name, [])
        if len(values) > 1:
            self.faults.append(Fault(f"query.{name}", "is given more than once"))
        return self._read(name, values[0], parse) if len(values) == 1 else None

    def many(self, name: str, parse: Callable[[str], T]) -> list[T]:
        """The values of an option that may be repeated."""
        self._known.append(name)
        read = [self._read(name, value, parse) for value in self._values.pop(name, [])]
        return [value for value in read if value is not None]

    def texts(self, names: Iterable[str]) -> dict[str, str]:
        """Those of the named options that are given, unread."""
        texts = {name: self.one(name, str) for name in names}
        return {name: text for name, text in texts.items() if text is not None}

    def fault(self, path: str, message: str) -> None:
        """Note a fault that parsing one option does not show."""
        self.faults.append(Fault(path, message))

    def close(self) -> tuple[Fault, ...]:
        """All faults, unknown options included."""
        for name in self._values:
            message = "there is no such option here"
            if near := nearest(name, self._known):
                message += f"; did you mean {near[0]}?"
            self.faults.append(Fault(f"query.{shortened(name)[1:-1]}", message))
        return tuple(self.faults)

    def require(self) -> None:
        """Pass if there is no fault.

        Raises:
            InvalidRequest: with all of them.
        """
        if faults := self.close():
            raise InvalidRequest(*faults)

    def _read(self, name: str, text: str, parse: Callable[[str], T]) -> T | None:
        try:
            return parse(text)
        except ValueError as error:
            self.faults.append(Fault(f"query.{name}", str(error)))
            return None


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    try:
        text = raw.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS)
    except UnicodeDecodeError:
        raise MalformedRequest("The query is not percent-encoded UTF-8.") from None
    except ValueError:
        raise MalformedRequest(f"The query has more than {QUERY_FIELDS} options.") from None


# Parsers of single options


def parse_whole(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers from ``low`` to ``high``, in ASCII digits."""

    def parse(text: str) -> int:
        if not _WHOLE.fullmatch(text) or not low <= int(text) <= high:
            raise ValueError(f"expects a whole number from {low} to {high}, got {shortened(text)}")
        return int(text)

    return parse


def parse_flag(text: str) -> bool:
    """``true`` or ``false``."""
    if text not in {"true", "false"}:
        raise ValueError(f"expects true or false, got {shortened(text)}")
    return text == "true"


def parse_moment(text: str) -> datetime:
    """An RFC 3339 time, in UTC."""
    if not _TIME.fullmatch(text):
        raise ValueError(
            f"expects a time such as 2026-11-24T09:30:00Z (write + as %2B), got {shortened(text)}"
        )
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"there is no such time as {shortened(text)}") from None


def parse_since(text: str) -> datetime:
    """An RFC 3339 time, or a duration back from now such as ``10m``."""
    if "T" in text.upper() or "-" in text:
        return parse_moment(text)
    try:
        back = parse_duration(text)
    except ValueError:
        raise ValueError(
            "expects a time such as 2026-11-24T09:30:00Z or one back from now such as 10m, "
            f"got {shortened(text)}"
        ) from None
    try:
        return datetime.now(UTC) - timedelta(seconds=back)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)  # further back than there is time: everything


def parse_wait(text: str) -> float:
    """Seconds, from 0 to 300."""
    seconds = parse_duration(text)
    if seconds > WAIT_LIMIT_S:
        raise ValueError(f"expects a time from 0s to {WAIT_LIMIT_S:.0f}s, got {shortened(text)}")
    return seconds


def parse_states(text: str) -> tuple[JobState, ...]:
    """The states of a group, or one state."""
    if text not in _STATES:
        raise ValueError(f"expects one of {', '.join(_STATES)}, got {shortened(text)}")
    return _STATES[text]


def parse_text(text: str) -> str:
    """Any text that is not empty and has no NUL."""
    if not text or "\0" in text:
        raise ValueError("expects a text that is not empty, without NUL")
    return text


def read_pipeline_option(query: Query) -> str | None:
    """``pipeline``, or its older name ``pipeline_step``; not both."""
    name = query.one("pipeline", parse_pipeline)
    alias = query.one("pipeline_step", parse_pipeline)
    if name is not None and alias is not None:
        query.fault("query.pipeline_step", "is another name of pipeline; give one of the two")
    return name if name is not None else alias


# Ranges


@dataclass(frozen=True, slots=True)
class ByteRange:
    """One range of bytes as asked for: ``first`` to ``last`` (included), or the ``last`` ones."""

    first: int | None
    last: int | None

    def within(self, size: int) -> tuple[int, int]:
        """Start and end (not included) in something of ``size`` bytes.

        Raises:
            RangeNotSatisfiable: no byte of it is there.
        """
        if self.first is None:
            start, end = size - min(self.last or 0, size), size
        else:
            start, end = self.first, size if self.last is None else min(self.last + 1, size)
        if start >= end:
            raise RangeNotSatisfiable(size)
        return start, end


def parse_range(headers: Mapping[str, str]) -> ByteRange | None:
    """The one range that is asked for; None for none, and for what RFC 9110 lets us pass over.

    That is: several ranges, other units, anything unreadable, and a range that is bound to a
    validator (If-Range), because nothing here has one.
    """
    match = _RANGE.fullmatch(headers.get("range", "").strip())
    if match is None or "if-range" in headers:
        return None
    if match[3] is not None:
        return ByteRange(None, int(match[3]))
    first, last = int(match[1]), int(match[2]) if match[2] else None
    return None if last is not None and last < first else ByteRange(first, last)


# Whole requests


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """GET /training-jobs."""

    job_filter: JobFilter
    limit: int | None
    """None: all jobs, streamed"""
    cursor: str | None


def read_list_query(raw: bytes) -> ListQuery:
    """Read the options of a list.

    Raises:
        InvalidRequest: with every fault; as in all functions here.
    """
    query = Query(raw)
    states = query.many("state", parse_states)
    job_filter = JobFilter(
        pipeline=read_pipeline_option(query),
        states=frozenset(state for group in states for state in group),
        owner=query.one("owner", parse_text),
        created_after=query.one("created_after", parse_moment),
        created_before=query.one("created_before", parse_moment),
    )
    limit = query.one("limit", parse_whole(1, PAGE_LIMIT))
    cursor = query.one("cursor", parse_text)
    query.require()
    # A cursor without a limit goes on to the end of the list in the largest pages.
    if cursor is not None and limit is None:
        limit = PAGE_LIMIT
    return ListQuery(job_filter=job_filter, limit=limit, cursor=cursor)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitQuery:
    """POST /training-jobs: all but the body. ``pipeline`` is None only beside a fault."""

    pipeline: str | None
    options: JobOptions
    dry_run: bool
    idempotency_key: str | None
    faults: tuple[Fault, ...]


def read_submit_query(raw: bytes, keys: list[str]) -> SubmitQuery:
    """Read the options of a submission; its faults are kept, to be answered with the body's.

    Args:
        raw: the query string.
        keys: every Idempotency-Key header.
    """
    query = Query(raw)
    pipeline = read_pipeline_option(query)
    if pipeline is None and not query.faults:
        query.fault("query.pipeline", "name the pipeline to train: ?pipeline=NAME")
    options, faults = parse_options(query.texts(OPTION_NAMES))
    query.faults.extend(faults)
    dry_run = query.one("dry_run", parse_flag) or False
    if len(keys) > 1 or any(not _KEY.fullmatch(key) for key in keys):
        message = f"expects one key of 1 to {KEY_LIMIT} printable ASCII characters"
        query.fault("header.Idempotency-Key", message)
    return SubmitQuery(
        pipeline=pipeline,
        options=options,
        dry_run=dry_run,
        idempotency_key=keys[0] if keys else None,
        faults=query.close(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """GET /training-jobs/NAME."""

    selection: LogSelection
    follow: bool
    as_events: bool
    """as server-sent events"""
    byte_range: ByteRange | None


def read_log_query(raw: bytes, headers: Mapping[str, str]) -> LogQuery:
    """Read which part of a log is asked for, and in which form."""
    query = Query(raw)
    as_events = accepts(headers, "text/event-stream")
    tail = query.one("tail", parse_whole(0, TAIL_LIMIT))
    since = query.one("since", parse_since)
    attempt = query.one("attempt", parse_whole(1, ATTEMPT_LIMIT))
    timestamps = query.one("timestamps", parse_flag) or False
    follow = query.one("follow", parse_flag) or as_events
    byte_range = parse_range(headers)
    if byte_range is not None and (tail is not None or since or timestamps or follow):
        query.fault("header.Range", "cannot be combined with tail, since, timestamps or follow")
    after = _read_position(query, headers) if as_events else None
    query.require()
    selection = LogSelection(
        tail=tail, since=since, after=after, attempt=attempt, timestamps=timestamps
    )
    return LogQuery(selection=selection, follow=follow, as_events=as_events, byte_range=byte_range)


def _read_position(query: Query, headers: Mapping[str, str]) -> Position | None:
    text = headers.get("last-event-id")
    if text is None:
        return None
    try:
        return Position.parse(text)
    except ValueError:
        query.fault("header.Last-Event-ID", "expects a position that an event's id named")
        return None


def read_delete_query(raw: bytes) -> float:
    """How many seconds a DELETE waits for the end of the removal."""
    query = Query(raw)
    wait_s = query.one("wait", parse_wait)
    query.require()
    return wait_s or 0.0


def read_no_query(raw: bytes) -> None:
    """Refuse every option, where there is none."""
    Query(raw).require()


def accepts(headers: Mapping[str, str], media_type: str) -> bool:
    """Whether the Accept header names the media type (a wildcard does not ask for it)."""
    for item in headers.get("accept", "").split(","):
        name, _, parameters = item.strip().lower().partition(";")
        if name.strip() == media_type:
            return re.fullmatch(r"q=0(\.0*)?", parameters.replace(" ", "")) is None
    return False
