"""What a Job, its pods and its events say about a training job: one pure function.

``look`` tries the rows of one table from the top; the first that knows an answer is right. The
training process's own end counts before the Job's, which follows two or three seconds later.
Times of Kubernetes are whole seconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from model_training.executors.kubernetes.objects import (
    EventRow,
    JobRow,
    PodRow,
    Terminated,
)
from model_training.executors.kubernetes.wording import (
    NEVER_STARTED,
    NO_CODE,
    NOT_BEGUN,
    UNSEEN,
    disruption_words,
    exit_words,
    forbidden_words,
    init_words,
    is_made_up,
    not_started,
    sentence,
    start_words,
    stop_words,
    waiting_words,
)
from model_training.jobs import JobState, Reason, parse_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is seen of a training job; the fields are those of Observation."""

    state: JobState
    reason: str | None = None
    message: str | None = None
    attempt: int = 1
    started: str | None = None
    finished: str | None = None
    exit_code: int | None = None

    @property
    def started_at(self) -> datetime | None:
        """When the training process started."""
        return parse_time(self.started) if self.started else None

    @property
    def finished_at(self) -> datetime | None:
        """When it ended."""
        return parse_time(self.finished) if self.finished else None

    @property
    def duration_s(self) -> float | None:
        """Whole seconds, by the node's clock; no other is told."""
        if self.started_at is None or self.finished_at is None:
            return None
        return max(0.0, (self.finished_at - self.started_at).total_seconds())


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Everything that ``look`` knows of one job."""

    job: JobRow
    pods: tuple[PodRow, ...] = ()
    """of this Job, oldest first; the last one is its latest attempt"""
    attempt: int = 1
    """number of that attempt"""
    events: tuple[EventRow, ...] = ()
    """warnings about the Job or its latest pod; fetched only where nothing else tells"""
    stop_asked: bool = False
    """we delete the Job because somebody asked for a stop"""
    timeout_s: float | None = None
    """what the job was given, in seconds; None also where it is not known"""
    is_gone: bool = False
    """its Job has left the cluster; its pods follow"""
    is_ours: bool = True
    """made by this service: one pod that fails is the end, unless the cluster took it away"""

    @property
    def pod(self) -> PodRow | None:
        """The latest attempt."""
        return self.pods[-1] if self.pods else None

    @property
    def deletion_asked(self) -> datetime | None:
        """When somebody asked for the Job to be deleted; None if nobody did, or it is not known.

        A Job that is deleted in the background is gone at once, and its pods tell when that was.
        """
        if self.job.deleted is not None:
            return parse_time(self.job.deleted)
        return self.pod.deletion_asked if self.is_gone and self.pod else None


def look(case: Case) -> Seen | None:
    """What is seen of the job; None where what was seen before still holds."""
    for row in TABLE:
        if seen := row(case):
            return None if _came_of_deletion(case, seen) else seen
    return None if case.job.deleted or case.is_gone else _unrecognised(case)


def _came_of_deletion(case: Case, seen: Seen) -> bool:
    """Whether it ended only because somebody else deletes the Job: then what was seen before holds.

    An end that came before is true. Once the Job is gone, the job is one that was removed.
    """
    asked = case.deletion_asked
    if asked is None or case.stop_asked or not seen.state.is_terminal:
        return False
    return seen.finished_at is None or seen.finished_at >= asked


# The rows. Each takes the case and knows, or does not.


def _stopped(case: Case) -> Seen | None:
    """We delete the Job because of a stop: it ends with whatever the process ended with."""
    if not case.stop_asked:
        return None
    pod = case.pod
    end = end_of(pod)
    if end is None:
        return Seen(state=JobState.STOPPING, attempt=case.attempt, started=_started(pod))
    return _stopped_with(end, case.attempt)


def gone_after_stop(
    pods: Sequence[PodRow], attempt: int, last: Seen | None, *, went_unseen: bool = False
) -> Seen:
    """Its Job and its pods have gone because we stopped it: the last pod tells how it ended.

    Args:
        pods: as they were last, oldest first.
        attempt: number of the latest.
        last: what was seen before.
        went_unseen: they went while nobody looked.
    """
    ends = [end for pod in pods if (end := end_of(pod))]
    if ends:
        return _stopped_with(ends[-1], attempt)
    if last is None or last.started is None:
        message = UNSEEN if went_unseen else NOT_BEGUN
        return Seen(state=JobState.STOPPED, message=message, attempt=attempt)
    return Seen(
        state=JobState.STOPPED,
        message="stopped; nobody saw how its process ended, so there is no exit code",
        attempt=last.attempt,
        started=last.started,
    )


def _stopped_with(end: Terminated, attempt: int) -> Seen:
    if end.reason in NEVER_STARTED:
        message = NOT_BEGUN
        return Seen(
            state=JobState.STOPPED, message=message, attempt=attempt, finished=end.finishedAt
        )
    return Seen(
        state=JobState.STOPPED,
        message=NO_CODE if is_made_up(end) else stop_words(end),
        attempt=attempt,
        started=end.started,
        finished=end.finishedAt,
        exit_code=None if is_made_up(end) else end.exitCode,
    )


def _training_ended(case: Case) -> Seen | None:
    """The training process has ended, and this was the last attempt."""
    pod = case.pod
    end = end_of(pod)
    if pod is None or end is None or not _is_final(case, pod):
        return None
    if reason := _pod_reason(case, pod):
        return _ended(case, JobState.FAILED, end, *reason)
    if end.reason in NEVER_STARTED:
        return Seen(
            state=JobState.FAILED,
            reason=Reason.START_FAILED,
            message=start_words(end.message),
            attempt=case.attempt,
            finished=end.finishedAt,
        )
    if end.exitCode == 0:
        return _ended(case, JobState.SUCCEEDED, end)
    return _ended(case, JobState.FAILED, end, *exit_words(end, pod))


def _pod_failed(case: Case) -> Seen | None:
    """The pod has failed without its process having run, and there will be no other."""
    pod = case.pod
    if pod is None or pod.phase != "Failed" or not _is_final(case, pod):
        return None
    reason, message = _pod_reason(case, pod) or (
        pod.reason or Reason.ERROR,
        pod.message or init_words(pod),
    )
    return Seen(
        state=JobState.FAILED,
        reason=reason,
        message=sentence(message) or "its pod failed before the training process started",
        attempt=case.attempt,
        started=_started(pod),
        finished=_job_end(case.job),
    )


def _job_complete(case: Case) -> Seen | None:
    """The Job is complete and its pod is not there any more."""
    if case.job.condition("Complete") is None:
        return None
    return Seen(
        state=JobState.SUCCEEDED,
        attempt=case.attempt,
        started=_started(case.pod) or case.job.started,
        finished=_job_end(case.job),
        exit_code=0,
    )


def _job_failed(case: Case) -> Seen | None:
    """The Job has failed, and no pod tells how."""
    failed = case.job.condition("Failed")
    if failed is None:
        return None
    of_pod = _pod_reason(case, case.pod) if case.pod else _late_job(case.job)
    reason, message = of_pod or (Reason.ERROR, failed.message)
    return Seen(
        state=JobState.FAILED,
        reason=reason,
        message=sentence(message) or "the Job failed",
        attempt=case.attempt,
        started=_started(case.pod) or case.job.started,
        finished=failed.lastTransitionTime,
    )


def _suspended(case: Case) -> Seen | None:
    """The Job is suspended: by a queue such as Kueue, or by a person."""
    if not case.job.suspended:
        return None
    words = "the Job is suspended; a queue of the cluster or a person resumes it"
    return _pending(case, "Suspended", words)


def _without_pod(case: Case) -> Seen | None:
    """No pod yet: only events say why (a quota, an admission rule, a missing account)."""
    if case.pods:
        return None
    for event in _newest_first(case.events):
        if event.reason == "FailedCreate":
            reason = "QuotaExceeded" if "exceeded quota" in event.message else "PodRefused"
            return _pending(case, reason, forbidden_words(event.message))
    return _pending(case, "Creating", "the cluster is creating its pod")


def _lost_node(case: Case) -> Seen | None:
    """The node does not answer: the process may run on, nobody knows.

    The cluster then calls the pod not ready and gives no reason; the node itself always gives one.
    """
    pod = case.pod
    ready = next((c for c in pod.conditions if c.type == "Ready"), None) if pod else None
    if pod is None or ready is None or ready.status != "False" or ready.reason:
        return None
    if pod.training is None or pod.training.state.running is None:
        return None
    words = f"the node {pod.node} does not answer; the cluster gives the pod up after a while"
    return Seen(
        state=JobState.RUNNING,
        reason="NodeUnreachable",
        message=words,
        attempt=case.attempt,
        started=_started(pod),
    )


def _running(case: Case) -> Seen | None:
    """The training process runs."""
    container = case.pod.training if case.pod else None
    if container is None or container.state.running is None:
        return None
    return Seen(
        state=JobState.RUNNING, attempt=case.attempt, started=container.state.running.startedAt
    )


def _between_attempts(case: Case) -> Seen | None:
    """An attempt has ended and there will be another, or other pods of the Job go on."""
    pod = case.pod
    end = end_of(pod)
    if pod is None or (end is None and pod.phase != "Failed"):
        return None
    reason, words = _next_words(case, pod, end)
    # A job that has run never shows as pending again.
    state = JobState.RUNNING if end else JobState.PENDING
    return Seen(
        state=state, reason=reason, message=words, attempt=case.attempt, started=_started(pod)
    )


def _next_words(case: Case, pod: PodRow, end: Terminated | None) -> tuple[str | None, str | None]:
    if disruption := pod.condition("DisruptionTarget"):
        why = disruption_words(disruption)
        return "Disrupted", f"the cluster took its pod away ({why}); another attempt follows"
    if end is not None and end.exitCode == 0:
        return None, None  # the Job says in a moment that it is complete
    code = f" with exit code {end.exitCode}" if end else ""
    return "Retrying", f"attempt {case.attempt} ended{code}; another follows"


def _unschedulable(case: Case) -> Seen | None:
    """No node takes the pod; the scheduler says how many it tried and what they lack."""
    pod = case.pod
    placed = next((c for c in pod.conditions if c.type == "PodScheduled"), None) if pod else None
    if placed is None or placed.status != "False":
        return None
    return _pending(case, placed.reason or "Unschedulable", placed.message)


def _initialising(case: Case) -> Seen | None:
    """A container that runs before the training has not ended well."""
    pod = case.pod
    for container in pod.init_containers if pod else ():
        end = container.state.terminated
        if end is not None and end.exitCode == 0:
            continue
        if waiting := waiting_words(container):
            return _pending(case, *waiting)
        if container.state.running is not None:
            words = f"the init container {container.name} prepares the pod"
            return _pending(case, "Initialising", words)
    return None


def _container_waits(case: Case) -> Seen | None:
    """The container cannot start yet: image, secret, config map, or the runtime."""
    container = case.pod.training if case.pod else None
    waiting = waiting_words(container) if container else None
    if container is None or waiting is None:
        return None
    seen = _pending(case, *waiting)
    if before := container.lastState.terminated:  # of a Job that restarts its containers
        return replace(seen, state=JobState.RUNNING, started=before.started)
    return seen


def _starting(case: Case) -> Seen | None:
    """The pod has a node, or is about to get one; events say more when it takes long."""
    pod = case.pod
    if pod is None or pod.phase not in {"", "Pending", "Running"}:
        return None
    for event in _newest_first(case.events):
        if event.reason in {"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"}:
            return _pending(case, event.reason, event.message)
        if event.reason == "Pulling":
            return _pending(case, "PullingImage", event.message)
    if pod.node is None:
        return _pending(case, "Scheduling", "the cluster is choosing a node")
    return _pending(case, Reason.STARTING, f"the node {pod.node} is starting its container")


TABLE: Final[tuple[Callable[[Case], Seen | None], ...]] = (
    _stopped,
    _training_ended,
    _pod_failed,
    _job_complete,
    _job_failed,
    _suspended,
    _without_pod,
    _lost_node,
    _running,
    _between_attempts,
    _unschedulable,
    _initialising,
    _container_waits,
    _starting,
)


UNEXPLAINED: Final = frozenset({"Creating", "Scheduling", "PodInitializing", Reason.STARTING})
"""reasons to wait that are not the whole truth when they last: events tell it"""


def _unrecognised(case: Case) -> Seen:
    pod = case.pod
    native = f"pod phase {pod.phase} {pod.reason}".strip() if pod else "no pod"
    return _pending(case, Reason.UNRECOGNISED, f"Kubernetes says: {native}")


# What the rows are made of


def _pending(case: Case, reason: str, message: str) -> Seen:
    return Seen(
        state=JobState.PENDING, reason=reason, message=sentence(message), attempt=case.attempt
    )


def _ended(
    case: Case,
    state: JobState,
    end: Terminated,
    reason: str | None = None,
    message: str | None = None,
) -> Seen:
    return Seen(
        state=state,
        reason=reason,
        message=message,
        attempt=case.attempt,
        started=end.started,
        finished=end.finishedAt,
        exit_code=None if is_made_up(end) else end.exitCode,
    )


def end_of(pod: PodRow | None) -> Terminated | None:
    """How the training process ended; None also for an end that nobody saw.

    A kubelet that cannot find a container says 137 for want of a true exit code.
    """
    container = pod.training if pod else None
    end = container.state.terminated if container else None
    if end is not None and end.reason == "ContainerStatusUnknown" and end.startedAt is None:
        return None
    return end


def _started(pod: PodRow | None) -> str | None:
    container = pod.training if pod else None
    if container is None:
        return None
    if container.state.running:
        return container.state.running.startedAt
    return container.state.terminated.started if container.state.terminated else None


def _is_final(case: Case, pod: PodRow) -> bool:
    """Whether no other attempt can follow this one."""
    job = case.job
    if job.has_ended or job.condition("FailureTarget") or job.condition("SuccessCriteriaMet"):
        return True
    # A Job of others may try again, or have other pods.
    return case.is_ours and pod.condition("DisruptionTarget") is None


def _pod_reason(case: Case, pod: PodRow) -> tuple[str, str] | None:
    """Why the cluster ended the pod, if it did."""
    if pod.reason == "DeadlineExceeded":
        return Reason.TIMEOUT, _late_words(case) + not_started(pod)
    if late := _late_job(case.job):
        return late
    if pod.reason == "Evicted":
        return "Evicted", sentence(pod.message)
    if pod.reason in {"NodeLost", "NodeShutdown", "Terminated", "Shutdown"}:
        return "NodeLost", sentence(pod.message) or f"the node {pod.node} went away"
    if disruption := pod.condition("DisruptionTarget"):
        return "Disrupted", f"the cluster took its pod away: {disruption_words(disruption)}"
    return None


def _late_job(job: JobRow) -> tuple[str, str] | None:
    """Of a Job of others whose own deadline has passed; ours have one for the pod."""
    over = job.condition("Failed") or job.condition("FailureTarget")
    if over is None or over.reason != "DeadlineExceeded":
        return None
    return Reason.TIMEOUT, "the Job ran longer than its deadline"


def _late_words(case: Case) -> str:
    limit = "its timeout" if case.timeout_s is None else f"{case.timeout_s:g} s"
    return f"ran longer than {limit}"


def _job_end(job: JobRow) -> str | None:
    for kind in ("Complete", "Failed"):
        if condition := job.condition(kind):
            return condition.lastTransitionTime
    return None


def _newest_first(events: Sequence[EventRow]) -> list[EventRow]:
    return sorted(events, key=lambda event: event.last, reverse=True)
