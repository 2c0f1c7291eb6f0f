"""Asking a decision point over HTTP: bounded in time, size and number, and never misled.

Every way to fail ends as ``AccessUnavailable`` with a sentence of ours, inside the time that one
question has: what a foreign server wrote is shown to nobody. What an answer must be is known in
``policy_answers``, and what it means in the engines.

Only what says nothing of a single question counts for the breaker: no connection, no whole answer
in time, and the statuses by which proxies say so. Any other answer fails its own question alone;
else one caller with a token that the decision point chokes on would shut out everybody.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

import aiohttp

from model_training.access.engines.breaker import OPEN_S, Breaker
from model_training.access.engines.clean_connections import CleanConnector
from model_training.access.engines.policy_answers import (
    AGAIN_S,
    BODY_BYTES,
    JSON,
    Answer,
    media_type,
    not_understood,
)
from model_training.access.engines.server_files import MadeOfFiles, read_tls, read_token
from model_training.access.issuers import is_safe_url
from model_training.errors import AccessUnavailable, SettingsError

logger = logging.getLogger(__name__)

CONNECT_S: Final = 0.5  # seconds for name, TCP and TLS; a decision point is near
TOTAL_S: Final = 2.0  # seconds for all that one decision needs; somebody waits for the answer
RETRY_S: Final = 0.1  # seconds before the one other try to connect; a listener restarts in less
AT_ONCE: Final = 64  # questions in flight; what is more waits here rather than there
OF_ONE_AT_ONCE: Final = 8  # of one decision, so that a long list leaves room for the others
# By which a server, or a proxy before it, says that it is away or has too much to do.
_AWAY: Final = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Server:
    """Where a decision point is, and how it is reached; see ``access_file.DecisionsTable``.

    Raises:
        SettingsError: it could not be asked, or not safely.
    """

    url: str
    token_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    certificate_key: Path | None = None
    connect_s: float = CONNECT_S
    total_s: float = TOTAL_S
    plain_http: bool = False

    def __post_init__(self) -> None:
        fault = _fault_of(self.url)
        if fault is None and not self.plain_http and not is_safe_url(self.url):
            fault = (
                "is not https, and whoever is between could say yes in its place; if that is "
                "meant, set plain_http to true"
            )
        if fault is not None:
            raise SettingsError(f"The setting decisions.url: {_without_login(self.url)!r} {fault}.")
        if self.certificate_key is not None and self.certificate is None:
            raise SettingsError(
                "The setting decisions.certificate_key: it is of no certificate. Name the "
                "certificate, too, or remove the key."
            )

    @property
    def base(self) -> str:
        """The address without a slash at its end."""
        return self.url.rstrip("/")


def _fault_of(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "is no address"
    if parts.scheme not in ("http", "https"):
        return "has no scheme; write it such as https://pdp.example.org"
    if not parts.hostname or not url.isprintable() or " " in url:
        return "is no address"
    if parts.username is not None or parts.password is not None:
        return "holds a login; put a token into a file and name it in decisions.token"
    if "?" in url or "#" in url:
        return "holds a query or a fragment; remove it"
    return None


def _without_login(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else url.rpartition("@")[2]


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``repr`` shows no body, as there may be a token in it."""

    url: str
    body: bytes | None = field(default=None, repr=False)
    """JSON, which is posted; None: nothing, and the answer is got"""
    accept: str = JSON

    @property
    def method(self) -> str:
        """Of HTTP."""
        return "GET" if self.body is None else "POST"


def headers_of(request: Request, token: str) -> dict[str, str]:
    """What a request says of itself, and what is shown for it; ``token`` may be empty."""
    headers = {"Accept": request.accept}
    if request.body is not None:
        headers["Content-Type"] = JSON
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return headers


class PolicyServer:
    """The connections to one decision point, between ``__aenter__`` and ``aclose``.

    Args:
        server: where it is.
        now: seconds of a clock that nobody sets.

    Raises:
        SettingsError: a file that is named cannot be used.
    """

    def __init__(self, server: Server, now: Callable[[], float] = time.monotonic) -> None:
        self.server: Final = server
        self._breaker = Breaker(now)
        self._slots = asyncio.Semaphore(AT_ONCE)
        token, trust = server.token_file, (server.ca, server.certificate, server.certificate_key)
        self._token = MadeOfFiles(lambda: read_token(token) if token else "", (token,))
        has_tls = server.url.startswith("https:")
        self._tls = MadeOfFiles(lambda: read_tls(*trust) if has_tls else True, trust)
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        """Be ready; nothing is asked yet."""
        self._session = aiohttp.ClientSession(
            connector=CleanConnector(),
            timeout=aiohttp.ClientTimeout(total=None, connect=self.server.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # no proxy and no login that somebody else has set
            auto_decompress=False,
            # Not compressed: a small answer must not become a large one here.
            headers={"Accept-Encoding": "identity", "User-Agent": "model-training-api"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()

    def deadline(self) -> float:
        """When a decision that is asked for now must be there, by the loop's clock."""
        return asyncio.get_running_loop().time() + self.server.total_s

    async def ask(self, requests: Sequence[Request], deadline: float) -> list[Answer]:
        """The answers, in the order of the requests: all of them, or none.

        Raises:
            AccessUnavailable: one of them was not answered until the deadline.
        """
        if not requests:
            return []
        if wait := self._breaker.wait_s():
            raise _unavailable("did not answer a moment ago and is left alone", math.ceil(wait))
        try:
            return await self._all(requests, deadline)
        except _Unanswered as fault:
            if self._breaker.failed():
                host = urlsplit(self.server.url).netloc
                logger.warning(
                    "the decision point %s is left alone for %.0f s: it %s", host, OPEN_S, fault
                )
            raise _unavailable(str(fault)) from None
        except BaseException:
            self._breaker.left()  # an answer, if there was one, is counted where it came
            raise

    async def _all(self, requests: Sequence[Request], deadline: float) -> list[Answer]:
        if len(requests) == 1:
            return [await self._one(requests[0], deadline)]
        waiting = iter(enumerate(requests))
        answers: dict[int, Answer] = {}

        async def ask_on() -> None:
            for at, request in waiting:
                answers[at] = await self._one(request, deadline)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(OF_ONE_AT_ONCE, len(requests))):
                    group.create_task(ask_on())
        except BaseExceptionGroup as faults:
            raise faults.exceptions[0] from None
        return [answers[at] for at in range(len(requests))]

    async def _one(self, request: Request, deadline: float) -> Answer:
        clock = asyncio.get_running_loop().time
        asked_at = float("inf")
        try:
            async with asyncio.timeout_at(deadline), self._slots:
                asked_at = clock()
                answer = await self._exchange(request)
        except TimeoutError:
            if deadline - asked_at < self.server.total_s / 2:
                # It waited here, for others: of that the decision point knows nothing.
                raise _unavailable("is asked too much at once") from None
            raise _Unanswered(f"does not answer within {self.server.total_s:g} s") from None
        except AccessUnavailable:
            self._breaker.answered()
            raise
        if answer.status in _AWAY:
            raise _Unanswered(f"cannot answer now (its status is {answer.status})")
        self._breaker.answered()
        return answer

    async def _exchange(self, request: Request) -> Answer:
        """The answer, with a second try where there was no connection to ask on."""
        try:
            return await self._send(request)
        except _NOT_CONNECTED:
            await asyncio.sleep(RETRY_S)
        except _CUT as error:
            raise self._unanswered(error) from None
        try:
            return await self._send(request)
        except (*_NOT_CONNECTED, *_CUT) as error:
            raise self._unanswered(error) from None

    async def _send(self, request: Request) -> Answer:
        async with self._session.request(
            request.method,
            request.url,
            data=request.body,
            headers=headers_of(request, self._token.value()),
            allow_redirects=False,  # nobody else decides, or gets our token
            ssl=self._tls.value(),
        ) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise not_understood("it is compressed")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > BODY_BYTES:
                    raise not_understood(f"it is longer than {BODY_BYTES} bytes")
            return Answer(response.status, media_type(response.headers), bytes(body))

    def _unanswered(self, error: BaseException) -> "_Unanswered":
        for kind, words in _REASONS:
            if isinstance(error, kind):
                return _Unanswered(words.format(connect=self.server.connect_s))
        return _Unanswered("breaks off its answer")


class _Unanswered(Exception):
    """Why there is no answer, as it goes on after "the decision point"."""


def _unavailable(reason: str, retry_after: int = AGAIN_S) -> AccessUnavailable:
    return AccessUnavailable(f"The decision point {reason}; try again.", retry_after=retry_after)


_NOT_CONNECTED: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_CUT: Final = (aiohttp.ClientError, OSError, UnicodeError)
_REASONS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (aiohttp.ConnectionTimeoutError, "takes no connection within {connect:g} s"),
    (aiohttp.ClientConnectorCertificateError, "has a certificate that is not accepted"),
    (aiohttp.ClientConnectorSSLError, "cannot be spoken to by TLS"),
    (aiohttp.ClientConnectorDNSError, "has a name that cannot be resolved"),
    (aiohttp.ClientConnectorError, "takes no connection"),
    (aiohttp.ClientResponseError, "does not answer by HTTP"),
    (UnicodeError, "has a name that no name server could know"),
)


class Remote:
    """What engines over HTTP have in common: a decision point, opened and closed."""

    def __init__(self, server: Server, now: Callable[[], float] = time.monotonic) -> None:
        self._server = PolicyServer(server, now)

    async def __aenter__(self) -> Self:
        """Be ready; nothing is asked yet."""
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ask no more."""
        await self.aclose()

    async def aclose(self) -> None:
        """Ask no more."""
        await self._server.aclose()
