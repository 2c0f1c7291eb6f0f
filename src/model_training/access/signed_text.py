"""A JSON Web Token taken apart, before anything in it is believed (RFC 7515, 7519).

Stricter than most libraries, because what two readers understand differently is how a token for
one passes at another: three segments of canonical base64, JSON without doubled keys, no critical
extensions, nothing that names a key from outside.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Final, cast

from model_training.errors import MalformedRequest
from model_training.strict_json import parse_json

TOKEN_BYTES: Final = 8 * 1024  # of a token; many servers take no longer header
KEY_ID_SIGNS: Final = 256


class Unreadable(Exception):
    """Why a token is none; for the log alone, as who sends it is not to learn how to."""


@dataclass(frozen=True, slots=True)
class SignedText:
    """The parts of a token. ``repr`` shows none of it."""

    header: dict[str, object]
    claims: dict[str, object]
    signed: bytes
    signature: bytes

    def __repr__(self) -> str:
        return "SignedText(...)"

    @property
    def algorithm(self) -> str:
        """Which it says it is signed by; empty if that is no text."""
        value = self.header.get("alg")
        return value if isinstance(value, str) else ""

    @property
    def type(self) -> str | None:
        """In lower case, without ``application/`` (RFC 7515, section 4.1.9); None: it has none."""
        if "typ" not in self.header:
            return None
        value = self.header["typ"]
        return plain_type(value) if isinstance(value, str) else ""

    @property
    def key_id(self) -> str | None:
        """Of the key that it is signed by, if it says so.

        Raises:
            Unreadable: it says something that is no id.
        """
        if "kid" not in self.header:
            return None
        value = self.header["kid"]
        if not isinstance(value, str) or not 0 < len(value) <= KEY_ID_SIGNS:
            raise Unreadable("kid is no id")
        return value


def plain_type(value: str) -> str:
    """A value of ``typ`` in lower case, without ``application/``."""
    return value.lower().removeprefix("application/")


def take_apart(token: str) -> SignedText:
    """The parts.

    Raises:
        Unreadable: it is no token that could be believed.
    """
    if len(token) > TOKEN_BYTES:
        raise Unreadable("it is too long")
    if not token.isascii():  # before it is encoded: half of a surrogate pair cannot be
        raise Unreadable("it has signs that no token has")
    segments = token.split(".")
    if len(segments) != 3:
        raise Unreadable("it has not three segments")
    header = _object(segments[0], "header")
    for name in ("crit", "b64"):
        if name in header:
            raise Unreadable(f"its header has {name}")
    signed = token.rpartition(".")[0].encode()
    return SignedText(header, _object(segments[1], "payload"), signed, _decoded(segments[2]))


def _object(segment: str, what: str) -> dict[str, object]:
    try:
        value = parse_json(_decoded(segment))
    except MalformedRequest as error:
        raise Unreadable(f"its {what} is no strict JSON") from error
    if not isinstance(value, dict):
        raise Unreadable(f"its {what} is no object")
    return cast("dict[str, object]", value)


def _decoded(segment: str) -> bytes:
    try:
        data = base64.b64decode(
            segment.encode("ascii") + b"=" * (-len(segment) % 4), altchars=b"-_", validate=True
        )
    except (binascii.Error, ValueError):
        raise Unreadable("a segment is no base64") from None
    if not segment or base64.urlsafe_b64encode(data).rstrip(b"=").decode() != segment:
        raise Unreadable("a segment is written in another way than it must be")
    return data
