"""Errors as answers: one table from error class to status, rendered as RFC 9457 problems.

The ``type`` of a problem is stable: ``/problems/`` and the class name with dashes, so that the
client rebuilds the class. What is not in the table is our own fault: 500, with nothing but the
request's id, because foreign words may hold paths, tokens or parameter values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final

import orjson
from starlette.responses import Response

from model_training import errors
from model_training.errors import (
    InvalidRequest,
    ModelTrainingError,
    PipelineNotFound,
    RangeNotSatisfiable,
    TooManyRequests,
    Unavailable,
)
from model_training.jobs import JSONObject

MEDIA_TYPE: Final = "application/problem+json"
FAULTS_SHOWN: Final = 100  # of one request

# Looked up along the class's own bases, so that a new subclass answers like its parent.
STATUS: Final[Mapping[type[ModelTrainingError], int]] = {
    errors.MalformedRequest: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.RequestTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.RangeNotSatisfiable: 416,
    errors.FilterTooWide: 422,
    errors.InvalidRequest: 422,
    errors.JobRejected: 422,
    errors.TooManyRequests: 429,
    errors.Unavailable: 503,
    errors.DiskReserveReached: 507,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One error, ready to be answered."""

    status: int
    kind: str
    detail: str
    headers: Mapping[str, str]
    extra: Mapping[str, object]

    def with_headers(self, headers: Mapping[str, str]) -> "Problem":
        """The same, with further headers."""
        return replace(self, headers={**headers, **self.headers})

    def body(self, request_id: str) -> bytes:
        """The JSON text."""
        plain: JSONObject = {
            "type": f"/problems/{self.kind}",
            "title": title_of(self.kind),
            "status": self.status,
            "detail": self.detail,
            **self.extra,
            "request_id": request_id,
        }
        return orjson.dumps(plain)

    def response(self, request_id: str) -> Response:
        """The answer."""
        return Response(
            self.body(request_id),
            status_code=self.status,
            headers=dict(self.headers),
            media_type=MEDIA_TYPE,
        )


class Refused(Exception):
    """A route answers with a problem that no error class stands for."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def title_of(kind: str) -> str:
    """``job-not-found`` -> ``Job not found``."""
    return kind.replace("-", " ").capitalize()


def problem_of(error: ModelTrainingError) -> Problem:
    """The problem that an error of ours is answered with."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), None)
    if status is None:
        return INTERNAL
    return Problem(status, error.kind(), error.message, _headers(error), _extra(error))


def _headers(error: ModelTrainingError) -> dict[str, str]:
    if isinstance(error, errors.Unauthenticated):
        given = ' error="invalid_token"' if error.was_given else ""
        return {"WWW-Authenticate": f"Bearer{given}"}
    if isinstance(error, Unavailable | TooManyRequests):
        return {"Retry-After": str(error.retry_after)}
    if isinstance(error, RangeNotSatisfiable):
        return {"Content-Range": f"bytes */{error.size}", "Accept-Ranges": "bytes"}
    return {}


def _extra(error: ModelTrainingError) -> JSONObject:
    if isinstance(error, InvalidRequest):
        shown = error.faults[:FAULTS_SHOWN]
        return {"errors": [{"path": f.path, "message": f.message} for f in shown]}
    if isinstance(error, PipelineNotFound):
        return {"looked": list(error.looked), "nearest": list(error.nearest)}
    return {}


def plain_problem(
    status: int, detail: str, *, kind: str | None = None, headers: Mapping[str, str] | None = None
) -> Problem:
    """A problem of the protocol itself, which no error class stands for."""
    kind = kind or HTTPStatus(status).phrase.lower().replace(" ", "-")
    return Problem(status, kind, detail, headers or {}, {})


INTERNAL: Final = plain_problem(
    500, "This is a fault of the service, not of the request; its log knows the request_id."
)
NO_SUCH_PATH: Final = plain_problem(
    404, "There is nothing at this path; GET /docs lists what there is.", kind="not-found"
)
FOREIGN_HOST: Final = plain_problem(
    421, "This service does not answer for that Host; ask it by a name in allowed_hosts."
)
FOREIGN_ORIGIN: Final = plain_problem(
    403, "Requests from pages of another origin are refused.", kind="foreign-origin"
)
TOO_SLOW: Final = plain_problem(408, "The request did not arrive in time.")
HEADERS_TOO_LARGE: Final = plain_problem(431, "The headers are larger than 64 KiB.")
UNREADABLE: Final = plain_problem(400, "This is no HTTP request.", kind="malformed-request")
