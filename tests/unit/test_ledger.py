"""The ledger against a plain dict, against faults of its file, and among concurrent callers."""

import asyncio
import contextlib
import itertools
import random
import resource
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from model_training.errors import LedgerUnavailable, SettingsError
from model_training.jobs import (
    ACTIVE,
    TERMINAL,
    Asked,
    JobSpec,
    JobState,
    Observation,
    Resources,
    TrainingJob,
    first_record,
    next_state,
)
from model_training.ledger.ledger import JobFilter, Ledger
from model_training.ledger.ledger_file import open_file, schema_steps

pytestmark = pytest.mark.anyio

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOTHING = Asked()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
TIMES = st.datetimes(timezones=st.just(UTC))
EVERYTHING = JobFilter()


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def ledger(tmp_path):
    opened = await Ledger.open(tmp_path / "ledger.sqlite3")
    yield opened
    await opened.close()


def spec(number=1, pipeline="digits", owner="ann", **changes):
    wanted = JobSpec(
        name=f"model-training-{pipeline}-{number}",
        id=f"id-{number}",
        pipeline=pipeline,
        namespace="local",
        owner=owner,
        created_at=START + timedelta(minutes=number),
        parameters={"epochs": number},
        request_digest=f"request-{number}",
        executor="local",
        command=("python3", "train.py"),
    )
    return replace(wanted, **changes)


def seen(wanted, state=JobState.PENDING, version=1, **changes):
    if state in TERMINAL:
        changes.setdefault("finished_at", wanted.created_at + timedelta(minutes=5))
    return Observation(spec=wanted, version=version, state=state, **changes)


async def names(ledger, job_filter=EVERYTHING, limit=100, before=None):
    return [job.name for _, job in await ledger.page(job_filter, before=before, limit=limit)]


class LedgerAgainstDict(RuleBasedStateMachine):
    """Every call leaves in the file what a dict of records would hold, over restarts too."""

    known = Bundle("known")

    def __init__(self):
        super().__init__()
        self.folder = TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.jobs: dict[str, TrainingJob] = {}  # in the order of the list, oldest first
        self.asked: dict[str, Asked] = {}
        self.ended: set[str] = set()
        self.versions: dict[str, int] = {}
        self.removed: set[str] = set()
        self.numbers = itertools.count(1)

    def do(self, call):
        return self.loop.run_until_complete(call)

    @initialize()
    def open(self):
        self.ledger = self.do(Ledger.open(Path(self.folder.name) / "ledger.sqlite3"))

    def teardown(self):
        self.do(self.ledger.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.folder.cleanup()

    @rule()
    def restart(self):
        self.do(self.ledger.close())
        self.open()
        self.versions.clear()
        self.removed.clear()

    @rule(
        target=known,
        pipeline=st.sampled_from(["train", "trainer", "train-2", None]),
        owner=st.sampled_from(["ann", "bob"]),
        state=st.sampled_from(JobState),
    )
    def first_sight(self, pipeline, owner, state):
        wanted = spec(next(self.numbers), pipeline, owner)
        observation = seen(wanted, state)
        assert self.do(self.ledger.apply([observation])) == [first_record(observation)]
        self.add(observation)
        return wanted

    @rule(
        wanted=known,
        state=st.sampled_from(JobState),
        version=st.integers(0, 5),
        words=st.sampled_from([None, "A", "B"]),
        gone=st.booleans(),
    )
    def sight(self, wanted, state, version, words, gone):
        observation = seen(wanted, state, version, reason=words, message=words, gone=gone)
        changed = self.do(self.ledger.apply([observation]))
        name = wanted.name
        if name not in self.jobs:
            self.sight_of_an_unknown_job(observation, changed)
            return
        if name in self.ended or version < self.versions.get(name, -1):
            assert changed == []
            return
        self.versions[name] = version
        before = self.jobs[name]
        if gone and state not in TERMINAL:
            expected = None if self.asked[name].delete else (JobState.FAILED, "RemovedOutside")
        else:
            expected = (next_state(before.state, state, self.asked[name]), None)
        self.check(before, changed, expected, has_ended=gone or state in TERMINAL)

    def sight_of_an_unknown_job(self, observation, changed):
        if observation.gone or observation.name in self.removed:
            assert changed == []
            return
        assert changed == [first_record(observation)]
        self.add(observation)

    def add(self, observation):
        name, state = observation.name, observation.state
        self.jobs[name] = first_record(observation)
        self.asked[name] = Asked(delete=state is JobState.DELETING)
        self.versions[name] = observation.version
        if state in TERMINAL:
            self.ended.add(name)

    def check(self, before, changed, expected, *, has_ended):
        if expected is None:
            assert changed == []
            return
        state, reason = expected
        now = changed[0] if changed else before
        assert now.state is state
        assert reason in {None, now.reason}
        assert replace(now, **dict.fromkeys(MAY_CHANGE)) == replace(
            before, **dict.fromkeys(MAY_CHANGE)
        )
        assert (now.finished_at is not None) == has_ended
        self.jobs[now.name] = now
        if has_ended:
            self.ended.add(now.name)

    @rule(wanted=known, what=st.sampled_from(["stop", "delete"]))
    def ask(self, wanted, what):
        answer = self.do(self.ledger.ask(wanted.name, what, "carl", START))
        before = self.jobs.get(wanted.name)
        if before is None:
            assert answer is None
            return
        if what == "delete":
            self.asked[wanted.name] = replace(self.asked[wanted.name], delete=True)
        elif wanted.name not in self.ended and not self.asked[wanted.name].delete:
            self.asked[wanted.name] = replace(self.asked[wanted.name], stop=True)
        assert answer.state is next_state(before.state, before.state, self.asked[wanted.name])
        assert answer.finished_at == before.finished_at
        self.jobs[wanted.name] = answer

    @rule(wanted=known)
    def remove(self, wanted):
        self.do(self.ledger.remove(wanted.name))
        assert self.do(self.ledger.transitions(wanted.name)) == []
        if self.jobs.pop(wanted.name, None):
            self.removed.add(wanted.name)
        self.asked.pop(wanted.name, None)
        self.versions.pop(wanted.name, None)
        self.ended.discard(wanted.name)

    @rule(chance=st.randoms(use_true_random=False))
    def vanish(self, chance):
        present = {name for name in self.jobs if chance.random() < 0.7}
        changed = self.do(self.ledger.vanished(present))
        missing = {
            name
            for name, job in self.jobs.items()
            if job.state in ACTIVE - {JobState.DELETING} and name not in present
        }
        assert {job.name for job in changed} == missing
        for job in changed:
            assert (job.state, job.reason) == (JobState.FAILED, "RemovedOutside")
            self.jobs[job.name] = job
            self.ended.add(job.name)

    @invariant()
    def list_is_the_dict(self):
        rows = self.do(self.ledger.page(JobFilter(), before=None, limit=1000))
        assert [job for _, job in rows] == list(reversed(self.jobs.values()))
        assert [number for number, _ in rows] == sorted((n for n, _ in rows), reverse=True)
        assert self.do(self.ledger.counts()) == {
            state: sum(job.state is state for job in self.jobs.values()) for state in JobState
        }
        pairs = {(job.pipeline, job.owner) for job in self.jobs.values()}
        assert self.do(self.ledger.pairs(JobFilter())) >= pairs

    @invariant()
    def every_filter_picks_what_fits(self):
        chance = random.Random(len(self.jobs))
        for _ in range(3):
            wanted = some_filter(chance)
            found = self.do(self.ledger.page(wanted, before=None, limit=1000))
            assert [job for _, job in found] == [
                job for job in reversed(self.jobs.values()) if fits(job, wanted)
            ]

    @invariant()
    def what_was_asked_for_is_known(self):
        for state, named in (
            (JobState.DELETING, self.ledger.deleting()),
            (JobState.STOPPING, self.ledger.stopping()),
        ):
            assert self.do(named) == [j.name for j in self.jobs.values() if j.state is state]


MAY_CHANGE = (
    "state", "reason", "message", "started_at", "finished_at", "duration_s", "exit_code",
    "attempt", "output",
)  # fmt: skip
PAIRS = [(p, o) for p in ("train", "trainer", "train-2", None) for o in ("ann", "bob")]


def some_filter(chance):
    def maybe(value):
        return value if chance.random() < 0.4 else None

    return JobFilter(
        pipeline=maybe(chance.choice(["train", "trainer", "other"])),
        owner=maybe(chance.choice(["ann", "bob"])),
        states=maybe(frozenset(chance.sample(list(JobState), 2))) or frozenset(),
        created_after=maybe(START + timedelta(minutes=chance.randrange(150))),
        created_before=maybe(START + timedelta(minutes=chance.randrange(150))),
        pairs=maybe(frozenset(chance.sample(PAIRS, 3))),
    )


def fits(job, wanted):
    return (
        wanted.pipeline in {None, job.pipeline}
        and wanted.owner in {None, job.owner}
        and (not wanted.states or job.state in wanted.states)
        and (wanted.created_after is None or job.created_at >= wanted.created_after)
        and (wanted.created_before is None or job.created_at < wanted.created_before)
        and (wanted.pairs is None or (job.pipeline, job.owner) in wanted.pairs)
    )


TestLedgerAgainstDict = LedgerAgainstDict.TestCase
TestLedgerAgainstDict.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


@given(
    parameters=st.dictionaries(st.text(), JSON),
    message=st.text(st.characters(exclude_categories=[])),
    texts=st.lists(st.text(), max_size=3).map(tuple),
    created_at=TIMES,
    resources=st.builds(
        Resources, cpu=st.none() | st.floats(0, 1e12), memory=st.none() | st.integers(0, 2**80)
    ),
)
@settings(max_examples=40, deadline=None)
def test_a_job_comes_back_as_it_went_in(parameters, message, texts, created_at, resources):
    async def there_and_back():
        wanted = spec(
            parameters=parameters,
            command=texts,
            warnings=texts,
            created_at=created_at,
            timeout_s=resources.cpu,
            resources=resources,
        )
        observation = seen(wanted, message=message, started_at=created_at)
        with TemporaryDirectory() as folder:
            ledger = await Ledger.open(Path(folder) / "ledger.sqlite3")
            try:
                await ledger.apply([observation])
                # Half of a surrogate pair is no text: it can neither be stored nor sent.
                whole = message.encode(errors="replace").decode()
                expected = replace(first_record(observation), message=whole)
                assert await ledger.get(wanted.name) == expected
                assert await ledger.get_by_id(wanted.id) == expected
                assert await names(ledger, JobFilter(created_after=created_at)) == [wanted.name]
                assert await names(ledger, JobFilter(created_before=created_at)) == []
            finally:
                await ledger.close()

    asyncio.run(there_and_back())


async def test_an_older_observation_never_overwrites_a_newer_one(ledger):
    await ledger.apply([seen(spec(), JobState.RUNNING, 5, message="new")])
    assert await ledger.apply([seen(spec(), JobState.RUNNING, 4, message="old")]) == []
    assert (await ledger.get(spec().name)).message == "new"


async def test_an_older_observation_in_the_same_batch_is_passed_over(ledger):
    new, old = (seen(spec(), JobState.RUNNING, version, message=str(version)) for version in (5, 4))
    await asyncio.gather(ledger.apply([new, old]), ledger.apply([old]))
    assert (await ledger.get(spec().name)).message == "5"


async def test_how_a_job_ended_never_changes(ledger):
    end = seen(spec(), JobState.SUCCEEDED, exit_code=0, duration_s=1.5, output="here")
    (ended,) = await ledger.apply([end])
    other = seen(spec(), JobState.FAILED, 9, exit_code=1, reason="Error", output="there", gone=True)
    assert await ledger.apply([other]) == []
    assert await ledger.get(spec().name) == ended
    deleting = await ledger.ask(spec().name, "delete", "ann", START)
    assert deleting == replace(ended, state=JobState.DELETING)


async def test_a_job_being_deleted_still_records_how_it_ended(ledger):
    await ledger.apply([seen(spec(), JobState.RUNNING)])
    await ledger.ask(spec().name, "delete", "ann", START)
    (job,) = await ledger.apply([seen(spec(), JobState.FAILED, 2, exit_code=143)])
    assert (job.state, job.exit_code) == (JobState.DELETING, 143)
    assert job.finished_at is not None


async def test_a_waiting_job_that_is_asked_to_stop_no_longer_says_what_it_waits_for(ledger):
    await ledger.apply([seen(spec(), reason="WaitingForSlot", message="waits for 1 of 2")])
    await ledger.ask(spec().name, "stop", "ann", START)
    await ledger.apply([seen(spec(), version=2, reason="WaitingForSlot", message="waits")])
    job = await ledger.get(spec().name)
    assert (job.state, job.reason, job.message) == (
        JobState.STOPPING,
        None,
        "stop asked for by ann",
    )


async def test_a_native_state_that_is_not_known_keeps_the_last_state_and_says_so(ledger):
    await ledger.apply([seen(spec(), JobState.RUNNING)])
    odd = seen(spec(), JobState.PENDING, 2, reason="Unrecognised", message="Hibernating")
    (job,) = await ledger.apply([odd])
    assert (job.state, job.reason, job.message) == (JobState.RUNNING, "Unrecognised", "Hibernating")
    (job,) = await ledger.apply([seen(spec(), JobState.RUNNING, 3)])
    assert job.reason is None


async def test_an_end_that_was_seen_last_counts_though_the_job_is_gone(ledger):
    await ledger.apply([seen(spec(), JobState.RUNNING)])
    (job,) = await ledger.apply([seen(spec(), JobState.STOPPED, 2, exit_code=143, gone=True)])
    assert (job.state, job.exit_code) == (JobState.STOPPED, 143)


async def test_a_belated_observation_does_not_bring_a_removed_job_back(ledger):
    await ledger.apply([seen(spec(), JobState.RUNNING, 2)])
    await ledger.remove(spec().name)
    assert await ledger.apply([seen(spec(), version=1), seen(spec(), version=3)]) == []
    assert await ledger.get(spec().name) is None
    again = spec(created_at=START + timedelta(days=1))
    assert [job.created_at for job in await ledger.apply([seen(again)])] == [again.created_at]


async def test_a_job_accepted_after_the_snapshot_is_not_missing_from_it(ledger):
    await ledger.apply([seen(spec(1))])
    before_the_snapshot = await ledger.newest()
    await ledger.apply([seen(spec(2))])
    (missing,) = await ledger.vanished(set(), up_to=before_the_snapshot)
    assert missing.name == spec(1).name


async def test_the_history_holds_each_state_and_reason_once(ledger):
    name = spec().name
    started, ended = START + timedelta(hours=1), START + timedelta(hours=2)
    await ledger.apply([seen(spec(), reason="WaitingForSlot", message="2 before it")])
    await ledger.apply([seen(spec(), version=2, reason="WaitingForSlot", message="1 before it")])
    await ledger.apply([seen(spec(), JobState.RUNNING, 3, started_at=started)])
    await ledger.ask(name, "stop", "ann", START + timedelta(minutes=90))
    await ledger.ask(name, "stop", "bob", START + timedelta(minutes=91))
    await ledger.apply([seen(spec(), JobState.STOPPED, 4, finished_at=ended)])
    assert await ledger.transitions(name) == [
        (spec().created_at, JobState.PENDING, "WaitingForSlot", "2 before it"),
        (started, JobState.RUNNING, None, None),
        (START + timedelta(minutes=90), JobState.STOPPING, None, "stop asked for by ann"),
        (ended, JobState.STOPPED, None, None),
    ]


async def test_jobs_read_back_from_the_executor_are_listed_by_their_creation(ledger):
    await ledger.apply([seen(spec(number)) for number in (3, 1, 2)])
    assert await names(ledger) == [spec(number).name for number in (3, 2, 1)]


async def test_retention_finds_the_longest_ended_first_and_none_that_is_being_deleted(ledger):
    await ledger.apply([seen(spec(number), JobState.FAILED) for number in (1, 2, 3, 4)])
    await ledger.apply([seen(spec(5))])
    await ledger.ask(spec(2).name, "delete", "ann", START)
    moment = spec(4).created_at + timedelta(minutes=5)
    assert await ledger.ended_before(moment, 10) == [spec(1).name, spec(3).name]
    assert await ledger.ended_before(moment, 1) == [spec(1).name]


async def test_pages_hold_each_job_once_while_others_are_added(ledger):
    await ledger.apply([seen(spec(number)) for number in range(25)])
    found, before = [], None
    while rows := await ledger.page(JobFilter(pipeline="digits"), before=before, limit=10):
        found += [job.name for _, job in rows]
        before = rows[-1][0]
        await ledger.apply([seen(spec(100 + len(found)))])
    assert found == [spec(number).name for number in reversed(range(25))]


async def test_a_reader_of_little_among_much_gets_a_full_page(ledger):
    mine = frozenset({("digits", "ann"), (None, "ann")})
    jobs = [spec(n, ("digits", None)[n % 2], "ann") for n in range(30)]
    others = [spec(100 + n, f"other-{n % 7}", "bob") for n in range(1500)]
    await ledger.apply([seen(wanted) for wanted in jobs + others])
    assert await names(ledger, JobFilter(pairs=mine), limit=20) == [
        wanted.name for wanted in jobs[:9:-1]
    ]
    assert await names(ledger, JobFilter(pairs=frozenset())) == []


async def test_one_call_that_fails_does_not_fail_those_beside_it(ledger):
    broken = seen(spec(1), exit_code=2**70)
    good = [seen(spec(number)) for number in range(2, 20)]
    results = await asyncio.gather(
        *(ledger.apply([one]) for one in [broken, *good]), return_exceptions=True
    )
    assert isinstance(results[0], OverflowError)
    assert len(await names(ledger)) == len(good)


async def test_reads_go_on_while_another_program_holds_the_file(ledger, tmp_path):
    await ledger.apply([seen(spec(1))])
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)) as person:
        person.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(ledger.apply([seen(spec(2))]))
        assert await ledger.get(spec(1).name) is not None
        assert await names(ledger) == [spec(1).name]
        assert not waiting.done()
        person.execute("COMMIT")
    assert len(await waiting) == 1


async def test_what_was_answered_survives_the_death_of_the_process(tmp_path):
    path = tmp_path / "ledger.sqlite3"
    code = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_ledger import *
async def main():
    ledger = await Ledger.open(Path({str(path)!r}))
    async def submit(first):
        for number in range(first, 10**9, 8):
            await ledger.apply([seen(spec(number))])
            print(spec(number).name, flush=True)
    await asyncio.gather(*(submit(first) for first in range(8)))
asyncio.run(main())
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with child:
        answered = [child.stdout.readline().strip() for _ in range(200)]
        child.send_signal(signal.SIGKILL)
        answered += child.stdout.read().split("\n")[:-1]
    ledger = await Ledger.open(path)
    try:
        assert set(answered) <= set(await names(ledger, limit=10**6))
    finally:
        await ledger.close()


@contextlib.contextmanager
def no_file_larger_than(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


async def test_a_disk_without_space_is_said_and_forgotten_once_there_is_some(ledger, tmp_path):
    await ledger.apply([seen(spec(1), JobState.RUNNING, 1)])
    large = {"text": "x" * 90_000}
    with no_file_larger_than((tmp_path / "ledger.sqlite3-wal").stat().st_size + 8192):
        with pytest.raises(LedgerUnavailable):
            await ledger.apply(
                [seen(spec(1), JobState.STOPPED, 3), seen(spec(2, parameters=large))]
            )
        assert (await ledger.get(spec(1).name)).state is JobState.RUNNING
        assert await ledger.get(spec(2).name) is None
    # What was lost does not count as seen either.
    assert len(await ledger.apply([seen(spec(1), JobState.RUNNING, 2, message="goes on")])) == 1
    assert len(await ledger.apply([seen(spec(2, parameters=large))])) == 1
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as person:
        assert person.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_closed_ledger_says_so(tmp_path):
    ledger = await Ledger.open(tmp_path / "ledger.sqlite3")
    await ledger.close()
    await ledger.close()
    for call in (
        ledger.get("x"),
        ledger.page(JobFilter(), before=None, limit=1),
        ledger.remove("x"),
    ):
        with pytest.raises(LedgerUnavailable, match="closed"):
            await call


async def test_the_file_is_readable_by_its_owner_alone(ledger, tmp_path):
    await ledger.apply([seen(spec())])
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}
    assert "ledger.sqlite3-wal" in modes


async def test_a_new_ledger_asks_to_be_rebuilt_until_it_was(tmp_path):
    path = tmp_path / "ledger.sqlite3"
    for _ in range(2):
        ledger = await Ledger.open(path)
        assert ledger.created
        await ledger.apply([seen(spec())])
        await ledger.close()
    ledger = await Ledger.open(path)
    await ledger.note_rebuilt()
    assert not ledger.created
    await ledger.close()
    ledger = await Ledger.open(path)
    assert not ledger.created
    await ledger.close()


async def test_a_ledger_whose_main_file_was_removed_is_new_and_empty(tmp_path):
    path = tmp_path / "ledger.sqlite3"
    ledger = await Ledger.open(path)
    await ledger.note_rebuilt()
    await ledger.apply([seen(spec())])
    left = {name: Path(f"{path}{name}").read_bytes() for name in ("-wal", "-shm")}
    await ledger.close()
    path.unlink()
    for name, content in left.items():  # as a killed server leaves them
        Path(f"{path}{name}").write_bytes(content)
    ledger = await Ledger.open(path)
    assert ledger.created
    assert await names(ledger) == []
    await ledger.close()


def foreign_text(path):
    path.write_text("a shopping list")


def foreign_bytes(path):
    path.write_bytes(random.Random(1).randbytes(20_000))


def foreign_database(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE jobs (id)")


def broken_header(path):
    path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])


def broken_schema(path):
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xff" * 3996
    path.write_bytes(content)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-8192])


def missing_index(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP INDEX jobs_by_pair")


def newer(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 1000")


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "breakage",
    [foreign_text, foreign_bytes, foreign_database, broken_header, broken_schema, cut_short,
     missing_index, newer, a_folder],
)  # fmt: skip
async def test_a_file_that_is_not_wholly_ours_is_refused_and_left_as_it_is(tmp_path, breakage):
    path = tmp_path / "ledger.sqlite3"
    if not breakage.__name__.startswith("foreign"):
        ledger = await Ledger.open(path)
        await ledger.apply([seen(spec(number)) for number in range(200)])
        await ledger.close()
    breakage(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(SettingsError, match=str(path)) as refused:
        await Ledger.open(path)
    assert breakage is a_folder or "move it away" in str(refused.value)
    if breakage is newer:
        assert "newer release" in str(refused.value)
    assert (path.read_bytes() if path.is_file() else None) == before


async def test_an_older_ledger_is_brought_up_to_date_and_keeps_its_jobs(tmp_path):
    path = tmp_path / "ledger.sqlite3"
    ledger = await Ledger.open(path)
    await ledger.apply([seen(spec())])
    await ledger.close()
    steps = (*schema_steps(), "ALTER TABLE ledger ADD COLUMN colour TEXT;")
    for _ in range(2):
        with closing(open_file(path, steps).writer) as db:
            assert db.execute("PRAGMA user_version").fetchone()[0] == len(steps)
            assert db.execute("SELECT count(colour), count(*) FROM ledger").fetchone()[1] == 1
            assert db.execute("SELECT name FROM jobs").fetchone()[0] == spec().name
    with pytest.raises(SettingsError, match="newer release"):
        await Ledger.open(path)


def test_a_migration_that_fails_changes_nothing(tmp_path):
    path = tmp_path / "ledger.sqlite3"
    open_file(path).writer.close()
    steps = (*schema_steps(), "CREATE TABLE half (a); CREATE TABLE jobs (a);")
    with pytest.raises(SettingsError):
        open_file(path, steps)
    with closing(open_file(path).writer) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == len(schema_steps())
