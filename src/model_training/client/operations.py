"""What the client does: each operation as the effects it needs, without any I/O.

``clients.py`` performs them, once blocking and once with asyncio.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

from model_training.client.exchange import (
    Answer,
    Close,
    Disconnected,
    Emit,
    Open,
    Operation,
    Pause,
    Read,
    Request,
    Send,
)
from model_training.client.problems import error_of
from model_training.client.requests import (
    PAGE_SIZE,
    create_request,
    delete_request,
    job_path,
    list_request,
    log_request,
    next_page_request,
    output_path,
    pipeline_path,
)
from model_training.client.results import JobFilters, JobOptions, LogOptions, Output, PipelineInfo
from model_training.client.retries import BUSY, LASTING_PATIENCE_S, Retries
from model_training.errors import (
    JobFailed,
    ModelTrainingError,
    ServerUnreachable,
    WaitTimedOut,
)
from model_training.jobs import JobState, JSONObject, TrainingJob

S = TypeVar("S")
T = TypeVar("T")

# The first look comes soon, because many jobs are short; one a second costs the server nothing.
# Following instead would be told at once, but would carry the whole log of a chatty job.
FIRST_LOOK_S = 0.05
LONGEST_LOOK_S = 1.0
LAST_LOOK_S = 1.0  # for the answer to a look that is made when the time is over
TAIL_LINES = 20  # of the log, in the message of JobFailed
TAIL_BYTES = 10_000  # of them at most: a line may be very long


def ask(request: Request, retries: Retries, *, head_only: bool = False) -> Operation[Answer]:
    """Send a request until there is an answer that counts.

    Raises:
        ServerUnreachable: there was none in the time that ``retries`` gives.
        ModelTrainingError: the answer is a problem.
    """
    while True:
        try:
            answer = cast("Answer", (yield Open(request) if head_only else Send(request)))
        except Disconnected as cut:
            delay = retries.delay_after_cut()
            if delay is None:
                raise ServerUnreachable(cut.why) from cut
        else:
            delay = retries.delay_after_busy(answer) if answer.status in BUSY else None
            if delay is None:
                if answer.status >= 300:
                    raise error_of(answer, request)
                return answer
        yield Pause(delay)


def create(
    pipeline: str,
    parameters: Mapping[str, object] | None,
    options: JobOptions,
    patience_s: float,
) -> Operation[TrainingJob]:
    """Start a job."""
    request = create_request(pipeline, parameters, options)
    return _job((yield from ask(request, Retries(patience_s))))


def plan(
    pipeline: str,
    parameters: Mapping[str, object] | None,
    options: JobOptions,
    patience_s: float,
) -> Operation[JSONObject]:
    """Ask what ``create`` would start."""
    request = create_request(pipeline, parameters, options, dry_run=True)
    return _object((yield from ask(request, Retries(patience_s))))


def list_jobs(filters: JobFilters, limit: int | None, patience_s: float) -> Operation[None]:
    """Emit jobs, newest first, a page at a time."""
    left = limit
    request = list_request(filters, limit=PAGE_SIZE if left is None else min(left, PAGE_SIZE))
    while request is not None and left != 0:
        answer = yield from ask(request, Retries(patience_s))
        for plain in _array(answer):
            yield Emit(_read(TrainingJob.from_json, plain))
            left = None if left is None else left - 1
            if left == 0:
                return
        request = next_page_request(answer.headers.get("link", ""))


def status(name: str, patience_s: float) -> Operation[TrainingJob]:
    """The job as it stands."""
    return _job((yield from ask(Request(path=job_path(name, "status")), Retries(patience_s))))


def stop(name: str, patience_s: float) -> Operation[TrainingJob]:
    """Ask the job to end."""
    request = Request(method="POST", path=job_path(name, "stop"))
    return _job((yield from ask(request, Retries(patience_s))))


def delete(name: str, wait_s: float | None, patience_s: float) -> Operation[TrainingJob | None]:
    """Delete the job; None once nothing of it is left."""
    request, retries, repeated = delete_request(name, wait_s), Retries(patience_s), False
    while True:
        try:
            answer = cast("Answer", (yield Send(request)))
        except Disconnected as cut:
            repeated = repeated or cut.sent
            delay = retries.delay_after_cut()
            if delay is None:
                raise ServerUnreachable(cut.why) from cut
        else:
            if answer.status == 204 or (answer.status == 404 and repeated):
                return None  # the first attempt did it, and its answer was lost
            delay = retries.delay_after_busy(answer) if answer.status in BUSY else None
            if delay is None:
                if answer.status >= 300:
                    raise error_of(answer, request)
                return _job(answer)
        yield Pause(delay)


def wait(
    name: str, timeout_s: float | None, *, check: bool, patience_s: float
) -> Operation[TrainingJob]:
    """Wait until the job has ended.

    A server that cannot be reached is waited for no longer than the job is.
    """
    until = math.inf if timeout_s is None else time.monotonic() + timeout_s
    pause = FIRST_LOOK_S
    job = yield from _look(name, patience_s, until)
    while not job.state.is_terminal:
        left = until - time.monotonic()
        if left <= 0:
            raise WaitTimedOut(f"{name} is still {job.state} after {timeout_s:g} s; it goes on")
        pause = min(pause * 1.5, LONGEST_LOOK_S)
        yield Pause(min(pause, left))
        job = yield from _look(name, LASTING_PATIENCE_S, until)
    if check and job.state is not JobState.SUCCEEDED:
        tail = yield from _log_tail(name, patience_s)
        raise JobFailed(
            name, state=job.state, reason=job.reason, exit_code=job.exit_code, tail=tail
        )
    return job


def _look(name: str, patience_s: float, until: float) -> Operation[TrainingJob]:
    """The job as it stands, asked for until that time of the monotonic clock at the longest."""
    if until == math.inf:
        return (yield from status(name, patience_s))
    left = max(0.0, until - time.monotonic())
    request = Request(path=job_path(name, "status"), within_s=max(left, LAST_LOOK_S))
    retries = Retries(min(patience_s, left), from_now=True)
    return _job((yield from ask(request, retries)))


def _log_tail(name: str, patience_s: float) -> Operation[str]:
    request = log_request(name, {"tail": TAIL_LINES})
    try:
        answer = yield from ask(request, Retries(patience_s))
    except ModelTrainingError:
        return ""  # the job's own end is the news; a log that cannot be had must not hide it
    return answer.body[-TAIL_BYTES:].decode("utf-8", "replace").rstrip("\n")


def log(name: str, options: LogOptions, patience_s: float) -> Operation[None]:
    """Emit the log as it stands, in pieces."""
    yield from _body(log_request(name, options), Retries(patience_s))


def _body(request: Request, retries: Retries) -> Operation[None]:
    """Emit the body of an answer in pieces. It is asked for again only while none has come."""
    received = 0
    while True:
        yield from ask(request, retries, head_only=True)
        try:
            while piece := cast("bytes", (yield Read())):
                received += len(piece)
                yield Emit(piece)
        except Disconnected as cut:
            delay = None if received else retries.delay_after_cut()
            if delay is None:
                msg = f"the answer was cut after {received} bytes: {cut.why}"
                raise ServerUnreachable(msg) from cut
        else:
            return
        yield Close()
        yield Pause(delay)


def outputs(name: str, patience_s: float) -> Operation[tuple[Output, ...]]:
    """What the job keeps."""
    answer = yield from ask(Request(path=job_path(name, "outputs")), Retries(patience_s))
    return tuple(_read(Output.from_json, plain) for plain in _array(answer))


def download(name: str, path: str, patience_s: float) -> Operation[None]:
    """Emit the head of the answer, then its bytes; the head again where it began anew."""
    # Uncompressed on the way, so that its size and digest are those of the file.
    headers = {"accept-encoding": "identity"}
    request = Request(path=output_path(name, path), headers=headers)
    retries = Retries(patience_s)
    while True:
        yield Emit((yield from ask(request, retries, head_only=True)))
        try:
            while piece := cast("bytes", (yield Read())):
                yield Emit(piece)
        except Disconnected as cut:
            delay = retries.delay_after_cut()
            if delay is None:
                raise ServerUnreachable(cut.why) from cut
        else:
            return
        yield Close()
        yield Pause(delay)


def pipelines(patience_s: float) -> Operation[tuple[PipelineInfo, ...]]:
    """Known pipelines, broken ones too."""
    answer = yield from ask(Request(path="/pipelines"), Retries(patience_s))
    return tuple(_read(PipelineInfo.from_json, plain) for plain in _array(answer))


def pipeline(name: str, patience_s: float) -> Operation[PipelineInfo]:
    """One pipeline."""
    answer = yield from ask(Request(path=pipeline_path(name)), Retries(patience_s))
    return _read(PipelineInfo.from_json, _object(answer))


def _job(answer: Answer) -> TrainingJob:
    return _read(TrainingJob.from_json, _object(answer))


def _object(answer: Answer) -> JSONObject:
    return _read(lambda body: cast("JSONObject", dict(json.loads(body))), answer.body)


def _array(answer: Answer) -> list[JSONObject]:
    return _read(lambda body: cast("list[JSONObject]", list(json.loads(body))), answer.body)


def _read(parse: Callable[[S], T], plain: S) -> T:
    try:
        return parse(plain)
    except (ValueError, KeyError, TypeError) as error:
        msg = (
            f"The server's answer cannot be read ({type(error).__name__}: {error}); "
            "is it a Model Training API of this version?"
        )
        raise ModelTrainingError(msg) from error
