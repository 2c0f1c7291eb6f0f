"""A log goes on at the very byte where it ended, whatever broke off; see fake_kubelet.py."""

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_training.errors import ExecutorUnavailable
from model_training.executors.kubernetes import log_copies
from model_training.executors.kubernetes.api import ApiError
from model_training.executors.kubernetes.log_copies import Copier, End, LogApi
from model_training.executors.kubernetes.log_plans import Read
from model_training.executors.kubernetes.log_sources import Source, SourceFile
from model_training.executors.kubernetes.objects import decode_pod
from model_training.logs.layout import Gap
from model_training.logs.segments import LogView, SegmentWriter
from tests.unit.fake_kubelet import NOT_FOUND, START, Entry, FakeKubelet

pytestmark = pytest.mark.anyio

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
RUNS = Read("training", 0, is_previous=False, has_ended=False)
ENDED = RUNS._replace(has_ended=True)

UNABLE = b"unable to retrieve container logs for containerd://0123"
NO_INOTIFY = b"failed to create fsnotify watcher: too many open files"
REMOVED = b"rpc error: code = NotFound desc = an error occurred when try to find container"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True, scope="module")
def at_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_copies, "PACE_S", 0)
        yield


def pod_json(**status: object) -> bytes:
    container = {"name": "training", "state": {"running": {}}, "restartCount": 0, **status}
    pod = {
        "metadata": {
            "name": "p",
            "namespace": "n",
            "uid": "u",
            "resourceVersion": "1",
            "creationTimestamp": "2025-01-01T00:00:00Z",
        },
        "spec": {"containers": [{"name": "training"}]},
        "status": {"phase": "Running", "containerStatuses": [container]},
    }
    return json.dumps(pod).encode()


class Killed(BaseException):
    """As SIGKILL does, in the middle of a write."""


class Fragile(SegmentWriter):
    """Dies once it has written so many bytes."""

    left: int | None = None

    def write(self, data: bytes | memoryview, time_ns: int) -> None:
        if Fragile.left is not None:
            if len(data) > Fragile.left:
                super().write(data[: Fragile.left], time_ns)
                raise Killed
            Fragile.left -= len(data)
        super().write(data, time_ns)


class Server:
    """Our side: a copier that is made anew from the disk when it was killed."""

    def __init__(self, kubelet: FakeKubelet, folder: Path) -> None:
        kubelet.pod = pod_json()
        self.pod = decode_pod(kubelet.pod)
        self.kubelet = kubelet
        self.folder = folder
        self.view = LogView(folder)
        self.begin()

    def begin(self) -> None:
        file = SourceFile(self.folder / "source.json")
        source = file.read() or Source(pod="u")
        self.copier = Copier(LogApi(self.kubelet), self.folder, file, source, log_limit=1 << 30)

    async def read(self, step: Read = RUNS) -> End:
        try:
            return await self.copier.read(self.pod, step)
        except ExecutorUnavailable:
            return End.CUT
        except Killed:
            self.die()
            return End.CUT

    def die(self) -> None:
        """Leave everything as a killed process does."""
        writer = self.copier._writer
        if writer is not None and writer._current is not None:
            writer._current.close()
        self.begin()

    def text(self) -> bytes:
        pieces = self.view.blocks(0, self.view.end)
        return b"".join(b"<gap>" if isinstance(p, Gap) else p.data for p in pieces)


class Life(NamedTuple):
    """What happens between two looks of ours at the log."""

    printed: int
    cut: int | None
    killed: int | None
    restarted: bool


lives = st.lists(
    st.builds(
        Life,
        st.integers(0, 6),
        st.none() | st.integers(0, 3000),
        st.none() | st.integers(0, 300),
        st.booleans(),
    ),
    max_size=8,
)


@st.composite
def entries(draw) -> list[Entry]:
    """Of one file; the clock may be set back by some seconds, and no time comes back later."""
    found: list[Entry] = []
    clock, latest, seen = START, START, set[int]()
    for number, (kind, step) in enumerate(
        draw(
            st.lists(
                st.tuples(st.integers(0, 5), st.integers(-(3 * 10**9), 5 * 10**9)), max_size=40
            )
        )
    ):
        if kind:
            clock = max(clock + step, latest - 8 * 10**9)
            while clock in seen:
                clock += 1
        seen.add(clock)
        latest = max(latest, clock)
        text = b"%d " % number + b"x" * (0 if kind < 4 else 40 if kind == 4 else 1500)
        found.append(Entry(clock, text + (b"\n" if kind not in (3, 5) else b"")))
    return found


@settings(max_examples=150, deadline=None)
@given(entries(), lives, st.sampled_from([1, 7, 100, 5000]), st.sampled_from(["Z", "+02:00"]))
def test_no_byte_is_lost_or_doubled_whatever_breaks_off(entries, lives, chunk, zone):
    async def play(folder: Path) -> None:
        kubelet = FakeKubelet(chunk, zone)
        server = Server(kubelet, folder)
        printed = 0
        for life in lives:
            printed = min(printed + life.printed, len(entries))
            kubelet.files = [entries[:printed]]
            kubelet.cut_after, Fragile.left = [life.cut], life.killed
            await server.read()
            Fragile.left = None
            if life.restarted:
                await server.copier.close()
                server.begin()
        kubelet.files, kubelet.cut_after = [entries], []
        assert await server.read(ENDED) is End.WHOLE
        await server.copier.finish("training", 0)
        assert server.view.gaps() == ()
        assert server.text() == b"".join(text for _, text in entries), (entries, lives, chunk)

    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(dir=MEMORY) as name:
        patch.setattr(log_copies, "SegmentWriter", Fragile)
        asyncio.run(play(Path(name) / "log"))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 3), st.booleans()), max_size=8
    )
)
def test_what_a_rotation_may_have_taken_is_a_gap_between_the_lines(lives):
    async def play(folder: Path) -> None:
        kubelet = FakeKubelet(13)
        server = Server(kubelet, folder)
        count = rotations = 0
        for before, rotated, after, killed in [*lives, (0, False, 3, False)]:
            for printed in (before, after):
                for _ in range(printed):
                    count += 1
                    kubelet.files[-1].append(Entry(START + count * 10**9, b"%d\n" % count))
                if rotated and len(kubelet.files) == 1 + rotations:
                    kubelet.files.append([])
            rotations = len(kubelet.files) - 1
            await server.read()
            if killed:
                server.die()
        assert await server.read(ENDED) is End.WHOLE
        await server.copier.finish("training", 0)
        kept = server.text().replace(b"<gap>", b"gap\n").split()
        lines = [int(word) for word in kept if word != b"gap"]
        assert lines == sorted(set(lines))
        assert lines[-1] == count
        for before, word, after in zip(kept, kept[1:], kept[2:], strict=False):
            assert word == b"gap" or b"gap" in (before, after) or int(word) == int(before) + 1
        assert len(server.view.gaps()) <= sum(rotated for _, rotated, _, _ in lives)
        assert all("rotated" in gap.reason for gap in server.view.gaps())

    with TemporaryDirectory(dir=MEMORY) as name:
        asyncio.run(play(Path(name) / "log"))


async def test_a_file_begun_after_the_last_line_is_no_loss(tmp_path: Path):
    kubelet = FakeKubelet()
    server = Server(kubelet, tmp_path)
    kubelet.files[0].append(Entry(START, b"a\n"))
    assert await server.read() is End.WHOLE
    kubelet.files.append([])
    assert await server.read(ENDED) is End.WHOLE
    await server.copier.finish("training", 0)
    assert (server.text(), server.view.gaps()) == (b"a\n", ())


async def test_the_same_file_after_a_cut_may_be_a_loss(tmp_path: Path):
    kubelet = FakeKubelet()
    server = Server(kubelet, tmp_path)
    kubelet.files[0].append(Entry(START, b"a\n"))
    kubelet.cut_after = [33]
    assert await server.read() is End.CUT
    kubelet.files.append([])
    assert await server.read(ENDED) is End.WHOLE
    await server.copier.finish("training", 0)
    (gap,) = server.view.gaps()
    assert (server.text(), gap.start, gap.end) == (b"a\n<gap>", 2, 3)
    assert "not known" in gap.reason


async def test_times_are_those_of_the_node(tmp_path: Path):
    kubelet = FakeKubelet(5000)
    server = Server(kubelet, tmp_path)
    times = [START, START + 4_000_000, START + 5 * 10**9, START + 5 * 10**9 + 10_000_001]
    kubelet.files[0] = [Entry(time, b"%d\n" % number) for number, time in enumerate(times)]
    await server.read(ENDED)
    await server.copier.finish("training", 0)
    # The second came within a hundredth of a second of the first.
    assert [server.view.time_at(at) for at in (0, 2, 4, 6)] == [times[0], times[0], *times[2:]]


async def test_a_write_that_was_broken_off_needs_no_line_of_an_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(log_copies, "SegmentWriter", Fragile)
    kubelet = FakeKubelet(5000)
    server = Server(kubelet, tmp_path)
    kubelet.files = [[Entry(START, b"0\n")]]
    await server.read()
    kubelet.files = [[Entry(START + 10**9, b"1\n")]]
    await server.read()
    kubelet.files[0] += [Entry(START + n * 10**9, b"%d\n" % n) for n in (2, 3, 4)]
    Fragile.left = 3
    await server.read()
    Fragile.left = None
    assert await server.read() is End.WHOLE
    assert server.text() == b"0\n<gap>1\n2\n3\n4\n"


async def test_a_power_failure_takes_what_was_not_on_the_disk_and_no_more(tmp_path: Path):
    kubelet = FakeKubelet(40)
    server = Server(kubelet, tmp_path)
    lines = [Entry(START + n * 10**9, b"line %d\n" % n) for n in range(20)]
    kubelet.files[0] = lines
    assert await server.read() is End.WHOLE
    server.die()
    for size in (107, 105, 90, 33, 32, 31, 9, 8, 1, 0):
        kubelet.files[0] = lines[max(0, size // 8 - 2) :]  # the node has forgotten the others
        os.truncate(tmp_path / "00000000000000000000.log", size)
        server.die()
        assert await server.read() is End.WHOLE
        assert (server.text(), server.view.gaps()) == (b"".join(t for _, t in lines), ())


@pytest.mark.parametrize("damage", [b"", b'{"pod": "u", "anch', b"\0" * 100])
async def test_a_source_that_cannot_be_understood_is_no_source(tmp_path: Path, damage: bytes):
    (tmp_path / "source.json").write_bytes(damage)
    assert SourceFile(tmp_path / "source.json").read() is None


async def test_a_source_that_became_shorter_leaves_nothing_of_the_longer_one(tmp_path: Path):
    file = SourceFile(tmp_path / "log" / "source.json")
    file.write(Source(pod="u", container="a" * 50))
    file.update(Source(pod="u", container="b"))
    assert SourceFile(tmp_path / "log" / "source.json").read() == Source(pod="u", container="b")


@pytest.mark.parametrize(
    ("error", "step", "end"),
    [
        (ApiError(400, "BadRequest", "waiting to start"), RUNS, End.REFUSED),
        (ApiError(404, "NotFound", "pods p not found"), ENDED, End.REFUSED),
        (ExecutorUnavailable("away"), ENDED, End.CUT),
        (ApiError(403, "Forbidden", "no right"), ENDED, End.CUT),
    ],
)
async def test_errors_print_nothing(tmp_path: Path, error, step, end):
    kubelet = FakeKubelet()
    kubelet.error = error
    server = Server(kubelet, tmp_path)
    assert await server.read(step) is end
    assert server.text() == b""


@pytest.mark.parametrize("printed", [0, 2])
@pytest.mark.parametrize("step", [RUNS, ENDED])
async def test_what_the_kubelet_says_with_a_200_is_no_text(tmp_path: Path, printed, step):
    kubelet = FakeKubelet()
    server = Server(kubelet, tmp_path)
    kubelet.files[0] = [Entry(START + n, b"%d\n" % n) for n in range(printed)]
    await server.read()
    kubelet.files.append([])
    kubelet.says = UNABLE
    assert await server.read(step) is End.REFUSED
    assert server.text() == b"0\n1\n"[: 2 * printed]


async def test_a_container_that_was_restarted_meanwhile_is_not_taken_for_the_same(tmp_path: Path):
    kubelet = FakeKubelet()
    server = Server(kubelet, tmp_path)
    kubelet.files[0] = [Entry(START, b"first\n")]
    await server.read()
    kubelet.files[0] = [Entry(START + 10**9, b"second\n")]
    kubelet.pod = pod_json(restartCount=1, lastState={"terminated": {"exitCode": 1}})
    assert await server.read() is End.STALE
    assert server.text() == b"first\n"


async def test_a_resumed_log_is_asked_for_from_shortly_before_its_last_line(tmp_path: Path):
    kubelet = FakeKubelet()
    server = Server(kubelet, tmp_path)
    kubelet.files[0] = [Entry(START + 123_456_789, b"a\n")]
    await server.read()
    await server.read(ENDED)
    plain = {"container": "training", "timestamps": "true"}
    assert kubelet.requests == [
        plain | {"follow": "true"},
        plain | {"sinceTime": "2023-11-14T22:13:10Z"},
    ]


async def test_a_silent_stream_is_left_soon_after_its_container_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(log_copies, "DRAIN_S", 0.05)
    kubelet = FakeKubelet()
    server = Server(kubelet, tmp_path)
    never = asyncio.Event()

    async def hang(_params):
        yield b"2023-11-14T22:13:20.000000000Z a\n"
        await never.wait()

    monkeypatch.setattr(kubelet, "_chunks", hang)
    reading = asyncio.create_task(server.read())
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(reading), 0.2)
    assert not reading.done()
    server.copier.hurry()
    assert await asyncio.wait_for(reading, 5) is End.CUT
    assert server.text() == b"a\n"


async def whole_copy(kubelet: FakeKubelet, folder: Path) -> Server:
    """Of a followed log that came to its own end."""
    server = Server(kubelet, folder)
    kubelet.files[0] = [Entry(START, b"a\n"), Entry(START + 10**9, b"b")]
    assert await server.read() is End.WHOLE
    assert server.copier.is_whole
    return server


@pytest.mark.parametrize("step", [RUNS, ENDED])
@pytest.mark.parametrize(
    "error", [NOT_FOUND, ApiError(400, "BadRequest", 'container "training" is terminated')]
)
async def test_a_log_that_is_gone_casts_no_doubt_on_the_end_that_was_seen(
    tmp_path: Path, step, error
):
    server = await whole_copy(kubelet := FakeKubelet(), tmp_path)
    kubelet.error = error
    assert await server.read(step) is End.REFUSED
    assert server.copier.is_whole
    kubelet.error, kubelet.files, kubelet.says = None, [[]], UNABLE
    assert await server.read(step) is End.REFUSED
    assert server.copier.is_whole


@pytest.mark.parametrize("step", [RUNS, ENDED])
async def test_a_log_that_was_rotated_at_its_end_is_whole(tmp_path: Path, step):
    server = await whole_copy(kubelet := FakeKubelet(), tmp_path)
    kubelet.files.append([])
    assert await server.read(step) is End.WHOLE
    assert server.copier.is_whole


async def test_a_container_removed_while_it_is_followed_was_read_to_its_end(tmp_path: Path):
    server = Server(kubelet := FakeKubelet(), tmp_path)
    kubelet.files[0], kubelet.says = [Entry(START, b"a\n")], REMOVED
    assert await server.read() is End.WHOLE
    assert (server.text(), server.copier.is_whole) == (b"a\n", True)
    assert await server.read() is End.WHOLE


async def test_what_may_have_been_printed_is_no_word_of_the_kubelet(tmp_path: Path):
    server = Server(kubelet := FakeKubelet(5000), tmp_path)
    kubelet.files[0] = [Entry(START, b"it says: " + REMOVED)]
    assert await server.read() is End.CUT
    assert not server.copier.is_whole
    assert await server.read(ENDED) is End.WHOLE
    assert server.text() == b"it says: " + REMOVED


@pytest.mark.parametrize("step", [RUNS, ENDED])
async def test_a_lost_connection_casts_doubt_on_the_end_that_was_seen(tmp_path: Path, step):
    server = await whole_copy(kubelet := FakeKubelet(), tmp_path)
    kubelet.error = ExecutorUnavailable("the kubelet cannot be reached")
    assert await server.read(step) is End.CUT
    assert not server.copier.is_whole
    server = await whole_copy(kubelet := FakeKubelet(), tmp_path / "other")
    kubelet.cut_after = [10]
    assert await server.read(step) is End.CUT
    assert not server.copier.is_whole


async def test_a_stream_that_breaks_off_with_a_message_casts_doubt(tmp_path: Path):
    server = await whole_copy(kubelet := FakeKubelet(), tmp_path)
    kubelet.files[0], kubelet.says = [Entry(START + 10**9, b"b\n")], NO_INOTIFY
    assert await server.read() is End.CUT
    assert not server.copier.is_whole


async def test_another_instance_begins_without_the_trust_in_the_one_before(tmp_path: Path):
    server = await whole_copy(kubelet := FakeKubelet(), tmp_path)
    await server.copier.finish("training", 0)
    kubelet.error = NOT_FOUND
    assert await server.read(RUNS._replace(instance=1)) is End.REFUSED
    assert not server.copier.is_whole


async def test_whether_a_stream_brought_news_is_known(tmp_path: Path):
    server = await whole_copy(kubelet := FakeKubelet(), tmp_path)
    assert server.copier.brought_news
    await server.read(ENDED)
    assert not server.copier.brought_news
    kubelet.files[0].append(Entry(START + 2 * 10**9, b"c\n"))
    await server.read(ENDED)
    assert server.copier.brought_news
