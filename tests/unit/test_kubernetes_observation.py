"""Rules of the table that depend on a second, or on a word that nobody wrote.

Every row itself is produced on a cluster: ``tests/cluster/status_cases.py``.
"""

from dataclasses import replace
from typing import Any

import pytest

from model_training.executors.kubernetes.objects import (
    Condition,
    Container,
    ContainerState,
    JobRow,
    PodRow,
    Running,
    Terminated,
)
from model_training.executors.kubernetes.observation import Case, gone_after_stop, look
from model_training.jobs import JobState

SECONDS = [f"2026-01-01T00:00:0{second}Z" for second in range(4)]


def case(state: ContainerState, job: dict[str, Any] | None = None, **pod: Any) -> Case:
    """A job of ours with one pod, whose container is in this state."""
    same = {"namespace": "n", "resource_version": "1", "created": SECONDS[0]}
    return Case(
        job=JobRow(**same, name="model-training-a", uid="j", **({"spec": "{}"} | (job or {}))),
        pods=(
            PodRow(
                **same, name="p", uid="p", job="model-training-a", job_uid="j", main="training",
                containers=(Container("training", state),), node="far", **pod,
            ),
        ),
    )  # fmt: skip


def ended(second: int) -> ContainerState:
    return ContainerState(
        terminated=Terminated(143, startedAt=SECONDS[0], finishedAt=SECONDS[second])
    )


RUNS = ContainerState(running=Running(SECONDS[0]))


@pytest.mark.parametrize(("second", "is_told"), [(1, True), (2, False), (3, False)])
def test_an_end_counts_if_it_came_before_others_deleted_the_job(second: int, is_told: bool):
    """Times are whole seconds: an end in the same one is taken for the deletion's doing."""
    seen = look(case(ended(second), {"deleted": SECONDS[2]}, phase="Failed"))
    assert (seen is not None) == is_told


@pytest.mark.parametrize(("second", "is_told"), [(0, True), (1, False), (2, False)])
def test_of_a_job_that_is_gone_its_pod_tells_when_its_deletion_was_asked_for(
    second: int, is_told: bool
):
    """Deleted in the background, a Job is gone at once; its pod may be killed after its grace."""
    left = replace(case(ended(second), phase="Failed", deleted=SECONDS[3], grace_s=2), is_gone=True)
    assert (look(left) is not None) == is_told


def test_a_pod_that_others_delete_does_not_take_its_end_from_a_job_that_is_there():
    seen = look(case(ended(2), phase="Failed", deleted=SECONDS[3], grace_s=2))
    assert seen is not None
    assert seen.state is JobState.FAILED


def test_a_process_that_never_was_has_no_beginning():
    """The kubelet gives the beginning of time."""
    never = Terminated(128, reason="Error", startedAt="1970-01-01T00:00:00Z", finishedAt=SECONDS[1])
    for job in ({}, {"spec": None}):  # ours, and one of others that will be tried again
        seen = look(case(ContainerState(terminated=never), job, phase="Failed"))
        assert seen is not None
        assert seen.started is None


def test_a_job_that_others_delete_is_what_it_was_until_it_ends():
    seen = look(case(RUNS, {"deleted": SECONDS[2]}, phase="Running", deleted=SECONDS[2]))
    assert seen is not None
    assert seen.state is JobState.RUNNING


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        ("False", "", "NodeUnreachable"),  # the cluster's word for a node that is silent
        ("False", "ContainersNotReady", None),  # the node's own, of a probe that fails
        ("True", "", None),
    ],
)
def test_a_pod_that_is_not_ready_for_no_reason_is_on_a_lost_node(
    status: str, reason: str, told: str | None
):
    ready = Condition("Ready", status, reason)
    seen = look(case(RUNS, phase="Running", conditions=(ready,)))
    assert seen is not None
    assert (seen.state, seen.reason) == (JobState.RUNNING, told)


MADE_UP = {  # for want of a true end, each by another part of a node
    "kubelet": Terminated(137, reason="ContainerStatusUnknown"),
    "runtime": Terminated(255, reason="Unknown", startedAt=SECONDS[0], finishedAt=SECONDS[1]),
    "start": Terminated(128, reason="StartError", startedAt=SECONDS[0], finishedAt=SECONDS[1]),
}


@pytest.mark.parametrize("who", MADE_UP)
def test_an_exit_code_that_no_process_gave_is_told_nowhere(who: str):
    state = ContainerState(terminated=MADE_UP[who])
    failed = look(case(state, phase="Failed"))
    assert failed is not None
    assert (failed.state, failed.exit_code) == (JobState.FAILED, None)
    pods = case(state).pods
    stopped = gone_after_stop(pods, 1, None)
    assert (stopped.state, stopped.exit_code) == (JobState.STOPPED, None)
    assert stopped.message is not None
    assert ("before it started" in stopped.message) == (who != "runtime")


def test_an_exit_code_of_a_process_is_told_whatever_it_is():
    state = ContainerState(terminated=Terminated(255, reason="Error", startedAt=SECONDS[0]))
    seen = look(case(state, phase="Failed"))
    assert seen is not None
    assert seen.exit_code == 255
