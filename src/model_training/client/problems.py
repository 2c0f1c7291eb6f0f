"""From a problem document (RFC 9457) back to the error it was made from.

The stable ``type`` of a problem is ``/problems/`` and the class name with dashes. A type that
this version does not know falls back to its status, so that an older client still raises
something that can be caught by kind.
"""

import json
from typing import cast

from model_training import errors
from model_training.client.exchange import Answer, Request
from model_training.errors import Fault, InvalidRequest, ModelTrainingError, PipelineNotFound

_BY_STATUS: dict[int, type[ModelTrainingError]] = {
    400: errors.MalformedRequest,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.RequestTooLarge,
    415: errors.UnsupportedMediaType,
    422: InvalidRequest,
    429: errors.Unavailable,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.Unavailable,
    507: errors.DiskReserveReached,
}


def _descendants(error_class: type[ModelTrainingError]) -> list[type[ModelTrainingError]]:
    below = [c for child in error_class.__subclasses__() for c in _descendants(child)]
    return [error_class, *below]


_BY_KIND = {error_class.kind(): error_class for error_class in _descendants(ModelTrainingError)}


def error_of(answer: Answer, request: Request) -> ModelTrainingError:
    """The error that this answer (300 or above) tells of."""
    problem = _problem(answer)
    kind = str(problem.get("type", "")).rpartition("/")[2]
    error_class = _BY_KIND.get(kind) or _BY_STATUS.get(answer.status, ModelTrainingError)
    error = _build(error_class, problem, request)
    retry_after = answer.headers.get("retry-after", "")
    if isinstance(error, errors.Unavailable) and retry_after.isascii() and retry_after.isdigit():
        error.retry_after = int(retry_after)
    error.problem = problem
    return error


def _problem(answer: Answer) -> dict[str, object]:
    """The document, or one made up from an answer that carries none (a proxy's, say)."""
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict) and "status" in document:
        return cast("dict[str, object]", document)
    detail = f"The server answered {answer.status} without saying why."
    if answer.status < 400:
        # Not followed: what a server is shown belongs to it alone.
        detail = f"The server answered {answer.status}, a redirect; name it by its own address."
    return {
        "type": "about:blank",
        "status": answer.status,
        "detail": detail,
        "request_id": answer.headers.get("x-request-id"),
    }


def _build(
    error_class: type[ModelTrainingError], problem: dict[str, object], request: Request
) -> ModelTrainingError:
    detail = str(problem.get("detail") or problem.get("title") or "")
    if issubclass(error_class, PipelineNotFound):
        name = dict(request.query).get("pipeline") or request.path.rpartition("/")[2]
        return error_class(
            name, looked=_words(problem, "looked"), nearest=_words(problem, "nearest")
        )
    if issubclass(error_class, InvalidRequest):
        return error_class(*_faults(problem, detail))
    if error_class.__init__ in (ModelTrainingError.__init__, errors.Unavailable.__init__):
        return error_class(detail)
    return ModelTrainingError(detail)  # its class takes what a problem does not tell


def _words(problem: dict[str, object], key: str) -> tuple[str, ...]:
    value = problem.get(key)
    return (
        tuple(str(word) for word in cast("list[object]", value)) if isinstance(value, list) else ()
    )


def _faults(problem: dict[str, object], detail: str) -> list[Fault]:
    told = problem.get("errors")
    each_told = cast("list[object]", told) if isinstance(told, list) else []
    each_fault = [cast("dict[str, object]", one) for one in each_told if isinstance(one, dict)]
    faults = [Fault(str(one.get("path", "")), str(one.get("message", ""))) for one in each_fault]
    return faults or [Fault("request", detail)]
