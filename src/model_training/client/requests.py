"""Every request that the client sends, built as a value."""

import json
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import cast
from urllib.parse import parse_qsl, quote

from model_training.client.exchange import Request
from model_training.client.results import JobFilters, JobOptions, LogOptions
from model_training.errors import Fault, InvalidRequest
from model_training.jobs import format_time

PAGE_SIZE = 200  # jobs asked for at once while listing
# The server sends at least a comment every 15 s; three of them missing is a dead connection.
FOLLOW_SILENCE_S = 45.0
LONGEST_DELETE_WAIT_S = 300.0  # the server's own limit


def create_request(
    pipeline: str,
    parameters: Mapping[str, object] | None,
    options: JobOptions,
    *,
    dry_run: bool = False,
) -> Request:
    """Start a job, or only plan one.

    It always carries an Idempotency-Key, so that it may be sent again without a second job.

    Raises:
        InvalidRequest: a parameter is no JSON value, or an option is none of ours.
    """
    _refuse_unknown(options, JobOptions, "training parameters go into the mapping before it")
    query = [("pipeline", pipeline)]
    query += [(k, _text(v)) for k, v in options.items() if k != "idempotency_key" and v is not None]
    if dry_run:
        query.append(("dry_run", "true"))
    key = options.get("idempotency_key") or secrets.token_urlsafe(24)
    return Request(
        method="POST",
        path="/training-jobs",
        query=tuple(query),
        headers={"content-type": "application/json", "idempotency-key": key},
        body=_body(parameters or {}),
    )


def list_request(filters: JobFilters, *, limit: int) -> Request:
    """The first page of a list."""
    _refuse_unknown(filters, JobFilters, "known are " + ", ".join(JobFilters.__annotations__))
    query: list[tuple[str, str]] = []
    for name, value in filters.items():
        several = isinstance(value, list | tuple)
        values = cast("list[object]", value) if several else [value]
        query += [(name, _text(each)) for each in values if each is not None]
    return Request(path="/training-jobs", query=(*query, ("limit", str(limit))))


def next_page_request(link: str) -> Request | None:
    """The request that a ``Link`` header names as the next page, if it names one."""
    for part in link.split(","):
        target, _, attributes = part.strip().partition(";")
        if 'rel="next"' in attributes.replace(" ", "") and target.startswith("<"):
            query = target.strip("<>").partition("?")[2]
            # Nothing else of it is taken: the token goes only to the server that was asked.
            query_pairs = tuple(parse_qsl(query, keep_blank_values=True))
            return Request(path="/training-jobs", query=query_pairs)
    return None


def log_request(
    name: str, options: LogOptions, *, follow: bool = False, position: str | None = None
) -> Request:
    """A job's log: as it stands, or (``follow``) as events from ``position`` on."""
    _refuse_unknown(options, LogOptions, "known are " + ", ".join(LogOptions.__annotations__))
    query = [(k, _text(v)) for k, v in options.items() if v is not None]
    if not follow:
        return Request(path=job_path(name), query=tuple(query))
    headers = {"accept": "text/event-stream", "cache-control": "no-store"}
    if position is not None:
        headers["last-event-id"] = position
    return Request(
        path=job_path(name), query=tuple(query), headers=headers, silence_s=FOLLOW_SILENCE_S
    )


def delete_request(name: str, wait_s: float | None) -> Request:
    """Delete a job; with ``wait_s`` the answer comes when it is gone, or after that time."""
    if wait_s is None:
        return Request(method="DELETE", path=job_path(name))
    query = (("wait", _text(wait_s)),)
    return Request(method="DELETE", path=job_path(name), query=query, silence_s=wait_s + 10.0)


def job_path(name: str, *more: str) -> str:
    """The path of a job, or of something of it; every part is one segment."""
    return "/".join(["/training-jobs", *(_segment(part) for part in (name, *more))])


def output_path(name: str, path: str) -> str:
    """The path of one output; its folders stay segments."""
    return job_path(name, "outputs") + "/" + quote(path, errors="surrogateescape")


def pipeline_path(name: str) -> str:
    """The path of a pipeline."""
    return "/pipelines/" + _segment(name)


def _segment(text: str) -> str:
    # What a terminal gave that is no UTF-8 is nobody's name, which is for the server to say.
    return quote(text, safe="", errors="surrogateescape")


def _body(parameters: Mapping[str, object]) -> bytes:
    try:
        return json.dumps(dict(parameters), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        fault = Fault("body", f"the parameters cannot be written as JSON: {error}")
        raise InvalidRequest(fault) from error


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _refuse_unknown(given: object, known: type, way_out: str) -> None:
    names = set(cast("dict[str, object]", given)) - set(known.__annotations__)
    if names:
        msg = f"no such option: {', '.join(sorted(names))}; {way_out}"
        raise TypeError(msg)
