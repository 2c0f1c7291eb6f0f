"""The logs of jobs, attempt by attempt, over restarts of ours and with whatever the disk does."""

import asyncio
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from model_training.errors import ExecutorUnavailable
from model_training.executors.kubernetes import attempts, collector, log_copies
from model_training.executors.kubernetes.api import ApiError
from model_training.executors.kubernetes.collector import Collector
from model_training.executors.kubernetes.log_sources import Source, SourceFile
from model_training.executors.kubernetes.objects import PodRow, decode_pod
from model_training.folders import DataFolder
from model_training.logs.layout import Gap
from model_training.logs.segments import SegmentWriter
from model_training.logs.view import LogView
from tests.unit.fake_kubelet import NOT_FOUND, START, Entry, FakeKubelet
from tests.waiting import until

pytestmark = pytest.mark.anyio

RAN = {"terminated": {"exitCode": 0, "startedAt": "2026-11-25T15:06:07Z"}}
NEVER_RAN = {"terminated": {"exitCode": 128, "startedAt": "1970-01-01T00:00:00Z"}}
UNABLE = b"unable to retrieve container logs for containerd://0123"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "BACKOFF_S", 0.01)
    monkeypatch.setattr(attempts, "BACKOFF_LIMIT_S", 0.02)
    monkeypatch.setattr(attempts, "REFUSED_S", 0.05)
    monkeypatch.setattr(collector, "_DISK_RETRY_S", 0.01)


def pod(uid: str = "u", state: object = None, phase: str = "Running", **more: Any) -> PodRow:
    status = {"name": "training", "state": state or {"running": {}}, **more}
    return decode_pod(
        json.dumps(
            {
                "metadata": {
                    "name": "p",
                    "namespace": "n",
                    "uid": uid,
                    "resourceVersion": "1",
                    "creationTimestamp": f"2026-01-01T00:00:00Z-{uid}",
                },
                "spec": {"containers": [{"name": "training"}]},
                "status": {"phase": phase, "containerStatuses": [status] if state != {} else []},
            }
        ).encode()
    )


def ended(uid: str = "u", state: object = RAN, **more: Any) -> PodRow:
    return pod(uid, state, "Failed", **more)


def printed(*texts: bytes) -> list[Entry]:
    return [Entry(START + n * 10**9, text) for n, text in enumerate(texts)]


class Lab:
    """A collector of one job, that can be made anew, with a fake of the node."""

    def __init__(self, root: Path) -> None:
        self.data = DataFolder(root)
        self.kubelet = FakeKubelet(5000)
        self.done: list[str] = []
        self.make()

    def make(self) -> None:
        self.collector = Collector(
            self.kubelet, self.data, log_limit=1 << 30, done=self.done.append
        )

    def look(self, *pods: PodRow) -> None:
        self.collector.look("j", pods)

    def view(self, attempt: int = 1) -> LogView:
        return LogView(self.data.job("j").log(attempt))

    def text(self, attempt: int = 1) -> bytes:
        view = self.view(attempt)
        pieces = view.blocks(0, view.end)
        return b"".join(b"<gap>" if isinstance(piece, Gap) else piece.data for piece in pieces)

    def reasons(self, attempt: int = 1) -> str:
        return ", ".join(gap.reason for gap in self.view(attempt).gaps())

    async def complete(self) -> None:
        await until(lambda: self.collector.is_complete("j"))

    async def follow(self, *texts: bytes) -> None:
        """A pod that runs, and what it printed is in the log."""
        self.kubelet.files[0] = printed(*texts)
        self.look(pod())
        await until(lambda: self.text() == b"".join(texts))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


async def test_a_log_is_complete_once_its_pod_has_ended_and_all_is_copied(lab: Lab):
    async with lab.collector:
        assert not lab.collector.is_complete("j")
        await lab.follow(b"a\n")
        assert not lab.collector.is_complete("j")
        assert lab.done == []
        lab.kubelet.files[0] = printed(b"a\n", b"b\n")
        lab.look(ended())
        await lab.complete()
        assert (lab.text(), lab.reasons(), lab.done) == (b"a\nb\n", "", ["j"])
        assert (lab.collector.attempts("j"), lab.collector.attempt_of("j", "u")) == (1, 1)
        source = SourceFile(lab.data.job("j").log_source(1)).read()
        assert source is not None
        assert (source.pod, source.complete) == ("u", True)
        lab.look()
        assert lab.done == ["j"]


async def test_a_job_without_pods_has_nothing_to_copy(lab: Lab):
    async with lab.collector:
        lab.look()
        await lab.complete()
        assert (lab.done, lab.collector.attempts("j")) == (["j"], 0)
    assert not lab.data.job("j").path.exists()


async def test_a_read_that_brought_something_is_no_end_before_the_next_one(lab: Lab):
    lab.kubelet.files[0] = printed(b"a\n")
    async with lab.collector:
        lab.look(ended())
        await lab.complete()
    assert len(lab.kubelet.requests) == 2
    assert "sinceTime" in lab.kubelet.requests[1]


async def test_a_replaced_pod_is_another_attempt_over_a_restart_of_ours(lab: Lab):
    async with lab.collector:
        await lab.follow(b"first\n")
        lab.look(ended())
        await lab.complete()
        lab.kubelet.files = [printed(b"second\n")]
        lab.look(ended(), pod("v"))
        await until(lambda: lab.text(2) == b"second\n")
        assert not lab.collector.is_complete("j")
        assert lab.collector.attempt_of("j", "v") == 2
    lab.make()
    async with lab.collector:
        lab.kubelet.files[0] = printed(b"second\n", b"end\n")
        lab.look(ended("v"))
        await lab.complete()
        assert (lab.text(1), lab.text(2)) == (b"first\n", b"second\nend\n")
        assert lab.reasons(1) == lab.reasons(2) == ""
        assert [lab.collector.attempt_of("j", uid) for uid in ("u", "v", "w")] == [1, 2, None]
        assert lab.collector.attempts("j") == 2
    lab.make()
    async with lab.collector:
        lab.look(ended("v"))
        await lab.complete()
    assert (lab.text(2), lab.done) == (b"second\nend\n", ["j", "j", "j"])


async def test_a_pod_that_printed_nothing_keeps_its_number_over_a_restart_of_ours(lab: Lab):
    async with lab.collector:
        await lab.follow(b"first\n")
        lab.look(ended())
        await lab.complete()
        lab.look(ended(), pod("v", {"waiting": {}}))
        await until(lab.data.job("j").log_source(2).exists)
    lab.make()
    async with lab.collector:
        lab.look(ended(), ended("w"))
        await lab.complete()
        assert [lab.collector.attempt_of("j", uid) for uid in ("u", "v", "w")] == [1, 2, 3]
    assert (lab.text(2), lab.text(3)) == (b"<gap>", b"first\n")


async def test_pods_of_the_same_moment_are_numbered_in_order(lab: Lab):
    async with lab.collector:
        lab.look(ended("w"), ended("v"))
        await lab.complete()
        assert [lab.collector.attempt_of("j", uid) for uid in ("v", "w")] == [1, 2]


async def test_a_pod_that_went_while_we_were_away_leaves_a_gap(lab: Lab):
    async with lab.collector:
        await lab.follow(b"a\n")
    lab.make()
    async with lab.collector:
        lab.look()
        await lab.complete()
    assert lab.text() == b"a\n<gap>"
    assert "not known" in lab.reasons()


UNSEEN = {"nobody": (), "one that waited": (pod(state={"waiting": {}}, phase="Pending"),)}


@pytest.mark.parametrize("pods", UNSEEN.values(), ids=UNSEEN)
@pytest.mark.parametrize("went_unseen", [True, False])
async def test_a_pod_that_may_have_run_while_nobody_looked_leaves_a_gap(
    pods: tuple[PodRow, ...], went_unseen: bool, lab: Lab
):
    async with lab.collector:
        lab.look(*pods)
        lab.collector.look("j", (), went_unseen=went_unseen)
        await lab.complete()
    assert ("not known" in lab.reasons()) == went_unseen
    lab.make()
    async with lab.collector:
        lab.look()
        await lab.complete()
    assert len(lab.view().gaps()) == went_unseen


async def test_a_log_that_was_copied_whole_has_no_gap_though_nobody_saw_the_pod_go(lab: Lab):
    async with lab.collector:
        await lab.follow(b"a\n")
        lab.kubelet.error = NOT_FOUND
        lab.look(ended())
        lab.collector.look("j", (), went_unseen=True)
        await lab.complete()
    assert (lab.text(), lab.reasons()) == (b"a\n", "")


async def test_a_container_that_may_have_been_restarted_while_nobody_looked_leaves_a_gap(lab: Lab):
    async with lab.collector:
        await lab.follow(b"a\n")
        lab.look(pod(state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=RAN))
        await until(lambda: lab.collector._jobs["j"].attempts["u"]._copier.source.copied)
        lab.collector.look("j", (), went_unseen=True)
        await lab.complete()
    assert lab.text() == b"a\n<gap>"


async def test_nothing_is_written_after_a_job_was_forgotten(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    """Though a thread is opening its log at that moment; the folder is removed next."""
    opening, go_on = threading.Event(), threading.Event()

    def slow(*args: Any, **options: Any) -> SegmentWriter:
        opening.set()
        go_on.wait()
        return SegmentWriter(*args, **options)

    monkeypatch.setattr(log_copies, "SegmentWriter", slow)
    lab.kubelet.files[0] = []
    async with lab.collector:
        lab.look(pod())
        await until(opening.is_set)
        forgetting = asyncio.create_task(lab.collector.forget("j"))
        await asyncio.sleep(0)
        go_on.set()
        await forgetting
        path = lab.data.job("j").path
        shutil.rmtree(path)
        open_files = [
            str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.exists()
        ]
        assert not [each for each in open_files if each.startswith(str(path))]
        await asyncio.sleep(0)
        assert not path.exists()


@pytest.mark.parametrize("printed", [b"", b"a\n"])
async def test_who_vanished_has_a_gap_in_the_log(printed: bytes, lab: Lab):
    async with lab.collector:
        if printed:
            await lab.follow(printed)
    lab.make()
    async with lab.collector:
        await lab.collector.write_off(["j"])
        assert lab.text() == printed + b"<gap>"
        await lab.collector.write_off(["j"])
        assert len(lab.view().gaps()) == 1
        assert not lab.collector.is_complete("j")


async def test_what_the_disk_does_not_take_of_who_vanished_is_left_out(lab: Lab):
    folder = lab.data.job("j").path
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    async with lab.collector:
        await lab.collector.write_off(["j"])


async def test_a_gap_is_noted_once_however_often_we_are_killed_behind_it(lab: Lab):
    async with lab.collector:
        await lab.follow(b"a\n")
    file = SourceFile(lab.data.job("j").log_source(1))
    for _ in range(3):
        before = file.read()
        lab.make()
        async with lab.collector:
            lab.look()
            await lab.complete()
        assert before is not None
        file.write(before)  # as if we had been killed before the end was written down
    (gap,) = lab.view().gaps()
    assert (gap.start, gap.end) == (2, 3)


async def test_a_pod_that_goes_after_the_end_of_its_log_leaves_no_gap(lab: Lab):
    async with lab.collector:
        await lab.follow(b"a\n")
        lab.kubelet.error = NOT_FOUND
        lab.look(ended())
        lab.look()
        await lab.complete()
    assert (lab.text(), lab.reasons()) == (b"a\n", "")


async def test_a_pod_that_goes_after_its_stream_was_cut_leaves_a_gap(lab: Lab):
    lab.kubelet.cut_after = [33]
    async with lab.collector:
        await lab.follow(b"a\n")
        lab.kubelet.error = ExecutorUnavailable("away")
        lab.look(pod(phase="Unknown"))
        lab.look()
        await lab.complete()
    assert lab.text() == b"a\n<gap>"


@pytest.mark.parametrize(
    ("row", "text"),
    [(ended(), b"<gap>"), (ended(state=NEVER_RAN), b""), (pod(state={"waiting": {}}), b"")],
)
async def test_a_pod_that_goes_unread_leaves_a_gap_if_it_may_have_printed(lab: Lab, row, text):
    lab.kubelet.error = ApiError(400, "BadRequest", "no")
    async with lab.collector:
        lab.look(row)
        lab.look()
        await lab.complete()
    assert lab.text() == text


@pytest.mark.parametrize(("state", "text"), [(RAN, b"<gap>"), (NEVER_RAN, b"")])
async def test_a_log_that_the_node_never_has_is_given_up(lab: Lab, state, text):
    lab.kubelet.says = UNABLE
    async with lab.collector:
        lab.look(ended(state=state))
        await lab.complete()
    assert lab.text() == text
    assert ("no longer had" in lab.reasons()) == bool(text)


async def test_a_running_container_is_asked_for_however_often_it_is_refused(lab: Lab):
    lab.kubelet.error = ApiError(400, "BadRequest", "waiting to start")
    async with lab.collector:
        lab.look(pod())
        await until(lambda: len(lab.kubelet.requests) > 10)
        lab.kubelet.error, lab.kubelet.files[0] = None, printed(b"a\n")
        lab.look(ended())
        await lab.complete()
    assert (lab.text(), lab.reasons()) == (b"a\n", "")


async def test_an_evicted_pod_without_a_word_on_its_containers_leaves_a_gap(lab: Lab):
    lab.kubelet.cut_after = [33]
    async with lab.collector:
        await lab.follow(b"a\n")
        lab.kubelet.error = ExecutorUnavailable("away")
        lab.look(pod(state={}, phase="Failed"))
        await lab.complete()
    assert lab.text() == b"a\n<gap>"


async def test_instances_that_were_missed_are_a_gap(lab: Lab):
    async with lab.collector:
        await lab.follow(b"0\n")
        lab.kubelet.files = [printed(b"3\n")]
        lab.look(ended(restartCount=3))
        await lab.complete()
    assert lab.text() == b"0\n<gap>3\n"
    assert "restarted" in lab.reasons()


async def test_what_is_forgotten_is_let_go(lab: Lab):
    async with lab.collector:
        await lab.follow(b"a\n")
        await lab.collector.forget("j")
        await lab.collector.forget("j")
        assert not lab.collector.is_complete("j")
        assert (lab.collector.attempts("j"), lab.collector.attempt_of("j", "u")) == (0, None)
        shutil.rmtree(lab.data.job("j").path)
        lab.kubelet.files = [printed(b"new\n")]
        lab.look(ended("v"))
        await lab.complete()
        assert lab.collector.attempt_of("j", "v") == 1
    assert lab.text() == b"new\n"


async def test_what_is_forgotten_before_its_folder_was_read_stays_so(lab: Lab):
    async with lab.collector:
        lab.look(ended())
        await lab.collector.forget("j")
        lab.collector.look("other", [])
        await until(lambda: lab.collector.is_complete("other"))
        assert lab.done == ["other"]


@pytest.mark.parametrize("damage", [b"", b"{", b"\0\0"])
async def test_a_log_whose_source_is_damaged_keeps_its_number(lab: Lab, damage: bytes):
    async with lab.collector:
        await lab.follow(b"a\n")
    lab.data.job("j").log_source(1).write_bytes(damage)
    lab.make()
    async with lab.collector:
        lab.look(ended("v"))
        await lab.complete()
        assert lab.collector.attempt_of("j", "v") == 2
    assert (lab.text(1), lab.text(2)) == (b"a\n", b"a\n")


async def test_a_disk_that_cannot_be_read_is_tried_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    reading, fails = collector.read_sources, [True, True]

    def read_sources(job):
        if fails:
            fails.pop()
            raise OSError(5, "Input/output error")
        return reading(job)

    monkeypatch.setattr(collector, "read_sources", read_sources)
    lab.kubelet.files[0] = printed(b"a\n")
    async with lab.collector:
        lab.look(ended())
        await lab.complete()
    assert lab.text() == b"a\n"
    assert caplog.text.count("cannot be read now") == 2


async def test_a_disk_that_cannot_be_written_is_tried_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    fails = [True, True, True]

    class Failing(SegmentWriter):
        def __init__(self, folder: Path, *, limit: int) -> None:
            if fails:
                fails.pop()
                raise OSError(28, "No space left on device")
            super().__init__(folder, limit=limit)

    class FailingFile(SourceFile):
        def write(self, source: Source) -> None:
            if fails:
                raise OSError(28, "No space left on device")
            super().write(source)

    monkeypatch.setattr(log_copies, "SegmentWriter", Failing)
    monkeypatch.setattr(collector, "SourceFile", FailingFile)
    lab.kubelet.files[0] = printed(b"a\n")
    async with lab.collector:
        lab.look(ended(), ended("v"))
        await lab.complete()
    assert "attempt 1 cannot be written now" in caplog.text
    assert "attempt 2 cannot be written now" in caplog.text
    assert (lab.text(1), lab.text(2), lab.reasons(1)) == (b"a\n", b"a\n", "")
