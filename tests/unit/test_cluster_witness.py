"""The judges of the fault campaigns on a cluster, on cases that are made up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "faults"))  # scripts that import each other

import cluster_lab
import cluster_witness
import lab as faults_lab
import toxiproxy
from job import words
from service import Service

SEED = 7
PIECES = 400  # one each 0.1 s, from 100.0 on
NAME = "model-training-words-x"


def promise(**told: object) -> dict:
    asked = {"stop": False, "delete": False, "asked_at": None, "kind": "run"}
    job = {"seed": SEED, "pieces": 3000, "exit_code": 0, "name": NAME, "sent": 1.0, "answered": 2.0}
    return job | asked | told


def write_truth(folder: Path, end: str | None, pieces: int = PIECES) -> None:
    """As a job that prints ten pieces a second writes it; a stop without a word is no end."""
    notes = ["start 1 100.000"]
    notes += [f"said {n + 1} {100 + n / 10:.3f}" for n in range(pieces)]
    notes += [f"exit 0 {pieces} {end} {100 + pieces / 10:.3f}"] if end else []
    (folder / NAME).write_text("".join(f"{note}\n" for note in notes))


def printed_until(moment: float) -> bytes:
    return cluster_witness.on_node(words(SEED, round((moment - 100) * 10) + 1))


class Scripted(cluster_witness.ClusterWitness):
    """Asks a service that says what it is told to."""

    def __init__(self, truth: Path, *jobs: dict, **place: object) -> None:
        whole = {"away": [], "dead": [], "cuts": [], "node_breaks": False}
        case = {"url": "http://127.0.0.1:1", "token": "", "truth": str(truth), "jobs": list(jobs)}
        super().__init__(case | {"cluster": whole | place})
        self.log, self.missing = b"", []
        self.listed: list[dict] = []
        self.is_gone = False
        self.cluster = Cluster()

    def get(self, path: str) -> tuple[int, bytes]:
        self.gaps = []
        if path == "/training-jobs":
            return 200, json.dumps(self.listed).encode()
        if self.is_gone:
            return 404, b""
        if path.endswith("/status"):
            return 200, json.dumps(self.listed[0]).encode()
        self.gaps = self.missing
        return 200, self.log


class Cluster:
    """What kubectl tells: the job's pod, or nothing."""

    def __init__(self, pods: int = 0, *, going: bool = False) -> None:
        metadata = {"name": NAME} | ({"deletionTimestamp": "now"} if going else {})
        self.jobs = {}
        self.pods = {NAME: [{"metadata": metadata}] * pods} if pods else {}

    def count(self, name: str) -> tuple[int, int]:
        return 0, len(self.pods.get(name, []))

    def states(self, promised: dict) -> set[str]:
        return {"deleting", "gone"}


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return tmp_path


def log_is_right(witness: Scripted, job: dict, log: bytes, *, gap: bool = False) -> bool:
    witness.log = log
    witness.missing = [(len(log), len(log) + 1)] if gap else []
    witness.judge_log(job, witness.truth(NAME)[1])
    return not witness.violations


# Ended while containerd was away


@pytest.mark.parametrize(
    ("log", "is_fair"),
    [
        (b"", False),
        (printed_until(110), False),
        (printed_until(138), True),  # two seconds before the cut, which it may have in memory
        (printed_until(139.9), True),
        (printed_until(138) + b"never printed", False),
    ],
)
def test_what_was_printed_before_the_cut_in_which_a_job_ended_is_in_its_log(truth, log, is_fair):
    write_truth(truth, "done")
    witness = Scripted(truth, cuts=[[140.0, 145.0]], away=[[140.0, 145.0]])
    assert log_is_right(witness, promise(), log) == is_fair


def test_a_job_that_started_in_a_cut_may_have_an_empty_log(truth):
    write_truth(truth, "done", 20)
    assert log_is_right(Scripted(truth, cuts=[[99.0, 105.0]]), promise(), b"")


def test_a_hole_of_an_earlier_cut_is_no_lack(truth):
    write_truth(truth, "done")
    whole = printed_until(139.9)
    torn = whole[:3000] + whole[9000:]
    cuts = [[104.0, 106.0], [140.0, 145.0]]
    end = len(whole) - len(printed_until(138))
    assert log_is_right(Scripted(truth, cuts=cuts), promise(), torn[:-end])
    assert not log_is_right(Scripted(truth, cuts=cuts), promise(), torn[:2000])


# Stopped


STOPPED = {"stop": True, "asked_at": 139.0}


@pytest.mark.parametrize("end", ["term", None])
@pytest.mark.parametrize(
    ("place", "log", "is_fair"),
    [
        ({}, b"", False),
        ({}, printed_until(130), False),
        ({}, printed_until(137), True),
        ({"away": [[134.0, 136.0]]}, printed_until(132), True),  # asked before it caught up
        ({"away": [[134.0, 136.0]]}, printed_until(125), False),
        ({"away": [[120.0, 125.0]]}, printed_until(118), False),  # it was back for long
        ({"dead": [[120.0, 136.0]]}, printed_until(118), True),
        ({"dead": [[120.0, 136.0]]}, b"", False),
        ({"dead": [[110.0, 133.0], [134.0, 136.0]]}, printed_until(108), True),  # one by the other
        ({"dead": [[110.0, 127.0]], "away": [[130.0, 135.0]]}, printed_until(108), True),
        ({"away": [[139.5, 145.0]]}, printed_until(130), False),  # it went only afterwards
    ],
)
def test_what_was_printed_before_a_stop_is_in_the_log(truth, end, place, log, is_fair):
    write_truth(truth, end)
    witness = Scripted(truth, **place)
    assert log_is_right(witness, promise(**STOPPED), log, gap=True) == is_fair


@pytest.mark.parametrize("end", ["term", None])
def test_a_log_without_a_gap_is_whole(truth, end):
    write_truth(truth, end)
    job = promise(**STOPPED)
    assert log_is_right(Scripted(truth), job, printed_until(139.9))
    assert not log_is_right(Scripted(truth), job, printed_until(139.5))


def test_who_was_killed_may_have_printed_more_than_it_noted(truth):
    write_truth(truth, None)
    assert log_is_right(Scripted(truth), promise(**STOPPED), printed_until(140.0))


def test_a_job_that_was_stopped_before_it_printed_may_have_an_empty_log(truth):
    write_truth(truth, "term")
    assert log_is_right(Scripted(truth), promise(stop=True, asked_at=99.0), b"", gap=True)


@pytest.mark.parametrize(("log", "is_fair"), [(b"", False), (printed_until(137), True)])
def test_a_follower_of_a_deleted_job_got_what_was_printed_before(truth, log, is_fair):
    write_truth(truth, None)
    file = truth / "followed"
    file.write_bytes(log)
    followed = {"file": str(file), "end": None, "gaps": [], "faults": []}
    witness = Scripted(truth)
    witness.is_gone = True
    witness.judge_deleted(promise(delete=True, asked_at=139.0, followed=followed), None)
    assert (not witness.violations) == is_fair


def test_a_violation_is_told_with_the_times_that_explain_it(truth):
    write_truth(truth, "term")
    witness = Scripted(truth, away=[[120.0, 125.0]])
    job = {"name": NAME, "state": "stopped", "reason": None, "exit_code": 0}
    witness.listed = [job | {"parameters": {"seed": SEED}}]
    witness.missing = [(0, 1)]
    witness.judge_job(promise(**STOPPED), witness.listed[0])
    [said] = witness.violations
    assert "'wrote last': 140.0" in said
    assert "'was asked': 139.0" in said
    assert "[120.0, 125.0]" in said


def test_a_job_whose_clock_is_another_one_is_not_judged_by_it(truth):
    write_truth(truth, "done")
    witness = Scripted(truth)
    witness.cluster.count = lambda name: (1, 1)
    witness.log = printed_until(139.9)
    job = {"name": NAME, "state": "succeeded", "reason": None, "exit_code": 0}
    witness.listed = [job | {"parameters": {"seed": SEED}}]
    witness.judge_job(promise(sent=99.0), witness.listed[0])
    assert witness.violations == []
    witness.judge_job(promise(sent=5000.0), witness.listed[0])
    [said] = witness.violations
    assert "started at 100.000, asked for at 5000.0" in said


# Never started


def test_a_job_that_never_started_is_judged_like_others(truth):
    witness = Scripted(truth, cuts=[[140.0, 145.0]], node_breaks=True)
    witness.cluster.pods = {NAME: [{}]}
    witness.cluster.count = lambda name: (1, 1)
    job = {"name": NAME, "reason": "Error", "exit_code": None, "state": "failed"}
    witness.listed = [job | {"parameters": {"seed": SEED}}]
    witness.judge_job(promise(), witness.listed[0])
    [said] = witness.violations  # failed for no reason; nothing that ends the sitting
    assert "truth 0 None" in said


# Gone


def test_a_pod_of_a_job_that_is_told_as_gone_is_seen_before_it_leaves(truth, monkeypatch):
    there = iter([Cluster(1, going=True), Cluster(1, going=True), Cluster()])
    monkeypatch.setattr(cluster_witness, "Cluster", lambda place: next(there))
    witness = Scripted(truth)
    witness.judge()
    assert witness.violations == [f"in the cluster, and not listed: ['{NAME}']"]


def test_the_pod_of_a_stopped_job_may_leave_later(truth, monkeypatch):
    write_truth(truth, "term")
    there = iter([Cluster(1, going=True), Cluster(1, going=True), Cluster()])
    monkeypatch.setattr(cluster_witness, "Cluster", lambda place: next(there))
    witness = Scripted(truth, promise(**STOPPED))
    witness.log = printed_until(139.9)
    job = {"name": NAME, "state": "stopped", "reason": None, "exit_code": 0}
    witness.listed = [job | {"parameters": {"seed": SEED}}]
    witness.judge()
    assert witness.violations == []


@pytest.mark.parametrize(("pods", "violations"), [(1, 1), (0, 0)])
def test_gone_is_too_early_a_word_while_a_pod_is_there(truth, monkeypatch, pods, violations):
    monkeypatch.setattr(cluster_witness, "Cluster", lambda place: Cluster(pods))
    witness = Scripted(truth, promise(kind="delete", delete=True, asked_at=1.0))
    witness.case["recovered"] = cluster_witness.time.monotonic()
    witness.judge_step()
    assert len(witness.violations) == violations


class AnsweredLab(cluster_lab.ClusterLab):
    """Has no cluster, and a kubectl that prints what it is told to, once it is answered."""

    def __init__(self, told: str) -> None:
        faults_lab.Lab.__init__(self, "made-up", 1)
        self.answers = iter([None, told])

    __enter__ = faults_lab.Lab.__enter__

    def kubectl(self, *arguments: str, given: object = None) -> str:
        if (answer := next(self.answers)) is None:
            raise RuntimeError("refused")
        return answer


@pytest.fixture
def keeps_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab that ends lets nothing interrupt it any more: its process is about to end, too."""
    monkeypatch.setattr(faults_lab.signal, "signal", lambda *_: None)


@pytest.mark.usefixtures("keeps_signals")
@pytest.mark.parametrize(
    ("told", "violations"), [(f"pod/{NAME}-abcde\n", 1), (f"job.batch/{NAME}\n", 1), ("pod/y\n", 0)]
)
def test_the_cluster_is_asked_until_it_tells_what_is_left(told, violations):
    with AnsweredLab(told) as lab:
        lab.look_gone(NAME)
        assert len(lab.violations) == violations


# What a campaign leaves


@pytest.mark.usefixtures("keeps_signals")
def test_all_is_tidied_up_the_last_first_whatever_fails():
    ended = []

    def fails() -> None:
        raise RuntimeError("the API server is down")

    with faults_lab.Lab("made-up", 1) as lab:
        lab.at_end.callback(ended.append, "the registry")
        lab.at_end.callback(fails)
        lab.at_end.callback(ended.append, "the network")
    assert ended == ["the network", "the registry"]
    assert not lab.root.exists()
    [said] = lab.violations
    assert "the API server is down" in said


def test_a_network_that_does_not_come_up_is_ended(tmp_path, monkeypatch):
    program = tmp_path / "toxiproxy-server"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(toxiproxy, "programs_folder", lambda: tmp_path)
    monkeypatch.setattr(toxiproxy, "START_S", 0.1)
    network = toxiproxy.Toxiproxy(tmp_path / "log")
    with pytest.raises(OSError, match="refused"):
        network.lead_to("https://127.0.0.1:1")
    network.end()


# When what was there


def test_a_job_notes_when_it_printed_what(tmp_path):
    given = {"seed": "7", "pieces": "3", "pause": "0.05", "exit_code": "5", "on_term": "9"}
    given |= {"truth": str(tmp_path), "MODEL_TRAINING_JOB": NAME}
    argv = [sys.executable, "-S", "-E", str(faults_lab.HERE / "job.py")]
    began = cluster_witness.time.monotonic()
    done = subprocess.run(argv, env=given, stdout=subprocess.PIPE, check=False)
    witness = Scripted(tmp_path)
    assert done.stdout == words(7, 3)
    assert witness.truth(NAME) == (1, (5, 3, "done"))
    assert witness.said(NAME, began) == 0
    assert witness.said(NAME, cluster_witness.time.monotonic()) == 3
    times = [float(note[-1]) for note in witness.truth_notes(NAME)]
    assert times == sorted(times)
    assert times[2] - times[1] >= 0.04


def test_a_service_notes_from_when_to_when_it_was_dead(tmp_path, monkeypatch):
    command = tmp_path / "serve"
    command.write_text("#!/bin/sh\necho ready at http://127.0.0.1:1\nexec sleep 60\n")
    command.chmod(0o755)
    service = Service(tmp_path)
    (tmp_path / "token").write_text("secret")
    service.argv = [str(command)]
    service.start()
    assert service.dead == []
    before = cluster_witness.time.monotonic()
    service.end()
    service.argv = ["true"]  # a life that does not come so far as to listen
    service.start()
    service.bury()
    service.argv = [str(command)]
    service.start()
    service.end()
    [(began, ended)] = service.dead
    assert before <= began < ended <= cluster_witness.time.monotonic()
