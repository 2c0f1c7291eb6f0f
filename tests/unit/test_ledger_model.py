import asyncio
import itertools
import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from model_training.jobs import (
    ACTIVE,
    TERMINAL,
    Asked,
    JobState,
    TrainingJob,
    first_record,
    next_state,
)
from model_training.ledger.ledger import JobFilter, Ledger
from tests.unit.ledger_jobs import START, seen, spec


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
        if version == self.versions.get(wanted.name):
            return  # a version is that of one observation
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
            is_leaving = self.asked[name].delete or before.state is JobState.DELETING
            expected = None if is_leaving else (JobState.FAILED, "RemovedOutside")
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
        changed = self.do(self.ledger.write_off(self.do(self.ledger.missing(present))))
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
            expected = [job for job in reversed(self.jobs.values()) if fits(job, wanted)]
            size = chance.choice([1, 2, 100])
            first = self.do(self.ledger.page(wanted, before=None, limit=size))
            assert [job for _, job in first] == expected[:size]
            if first:
                rest = self.do(self.ledger.page(wanted, before=first[-1][0], limit=100))
                assert [job for _, job in rest] == expected[size:]

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
