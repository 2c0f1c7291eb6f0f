"""The parsers: whatever comes, a frozen value or a clear fault, and never anything else."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.api import queries
from model_training.api.hosts import decode_path
from model_training.api.queries import ByteRange, parse_range
from model_training.errors import Fault, InvalidRequest, MalformedRequest, RangeNotSatisfiable
from model_training.jobs import JobState, format_time
from model_training.logs.positions import Position

WORDS = st.text(max_size=20)
NAMES = st.sampled_from(
    ["pipeline", "state", "limit", "tail", "since", "follow", "timeout", "cursor", "owner", "wait"]
)
QUERIES = st.one_of(
    st.binary(max_size=60),
    st.lists(st.tuples(NAMES | WORDS, WORDS)).map(lambda pairs: urlencode(pairs).encode()),
)
HEADERS = st.dictionaries(st.sampled_from(["range", "last-event-id", "accept"]), WORDS)


@given(QUERIES, HEADERS)
def test_any_query_is_read_or_refused_with_a_path(raw: bytes, headers: dict[str, str]) -> None:
    for read in (
        queries.read_list_query,
        queries.read_delete_query,
        queries.read_no_query,
        lambda raw: queries.read_log_query(raw, headers),
        lambda raw: queries.read_submit_query(raw, list(headers.values())),
    ):
        for fault in faults_of(read, raw):
            assert fault.path.startswith(("query.", "header."))
            assert fault.message


def faults_of(read: Callable[[bytes], object], raw: bytes) -> tuple[Fault, ...]:
    try:
        read(raw)
    except InvalidRequest as error:
        return error.faults
    except MalformedRequest:
        pass
    return ()


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_range_is_what_slicing_means(first: int, length: int, size: int) -> None:
    last = first + length
    content = range(size)
    expected = content[first : last + 1]
    if expected:
        start, end = ByteRange(first, last).within(size)
        assert content[start:end] == expected
    else:
        with pytest.raises(RangeNotSatisfiable) as raised:
            ByteRange(first, last).within(size)
        assert raised.value.size == size


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_range_from_the_end_is_what_slicing_means(count: int, size: int) -> None:
    if min(count, size) > 0:
        assert ByteRange(None, count).within(size) == (size - min(count, size), size)
    else:
        with pytest.raises(RangeNotSatisfiable):
            ByteRange(None, count).within(size)


@given(st.integers(0, 10**30), st.none() | st.integers(0, 10**30))
def test_range_header_is_read_back(first: int, last: int | None) -> None:
    found = parse_range({"range": f"bytes={first}-{'' if last is None else last}"})
    if last is not None and last < first:
        assert found is None
    else:
        assert found == ByteRange(first, last)


@given(st.text())
def test_any_range_header_is_a_range_or_passed_over(text: str) -> None:
    assert parse_range({"range": text}) is None or text.strip().lower().startswith("bytes=")


def test_range_with_a_condition_is_passed_over() -> None:
    assert parse_range({"range": "bytes=0-1", "if-range": '"x"'}) is None


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_are_read_back(moment: datetime) -> None:
    assert queries.parse_moment(format_time(moment)) == moment
    assert queries.parse_since(format_time(moment)) == moment


@given(st.integers(0, 10**15 - 1))
def test_durations_back_from_now(seconds: int) -> None:
    before = datetime.now(UTC)
    found = queries.parse_since(str(seconds))
    try:
        expected = before - timedelta(seconds=seconds)
    except OverflowError:
        expected = datetime.min.replace(tzinfo=UTC)
    assert abs(found - expected) < timedelta(seconds=60)


@given(st.integers(1, 99), st.integers(0, 10**12), st.integers(0, 9))
def test_positions_are_read_from_the_header(attempt: int, offset: int, generation: int) -> None:
    position = Position(attempt, offset, generation)
    asked = queries.read_log_query(
        b"", {"accept": "text/event-stream", "last-event-id": str(position)}
    )
    assert asked.selection.after == position
    assert asked.follow


@pytest.mark.parametrize(
    ("text", "states"),
    [
        ("failed", {JobState.FAILED, JobState.STOPPED}),
        ("completed", {JobState.SUCCEEDED}),
        ("stopped", {JobState.STOPPED}),
        ("active", {JobState.PENDING, JobState.RUNNING, JobState.STOPPING, JobState.DELETING}),
    ],
)
def test_states_and_groups(text: str, states: set[JobState]) -> None:
    assert queries.read_list_query(f"state={text}".encode()).job_filter.states == states


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/event-stream", True),
        ("text/plain, text/event-stream;q=0.5", True),
        ("Text/Event-Stream", True),
        ("text/event-stream;q=0", False),
        ("*/*", False),
        ("text/*", False),
        ("", False),
    ],
)
def test_events_are_asked_for_by_name(accept: str, expected: bool) -> None:
    assert queries.accepts({"accept": accept}, "text/event-stream") is expected


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1)))
def test_path_is_decoded_by_segment(segments: list[str]) -> None:
    from urllib.parse import quote

    raw = "/".join(quote(segment, safe="") for segment in segments).encode()
    assert decode_path(raw) == "/".join(segments)


@given(st.binary(max_size=40))
def test_no_encoded_slash_becomes_one(raw: bytes) -> None:
    path = b"/" + raw
    assert decode_path(path).count("/") == path.count(b"/")
