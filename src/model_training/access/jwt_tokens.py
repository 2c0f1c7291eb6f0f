"""Principals from JSON Web Tokens of configured issuers.

What a token says of itself chooses nothing but which of the configured issuers, and which of that
issuer's keys, it is held against. Why one is refused stands in the log and nowhere else.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, Self, cast

from model_training.access.issuers import NO_TYPE, Issuer
from model_training.access.jwks import KeySet, is_signed_by, key_of_pem, read_pem
from model_training.access.jwks_source import KeySource
from model_training.access.principals import Principal, PrincipalKind, principal_id
from model_training.access.signed_text import SignedText, Unreadable, plain_type, take_apart
from model_training.errors import SettingsError, Unauthenticated

logger = logging.getLogger(__name__)

LIFETIME_S: Final = 86_400.0  # seconds, at most: a token that lives longer cannot be withdrawn
SUBJECT_SIGNS: Final = 256
REFUSED: Final = "The credential is not good here."


@dataclass(frozen=True, slots=True)
class _Believed:
    """An issuer with its keys."""

    issuer: Issuer
    keys: KeySource | KeySet
    types: frozenset[str | None]
    """as ``SignedText.type`` has them"""


@dataclass(frozen=True, slots=True)
class ClaimedToken:
    """A token taken apart, and which of the issuers it says it is of; nothing is believed yet.

    ``repr`` shows none of it.
    """

    token: str
    text: SignedText
    believed: _Believed

    def __repr__(self) -> str:
        return "ClaimedToken(...)"


class Issuers:
    """All that are believed; use as an asynchronous context manager, which fetches their keys.

    Args:
        issuers: at least one.
        now: seconds since 1970.
        steady: seconds of a clock that nobody sets.

    Raises:
        SettingsError: one of them could not be believed safely, or its key cannot be read.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        now: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._believed: dict[str, _Believed] = {}
        names: set[str] = set()
        for issuer in issuers:
            issuer.require_sound()
            if issuer.name in names or issuer.issuer in self._believed:
                raise SettingsError(
                    f"The setting issuers[{issuer.name}]: there are two of this name or issuer."
                )
            names.add(issuer.name)
            keys = _pem_of(issuer) or KeySource(issuer, steady)
            types = frozenset(None if t == NO_TYPE else plain_type(t) for t in issuer.types)
            self._believed[issuer.issuer] = _Believed(issuer, keys, types)
        self._running = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Fetch the keys of all.

        Raises:
            SettingsError: those of one cannot be fetched.
        """
        async with AsyncExitStack() as stack:
            for source in self._sources:
                stack.push_async_callback(source.aclose)
                await source.start()
            self._running = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._running.aclose()

    @property
    def _sources(self) -> list[KeySource]:
        return [one.keys for one in self._believed.values() if isinstance(one.keys, KeySource)]

    def claimed(self, token: str) -> ClaimedToken | None:
        """The token, if it says that it is of one of them."""
        try:
            text = take_apart(token)
        except Unreadable:
            return None
        name = text.claims.get("iss")
        believed = self._believed.get(name) if isinstance(name, str) else None
        return None if believed is None else ClaimedToken(token, text, believed)

    async def principal(self, claimed: ClaimedToken) -> Principal:
        """Who the token is of.

        Raises:
            Unauthenticated: it is not good.
            AccessUnavailable: whether it is good cannot be told now.
        """
        try:
            return await self._principal(claimed)
        except Unreadable as error:
            logger.info("a token is refused: %s", error)
            raise Unauthenticated(REFUSED) from None

    async def _principal(self, claimed: ClaimedToken) -> Principal:
        text, believed = claimed.text, claimed.believed
        issuer = believed.issuer
        if text.algorithm not in issuer.algorithms:
            raise Unreadable(f"it is signed by an algorithm that {issuer.name} is not to use")
        if text.type not in believed.types:
            raise Unreadable("it is of another type")
        if isinstance(believed.keys, KeySet):
            key = key_of_pem(believed.keys, text)
        else:
            key = await believed.keys.key_of(text)
        if key is None:
            raise Unreadable(f"no key of {issuer.name} is the one")
        if not is_signed_by(text, key):
            raise Unreadable("its signature is wrong")
        expires_at = _require_times(text.claims, self._now(), issuer.leeway_s)
        _require_audience(text.claims, issuer.audience)
        # Its end is when it is refused: who was let in is not to be sent away before.
        return _principal_of(issuer, text, claimed.token, expires_at + issuer.leeway_s)


def _pem_of(issuer: Issuer) -> KeySet | None:
    if issuer.key is None:
        return None
    place = f"The setting issuers[{issuer.name}].key: {issuer.key}"
    try:
        keys = read_pem(issuer.key)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"{place} is no public key: {reason}.") from None
    if not any(key.fits(algorithm) for key in keys.keys for algorithm in issuer.algorithms):
        algorithms = ", ".join(issuer.algorithms)
        raise SettingsError(f"{place} checks no signature by {algorithms}; correct one of the two.")
    return keys


def _require_times(claims: dict[str, object], now: float, leeway_s: float) -> float:
    """When it ends, if it is good now.

    Raises:
        Unreadable: it is not.
    """
    expires_at = _time(claims, "exp")
    if expires_at is None:
        raise Unreadable("it never ends")
    if expires_at + leeway_s <= now:
        raise Unreadable("it has expired")
    begins = [time for name in ("iat", "nbf") if (time := _time(claims, name)) is not None]
    if any(time - leeway_s > now for time in begins):
        raise Unreadable("it is not good yet")
    # From iat where there is one: issuers write an nbf of 0 that means nothing.
    if expires_at - next(iter(begins), now) > LIFETIME_S:
        raise Unreadable(f"it lives longer than {LIFETIME_S / 3600:.0f} hours")
    return expires_at


def _time(claims: dict[str, object], name: str) -> float | None:
    """A NumericDate (RFC 7519, section 2); None if it is not there."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unreadable(f"{name} is no time")
    if not 0 <= value < 10**11:  # compared as it is: an integer may be too large for a float
        raise Unreadable(f"{name} is no time of this age")
    return float(value)


def _require_audience(claims: dict[str, object], ours: str) -> None:
    value = claims.get("aud")
    audiences = cast("list[object]", value) if isinstance(value, list) else [value]
    if not all(isinstance(each, str) for each in audiences) or ours not in audiences:
        raise Unreadable("it is for somebody else")


def _principal_of(issuer: Issuer, text: SignedText, token: str, expires_at: float) -> Principal:
    subject = text.claims.get(issuer.subject)
    if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_SIGNS:
        raise Unreadable(f"{issuer.subject} is no name")
    if issuer.subject == "email" and text.claims.get("email_verified") is not True:
        raise Unreadable("email is not verified, so anybody may have entered it")
    if not subject.isprintable():
        raise Unreadable(f"{issuer.subject} has signs that cannot be printed")
    identity = text.claims.get("jti")
    told = identity if isinstance(identity, str) and identity else token
    return Principal(
        PrincipalKind.USER,
        principal_id(issuer.name, subject),
        name=subject,
        issuer=issuer.name,
        groups=_names(text.claims, issuer.groups),
        roles=_names(text.claims, issuer.roles),
        fingerprint=hashlib.sha256(told.encode()).hexdigest()[:12],
        expires_at=expires_at,
        token=token,
    )


def _names(claims: dict[str, object], path: str) -> tuple[str, ...]:
    """The texts of a claim, or of one inside of others; none if it is something else."""
    value = claims.get(path, _inside(claims, path.split(".")))
    if not isinstance(value, list):
        return ()
    texts = [each for each in cast("list[object]", value) if isinstance(each, str) and each]
    # All of them, as 8 KiB hold no harmful number: a policy may refuse by a group that was cut off.
    return tuple(texts)


def _inside(value: object, path: Sequence[str]) -> object:
    for part in path:
        if not isinstance(value, dict):
            return None
        value = cast("dict[str, object]", value).get(part)
    return value
