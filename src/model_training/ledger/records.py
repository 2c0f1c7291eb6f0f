"""What an observation, a question or a disappearance makes of a job's record.

Pure functions, so that every rule of the ledger can be tried without a file. The states
themselves come from ``jobs.next_state`` alone.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from model_training.jobs import (
    Asked,
    JobState,
    Observation,
    Reason,
    TrainingJob,
    first_record,
    next_state,
)

Question = Literal["stop", "delete"]

GONE_MESSAGE: Final = "the job was removed by something other than this service; nobody saw it end"


@dataclass(frozen=True, slots=True)
class Entry:
    """A job as the ledger knows it.

    ``ended`` says that its end was seen; a job may have ended and show as ``deleting``.
    """

    sequence: int
    job: TrainingJob
    asked: Asked
    ended: bool


def first_entry(observation: Observation, now: datetime) -> TrainingJob:
    """The record of a job that is seen for the first time."""
    job = first_record(observation)
    if job.state.is_terminal and job.finished_at is None:
        job = replace(job, finished_at=now)
    return replace(job, message=storable(job.message), output=storable(job.output))


def follow(entry: Entry, observation: Observation, now: datetime) -> Entry:
    """The entry, whose end was not seen yet, after an observation.

    The very same one if it says nothing new.
    """
    if observation.gone and not observation.state.is_terminal:
        return entry if entry.asked.delete else vanish(entry, now)
    job, ends = entry.job, observation.state.is_terminal
    state = next_state(job.state, observation.state, entry.asked)
    reason, message = _words(job, state, observation)
    followed = replace(
        job,
        state=state,
        reason=reason,
        message=message,
        attempt=max(job.attempt, observation.attempt),
        started_at=observation.started_at or job.started_at,
        # Where the executor cannot tell when it ended, it is when that was seen.
        finished_at=(observation.finished_at or now) if ends else None,
        duration_s=observation.duration_s if ends else None,
        exit_code=observation.exit_code if ends else None,
        output=storable(observation.output) or job.output,
        digest=observation.digest or job.digest,
    )
    if followed == job and not ends:
        return entry
    return replace(entry, job=followed, ended=ends)


def _words(
    job: TrainingJob, state: JobState, observation: Observation
) -> tuple[str | None, str | None]:
    """Reason and message: those of the state that the job now has, not of another one."""
    says_nothing = observation.reason is None and observation.message is None
    is_about_another = state is not observation.state and observation.reason != Reason.UNRECOGNISED
    is_asked = state is job.state and state in {JobState.STOPPING, JobState.DELETING}
    if is_about_another or (is_asked and says_nothing):
        return job.reason, job.message
    return observation.reason, storable(observation.message)


def vanish(entry: Entry, now: datetime) -> Entry:
    """The entry of a job that the executor no longer knows, though nobody asked us to delete it."""
    state = next_state(entry.job.state, JobState.FAILED, entry.asked)
    job = replace(
        entry.job,
        state=state,
        reason=Reason.REMOVED_OUTSIDE,
        message=GONE_MESSAGE,
        finished_at=now,
    )
    return replace(entry, job=job, ended=True)


def ask(entry: Entry, what: Question, by: str) -> Entry:
    """The entry after somebody asked; the very same one if there is nothing left to ask for."""
    asked = entry.asked
    if asked.delete or (what == "stop" and (entry.ended or asked.stop)):
        return entry
    asked = replace(asked, stop=True) if what == "stop" else replace(asked, delete=True)
    job = replace(entry.job, state=next_state(entry.job.state, entry.job.state, asked))
    if not entry.ended:  # how a job ended stays as it was
        job = replace(job, reason=None, message=f"{what} asked for by {by}")
    return replace(entry, job=job, asked=asked)


def moment_of(job: TrainingJob, now: datetime) -> datetime:
    """When the job's state began, as well as it is known."""
    if job.state.is_terminal:
        return job.finished_at or now
    if job.state is JobState.RUNNING:
        return job.started_at or now
    return now


def storable(text: str | None) -> str | None:
    """Text that can be stored and sent: undecodable bytes of foreign messages become ``?``."""
    return None if text is None else text.encode(errors="replace").decode()
