"""Followers get every byte once, each at its own pace, and hold nothing while they wait."""

import asyncio
import shutil
import threading
import time
import weakref
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_training.logs.follow import Chunk, Followers
from model_training.logs.segments import Gap, SegmentWriter

pytestmark = pytest.mark.anyio
# Hundreds of small logs, each brought to the disk: in memory where there is a file system in it.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
NOW = 1_700_000_000_000_000_000


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}  # as the server runs


class Following:
    """A follower in a task of its own, and what it has got so far."""

    def __init__(self, followers: Followers, folder: Path, offset: int, ended, pause=None):
        self.items: list[Chunk | Gap] = []
        self.nudges = 0
        self.offset = offset
        self.pause = pause
        self._stream = followers.follow(folder, offset, ended)
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with aclosing(self._stream):
            async for item in self._stream:
                if item is None:
                    self.nudges += 1
                    continue
                assert (item.start if isinstance(item, Gap) else item.offset) == self.offset
                self.offset = item.end
                self.items.append(item)
                if self.pause is not None:
                    await self.pause()

    @property
    def data(self) -> bytes:
        return b"".join(item.data for item in self.items if isinstance(item, Chunk))

    async def reaches(self, offset: int) -> None:
        async with asyncio.timeout(20):
            while self.offset < offset:
                await asyncio.sleep(0.005)

    async def ends(self) -> bytes:
        await asyncio.wait_for(self.task, 20)
        return self.data


def steps(count: int):
    """A pace: this many turns of the event loop between two chunks."""

    async def pause() -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    return pause


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=30), st.integers(1, 9), st.booleans()), max_size=12),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40)), min_size=1, max_size=4),
    st.integers(1, 40),
    st.sampled_from([60, 1 << 30]),
)
def test_followers_of_any_pace_get_the_same_bytes(script, paces, segment_size, limit):
    asyncio.run(follow_script(script, paces, segment_size, limit))


async def follow_script(script, paces, segment_size: int, limit: int) -> None:
    followers, ended = Followers(), asyncio.Event()
    text = b""
    with TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        writer = SegmentWriter(folder, segment_size=segment_size, limit=limit)
        running = [
            Following(followers, folder, offset, ended, steps(pace)) for offset, pace in paces
        ]
        for string, size, look in script:
            data = string.encode()
            for at in range(0, len(data), size):
                writer.write(data[at : at + size], NOW)
            text += data
            if look:
                followers.nudge(folder)
                await asyncio.sleep(0)
        writer.close()
        ended.set()
        followers.nudge(folder)
        for follower, (offset, _) in zip(running, paces, strict=True):
            await follower.ends()
            assert follower.offset == max(offset, len(text))
            judge(follower, text, offset, dropped=limit < len(text))


def judge(follower: Following, text: bytes, offset: int, *, dropped: bool) -> None:
    for item in follower.items:
        if isinstance(item, Gap):
            assert dropped
            assert item.reason == "log limit"
        else:
            assert item.data == text[item.offset : item.end]
            if offset == 0 and not dropped:
                item.data.decode()  # no character is cut


async def test_what_is_printed_reaches_all_as_one_object(tmp_path: Path):
    followers, ended = Followers(), asyncio.Event()
    writer = SegmentWriter(tmp_path)
    running = [Following(followers, tmp_path, 0, ended) for _ in range(5)]
    await asyncio.sleep(0)  # all wait
    for number in range(3):
        writer.write(b"line %d\n" % number, NOW)
        for follower in running:
            await follower.reaches(writer.position)
    assert all(follower.items == running[0].items for follower in running)
    assert running[0].data == b"line 0\nline 1\nline 2\n"
    writer.close()
    ended.set()
    for follower in running:
        await follower.ends()


async def test_a_half_character_waits_for_its_rest_or_for_the_end(tmp_path: Path):
    followers, ended = Followers(), asyncio.Event()
    writer = SegmentWriter(tmp_path)
    follower = Following(followers, tmp_path, 0, ended)
    writer.write("caf\u00e9".encode()[:-1], NOW)
    await follower.reaches(3)
    assert follower.data == b"caf"
    writer.write(b"\xa9 \xe2\x82", NOW)
    await follower.reaches(6)
    late = Following(followers, tmp_path, 0, ended)
    await late.reaches(6)
    assert follower.data == late.data == "caf\u00e9 ".encode()
    writer.close()
    ended.set()
    assert await follower.ends() == await late.ends() == b"caf\xc3\xa9 \xe2\x82"


@pytest.mark.parametrize("data", [b"\xff", b"a\xc3(", b"\xe0\x80", b"\xa9\xa9\xa9\xa9", b"\0"])
async def test_bytes_that_begin_no_character_are_not_held_back(tmp_path: Path, data: bytes):
    followers, ended = Followers(), asyncio.Event()
    writer = SegmentWriter(tmp_path)
    follower = Following(followers, tmp_path, 0, ended)
    writer.write(data, NOW)
    await follower.reaches(len(data))
    assert follower.data == data
    writer.close()
    ended.set()
    await follower.ends()


async def test_who_is_stuck_delays_nobody_and_misses_nothing(tmp_path: Path):
    followers, ended, go_on = Followers(), asyncio.Event(), asyncio.Event()
    writer = SegmentWriter(tmp_path, segment_size=1 << 20)
    stuck = Following(followers, tmp_path, 0, ended, go_on.wait)
    quick = Following(followers, tmp_path, 0, ended)
    text = bytes(range(256)) * 512
    for _ in range(40):  # 5 MiB: five times what is kept for sharing
        writer.write(text, NOW)
        followers.nudge(tmp_path)
        await quick.reaches(writer.position - len(text))
    await quick.reaches(writer.position)
    assert len(stuck.items) == 1
    go_on.set()
    await stuck.reaches(writer.position)
    assert stuck.data == quick.data == text * 40
    writer.write("caught up: \u00e9".encode(), NOW)
    await asyncio.gather(stuck.reaches(writer.position), quick.reaches(writer.position))
    assert stuck.items[-1] is quick.items[-1]
    writer.close()
    ended.set()
    await asyncio.gather(stuck.ends(), quick.ends())


async def test_a_finished_log_is_told_from_any_position_and_ends(tmp_path: Path):
    writer = SegmentWriter(tmp_path, limit=40, segment_size=10)
    text = bytes(range(100))
    writer.write(text, NOW)
    writer.close()
    followers, ended = Followers(), asyncio.Event()
    ended.set()
    for offset in (0, 5, 10, 15, 75, 99, 100, 1000):
        follower = Following(followers, tmp_path, offset, ended)
        await follower.ends()
        assert follower.offset == max(offset, 100)
        gap = [Gap(max(offset, 10), 70, "log limit")] if offset < 70 else []
        assert [item for item in follower.items if isinstance(item, Gap)] == gap
        assert follower.data == text[offset:10] + text[max(offset, 70) :]


async def test_a_character_that_a_gap_cut_is_not_waited_for(tmp_path: Path):
    followers, ended = Followers(), asyncio.Event()
    writer = SegmentWriter(tmp_path, limit=40, segment_size=10)
    writer.write(b"012345678" + "\u00e9".encode() * 30, NOW)
    first = Following(followers, tmp_path, 0, ended)
    await first.reaches(writer.position)
    assert first.items[1] == Gap(10, 40, "log limit")
    assert first.items[0].data == b"012345678\xc3"
    writer.write(b"x" * 40, NOW)
    await first.reaches(writer.position)
    writer.close()
    ended.set()
    await first.ends()


async def test_who_joins_within_a_gap_that_others_were_just_told_gets_what_is_left(tmp_path: Path):
    followers, ended = Followers(), asyncio.Event()
    writer = SegmentWriter(tmp_path, limit=40, segment_size=10)
    first = Following(followers, tmp_path, 0, ended)
    await asyncio.sleep(0)  # it waits
    writer.write(bytes(100), NOW)
    await first.reaches(100)
    late = Following(followers, tmp_path, 15, ended)
    await late.reaches(100)
    assert [item for item in first.items if isinstance(item, Gap)] == [Gap(10, 70, "log limit")]
    assert late.items == [Gap(15, 70, "log limit"), *first.items[2:]]
    writer.close()
    ended.set()
    await asyncio.gather(first.ends(), late.ends())


async def test_little_of_a_log_is_kept_in_memory_for_those_who_come(tmp_path: Path):
    followers, ended = Followers(), asyncio.Event()
    writer = SegmentWriter(tmp_path)
    seen = list[weakref.ref[Chunk]]()

    async def follow(until: asyncio.Event) -> None:
        async with aclosing(followers.follow(tmp_path, 0, until)) as stream:
            async for item in stream:
                seen.append(weakref.ref(item))

    task = asyncio.create_task(follow(ended))
    other = asyncio.create_task(follow(asyncio.Event()))  # has no end: the log is still followed
    await asyncio.sleep(0)  # both wait
    writer.write(b"." * (5 << 20), NOW)
    writer.close()
    ended.set()
    await asyncio.wait_for(task, 20)
    alive = {chunk for ref in seen if (chunk := ref()) is not None}
    assert 0 < sum(len(chunk.data) for chunk in alive) <= 1 << 20
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)


async def test_a_position_beyond_the_end_is_waited_for(tmp_path: Path):
    followers, ended = Followers(), asyncio.Event()
    writer = SegmentWriter(tmp_path)
    follower = Following(followers, tmp_path, 4, ended)
    first = Following(followers, tmp_path, 0, ended)
    writer.write(b"ab", NOW)
    await first.reaches(2)
    writer.write(b"cdef", NOW)
    await follower.reaches(6)
    assert follower.data == b"ef"
    writer.close()
    ended.set()
    await follower.ends()
    await first.ends()


async def test_the_log_may_appear_after_its_followers(tmp_path: Path):
    followers, ended = Followers(), asyncio.Event()
    folder = tmp_path / "log" / "1"
    follower = Following(followers, folder, 0, ended)
    await asyncio.sleep(0)
    writer = SegmentWriter(folder)
    writer.write(b"here", NOW)
    await follower.reaches(4)
    writer.close()
    ended.set()
    assert await follower.ends() == b"here"


async def test_a_job_that_was_deleted_leaves_no_follower_hanging(tmp_path: Path):
    followers, ended = Followers(), asyncio.Event()
    folder = tmp_path / "log"
    writer = SegmentWriter(folder)
    writer.write(b"here", NOW)
    follower = Following(followers, folder, 0, ended)
    await follower.reaches(4)
    writer.close()
    shutil.rmtree(folder)
    ended.set()
    late = Following(followers, folder, 0, ended)
    assert await follower.ends() == b"here"
    await late.ends()


async def test_each_follower_ends_by_its_own_word(tmp_path: Path):
    followers, mine, theirs = Followers(), asyncio.Event(), asyncio.Event()
    writer = SegmentWriter(tmp_path)
    writer.write(b"all", NOW)
    writer.close()
    first = Following(followers, tmp_path, 0, mine)
    second = Following(followers, tmp_path, 0, theirs)
    mine.set()
    await first.ends()
    await second.reaches(3)
    assert not second.task.done()
    theirs.set()
    assert await second.ends() == b"all"


async def test_a_log_that_cannot_be_read_is_an_error_for_all(tmp_path: Path):
    followers, ended = Followers(), asyncio.Event()
    folder = tmp_path / "log"
    running = [Following(followers, folder, 0, ended) for _ in range(2)]
    await asyncio.sleep(0)
    folder.write_text("a file")
    for follower in running:
        with pytest.raises(NotADirectoryError):
            await follower.ends()


async def test_waiting_followers_hold_no_thread_and_leave_nothing_behind(tmp_path: Path):
    followers, ended = Followers(), asyncio.Event()
    writer = SegmentWriter(tmp_path)
    before = threading.active_count()
    running = [Following(followers, tmp_path, 0, ended) for _ in range(300)]
    await asyncio.sleep(0)  # all wait
    writer.write(b"x", NOW)
    await asyncio.gather(*(follower.reaches(1) for follower in running))
    assert threading.active_count() == before
    for follower in running:
        follower.task.cancel()
    await asyncio.gather(*(follower.task for follower in running), return_exceptions=True)
    # The next one begins anew: nobody kept a reader, nor its ring, for those who left.
    writer.write(b"y", NOW)
    writer.close()
    ended.set()
    assert await Following(followers, tmp_path, 1, ended).ends() == b"y"
    assert not followers._readers


async def test_output_arrives_promptly_unasked(tmp_path: Path):
    followers, ended = Followers(), asyncio.Event()
    writer = SegmentWriter(tmp_path)
    follower = Following(followers, tmp_path, 0, ended)
    delays = list[float]()
    for number in range(1, 6):
        await asyncio.sleep(0.03)
        begun = time.monotonic()
        writer.write(b"x", NOW)
        await follower.reaches(number)
        delays.append(time.monotonic() - begun)
    assert min(delays) < 0.3  # 0.02 s and little more on an idle machine
    writer.close()
    ended.set()
    await follower.ends()


async def test_a_nudge_tells_all_that_something_changed(tmp_path: Path):
    followers, ended, go_on = Followers(), asyncio.Event(), asyncio.Event()
    followers.nudge(tmp_path)  # nobody is there to tell
    writer = SegmentWriter(tmp_path)
    writer.write(b"ab", NOW)
    busy = Following(followers, tmp_path, 0, ended, go_on.wait)
    idle = Following(followers, tmp_path, 2, ended)
    await busy.reaches(2)
    followers.nudge(tmp_path)
    go_on.set()
    writer.close()
    ended.set()
    await asyncio.gather(busy.ends(), idle.ends())
    assert (busy.nudges, idle.nudges) == (1, 1)


async def test_a_nudge_is_not_kept_waiting_by_a_crowd(tmp_path: Path):
    followers, ended = Followers(), asyncio.Event()
    writer = SegmentWriter(tmp_path)
    running = [Following(followers, tmp_path, 0, ended) for _ in range(1600)]
    await asyncio.sleep(0)  # the crowd's pace is now 0.4 s
    writer.write(b"x", NOW)
    writer.close()
    ended.set()
    followers.nudge(tmp_path)
    for _ in range(10):  # turns of the event loop, no time
        await asyncio.sleep(0)
    assert running[0].data == b"x"
    await asyncio.gather(*(follower.ends() for follower in running))


async def test_a_nudge_reaches_each_follower_even_where_nothing_is_printed(tmp_path: Path):
    followers, ended = Followers(), asyncio.Event()
    both = [Following(followers, tmp_path, 0, ended) for _ in range(2)]
    async with asyncio.timeout(20):
        while any(not one.nudges for one in both):
            followers.nudge(tmp_path)
            await asyncio.sleep(0)

    ended.set()
    followers.nudge(tmp_path)
    assert [await one.ends() for one in both] == [b"", b""]


async def test_two_nudges_in_one_turn_are_one_look(tmp_path: Path):
    followers, ended = Followers(), asyncio.Event()
    writer = SegmentWriter(tmp_path)
    following = Following(followers, tmp_path, 0, ended)
    await asyncio.sleep(0)
    writer.write(b"word\n", NOW)
    followers.nudge(tmp_path)
    followers.nudge(tmp_path)
    writer.close()
    await following.reaches(5)
    ended.set()
    followers.nudge(tmp_path)
    assert await following.ends() == b"word\n"
