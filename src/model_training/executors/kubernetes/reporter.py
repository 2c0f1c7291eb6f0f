"""What is to be told of a job: how it is seen, and only once its log allows it.

An end is told once its log is whole, or has been waited for long enough: who asks for the log of
a job that has ended gets all of it.
"""

import asyncio
import itertools
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from model_training.executors.kubernetes.collector import Collector
from model_training.executors.kubernetes.explaining import Explainer
from model_training.executors.kubernetes.inventory import Inventory
from model_training.executors.kubernetes.jobs import Job, LogWait, last_state, unknown_spec
from model_training.executors.kubernetes.observation import Seen, gone_after_stop, look
from model_training.jobs import JobState, Observation, Reason

LOG_WAIT_S: Final = 15.0  # seconds that an end waits for its log, since that has last grown;
# longer than the collector asks for a log that is refused, so that the gap is there

_versions = itertools.count(time.monotonic_ns())


class Reporter:
    """Makes observations of jobs."""

    def __init__(
        self,
        inventory: Inventory,
        collector: Collector,
        explainer: Explainer,
        *,
        outputs_claim: str | None,
    ) -> None:
        """Say whom to ask.

        Args:
            inventory: knows whether it lags behind the cluster.
            collector: knows whether a log is whole, and attempts whose pods are gone.
            explainer: finds out why a job waits.
            outputs_claim: where jobs keep what they make.
        """
        self._inventory = inventory
        self._collector = collector
        self._explainer = explainer
        self._outputs_claim = outputs_claim

    def news_of(self, job: Job) -> Observation | None:
        """How it is seen now, if that is new; ``gone`` if its Job went away without an end.

        Pods may outlive their Job for a while: as long as they print, their job is not gone.
        """
        if job.row is None and not job.stop_asked and not self._had_ended(job):
            return self.gone(job) if not job.may_print and self._log_is_whole(job) else None
        seen = self._seen(job)
        return None if seen is None or seen == job.told else self._tell(job, seen)

    def now(self, job: Job) -> Observation:
        """How it is seen, new or not."""
        return self._tell(job, self._seen(job) or job.told or Seen(state=JobState.PENDING))

    def again(self, job: Job) -> Observation | None:
        """What was told last, for somebody who has not heard it."""
        return self._tell(job, job.told) if job.told and job.is_known else None

    def gone(self, job: Job) -> Observation:
        """Nothing of it is left."""
        return Observation(
            spec=job.spec or unknown_spec(job.name),
            version=next(_versions),
            state=last_state(job),
            gone=True,
        )

    def _seen(self, job: Job) -> Seen | None:
        is_stopped = job.row is None and job.stop_asked
        seen = self._look_after_stop(job) if is_stopped else self._look(job)
        if seen is None:
            return None
        self._explainer.note(job, seen)
        return self._ended(job, seen) if seen.state.is_terminal else seen

    def _ended(self, job: Job, seen: Seen) -> Seen | None:
        """The end, or what is told until it may be."""
        if not self._log_is_whole(job):
            return _held_back(job, seen)
        if seen.finished is None:  # nobody saw when; it was just now
            seen = replace(seen, finished=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        return seen

    def _had_ended(self, job: Job) -> bool:
        """Whether it had come to an end before its Job went away."""
        seen = self._look(job)
        return seen is not None and seen.state.is_terminal

    def _look(self, job: Job) -> Seen | None:
        return look(job.case(self._attempt(job)))

    def _look_after_stop(self, job: Job) -> Seen:
        """The Job has gone because we stopped it: its last pod tells how it ended."""
        if job.has_pods:
            return Seen(state=JobState.STOPPING, attempt=self._attempt(job))
        return gone_after_stop(
            job.attempts, self._attempt(job), job.told, went_unseen=job.went_unseen
        )

    def _attempt(self, job: Job) -> int:
        """The number of its latest attempt; the logs remember pods that are gone for long."""
        return max(1, len(job.attempts), self._collector.attempts(job.name))

    def _log_is_whole(self, job: Job) -> bool:
        """Whether the end may be told: its log is complete, or was waited for long enough."""
        misses_pod = not job.attempts and self._inventory.lags_in_pods
        misses_pod |= job.lacks_pods and not self._collector.attempts(job.name)
        if self._collector.is_complete(job.name) and not misses_pod:
            return True
        now, copied = time.monotonic(), self._collector.copied(job.name)
        if job.waited is None or job.waited.copied != copied:
            job.waited = LogWait(now, copied)
            asyncio.get_running_loop().call_later(LOG_WAIT_S, self._inventory.touch, job.name)
        return now - job.waited.since >= LOG_WAIT_S

    def _tell(self, job: Job, seen: Seen) -> Observation:
        job.told = seen
        spec = job.spec or unknown_spec(job.name)
        started = _not_before(seen.started_at, spec.created_at)
        return Observation(
            spec=spec,
            version=next(_versions),
            state=seen.state,
            reason=seen.reason,
            message=seen.message,
            attempt=seen.attempt,
            started_at=started,
            finished_at=_not_before(seen.finished_at, started or spec.created_at),
            duration_s=seen.duration_s,
            exit_code=seen.exit_code,
            output=self._output_words(job.name),
        )

    def _output_words(self, name: str) -> str:
        if self._outputs_claim:
            return f"the folder {name} of the claim {self._outputs_claim}"
        return "its pod, and gone with it: the service has no claim for outputs"


def _held_back(job: Job, seen: Seen) -> Seen:
    """What is told of a job that has ended while its log is still being copied."""
    if job.stop_asked or seen.started is not None:
        state = JobState.STOPPING if job.stop_asked else JobState.RUNNING
        return Seen(state=state, attempt=seen.attempt, started=seen.started)
    # Never nothing: of whom nothing is told at a start, it is taken for gone.
    words = "it has ended; its log is being copied"
    waits = Seen(state=JobState.PENDING, reason=Reason.STARTING, message=words)
    return replace(waits, attempt=seen.attempt) if job.told is None else job.told


def _not_before(time: datetime | None, earlier: datetime) -> datetime | None:
    """Kubernetes cuts times to whole seconds: within the second of what came before, it is that."""
    if time is not None and time < earlier < time + _SECOND:
        return earlier
    return time


_SECOND: Final = timedelta(seconds=1)
