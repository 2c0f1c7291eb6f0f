"""Jobs as the executor holds them, and what is told of them: where others write nonsense."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from model_training.executors.kubernetes.collector import Collector
from model_training.executors.kubernetes.explaining import Explainer
from model_training.executors.kubernetes.inventory import Inventory
from model_training.executors.kubernetes.jobs import UNKNOWN_OWNER, Job
from model_training.executors.kubernetes.objects import Condition, JobRow, PodRow
from model_training.executors.kubernetes.observation import gone_after_stop
from model_training.executors.kubernetes.reporter import Reporter
from model_training.executors.kubernetes.stops import Stop, read_stops, write_stop
from model_training.folders import DataFolder
from model_training.jobs import JobState, parse_time

pytestmark = pytest.mark.anyio

NAME = "model-training-a"
CREATED = "2026-01-01T00:00:00Z"
FAILED = Condition("Failed", "True", "BackoffLimitExceeded", "it failed", CREATED)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def row(uid: str = "u", **fields: Any) -> JobRow:
    return JobRow(
        namespace="n", name=NAME, uid=uid, resource_version="1", created=CREATED, **fields
    )


def pod(uid: str, job_uid: str) -> PodRow:
    same = {"namespace": "n", "resource_version": "1", "created": CREATED}
    return PodRow(**same, name=uid, uid=uid, job=NAME, job_uid=job_uid)


@pytest.mark.parametrize(
    "record", ["[" * 100_000, '{"a":' * 100_000, "{", "", "null", '{"created_at": "[["}']
)
def test_a_record_that_is_none_makes_a_job_of_somebody_else(record: str):
    job = Job(NAME)
    job.take(row(spec=record))
    assert job.spec is not None
    assert (job.spec.owner, job.spec.id) == (UNKNOWN_OWNER, "u")
    assert job.created_at == job.spec.created_at


def test_a_pod_with_just_the_label_is_not_the_jobs():
    job = Job(NAME)
    job.take(row())
    job.see(pod("stray", "another"))
    assert (job.has_pods, job.attempts) == (False, ())
    job.see(pod("own", "u"))
    assert job.has_pods
    job.lose(pod("own", "u"))
    assert not job.has_pods


def test_the_deletion_of_a_pod_was_asked_for_when_that_was_first_told():
    """The API server moves the time once the kubelet says that its containers have ended."""
    job = Job(NAME)
    job.take(row())
    times = ["2026-01-01T00:00:30Z", "2026-01-01T00:00:07Z"]
    for deleted, grace_s in zip(times, (30, 0), strict=True):
        job.see(replace(pod("own", "u"), deleted=deleted, grace_s=grace_s))
    assert job.attempts[0].deletion_asked == parse_time(CREATED)


def test_a_stop_is_not_meant_for_a_namesake(tmp_path: Path):
    data = DataFolder(tmp_path)
    for folder in (data.open_jobs, data.new_jobs):
        folder.mkdir(parents=True)
    job = Job(NAME)
    job.take(row("first"))
    assert job.spec is not None
    stop = Stop(job.spec, "first", CREATED)
    write_stop(data, stop)
    (found,) = read_stops(data)
    assert found == stop
    for uid, is_meant in (("first", True), ("second", False)):
        after = Job(NAME, noted=found, stop_asked=True)
        after.take(row(uid))
        assert after.stop_asked == is_meant


async def test_an_end_whose_log_is_still_copied_is_never_told_as_nothing(tmp_path: Path):
    """Of whom a snapshot tells nothing is taken for gone."""
    api: Any = None  # never asked
    inventory = Inventory(api, "n", all_namespaces=False, changed=lambda _: None)
    explainer = Explainer(api, inventory.touch)
    collector = Collector(api, DataFolder(tmp_path), log_limit=1, done=inventory.touch)
    reporter = Reporter(inventory, collector, explainer, outputs_claim=None)
    job = inventory.job(NAME)
    job.take(row(conditions=(FAILED,)))
    seen = reporter.news_of(job)
    assert seen is not None
    assert (seen.state, seen.gone) == (JobState.PENDING, False)


async def test_what_a_list_lacks_went_while_nobody_looked():
    api: Any = None  # never asked
    told: list[tuple[bool, bool]] = []

    def changed(job: Job) -> None:
        told.append((job.went_unseen, job.is_there))

    inventory = Inventory(api, "n", all_namespaces=False, changed=changed)
    for reflector, each in ((inventory._jobs, row("first")), (inventory._pods, pod("p", "first"))):
        store = reflector._store
        store.set(each)
        store.remove(("n", each.name), 2)
        store.set(each)
        store.end_list({}, 3)
    assert told == [(False, True), (False, False), (False, True), (True, False)] * 2


def test_who_is_found_being_deleted_may_have_run_before():
    job = Job(NAME)
    job.take(row("first", deleted=CREATED))
    assert job.went_unseen
    job.see(pod("p", "first"))
    assert not job.went_unseen
    job = Job(NAME)
    job.see(pod("p", "first"))
    job.take(row("first", deleted=CREATED))
    assert not job.went_unseen


def test_a_stopped_job_that_nobody_saw_go_is_not_told_as_one_that_never_started():
    assert "before it started" in str(gone_after_stop((), 1, None).message)
    assert "nobody saw" in str(gone_after_stop((), 1, None, went_unseen=True).message)
