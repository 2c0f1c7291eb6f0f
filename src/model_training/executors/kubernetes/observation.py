"""What a Job, its pods and its events say about a training job: one pure function.

``look`` tries the rows of one table from the top; the first that knows an answer is right. The
training process's own end counts before the Job's, which follows two or three seconds later.
Times of Kubernetes are whole seconds.
"""

import re
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from model_training.executors.kubernetes.objects import (
    Condition,
    Container,
    EventRow,
    JobRow,
    PodRow,
    Terminated,
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
    is_ours: bool = True
    """made by this service: one pod that fails is the end, unless the cluster took it away"""

    @property
    def pod(self) -> PodRow | None:
        """The latest attempt."""
        return self.pods[-1] if self.pods else None


def look(case: Case) -> Seen | None:
    """What is seen of the job; None where what was seen before still holds."""
    for row in TABLE:
        if seen := row(case):
            return seen
    return None if case.job.deleted else _unrecognised(case)


# The rows. Each takes the case and knows, or does not.


def _stopped(case: Case) -> Seen | None:
    """We delete the Job because of a stop: it ends with whatever the process ended with."""
    if not case.stop_asked:
        return None
    pod = case.pod
    end = end_of(pod)
    if end is None:
        return Seen(state=JobState.STOPPING, attempt=case.attempt, started=_started(pod))
    return _ended(case, JobState.STOPPED, end, None, stop_words(end))


def stopped_unseen(last: Seen | None) -> Seen:
    """Its Job is gone after a stop, and the end of its process was never seen."""
    if last is None or last.started is None:
        return Seen(state=JobState.STOPPED, message="stopped before it started")
    return Seen(
        state=JobState.STOPPED,
        message="stopped; nobody saw how its process ended, so there is no exit code",
        attempt=last.attempt,
        started=last.started,
    )


def _deleted_by_others(case: Case) -> Seen | None:
    """Somebody else deletes the Job: an end that came before that is true, a later one is not."""
    if not case.job.deleted:
        return None
    end = end_of(case.pod)
    if end is None or (end.finishedAt or "") >= case.job.deleted:
        return None
    return _training_ended(case)


def _training_ended(case: Case) -> Seen | None:
    """The training process has ended, and this was the last attempt."""
    pod = case.pod
    end = end_of(pod)
    if pod is None or end is None or not _is_final(case, pod):
        return None
    if reason := _pod_reason(case, pod):
        return _ended(case, JobState.FAILED, end, *reason)
    if end.reason in _NEVER_STARTED:
        return Seen(
            state=JobState.FAILED,
            reason=Reason.START_FAILED,
            message=_start_words(end.message),
            attempt=case.attempt,
            finished=end.finishedAt,
        )
    if end.exitCode == 0:
        return _ended(case, JobState.SUCCEEDED, end)
    return _ended(case, JobState.FAILED, end, *_exit_words(end, pod))


def _pod_failed(case: Case) -> Seen | None:
    """The pod has failed without its process having run, and there will be no other."""
    pod = case.pod
    if pod is None or pod.phase != "Failed" or not _is_final(case, pod):
        return None
    reason, message = _pod_reason(case, pod) or (pod.reason or Reason.ERROR, pod.message)
    return Seen(
        state=JobState.FAILED,
        reason=reason,
        message=_sentence(message) or "its pod failed before the training process started",
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
    end = end_of(case.pod)
    reason, message = _JOB_FAILURES.get(failed.reason, (Reason.ERROR, "")), failed.message
    if end is not None and reason[0] == Reason.ERROR and case.pod is not None:
        return _ended(case, JobState.FAILED, end, *_exit_words(end, case.pod))
    return Seen(
        state=JobState.FAILED,
        reason=reason[0],
        message=_sentence(reason[1] or message) or "the Job failed",
        attempt=case.attempt,
        started=_started(case.pod) or case.job.started,
        finished=failed.lastTransitionTime,
        exit_code=end.exitCode if end else None,
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
            return _pending(case, reason, _forbidden_words(event.message))
    return _pending(case, "Creating", "the cluster is creating its pod")


def _lost_node(case: Case) -> Seen | None:
    """The node does not answer: the process may run on, nobody knows."""
    pod = case.pod
    ready = next((c for c in pod.conditions if c.type == "Ready"), None) if pod else None
    if pod is None or ready is None or ready.reason not in {"NodeLost", "NodeNotReady"}:
        return None
    if _started(pod) is None:
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
    """An attempt has ended and there will be another."""
    pod = case.pod
    end = end_of(pod)
    if pod is None or (end is None and pod.phase != "Failed"):
        return None
    if disruption := pod.condition("DisruptionTarget"):
        words = (
            f"the cluster took its pod away ({_disruption(disruption)}); another attempt follows"
        )
        return _pending(case, "Disrupted", words)
    code = f" with exit code {end.exitCode}" if end else ""
    return _pending(case, "Retrying", f"attempt {case.attempt} ended{code}; another follows")


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
        if waiting := _waiting(container):
            return _pending(case, *waiting)
        if container.state.running is not None:
            words = f"the init container {container.name} prepares the pod"
            return _pending(case, "Initialising", words)
    return None


def _container_waits(case: Case) -> Seen | None:
    """The container cannot start yet: image, secret, config map, or the runtime."""
    container = case.pod.training if case.pod else None
    waiting = _waiting(container) if container else None
    return _pending(case, *waiting) if waiting else None


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
    _deleted_by_others,
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
        state=JobState.PENDING, reason=reason, message=_sentence(message), attempt=case.attempt
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
        started=end.startedAt,
        finished=end.finishedAt,
        exit_code=end.exitCode,
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
    return container.state.terminated.startedAt if container.state.terminated else None


def _is_final(case: Case, pod: PodRow) -> bool:
    """Whether no other attempt can follow this one."""
    if case.job.has_ended:
        return True
    if not case.is_ours:
        end = end_of(pod)
        return end is not None and end.exitCode == 0 and pod.phase == "Succeeded"
    return pod.condition("DisruptionTarget") is None


def _pod_reason(case: Case, pod: PodRow) -> tuple[str, str] | None:
    """Why the cluster ended the pod, if it did."""
    if pod.reason == "DeadlineExceeded":
        return Reason.TIMEOUT, _late_words(case) + _not_started(pod)
    if pod.reason == "Evicted":
        return "Evicted", _sentence(pod.message)
    if pod.reason in {"NodeLost", "NodeShutdown", "Terminated", "Shutdown"}:
        return "NodeLost", _sentence(pod.message) or f"the node {pod.node} went away"
    if disruption := pod.condition("DisruptionTarget"):
        return "Disrupted", f"the cluster took its pod away: {_disruption(disruption)}"
    return None


def _late_words(case: Case) -> str:
    limit = "its timeout" if case.timeout_s is None else f"{case.timeout_s:g} s"
    return f"ran longer than {limit}"


def _not_started(pod: PodRow) -> str:
    container = pod.training
    waiting = _waiting(container) if container else None
    return f", and was still waiting: {waiting[0]}: {waiting[1]}" if waiting else ""


def _exit_words(end: Terminated, pod: PodRow) -> tuple[str, str]:
    if end.reason == "OOMKilled":
        return Reason.OUT_OF_MEMORY, "it used more memory than its limit, and was killed"
    words = f"exit code {end.exitCode}"
    if name := _signal_name(end.exitCode):
        words += f", which is what a death by {name} gives"
        if end.exitCode == 128 + signal.SIGKILL:
            words += "; a process of it may have run out of memory"
    if pod.deleted:
        words += "; its pod was deleted by somebody else"
    return Reason.ERROR, words


def stop_words(end: Terminated) -> str | None:
    """The message of a job that ended because of a stop."""
    return "finished during stop" if end.exitCode == 0 else None


def _signal_name(exit_code: int) -> str | None:
    with suppress(ValueError):
        return signal.Signals(exit_code - 128).name
    return None


_NEVER_STARTED: Final = frozenset({"ContainerCannotRun", "StartError", "RunContainerError"})
_RUNTIME_NOISE = re.compile(
    r"^.*(?:OCI runtime create failed|runc create failed)[^:]*: ", re.DOTALL
)


_NOT_FOUND = re.compile(r'exec: "([^"]*)": executable file not found')


def _start_words(message: str) -> str:
    """What the container runtime says, without its own call chain."""
    if match := _NOT_FOUND.search(message):
        return f"command not found: {match[1]}"
    return _sentence(_RUNTIME_NOISE.sub("", message)) or "the command cannot be started"


_WAITING_WORDS: Final = {
    "ContainerCreating": None,  # what every container begins with
    "PodInitializing": None,
}


def _waiting(container: Container) -> tuple[str, str] | None:
    waiting = container.state.waiting
    if waiting is None or waiting.reason in _WAITING_WORDS or not waiting.reason:
        return None
    return waiting.reason, waiting.message or f"the container {container.name} cannot start"


def _disruption(condition: Condition) -> str:
    return _sentence(f"{condition.reason}: {condition.message}".strip(": "))


# Of Jobs made by others too: ours have a deadline a pod, and no retries.
_JOB_FAILURES: Final[dict[str, tuple[str, str]]] = {
    "DeadlineExceeded": (Reason.TIMEOUT, "the Job ran longer than its deadline"),
    "BackoffLimitExceeded": (Reason.ERROR, ""),
    "PodFailurePolicy": (Reason.ERROR, ""),
}


def _job_end(job: JobRow) -> str | None:
    for kind in ("Complete", "Failed"):
        if condition := job.condition(kind):
            return condition.lastTransitionTime
    return None


_FORBIDDEN = re.compile(r'^Error creating: pods "[^"]*" is forbidden: ')


def _forbidden_words(message: str) -> str:
    """Kubernetes' own words, numbers included, without the name of a pod that is not there."""
    return _FORBIDDEN.sub("the cluster refuses its pod: ", message)


def _newest_first(events: Sequence[EventRow]) -> list[EventRow]:
    return sorted(events, key=lambda event: event.last, reverse=True)


_MESSAGE_LIMIT: Final = 1000  # characters; some runtimes answer with whole pages


def _sentence(text: str) -> str:
    """One line, bounded."""
    line = " ".join(text.split())
    return line if len(line) <= _MESSAGE_LIMIT else line[: _MESSAGE_LIMIT - 3] + "..."
