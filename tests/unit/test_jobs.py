from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.jobs import (
    TRANSITIONS,
    Asked,
    JobSpec,
    JobState,
    Observation,
    Resources,
    TrainingJob,
    first_record,
    format_time,
    next_state,
    parse_time,
)

SPEC = JobSpec(
    name="model-training-digits-0198c0de-1111-4222-8333-444455556666",
    id="0198c0de-1111-4222-8333-444455556666",
    pipeline="digits",
    namespace="local",
    owner="local",
    created_at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    parameters={"epochs": 3, "big": 2**70, "text": "ä\u2028", "none": None},
    request_digest="d",
    executor="local",
    command=("python3", "train.py"),
    folder="/pipelines/digits",
    environment={"A": "b"},
    pass_env=("TOKEN",),
    resources=Resources(cpu=2.0, memory=2**30, gpu=1),
    warnings=("left out",),
)
states = st.sampled_from(JobState)
asked = st.builds(Asked, stop=st.booleans(), delete=st.booleans())


def test_a_spec_reads_back_equal():
    assert JobSpec.from_json(SPEC.to_json()) == SPEC


def test_a_job_reads_back_equal():
    job = first_record(Observation(spec=SPEC, version=1, state=JobState.PENDING))

    assert TrainingJob.from_json(job.to_json()) == job


def test_a_job_of_a_newer_server_is_read_without_what_is_unknown():
    job = first_record(Observation(spec=SPEC, version=1, state=JobState.PENDING))

    assert TrainingJob.from_json({**job.to_json(), "novelty": 1}) == job


@given(states, states, asked)
def test_terminal_states_change_to_nothing_but_deleting(
    current: JobState, seen: JobState, ask: Asked
):
    after = next_state(current, seen, ask)

    if current.is_terminal:
        assert after in {current, JobState.DELETING}
    if current is JobState.DELETING:
        assert after is JobState.DELETING


@given(states, st.lists(st.tuples(states, asked)))
def test_no_sequence_of_observations_leaves_the_table(
    first: JobState, seen: list[tuple[JobState, Asked]]
):
    state = first
    for observed, ask in seen:
        after = next_state(state, observed, ask)
        assert after is state or after in TRANSITIONS[state]
        state = after


@pytest.mark.parametrize(
    ("current", "seen", "ask", "expected"),
    [
        (JobState.PENDING, JobState.RUNNING, Asked(), JobState.RUNNING),
        (JobState.PENDING, JobState.SUCCEEDED, Asked(), JobState.SUCCEEDED),
        (JobState.RUNNING, JobState.PENDING, Asked(), JobState.RUNNING),
        (JobState.RUNNING, JobState.RUNNING, Asked(stop=True), JobState.STOPPING),
        (JobState.STOPPING, JobState.STOPPED, Asked(stop=True), JobState.STOPPED),
        (JobState.RUNNING, JobState.SUCCEEDED, Asked(stop=True), JobState.SUCCEEDED),
        (JobState.SUCCEEDED, JobState.FAILED, Asked(), JobState.SUCCEEDED),
        (JobState.SUCCEEDED, JobState.SUCCEEDED, Asked(delete=True), JobState.DELETING),
        (JobState.DELETING, JobState.SUCCEEDED, Asked(delete=True), JobState.DELETING),
    ],
)
def test_next_state(current: JobState, seen: JobState, ask: Asked, expected: JobState):
    assert next_state(current, seen, ask) is expected


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_read_back_equal_and_sort_as_text(moment: datetime):
    text = format_time(moment)

    assert parse_time(text) == moment
    assert len(text) == 27
    assert text.endswith("Z")


def test_times_of_other_zones_are_written_in_utc():
    moment = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))

    assert format_time(moment) == "2025-12-31T23:00:00.000000Z"


def test_a_time_without_zone_is_refused():
    with pytest.raises(ValueError, match="has no zone"):
        parse_time("2026-01-01T00:00:00")


def test_an_observation_is_named_like_its_job():
    seen = Observation(
        spec=replace(SPEC, name="model-training-x"), version=1, state=JobState.RUNNING
    )

    assert seen.name == "model-training-x"
