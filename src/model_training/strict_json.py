"""JSON as RFC 8259 means it, and nothing more.

The parser of the standard library takes the last of two equal keys, NaN, ``1e999`` as infinity
and halves of surrogate pairs, and ends in a RecursionError at a depth that depends on the
interpreter. Each of these would become a training run with other values than the caller wrote,
or a fault of the service. So the depth is measured before parsing, and the rest is refused by
hooks of the same parser. Messages tell the place where it is known, and never repeat more than
a key of what was sent: a body may be large, and may hold a secret.
"""

import json
import math
import re
from typing import Final, NoReturn

from model_training.errors import MalformedRequest

DEPTH_LIMIT: Final = 64  # levels of arrays and objects; far below any interpreter's own limit
INTEGER_DIGITS: Final = 4300  # CPython refuses to convert longer ones (CVE-2020-10735)

# Possessive, and the closing quote is optional: linear also where a string is never closed.
_STRINGS_AND_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


def parse_json(body: bytes) -> object:
    """The value that ``body`` holds.

    Raises:
        MalformedRequest: it is not strict JSON in UTF-8 of at most 64 levels.
    """
    text = _decoded(body)
    _refuse_depth(text)
    try:
        value: object = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise MalformedRequest(_syntax(error, text)) from None
    if "\\u" in text:  # UTF-8 itself has no surrogates
        _refuse_lone_surrogates(value)
    return value


def _decoded(body: bytes) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        msg = f"The body is not UTF-8: byte {error.start} cannot be read."
        raise MalformedRequest(msg) from None
    if text.startswith("\ufeff"):
        raise MalformedRequest("The body begins with a byte order mark; send UTF-8 without one.")
    return text


def _refuse_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= DEPTH_LIMIT:
        return  # of nearly every body, and without a look at each string
    depth = 0
    for match in _STRINGS_AND_BRACKETS.finditer(text):
        sign = match[0][0]
        if sign in "[{":
            depth += 1
            if depth > DEPTH_LIMIT:
                where = _place(text, match.start())
                msg = f"The body is nested deeper than {DEPTH_LIMIT} levels, at {where}."
                raise MalformedRequest(msg)
        elif sign in "]}":
            depth -= 1


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise MalformedRequest(f"The body holds the key {shortened(name)} twice.")
        found[name] = value
    return found


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > INTEGER_DIGITS:
        raise MalformedRequest(f"The body holds an integer of more than {INTEGER_DIGITS} digits.")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedRequest("The body holds a number beyond the range of a 64-bit float.")
    return number


def _refuse_constant(text: str) -> NoReturn:
    raise MalformedRequest(
        f"The body holds {text}, which is no JSON; send a finite number or null."
    )


def _refuse_lone_surrogates(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        msg = "The body holds half of a surrogate pair (\\ud800 to \\udfff without its partner)."
        raise MalformedRequest(msg) from None


def _syntax(error: json.JSONDecodeError, text: str) -> str:
    where = f"line {error.lineno}, column {error.colno}"
    if not text[error.pos :].strip() or error.msg.startswith("Unterminated"):
        return f"The body is cut: it ends before its JSON does, at {where}."
    return f"The body is not JSON, at {where}: {error.msg.removesuffix(' at')}."


def _place(text: str, offset: int) -> str:
    before = text[:offset]
    return f"line {before.count(chr(10)) + 1}, column {offset - before.rfind(chr(10))}"


def shortened(value: object, *, limit: int = 48) -> str:
    """A JSON value as a message may show it: one line, at most ``limit`` characters."""
    # Characters a terminal might act on are escaped; letters of any script stay readable.
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, ValueError):  # nested too deep, or an integer too long to write
        return "a value too large to show"
    text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 3] + "..."
