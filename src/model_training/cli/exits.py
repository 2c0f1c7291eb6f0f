"""Every exit code of the command, in one table. ``--help`` prints it; scripts rely on it."""

from model_training import errors
from model_training.errors import ModelTrainingError
from model_training.jobs import JobState

OK = 0
ERROR = 1
NOT_FOUND = 3
NOT_ALLOWED = 4
UNREACHABLE = 5
CONFLICT = 6
JOB_FAILED = 100
JOB_STOPPED = 103
TIMED_OUT = 124
INTERRUPTED = 130

HIGHEST_OF_A_JOB = 125  # shells use 126 and above for their own news

HELP = """\b
Exit codes:
  0    done; run, wait, logs -f, demo: the job succeeded
  1    any other error
  2    wrong usage
  3    no such job, pipeline or output
  4    not allowed
  5    the server cannot be reached, or not now
  6    the request is invalid, or does not fit what is there
  124  wait --timeout has passed
  130  interrupted by Ctrl+C; a job goes on
run, wait, logs -f and demo give the job's own code from 1 to 125, else
  100  the job failed without such a code (a signal, a timeout, a lost host)
  103  the job was stopped or deleted
"""

_OF_ERRORS: tuple[tuple[type[ModelTrainingError], int], ...] = (
    (errors.NotFound, NOT_FOUND),
    (errors.Unauthenticated, NOT_ALLOWED),
    (errors.Forbidden, NOT_ALLOWED),
    (errors.ServerUnreachable, UNREACHABLE),
    (errors.Unavailable, UNREACHABLE),
    (errors.InvalidRequest, CONFLICT),
    (errors.MalformedRequest, CONFLICT),
    (errors.RequestTooLarge, CONFLICT),
    (errors.Conflict, CONFLICT),
    (errors.JobRejected, CONFLICT),
    (errors.DataFolderInUse, CONFLICT),
    (errors.WaitTimedOut, TIMED_OUT),
)


def of_error(error: ModelTrainingError) -> int:
    """The exit code for an error."""
    return next((code for kind, code in _OF_ERRORS if isinstance(error, kind)), ERROR)


def of_job(state: str, exit_code: int | None) -> int:
    """The exit code for a job that has ended."""
    if state == JobState.SUCCEEDED:
        return OK
    if state != JobState.FAILED:
        return JOB_STOPPED
    if exit_code is not None and 0 < exit_code <= HIGHEST_OF_A_JOB:
        return exit_code
    return JOB_FAILED
