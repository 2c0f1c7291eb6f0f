"""The text comes out of a kubelet's stream as it was printed, wherever the stream is cut."""

from bisect import bisect_right
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from model_training.executors.kubernetes.stamped_text import (
    HELD,
    Anchor,
    Part,
    Seeker,
    StampedText,
    stamp_of,
    time_of,
)
from tests.unit.fake_kubelet import START, Entry, render

texts = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"", b"2023-11-14T22:13:20.000000000Z x", b"\r10%\r20%", b"\xff\0", b"{}"]),
    st.integers(HELD - 10, HELD + 50).map(lambda size: b"x" * size),
).map(lambda text: text.replace(b"\n", b"/"))


@st.composite
def logs(draw) -> list[Entry]:
    """Entries of a log file, at growing, same and earlier times."""
    entries, time_ns = [], START
    for text, step in draw(st.lists(st.tuples(texts, st.integers(-(10**9), 4 * 10**9)))):
        time_ns += draw(st.sampled_from([0, 1, step, step // 1000]))
        whole = draw(st.booleans())
        if text or whole:
            entries.append(Entry(time_ns, text + b"\n" * whole))
    return entries


zones = st.sampled_from(["Z", "+02:00", "-03:30"])


def printed(entries: list[Entry]) -> bytes:
    return b"".join(entry.text for entry in entries)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


cuts = st.lists(st.integers(0, 10**6), max_size=20)


def lines_of(entries: list[Entry]) -> dict[int, int]:
    """Where each line begins in the text, and when it was."""
    found, offset, begins = {}, 0, True
    for time_ns, text in entries:
        if begins:
            found[offset] = time_ns
        offset += len(text)
        begins = text.endswith(b"\n")
    return found


@given(logs(), zones, cuts, st.integers(0, 5000))
def test_text_times_and_anchors(entries, zone, cuts, stored):
    text = printed(entries)
    stored = offset = min(stored, len(text))
    times = lines_of(entries)
    starts = list(times)
    reader = StampedText(0, stored)
    for chunk in [*cut(render(entries, zone=zone), cuts), None]:
        batch = reader.finish(followed=True) if chunk is None else reader.feed(chunk)
        assert reader.message == ""
        for time_ns, part in batch.parts:
            assert part == text[offset : offset + len(part)] != b""
            begun = starts[bisect_right(starts, offset) - 1]
            assert time_ns // 10**7 == times[begun] // 10**7
            offset += len(part)
            inside = [times[at] for at in starts if begun < at < offset]
            assert all(time_ns // 10**7 == time // 10**7 for time in inside)
        if batch.anchor:
            at = starts.index(batch.anchor.offset)
            assert times[starts[at]] == time_of(batch.anchor.stamp)
            assert at == 0 or times[starts[at - 1]] != times[starts[at]]
    assert offset == len(text)


@given(logs(), zones, cuts, st.integers(0, 100))
def test_a_seeker_finds_the_line_to_go_on_from(entries, zone, cuts, number):
    starts = {time: at for at, time in reversed(lines_of(entries).items())}  # the first of a time
    assume(starts)
    time_ns, at = list(starts.items())[number % len(starts)]
    seeker = Seeker(Anchor(at, stamp_of(time_ns, zone)))
    reader = StampedText(at, at)
    text, seeking = b"", True
    for chunk in cut(render(entries, zone=zone), cuts):
        rest = seeker.feed(chunk) if seeking else chunk
        if rest is not None:
            seeking = False
            text += b"".join(part.text for part in reader.feed(rest).parts)
    text += b"".join(part.text for part in reader.finish(followed=False).parts)
    assert text == printed(entries)[at:]


def test_a_line_that_is_gone_is_missed_as_soon_as_a_later_one_comes():
    seeker = Seeker(Anchor(0, stamp_of(START + 5, "Z")))
    assert seeker.feed(render([Entry(START, b"a\n"), Entry(START + 4, b"b\n")])) is None
    assert (seeker.passed, seeker.lines) == (False, True)
    assert seeker.feed(render([Entry(START + 6, b"c")])[:31]) is None
    assert seeker.passed


def test_what_a_stream_begins_with_may_be_the_rest_of_an_older_line():
    entries = [Entry(START, b"old"), Entry(START + 2, b"rest\n"), Entry(START + 3, b"new\n")]
    stream = render(entries, START + 1)
    assert stream.startswith(b"rest\n2023")
    seeker = Seeker(Anchor(8, stamp_of(START + 3, "Z")))
    assert seeker.feed(stream) == stream[5:]


MESSAGES = [
    b"unable to retrieve container logs for containerd://0123abcd",
    b"failed to create fsnotify watcher: too many open files",
    b'failed to try resolving symlinks in path "/var/log/pods/x/0.log": lstat: no such file',
    b'rpc error: code = NotFound desc = an error occurred when try to find container "0123": x',
    b'pod "p" cannot be found - no logs available',
    b'container "training" in pod "p" is terminated',
    b"context cancelled",
]


@given(
    st.sampled_from(MESSAGES),
    cuts,
    st.lists(st.sampled_from([b"a\n", b"x" * 2000, b"y"]), max_size=3),
)
def test_what_the_kubelet_says_is_never_taken_for_text(message, cuts, texts):
    text = b"".join(texts)
    stream = render([Entry(START, text) for text in texts]) + message
    reader = StampedText(0, 0)
    out = b""
    for chunk in cut(stream, cuts):
        out += b"".join(part.text for part in reader.feed(chunk).parts)
        if reader.message:
            break
    else:
        out += b"".join(part.text for part in reader.finish(followed=True).parts)
    assert out == text
    assert message.decode().startswith(reader.message)
    assert reader.message


@pytest.mark.parametrize("message", MESSAGES)
def test_a_seeker_tells_what_the_kubelet_said(message):
    seeker = Seeker(Anchor(0, stamp_of(START, "Z")))
    assert seeker.feed(render([Entry(START - 1, b"a\n")])) is None
    assert seeker.message == ""
    assert seeker.feed(message) is None
    assert seeker.message == message.decode()


def test_a_job_may_print_what_sounds_like_the_kubelet():
    lines = b"".join(message + b"\n" for message in MESSAGES)
    reader = StampedText(0, 0)
    batch = reader.feed(render([Entry(START, m + b"\n") for m in MESSAGES]))
    assert batch.parts == [Part(START, lines)]
    # At the very end of a log that is read once more, without a newline, it is text as well.
    reader = StampedText(0, 0)
    assert reader.feed(render([Entry(START, MESSAGES[0])])).parts == []
    assert reader.finish(followed=False).parts == [Part(START, MESSAGES[0])]


@given(st.integers(0, 4 * 10**18), zones)
def test_a_time_is_read_back_as_it_was_said(time_ns, zone):
    assert time_of(stamp_of(time_ns, zone)) == time_ns


def test_no_more_than_the_end_of_a_long_line_is_held_back():
    reader = StampedText(0, 0)
    stream = render([Entry(START, b"x" * (1 << 20))])
    out = 0
    for at in range(0, len(stream), 1 << 14):
        out += sum(len(part.text) for part in reader.feed(stream[at : at + (1 << 14)]).parts)
        assert at + (1 << 14) - out <= HELD + (1 << 14)
    assert out == (1 << 20) - HELD
