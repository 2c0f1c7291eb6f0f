"""An issuer's keys, fetched from it and kept in step with it.

They are fetched at the start, again in the background before they are five minutes old, and once
more for a key that is not among them, but no more often than every half a minute: else whoever
sends invented key ids would have this service ask the issuer for each. After a quiet time the first
request waits for the new ones, so that a key that was withdrawn meanwhile is not good once more.
While the issuer cannot be asked nobody waits, and the last keys stay good for an hour; after that
nobody can be told who they are, which is an outage (503) and not their fault (401).
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from typing import Final, cast
from urllib.parse import urlsplit

import httpx2

from model_training.access.issuers import Issuer, unsafe
from model_training.access.jwks import IssuerKey, KeySet, read_key_set
from model_training.access.signed_text import SignedText
from model_training.errors import AccessUnavailable, MalformedRequest, SettingsError
from model_training.strict_json import parse_json

logger = logging.getLogger(__name__)

FETCH_S: Final = 5.0  # seconds for the keys, and where they are, together
DOCUMENT_BYTES: Final = 256 * 1024
AHEAD_S: Final = 240.0  # seconds; leaves a slow issuer a minute before anybody waits for it
FRESH_S: Final = 300.0  # seconds; a key that an issuer withdrew is good here no longer than that
PAUSE_S: Final = 30.0  # seconds between two fetches for a key that is not there
STALE_S: Final = 3600.0  # seconds for which keys are good that the issuer did not confirm


class KeySource:
    """The keys of one issuer.

    Args:
        issuer: whose.
        now: seconds of a clock that nobody sets.
        fetch_s: seconds within which the issuer must answer.

    Raises:
        SettingsError: the certificates by which it is to be believed cannot be read.
    """

    def __init__(
        self,
        issuer: Issuer,
        now: Callable[[], float] = time.monotonic,
        *,
        fetch_s: float = FETCH_S,
    ) -> None:
        self._issuer = issuer
        self._now = now
        self._fetch_s = fetch_s
        self._keys = KeySet(())
        self._confirmed_at = float("-inf")
        self._tried_at = float("-inf")
        self._is_failing = False
        self._fetch: asyncio.Task[None] | None = None
        self._client = httpx2.AsyncClient(
            verify=_tls_of(issuer),
            timeout=None,  # one deadline for all of it is set where it is asked
            trust_env=False,  # no proxy and no login that somebody else has set
            follow_redirects=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "model-training-api"},
        )

    async def start(self) -> None:
        """Fetch them for the first time.

        Raises:
            SettingsError: they cannot be fetched, and nobody could be told who they are.
        """
        try:
            await self._load()
        except _NotFetched as error:
            what = "jwks" if self._issuer.jwks else "issuer"
            raise SettingsError(
                f"The setting issuers[{self._issuer.name}].{what}: its keys cannot be fetched: "
                f"{error}. Start it first, or correct the address."
            ) from None

    async def aclose(self) -> None:
        """Ask no more."""
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.wait([self._fetch])
        await self._client.aclose()

    async def key_of(self, token: SignedText) -> IssuerKey | None:
        """The key that the token can be signed by; None if there is none.

        Raises:
            AccessUnavailable: the keys are too old to be believed.
        """
        age = self._now() - self._confirmed_at
        if age > AHEAD_S:
            self._refresh()
        if age > (STALE_S if self._is_failing else FRESH_S):
            await self._refreshed()
        if self._now() - self._confirmed_at > STALE_S:
            msg = f"The keys of {self._issuer.name} cannot be fetched now; try again."
            raise AccessUnavailable(msg)
        key = self._keys.key_of(token)
        if key is None and self._refresh():
            await self._refreshed()
            key = self._keys.key_of(token)
        return key

    def _refresh(self) -> bool:
        """Begin to fetch, unless that was done a moment ago; whether it is under way."""
        if self._fetch is None and self._now() - self._tried_at >= PAUSE_S:
            self._fetch = asyncio.create_task(self._reload(), name=f"keys of {self._issuer.name}")
        return self._fetch is not None

    async def _refreshed(self) -> None:
        if self._fetch is not None:
            await asyncio.wait([self._fetch])

    async def _reload(self) -> None:
        try:
            await self._load()
        except _NotFetched as error:
            self._is_failing = True
            logger.warning("the keys of %s cannot be fetched: %s", self._issuer.name, error)
        finally:
            self._fetch = None

    async def _load(self) -> None:
        self._tried_at = self._now()
        try:
            async with asyncio.timeout(self._fetch_s):
                # Where they are is asked each time: an issuer may move them.
                url = self._issuer.jwks or await self._discover()
                body = await self._get(url)
        except TimeoutError:
            raise _NotFetched(f"there is no answer within {self._fetch_s:g} s") from None
        try:
            self._keys = read_key_set(body)
        except (ValueError, MalformedRequest) as error:
            raise _NotFetched(f"what is at {url} cannot be used: {error}") from None
        self._confirmed_at = self._now()
        self._is_failing = False

    async def _discover(self) -> str:
        """Where the issuer says its keys are; its word holds for its own origin or for TLS."""
        url = self._issuer.discovery_url
        try:
            plain = parse_json(await self._get(url))
        except MalformedRequest:
            raise _NotFetched(f"what is at {url} is no JSON") from None
        document = cast("dict[str, object]", plain) if isinstance(plain, dict) else {}
        if document.get("issuer") != self._issuer.issuer:
            raise _NotFetched(f"{url} is of another issuer")
        jwks = document.get("jwks_uri")
        if not isinstance(jwks, str) or unsafe(jwks):
            raise _NotFetched(f"{url} names no safe address of keys")
        if _origin(jwks) != _origin(self._issuer.issuer):
            raise _NotFetched(f"{url} names keys elsewhere; if they are meant, set jwks to {jwks}")
        return jwks

    async def _get(self, url: str) -> bytes:
        try:
            async with self._client.stream("GET", url) as answer:
                if answer.status_code != 200:
                    raise _NotFetched(f"{url} answers {answer.status_code}")
                if answer.headers.get("content-encoding", "identity") != "identity":
                    raise _NotFetched(f"{url} compresses its answer without being asked to")
                body = bytearray()
                async for chunk in answer.aiter_raw():
                    body += chunk
                    if len(body) > DOCUMENT_BYTES:
                        raise _NotFetched(f"{url} answers with more than {DOCUMENT_BYTES} bytes")
                return bytes(body)
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
            # The last two are of hosts that no name server could know.
            reason = str(error) or type(error).__name__
            raise _NotFetched(f"{url} cannot be asked: {reason}") from None


class _NotFetched(Exception):
    """Why the keys are not there."""


def _tls_of(issuer: Issuer) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(issuer.ca) if issuer.ca else None)
    except OSError as error:  # among them ssl.SSLError
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        place = f"The setting issuers[{issuer.name}].ca"
        raise SettingsError(f"{place}: {issuer.ca} cannot be used: {reason}.") from None


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
