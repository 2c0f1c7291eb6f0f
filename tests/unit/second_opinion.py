"""What joserfc thinks of a token, and by which rules of ours we may think otherwise.

Each rule looks at the token alone, and shares no code with what it explains.
"""

import base64
import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey
from joserfc.jws import JWSRegistry

from tests.unit.token_forge import Json

Opinion = tuple[str, object] | None  # issuer and subject, if the token is believed
NOW = 1_800_000_000.5  # seconds since 1970, for everybody: a seed makes the same tokens at any time
DOUBLED = "twin-1"  # the id of two keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What is believed of one issuer."""

    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    keys: bytes | Json
    """a key in PEM, or a set of them"""


class SecondOpinion:
    """joserfc's, told what we are told.

    Args:
        expected: of each issuer.
        now: seconds since 1970.
    """

    def __init__(self, expected: Sequence[Expected], now: float) -> None:
        self._now = int(now)
        self._issuers = [(each, _registry(each.algorithms), _keys(each.keys)) for each in expected]

    def of(self, text: str) -> Opinion:
        for expected, registry, keys in self._issuers:
            claims_registry = jwt.JWTClaimsRegistry(
                now=self._now,
                leeway=30,
                iss={"essential": True, "value": expected.issuer},
                aud={"essential": True, "value": expected.audience},
                sub={"essential": True},
                exp={"essential": True},
            )
            for key in keys:
                try:
                    claims = jwt.decode(text, key, registry=registry).claims
                    claims_registry.validate(claims)
                except (JoseError, ValueError, TypeError, RecursionError, KeyError):
                    continue
                return expected.issuer, claims["sub"]
        return None


def _registry(algorithms: Collection[str]) -> JWSRegistry:
    """Parts of a header that it does not know are passed over, as RFC 7515, section 4 has it."""
    registry = JWSRegistry(algorithms=algorithms, strict_check_header=False)
    registry.max_header_length = 8192
    return registry


def _keys(keys: bytes | Json) -> Sequence[RSAKey | KeySet]:
    """Each by itself: of several it refuses a token without kid."""
    if isinstance(keys, bytes):
        return [RSAKey.import_key(keys)]
    return [
        KeySet.import_key_set({"keys": [key]}) for key in keys["keys"] if key.get("use") != "enc"
    ]


# What a token says, for the rules


def _data(text: str) -> list[bytes]:
    """Header and payload."""
    return [
        base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
        for segment in text.split(".")[:2]
    ]


def header_of(text: str) -> Json:
    return json.loads(_data(text)[0])


def claims_of(text: str) -> Json:
    return json.loads(_data(text)[1])


class _Twice(Exception):
    """A key is there twice."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise _Twice
    return dict(pairs)


def has_a_key_twice(text: str) -> bool:
    try:
        for data in _data(text):
            json.loads(data, object_pairs_hook=_unique)
    except _Twice:
        return True
    return False


def has_numbers_without_end(text: str) -> bool:
    found: list[float] = []

    def number(digits: str) -> float:
        found.append(float(digits))  # NaN and Infinity, too
        return found[-1]

    for data in _data(text):
        json.loads(data, parse_float=number, parse_constant=number)
    return not all(map(math.isfinite, found))


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def is_deep(text: str) -> bool:
    return any(_depth(json.loads(data)) > 64 for data in _data(text))


def has_half_of_a_pair(text: str) -> bool:
    try:
        for data in _data(text):
            json.dumps(json.loads(data), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def is_in_other_bytes(text: str) -> bool:
    """Not UTF-8, or with a mark before it."""
    try:
        texts = [data.decode() for data in _data(text)]
    except UnicodeDecodeError:
        return True
    return any("\0" in each or each.startswith("\ufeff") for each in texts)


def lives_long(text: str) -> bool:
    claims = claims_of(text)
    begins = claims.get("iat", claims.get("nbf", NOW))
    return claims["exp"] - begins > 86_400


def has_odd_times(text: str) -> bool:
    times = [claims_of(text).get(name, 0) for name in ("exp", "iat", "nbf")]
    return any(isinstance(each, bool) or not 0 <= each < 10**11 for each in times)


def has_an_odd_subject(text: str) -> bool:
    subject = claims_of(text)["sub"]
    return not isinstance(subject, str) or not 0 < len(subject) <= 256 or not subject.isprintable()


def has_an_extension(text: str) -> bool:
    return bool({"crit", "b64"} & header_of(text).keys())


def is_of_another_type(text: str) -> bool:
    typ = header_of(text).get("typ", "jwt")
    return not isinstance(typ, str) or typ.lower().removeprefix("application/") not in (
        "jwt",
        "at+jwt",
    )


def names_a_doubled_key(text: str) -> bool:
    return header_of(text).get("kid") == DOUBLED


def has_an_odd_id(text: str) -> bool:
    return not isinstance(claims_of(text).get("jti", ""), str)


def is_long(text: str) -> bool:
    return len(text) > 8192


# What joserfc may believe and we do not. In this order: the first that explains a token counts.
RULES: dict[str, Callable[[str], bool]] = {
    "at most 8 KiB": is_long,
    "UTF-8 without a mark": is_in_other_bytes,
    "no key twice in JSON": has_a_key_twice,
    "finite numbers": has_numbers_without_end,
    "at most 64 levels": is_deep,
    "no half of a surrogate pair": has_half_of_a_pair,
    "no crit and no b64, not even empty": has_an_extension,
    "a type of the settings": is_of_another_type,
    "of two keys with one id neither": names_a_doubled_key,
    "times are numbers of this age": has_odd_times,
    "a life of a day at most": lives_long,
    "a subject of 1 to 256 printable signs": has_an_odd_subject,
}

# What we believe and joserfc may not.
LAXER: dict[str, Callable[[str], bool]] = {
    "a jti that is no text is passed over": has_an_odd_id,
}


def rule_of(text: str, *, is_believed: bool) -> str | None:
    """Which of ours explains that we judge otherwise."""
    rules = LAXER if is_believed else RULES
    return next((name for name, explains in rules.items() if explains(text)), None)
