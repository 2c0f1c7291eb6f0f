"""A POST as one SubmitRequest: query, headers and body, with the faults of all three."""

from typing import Final

from starlette.requests import Request

from model_training.api.queries import SubmitQuery
from model_training.declarations import parameter_faults, parse_parameters
from model_training.errors import InvalidRequest, UnsupportedMediaType
from model_training.submission import SubmitRequest

JSON: Final = "application/json"


async def read_body(request: Request) -> bytes:
    """The body, if it is JSON as it stands.

    Raises:
        UnsupportedMediaType: it is of another type, or encoded.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMediaType("The body is encoded; send it without Content-Encoding.")
    body = await request.body()
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body.strip() and media_type != JSON:
        raise UnsupportedMediaType
    return body


def read_submission(asked: SubmitQuery, body: bytes) -> SubmitRequest:
    """The request.

    Raises:
        InvalidRequest: no pipeline can be looked up; with every fault that shows without one.
        MalformedRequest: the body is no JSON.
    """
    faults = list(asked.faults)
    try:
        parameters = parse_parameters(body)
    except InvalidRequest as error:
        parameters = {}
        faults.extend(error.faults)
    if asked.pipeline is None:
        raise InvalidRequest(*faults, *parameter_faults(parameters))
    return SubmitRequest(
        pipeline=asked.pipeline,
        options=asked.options,
        parameters=parameters,
        idempotency_key=asked.idempotency_key,
        faults=tuple(faults),
    )
