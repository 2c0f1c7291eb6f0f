"""Who somebody is by a token of the cluster: the API server is asked, by a TokenReview.

The signature of such a token could be checked here by the cluster's published keys, as of any
issuer's. That was rejected for this way in: only the API server knows that a token's pod or
service account was deleted, and so that the token has ended before its time.

A token is for us only if the cluster says that our own audience is among those it is for; a token
that any pod has by default is for the API server, and whoever is shown it could use it there.

What the cluster said stands for a moment (``KNOWN_S``): a page of a browser is ten requests.
"""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar, cast
from urllib.parse import quote

from model_training.access.principals import (
    ClusterIdentity,
    Principal,
    PrincipalKind,
    principal_id,
)
from model_training.access.reviews import (
    JSONObject,
    Review,
    not_understood,
    status_of,
    switch_in,
    text_in,
)
from model_training.access.signed_text import Unreadable, take_apart
from model_training.errors import Unauthenticated

PATH: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
KIND: Final = "TokenReview"
SOURCE: Final = "kubernetes"  # before the slash in the ids of those whom the cluster knows
KNOWN_S: Final = 10.0  # seconds for which a yes stands; so long a withdrawn token is still good
REFUSED_S: Final = 2.0  # the same of a no: enough for a client that tries again at once
TOKENS_KEPT: Final = 1000  # of each of the two; as many callers are seen in 10 s
USERNAME_SIGNS: Final = 512  # the longest service account has 339; an id is kept with every job
REFUSED: Final = "The credential is not good here."  # and no reason: it would help to forge one

_ACCOUNT: Final = re.compile(
    r"system:serviceaccount:([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)"
    r":([a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?)"
)


def token_review(token: str, audience: str) -> JSONObject:
    """The question."""
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": KIND,
        "spec": {"token": token, "audiences": [audience]},
    }


def reviewed_identity(answer: JSONObject, audience: str) -> ClusterIdentity | None:
    """Whose token it is; None: of nobody, or it is not for us.

    Raises:
        AccessUnavailable: the answer says neither.
    """
    status = status_of(answer, KIND)
    authenticated = switch_in(status, "authenticated", KIND)
    audiences = _texts(status.get("audiences"), "audiences")
    error = text_in(status, "error", KIND)
    if not authenticated:
        return None
    if error:  # by the API's description the token could not be checked
        raise not_understood(KIND, "it is authenticated, and has an error")
    if audience not in audiences:
        return None
    user = status.get("user")
    if not isinstance(user, dict):
        raise not_understood(KIND, "it has no user")
    identity = _identity(cast("JSONObject", user))
    return identity if _is_usable(identity.username) else None


def _identity(user: JSONObject) -> ClusterIdentity:
    username = text_in(user, "username", KIND)
    if not username:
        raise not_understood(KIND, "its user has no name")
    extra = user.get("extra")
    if extra is not None and not isinstance(extra, dict):
        raise not_understood(KIND, "extra is no object")
    items = cast("JSONObject", extra or {}).items()
    return ClusterIdentity(
        username=username,
        uid=text_in(user, "uid", KIND),
        groups=_texts(user.get("groups"), "groups"),
        extra=tuple(sorted((name, _texts(values, "extra")) for name, values in items)),
    )


def _is_usable(username: str) -> bool:
    return len(username) <= USERNAME_SIGNS and username.isprintable()


def _texts(value: object, name: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(
        isinstance(each, str) for each in cast("list[object]", value)
    ):
        raise not_understood(KIND, f"{name} is no list of texts")
    return tuple(cast("list[str]", value))


def cluster_id(username: str) -> str:
    """The id of somebody whom the cluster calls so; two never have the same.

    A service account is ``kubernetes/NAMESPACE/NAME``. Everybody else is ``kubernetes/USERNAME``,
    in which a slash, too, is percent-encoded: so the number of slashes tells which of the two it
    is, and each can be turned back.
    """
    account = _ACCOUNT.fullmatch(username)
    if account is None:
        return principal_id(SOURCE, username)
    return f"{principal_id(SOURCE, account[1])}/{quote(account[2])}"


def cluster_principal(token: str, identity: ClusterIdentity, ends: float | None) -> Principal:
    """Somebody whose token was reviewed.

    Args:
        token: of which nothing but a fingerprint is kept.
        identity: as the review tells.
        ends: seconds since 1970, if the token tells.
    """
    return Principal(
        PrincipalKind.SERVICE_ACCOUNT,
        cluster_id(identity.username),
        name=identity.username,
        issuer=SOURCE,
        groups=identity.groups,
        fingerprint=hashlib.sha256(token.encode()).hexdigest()[:12],
        expires_at=ends,
        cluster=identity,
    )


V = TypeVar("V")


class _Kept(Generic[V]):
    """Values by digests of tokens, each for a while; the one not used for longest goes first."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._values: OrderedDict[bytes, tuple[float, V]] = OrderedDict()

    def get(self, key: bytes) -> V | None:
        found = self._values.get(key)
        if found is None:
            return None
        ends, value = found
        if self._now() >= ends:
            del self._values[key]
            return None
        self._values.move_to_end(key)
        return value

    def put(self, key: bytes, value: V, seconds: float) -> None:
        self._values[key] = self._now() + seconds, value
        self._values.move_to_end(key)
        if len(self._values) > TOKENS_KEPT:
            self._values.popitem(last=False)


class TokenReviews:
    """Tells who a token of the cluster is of.

    Args:
        review: asks the cluster.
        audience: that tokens must be for.
        now: seconds of a clock that nobody sets.
    """

    def __init__(
        self, review: Review, audience: str, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._review = review
        self._audience = audience
        self._known: _Kept[Principal] = _Kept(now)
        # Kept apart: whoever sends tokens that they made up pushes out nobody else's.
        self._refused: _Kept[bool] = _Kept(now)
        self._asking: dict[bytes, asyncio.Task[Principal | None]] = {}

    async def principal(self, token: str) -> Principal:
        """Whose token it is. Nothing is sent that does not look like a JSON Web Token.

        Raises:
            Unauthenticated: of nobody, or it is not for us.
            AccessUnavailable: the cluster cannot be asked now.
        """
        try:
            claims = take_apart(token).claims
        except Unreadable:
            raise Unauthenticated(REFUSED) from None
        key = hashlib.sha256(token.encode()).digest()
        if (known := self._known.get(key)) is not None:
            return known
        if self._refused.get(key):
            raise Unauthenticated(REFUSED)
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(key, token, claims), name="token review")
            self._asking[key] = task
            task.add_done_callback(lambda done: self._asked(key, done))
        found = await asyncio.shield(task)  # who gives up must not take the others along
        if found is None:
            raise Unauthenticated(REFUSED)
        return found

    def _asked(self, key: bytes, done: asyncio.Task[Principal | None]) -> None:
        del self._asking[key]
        if not done.cancelled():
            done.exception()  # nobody may be left who would take it, and it is told in the log

    async def _ask(self, key: bytes, token: str, claims: JSONObject) -> Principal | None:
        answer = await self._review(PATH, token_review(token, self._audience))
        identity = reviewed_identity(answer, self._audience)
        if identity is None:
            if not _had_trouble(answer):
                self._refused.put(key, value=True, seconds=REFUSED_S)
            return None
        # Read only now: before the review it is what somebody claims.
        ends = expiry_in(claims)
        found = cluster_principal(token, identity, ends)
        left = KNOWN_S if ends is None else min(KNOWN_S, ends - time.time())
        self._known.put(key, found, left)
        return found


def _had_trouble(answer: JSONObject) -> bool:
    """Whether the no may say more of the cluster than of the token: it is not kept."""
    return bool(text_in(status_of(answer, KIND), "error", KIND))


def expiry_in(claims: JSONObject) -> float | None:
    """Seconds since 1970 at which a token with these claims ends, if they say so."""
    ends = claims.get("exp")
    if isinstance(ends, bool) or not isinstance(ends, int | float):
        return None
    return float(ends) if 0 < ends < 2**53 else None
