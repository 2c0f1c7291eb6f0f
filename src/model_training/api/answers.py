"""From what the service returns to answers: JSON, logs, files, lists.

JSON is written once, from the domain's own ``to_json``; the framework checks requests, not what
we answer ourselves.
"""

import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Final

import orjson
from starlette.responses import Response

from model_training.api.problems import Refused, problem_of
from model_training.api.queries import ByteRange, LogQuery
from model_training.api.streaming import Streamed, Streams
from model_training.errors import RangeNotSatisfiable
from model_training.jobs import JSONObject, TrainingJob, format_time
from model_training.logs.layout import Gap
from model_training.logs.positions import Position
from model_training.outputs import OutputFile
from model_training.reading import LogAnswer

TEXT: Final = "text/plain; charset=utf-8"
EVENTS: Final = "text/event-stream"
LINES: Final = "application/x-ndjson"
GAPS_SHOWN: Final = 100  # in a header; a follower is told of all of them
Pages = AsyncGenerator[tuple[TrainingJob, ...]]


def dumps(plain: object) -> bytes:
    """JSON text; integers of any size survive."""
    try:
        return orjson.dumps(plain)
    except TypeError:
        # orjson stops at 64 bits, and a seed of 2**80 is a parameter like any other.
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()


def as_json(
    plain: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Any JSON value."""
    return Response(dumps(plain), status, dict(headers or {}), "application/json")


def text(body: str, *, status: int = 200) -> Response:
    """A line of plain text."""
    return Response(body, status, media_type=TEXT)


def page(html: str) -> Response:
    """A page that loads nothing and runs nothing."""
    headers = {
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    return Response(html, headers=headers, media_type="text/html")


# Lists


def as_lines(jobs: Iterable[TrainingJob]) -> bytes:
    """A line a job."""
    return b"".join(dumps(job.to_json()) + b"\n" for job in jobs)


def job_page(jobs: tuple[TrainingJob, ...], *, lines: bool, link: str | None) -> Response:
    """One page of jobs."""
    headers = {"Link": f'<{link}>; rel="next"'} if link else {}
    if lines:
        return Response(as_lines(jobs), 200, headers, LINES)
    return as_json([job.to_json() for job in jobs], headers=headers)


def all_jobs(streams: Streams, pages: Pages, *, lines: bool) -> Response:
    """Every job, sent while the ledger is read."""
    frames = _line_frames(pages) if lines else _array_frames(pages)
    media_type = LINES if lines else "application/json"
    return Streamed(streams, frames, {"Content-Type": media_type})


async def _line_frames(pages: Pages) -> AsyncGenerator[bytes]:
    async with aclosing(pages):
        async for jobs in pages:
            yield as_lines(jobs)


async def _array_frames(pages: Pages) -> AsyncGenerator[bytes]:
    before = b"["
    async with aclosing(pages):
        async for jobs in pages:
            yield before + b",".join(dumps(job.to_json()) for job in jobs)
            before = b","
    yield b"[]" if before == b"[" else b"]"


# Logs


def log_headers(job: TrainingJob, position: Position, gaps: Iterable[Gap] = ()) -> dict[str, str]:
    """What is known of a log beside its bytes."""
    headers = {
        "Model-Training-State": str(job.state),
        "Model-Training-Position": str(position),
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-store",
    }
    if job.state.is_terminal and job.exit_code is not None:
        headers["Model-Training-Exit-Code"] = str(job.exit_code)
    if shown := [f"{gap.start}-{gap.end}" for gap in gaps][:GAPS_SHOWN]:
        headers["Model-Training-Gaps"] = ", ".join(shown)
    return headers


def log(streams: Streams, answer: LogAnswer, asked: LogQuery) -> Response:
    """A log as it is now, whole or the range of it that was asked for."""
    if asked.byte_range is not None:
        return _log_range(streams, answer, asked.byte_range)
    headers = log_headers(answer.job, answer.position, answer.gaps)
    headers["Content-Type"] = TEXT
    if not asked.selection.timestamps:
        missing = sum(_overlap(gap, answer.start, answer.end) for gap in answer.gaps)
        headers["Content-Length"] = str(answer.end - answer.start - missing)
    return Streamed(streams, answer.blocks(answer.start, answer.end), headers)


def _overlap(gap: Gap, start: int, end: int) -> int:
    return max(0, min(gap.end, end) - max(gap.start, start))


def _log_range(streams: Streams, answer: LogAnswer, asked: ByteRange) -> Response:
    """The range, up to the first byte that is missing.

    A range names bytes of the log by their place in it, so it cannot skip any: one that begins
    within a gap is answered 416, and the header tells where the gap ends.
    """
    try:
        start, end = _present(asked.within(answer.size), answer)
    except RangeNotSatisfiable as error:
        headers = log_headers(answer.job, answer.position, answer.gaps)
        raise Refused(problem_of(error).with_headers(headers)) from None
    position = Position(answer.attempt, end, answer.generation)
    headers = {
        **log_headers(answer.job, position, answer.gaps),
        "Content-Type": TEXT,
        **range_headers(start, end, answer.size),
    }
    return Streamed(streams, answer.blocks(start, end), headers, status_code=206)


def _present(wanted: tuple[int, int], answer: LogAnswer) -> tuple[int, int]:
    start, end = wanted
    gap = next((gap for gap in answer.gaps if _overlap(gap, start, end)), None)
    if gap is None:
        return wanted
    if gap.start <= start:
        raise RangeNotSatisfiable(answer.size)
    return start, gap.start


def range_headers(start: int, end: int, size: int) -> dict[str, str]:
    """Of a part of something."""
    return {
        "Content-Range": f"bytes {start}-{end - 1}/{size}",
        "Content-Length": str(end - start),
    }


# Outputs


def output_file(file: OutputFile) -> JSONObject:
    """One line of the listing."""
    modified_at = format_time(file.modified_at)
    return {"path": file.path, "size": file.size, "modified_at": modified_at}
