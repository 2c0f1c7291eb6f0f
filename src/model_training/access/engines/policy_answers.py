"""What an answer of a decision point must be before it is looked at for a yes.

Status 200, one Content-Type, the one that was asked for, and a whole body that reads in one way
only. Everything else is a 503 here: the decision point's own 403 is a no to us, not to the caller.
"""

from dataclasses import dataclass, field
from typing import Final, cast

from multidict import CIMultiDictProxy

from model_training.access.engines.names import JSONObject
from model_training.errors import AccessUnavailable, MalformedRequest
from model_training.strict_json import parse_json

BODY_BYTES: Final = 256 * 1024  # of an answer; one about 50 resources has 10 KiB
AGAIN_S: Final = 1  # seconds after which to try again, where nothing better is known

JSON: Final = "application/json"
TEXT: Final = "text/plain"
_CHARSETS: Final = ("utf-8", "us-ascii")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole."""

    status: int
    media_type: str
    """in lower case and without parameters; empty if it is not said, or not clearly"""
    body: bytes = field(repr=False)


def json_in(answer: Answer) -> JSONObject:
    """The object of a good answer.

    Raises:
        AccessUnavailable: it is no good answer.
    """
    _refuse_other(answer, JSON)
    try:
        value = parse_json(answer.body)
    except MalformedRequest:
        raise not_understood("it is no strict JSON") from None
    if not isinstance(value, dict):
        raise not_understood("it is no JSON object")
    return cast("JSONObject", value)


def text_in(answer: Answer) -> str:
    """The text of a good answer, without the white space around it.

    Raises:
        AccessUnavailable: it is no good answer.
    """
    _refuse_other(answer, TEXT)
    try:
        return answer.body.decode("ascii").strip()
    except UnicodeDecodeError:
        raise not_understood("it is no plain text") from None


def _refuse_other(answer: Answer, media_type: str) -> None:
    if answer.status in (401, 403):
        raise AccessUnavailable(
            "The decision point does not let this service ask; whoever runs it must give it "
            "another token (decisions.token).",
            retry_after=AGAIN_S,
        )
    if answer.status != 200:
        raise not_understood(f"its status is {answer.status}")
    if answer.media_type != media_type:
        raise not_understood(f"it is not {media_type}")


def not_understood(reason: str) -> AccessUnavailable:
    """What is raised for an answer that is neither a yes nor a no."""
    msg = f"The decision point's answer cannot be understood: {reason}."
    return AccessUnavailable(msg, retry_after=AGAIN_S)


def media_type(headers: CIMultiDictProxy[str]) -> str:
    """Of what kind the body is said to be; empty if that is said never, twice, or not in UTF-8."""
    values = headers.getall("Content-Type", [])
    if len(values) != 1:
        return ""
    kind, *parameters = (part.strip().lower() for part in values[0].split(";"))
    charsets = [part for part in parameters if part.startswith("charset=")]
    if any(part.partition("=")[2].strip('"') not in _CHARSETS for part in charsets):
        return ""
    return kind
