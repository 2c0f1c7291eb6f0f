"""A log keeps every byte at its offset, or says which are missing and why."""

import os
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_training.logs.positions import Position
from model_training.logs.segments import Gap, LogView, Piece, SegmentWriter
from model_training.logs.timestamps import LineTimes

# Hundreds of small logs, each brought to the disk: in memory where there is a file system in it.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND  # 2023-11-14T22:13:20Z

texts = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"line\n", b"\xc3\xa9\n", b"\0\xff\r"])).map(
    b"".join
)
steps = st.one_of(
    st.tuples(st.just("write"), texts, st.integers(-2, 5)),
    st.tuples(st.just("reopen")),
    st.tuples(st.just("crash"), st.binary(max_size=15), st.booleans()),
)


def gone(log: LogView, text: bytes) -> bytes:
    """``text`` with a NUL for every byte that the log has lost."""
    kept = bytearray(text)
    for gap in log.gaps():
        kept[gap.start : gap.end] = bytes(gap.end - gap.start)
    return bytes(kept)


def play(folder: Path, script, **options: int) -> tuple[bytes, list[int]]:
    """Write by ``script``; what was written, and the time of each byte."""
    text, times, clock = b"", list[int](), START
    writer = SegmentWriter(folder, **options)
    for step in script:
        if step[0] == "write":
            clock += step[2] * SECOND
            writer.write(step[1], clock)
            text += step[1]
            times += [max([clock, *times[-1:]])] * len(step[1])
        else:
            writer.close()
            if step[0] == "crash":
                crash(folder, *step[1:])
            writer = SegmentWriter(folder, **options)
        assert writer.position == len(text)
    writer.close()
    return text, times


def crash(folder: Path, torn: bytes, record: bool) -> None:
    """Leave what a killed writer leaves: a record without its bytes, or a torn one."""
    indexes = sorted(folder.glob("*.index"))
    if indexes:
        end = LogView(folder).end
        last = LogView(folder).time_at(end)
        with indexes[-1].open("ab") as file:
            if record:
                file.write(end.to_bytes(8, "little") + last.to_bytes(8, "little"))
            file.write(torn)


logs = given(
    st.lists(steps, max_size=25), st.integers(1, 200), st.integers(1, 40), st.integers(1, 30)
)


@settings(max_examples=100, deadline=None)
@logs
def test_reads_and_gaps_cover_the_log_exactly_once(script, limit, segment_size, size):
    with TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        text, _ = play(folder, script, limit=limit, segment_size=segment_size)
        log = LogView(folder)
        offset, seen = 0, b""
        while offset < len(text):
            item = log.read(offset, size)
            if isinstance(item, Gap):
                assert item.start == offset
                assert item.reason == "log limit"
                seen += bytes(item.end - offset)
            else:
                assert item.offset == offset
                assert 0 < len(item.data) <= size
                assert item.data == text[offset : item.end]
                seen += item.data
            offset = item.end
        assert log.end == len(text) == len(seen)
        assert seen == gone(log, text)
        assert log.read(offset, size) == Piece(offset, b"")
        assert len(log.gaps()) <= 1
        kept = sum(file.stat().st_size for file in folder.glob("*.log"))
        assert kept == len(text) - sum(gap.end - gap.start for gap in log.gaps())
        # Four segments of a byte are the least that can be kept.
        assert kept <= max(limit, 4)
        assert b"".join(i.data for i in log.blocks(0, log.end) if isinstance(i, Piece)) == b"".join(
            file.read_bytes() for file in sorted(folder.glob("*.log"))
        )


@settings(max_examples=100, deadline=None)
@logs
def test_tail_begins_where_a_person_would_count_it(script, limit, segment_size, lines):
    with TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        play(folder, script, limit=limit, segment_size=segment_size)
        log = LogView(folder)
        pieces = [item for item in log.blocks(0, log.end) if isinstance(item, Piece)]
        text = b"".join(piece.data for piece in pieces)
        offsets = [piece.offset + i for piece in pieces for i in range(len(piece.data))]
        starts = [0] + [offsets[i] + 1 for i in range(len(text) - 1) if text[i] == 0x0A]
        assert log.tail_offset(lines) == (starts[-lines] if lines <= len(starts) else 0)
        assert log.tail_offset(0) == log.end


@settings(max_examples=100, deadline=None)
@logs
def test_times_are_those_of_the_writes(script, limit, segment_size, after):
    with TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        text, times = play(folder, script, limit=limit, segment_size=segment_size)
        log = LogView(folder)
        kept = [
            offset
            for item in log.blocks(0, log.end)
            if isinstance(item, Piece)
            for offset in range(item.offset, item.end)
        ]
        assert [log.time_at(offset) for offset in kept] == [times[offset] for offset in kept]
        moment = START + (after - 5) * SECOND
        since = log.offset_since(moment)
        assert all((offset >= since) == (times[offset] >= moment) for offset in kept)
        assert 0 <= since <= len(text)


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, max_size=15), st.integers(1, 40), st.integers(0, 60), st.integers(1, 9))
def test_each_line_begins_with_the_time_of_its_first_byte(script, segment_size, offset, size):
    with TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        text, times = play(folder, script, segment_size=segment_size)
        log = LogView(folder)
        offset = min(offset, len(text))
        lines = LineTimes(log, offset)
        stamped = b""
        for at in range(offset, len(text), size):
            piece = log.read(at, size)
            assert isinstance(piece, Piece)
            stamped += lines.stamp(piece)
        expected = b""
        for i in range(offset, len(text)):
            if i == 0 or text[i - 1] == 0x0A:
                second = (times[i] - START) // SECOND + 20
                expected += b"2023-11-14T22:%02d:%02d.000000Z " % divmod(13 * 60 + second, 60)
            expected += text[i : i + 1]
        assert stamped == expected


def test_a_time_has_six_digits_and_is_cut_not_rounded(tmp_path: Path):
    writer = SegmentWriter(tmp_path)
    writer.write(b"a\n", START + 999_999_999)
    writer.write(b"b\n", START + SECOND + 1_999)
    writer.close()
    stamped = LineTimes(LogView(tmp_path), 0).stamp(Piece(0, b"a\nb\n"))
    assert stamped == b"2023-11-14T22:13:20.999999Z a\n2023-11-14T22:13:21.000001Z b\n"


def test_readers_see_each_write_at_once_and_need_not_begin_after_the_writer(tmp_path: Path):
    folder = tmp_path / "log" / "1"
    log = LogView(folder)
    assert (log.end, log.gaps(), log.read(0, 10), log.tail_offset(5)) == (0, (), Piece(0, b""), 0)
    assert (log.offset_since(START), log.time_at(0), log.generation) == (0, 0, 0)
    writer = SegmentWriter(folder, segment_size=10)
    for number in range(30):
        writer.write(b"%d\r" % number, START)
        assert log.end == writer.position
    assert log.read(0, 1000) == Piece(0, b"".join(b"%d\r" % number for number in range(30)))
    writer.close()
    writer.close()


def test_segments_hold_nothing_but_what_was_printed(tmp_path: Path):
    writer = SegmentWriter(tmp_path, segment_size=8)
    writer.write(memoryview(b"0123456789abcdefXYZ"), START)
    writer.close()
    files = {file.name: file.read_bytes() for file in tmp_path.glob("*.log")}
    assert files == {
        "00000000000000000000.log": b"01234567",
        "00000000000000000008.log": b"89abcdef",
        "00000000000000000016.log": b"XYZ",
    }
    assert not (tmp_path / "gaps").exists()


def test_a_reader_learns_that_what_it_was_about_to_read_was_dropped(tmp_path: Path):
    writer = SegmentWriter(tmp_path, limit=40, segment_size=10)
    log = LogView(tmp_path)
    writer.write(bytes(range(40)), START)
    assert log.read(10, 10) == Piece(10, bytes(range(10, 20)))
    writer.write(b"x", START)
    assert log.read(10, 10) == Gap(10, 20, "log limit")
    assert log.read(15, 10) == Gap(15, 20, "log limit")
    writer.write(b"x" * 20, START)
    assert log.read(0, 100) == Piece(0, bytes(range(10)))
    assert log.gaps() == (Gap(10, 40, "log limit"),)
    writer.close()


def test_bytes_whose_times_were_lost_are_still_there(tmp_path: Path):
    writer = SegmentWriter(tmp_path, segment_size=4)
    writer.write(b"abcdefgh", START)
    writer.close()
    for index in tmp_path.glob("*.index"):
        index.unlink()
    log = LogView(tmp_path)
    assert log.read(0, 8) == Piece(0, b"abcdefgh")
    assert (log.time_at(3), log.offset_since(START)) == (0, 8)
    writer = SegmentWriter(tmp_path, segment_size=4)
    writer.write(b"i", START)
    writer.close()
    assert (log.read(0, 9), log.offset_since(START)) == (Piece(0, b"abcdefghi"), 8)


def test_bytes_that_a_power_cut_took_leave_their_times_behind_to_be_cut(tmp_path: Path):
    writer = SegmentWriter(tmp_path)
    for number in range(10):
        writer.write(b"0123456789", START + number * SECOND)
    writer.close()
    os.truncate(tmp_path / "00000000000000000000.log", 35)
    writer = SegmentWriter(tmp_path)
    assert writer.position == 35
    writer.write(b"abc", START + 20 * SECOND)
    writer.close()
    log = LogView(tmp_path)
    seconds = [(log.time_at(offset) - START) // SECOND for offset in (0, 34, 35, 37)]
    assert seconds == [0, 3, 20, 20]
    assert log.offset_since(START + 4 * SECOND) == 35


def test_foreign_and_torn_files_beside_the_segments_are_passed_over(tmp_path: Path):
    writer = SegmentWriter(tmp_path, limit=4)
    writer.write(b"abcdefgh", START)
    writer.close()
    for name in ("notes.log", "0000000000000000000x.log", "99999999999999999999.log.gz", "x"):
        (tmp_path / name).write_text("foreign")
    with (tmp_path / "gaps").open("a") as file:
        file.write("torn by a cra")
    log = LogView(tmp_path)
    assert log.segments() == [(0, 1), (5, 6), (6, 7), (7, 8)]
    assert log.gaps() == (Gap(1, 5, "log limit"),)


def test_a_log_that_was_collected_anew_has_another_generation(tmp_path: Path):
    (tmp_path / "generation").write_text("2\n")
    assert LogView(tmp_path).generation == 2


def test_a_negative_offset_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="-1"):
        LogView(tmp_path).read(-1, 1)


def test_a_broken_disk_is_not_taken_for_a_full_one(tmp_path: Path):
    writer = SegmentWriter(tmp_path / "log")
    (tmp_path / "log").rmdir()
    writer.write(b"abc", START)
    (tmp_path / "log").mkdir()
    writer.write(b"de", START)
    writer.close()
    assert LogView(tmp_path / "log").gaps() == (
        Gap(0, 3, "write failed: No such file or directory"),
    )


def test_the_tail_of_one_huge_line_needs_little_memory(tmp_path: Path):
    writer = SegmentWriter(tmp_path)
    writer.write(b"first\n", START)
    for _ in range(64):
        writer.write(b"x" * (1 << 20), START)
    writer.close()
    # The kernel's own mark: getrusage would count what the parent had before exec.
    program = f"""
        from pathlib import Path
        from model_training.logs.segments import LogView

        def peak_kb():
            status = Path("/proc/self/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0])

        log = LogView(Path({str(tmp_path)!r}))
        before = peak_kb()
        assert log.tail_offset(1) == 6
        assert log.tail_offset(2) == 0
        assert sum(len(block.data) for block in log.blocks(0, log.end)) == 6 + (64 << 20)
        print(peak_kb() - before)
    """
    assert int(run(program)) < 4096


def run(program: str, *prefix: str) -> str:
    argv = [*prefix, sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bytes_that_a_disk_refuses_are_a_gap_that_says_why(tmp_path: Path):
    program = f"""
    import resource
    from pathlib import Path
    from model_training.logs.segments import LogView, SegmentWriter
    writer = SegmentWriter(Path({str(tmp_path)!r}))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # of each file
    writer.write(bytes(10_000), 1)
    writer.write(bytes(100), 2)
    writer.close()
    """
    run(program)
    log = LogView(tmp_path)
    assert log.gaps() == (Gap(4096, 10_000, "write failed: File too large"),)
    assert log.segments() == [(0, 4096), (10_000, 10_100)]


def own_mounts() -> list[str]:
    """The command that gives a process mounts of its own, where the machine permits it."""
    prefix = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    mount = ["mount", "-t", "tmpfs", "none", "/tmp"]
    try:
        done = subprocess.run([*prefix, *mount], check=False, capture_output=True, timeout=10)
    except FileNotFoundError:
        pytest.skip("needs unshare and mount, for a disk of its own that is small")
    if done.returncode:
        pytest.skip(f"may not mount a small disk: {done.stderr.decode().strip()}")
    return prefix


FULL_DISK = """
    import os, subprocess
    from pathlib import Path
    from model_training.logs.segments import Gap, LogView, Piece, SegmentWriter
    disk = Path({disk!r})
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], check=True)
    ballast, folder = disk / "ballast", disk / "log"
    log, writer = LogView(folder), SegmentWriter(folder)
    text = bytes(range(251)) * 1000

    def fill():
        with ballast.open("ab", buffering=0) as file:
            try:
                while file.write(bytes(512)):
                    pass
            except OSError:
                pass

    def covered():
        offset, ranges = 0, []
        while offset < log.end:
            item = log.read(offset, 1 << 20)
            assert isinstance(item, Gap) or item.data == text[offset:item.end], item.offset
            ranges.append(item if isinstance(item, Gap) else (offset, item.end))
            offset = item.end
        return ranges
"""


def test_a_full_disk_costs_bytes_that_show_as_a_gap_once_there_is_space(tmp_path: Path):
    program = (
        FULL_DISK
        + """
    writer.write(text[:1000], 1)
    fill()
    for start in range(1000, 101_000, 1000):
        writer.write(text[start:start + 1000], 2)
    assert writer.position == 101_000
    (_, kept), = covered()             # what still fitted was kept
    assert 1000 < kept < 101_000
    ballast.unlink()
    writer.write(text[101_000:102_000], 3)
    assert covered() == [(0, kept), Gap(kept, 101_000, "disk full"), (101_000, 102_000)]
    assert (log.time_at(kept - 1), log.time_at(101_000), log.offset_since(3)) == (2, 3, kept)
    writer.close()
    writer = SegmentWriter(folder)
    writer.write(text[102_000:102_500], 4)
    writer.close()
    assert covered()[2:] == [(101_000, 102_500)]
    """
    )
    run(program.format(disk=str(tmp_path)), *own_mounts())


def test_bytes_lost_at_the_very_end_show_as_a_gap_too(tmp_path: Path):
    program = (
        FULL_DISK
        + """
    fill()
    writer.write(text[:5000], 1)
    assert (log.end, list(folder.iterdir())) == (0, [])
    ballast.unlink()
    writer.write(text[5000:6000], 1)
    fill()
    writer.write(text[6000:200_000], 1)
    writer.close()
    first, there, last = covered()
    assert first == Gap(0, 5000, "disk full")
    assert there[0] == 5000 and there[1] >= 6000
    assert (last.start, last.end) == (there[1], 200_000)
    assert last.reason in ("disk full", "not recorded")
    ballast.unlink()
    writer = SegmentWriter(folder)
    writer.write(text[200_000:200_100], 1)
    writer.close()
    assert covered()[-1] == (200_000, 200_100)
    """
    )
    run(program.format(disk=str(tmp_path)), *own_mounts())


positions = st.builds(
    Position, st.integers(1, 999_999_999), st.integers(0, 10**18 - 1), st.integers(0, 999_999_999)
)


@given(positions)
def test_a_position_is_read_back_as_it_was_said(position: Position):
    assert Position.parse(str(position)) == position


@given(st.text(alphabet="0123456789.-+ _\n٣", max_size=12))
def test_a_position_has_one_spelling(text: str):
    with suppress(ValueError):
        assert str(Position.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.",
        ".1",
        "0.1",
        "01.1",
        "1.01",
        "1.-1",
        "1.1.0",
        "1.1.1.1",
        " 1.1",
        "1.1\n",
        "a.1",
    ],
)
def test_what_is_no_position_is_refused(text: str):
    with pytest.raises(ValueError, match="position"):
        Position.parse(text)


def test_positions_read_as_the_contract_writes_them():
    assert (str(Position(1, 1234)), str(Position(1, 1234, 2))) == ("1.1234", "1.1234.2")


# Losses of unknown size


def test_a_loss_of_unknown_size_is_a_gap_of_one_offset_before_the_next_bytes(tmp_path: Path):
    writer = SegmentWriter(tmp_path)
    writer.write(b"a\n", START)
    writer.note_loss("the node forgot")
    assert writer.position == 3
    assert LogView(tmp_path).end == 2
    writer.write(b"b\n", START)
    log = LogView(tmp_path)
    assert log.gaps() == (Gap(2, 3, "the node forgot"),)
    assert list(log.blocks(0, log.end)) == [
        Piece(0, b"a\n"),
        Gap(2, 3, "the node forgot"),
        Piece(3, b"b\n"),
    ]
    writer.close()
    assert LogView(tmp_path).gaps() == (Gap(2, 3, "the node forgot"),)


@pytest.mark.parametrize("text", [b"", b"a\n"])
def test_a_loss_at_the_end_shows_once_the_log_is_closed(tmp_path: Path, text: bytes):
    writer = SegmentWriter(tmp_path)
    writer.write(text, START)
    writer.note_loss("the pod was gone")
    writer.close()
    log = LogView(tmp_path)
    assert log.end == len(text) + 1
    assert log.gaps() == (Gap(len(text), len(text) + 1, "the pod was gone"),)
    again = SegmentWriter(tmp_path)
    assert again.position == log.end
    again.write(b"more\n", START)
    again.close()
    assert log.gaps() == (Gap(len(text), len(text) + 1, "the pod was gone"),)
    assert log.read(len(text) + 1, 9) == Piece(len(text) + 1, b"more\n")


def test_losses_in_a_row_are_one_gap_with_each_reason_once(tmp_path: Path):
    writer = SegmentWriter(tmp_path)
    for reason in ("rotated", "restarted", "rotated"):
        writer.note_loss(reason)
    writer.write(b"a\n", START)
    writer.close()
    assert LogView(tmp_path).gaps() == (Gap(0, 3, "rotated, restarted"),)
