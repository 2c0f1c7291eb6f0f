import asyncio
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_training.jobs import JobState, Resources, first_record
from model_training.ledger.ledger import JobFilter, Ledger
from model_training.ledger.ledger_file import open_file
from tests.unit.ledger_jobs import START, names, seen, spec

pytestmark = pytest.mark.anyio

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FULL = 2  # SQLite's number for a sync at each commit
TIMES = st.datetimes(timezones=st.just(UTC))


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def ledger(tmp_path):
    opened = await Ledger.open(tmp_path / "ledger.sqlite3")
    yield opened
    await opened.close()


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


async def test_a_power_cut_may_take_only_what_an_executor_tells_again(tmp_path):
    opened = open_file(tmp_path / "ledger.sqlite3")
    ledger = Ledger(opened.writer, tmp_path / "ledger.sqlite3", created=opened.created)
    one, other = spec(1), spec(2)

    def is_synced():
        return opened.writer.execute("PRAGMA synchronous").fetchone()[0] == FULL

    await ledger.apply([seen(one), seen(other)])
    await ledger.apply([seen(one, JobState.RUNNING, 2)])
    assert not is_synced()
    await ledger.ask(other.name, "stop", "ann", START)
    assert is_synced()
    await ledger.apply([seen(other, JobState.STOPPING, 2)])
    assert not is_synced()
    await ledger.apply([seen(other, JobState.STOPPED, 3), seen(one, JobState.RUNNING, 3)])
    assert is_synced()
    await ledger.close()


async def test_the_digest_at_the_start_replaces_the_one_at_acceptance(ledger):
    wanted = spec(digest="accepted")
    await ledger.apply([seen(wanted)])
    assert (await ledger.get(wanted.name)).digest == "accepted"
    await ledger.apply([seen(wanted, JobState.RUNNING, 2, digest="started")])
    await ledger.apply([seen(wanted, JobState.SUCCEEDED, 3)])
    assert (await ledger.get(wanted.name)).digest == "started"


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
    await ledger.apply([seen(spec(), JobState.STOPPING, 3)])
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
    assert await ledger.missing(set(), up_to=before_the_snapshot) == [spec(1).name]
    assert await ledger.missing({spec(2).name}) == [spec(1).name]


async def test_who_is_deleted_or_has_ended_meanwhile_has_not_vanished(ledger):
    await ledger.apply([seen(spec(number)) for number in (1, 2, 3)])
    missing = await ledger.missing(set())
    await ledger.apply([seen(spec(1), JobState.SUCCEEDED, 2)])
    await ledger.ask(spec(2).name, "delete", "ann", START)
    (vanished,) = await ledger.write_off(missing)
    assert (vanished.name, vanished.reason) == (spec(3).name, "RemovedOutside")


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


async def test_of_two_jobs_with_one_id_the_first_is_found(ledger):
    await ledger.apply([seen(spec(1)), seen(spec(2, "other", id=spec(1).id))])
    assert (await ledger.get_by_id(spec(1).id)).name == spec(1).name
    assert await ledger.request_digest(spec(2, "other").name) == "request-2"
    assert await ledger.request_digest("nothing") is None
    assert await ledger.get_by_id("nothing") is None


async def test_what_was_known_of_a_running_job_stays_known(ledger):
    await ledger.apply([seen(spec(), JobState.RUNNING, 1, started_at=START, output="here")])
    await ledger.apply([seen(spec(), JobState.RUNNING, 2, attempt=2)])
    (job,) = await ledger.apply([seen(spec(), JobState.FAILED, 3, finished_at=None)])
    assert (job.started_at, job.output, job.attempt) == (START, "here", 2)
    assert job.finished_at is not None


async def test_a_page_of_two_states_is_newest_first_whatever_their_states(ledger):
    old = [seen(spec(number), JobState.STOPPED) for number in range(5)]
    new = [seen(spec(number), JobState.FAILED) for number in range(5, 10)]
    await ledger.apply(old + new)
    both = JobFilter(states=frozenset({JobState.STOPPED, JobState.FAILED}))
    for job_filter in (both, JobFilter(pipeline="digits"), JobFilter(owner="ann")):
        found = await names(ledger, job_filter, limit=6)
        assert found == [spec(number).name for number in range(9, 3, -1)]


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
    newest = spec(5000, "digits", "ann")
    await ledger.apply([seen(wanted) for wanted in (*jobs, *others, newest)])
    assert await names(ledger, JobFilter(pairs=mine), limit=21) == [
        wanted.name for wanted in (newest, *jobs[:9:-1])
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
