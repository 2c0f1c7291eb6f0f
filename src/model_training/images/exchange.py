"""Asking a registry over HTTP: bounded in time and size, and failing in sentences.

Every way to fail ends as ``RegistryUnavailable`` with a sentence of ours: what a foreign server
wrote is shown to nobody. A host that failed as a whole is not asked again for a moment, so that
a dead registry does not collect requests that wait for it.
"""

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from socket import gaierror
from typing import Final, cast

import httpx2

from model_training.errors import RegistryUnavailable
from model_training.images.destinations import Destination, destination, foreign_url, host_of
from model_training.images.kept import Kept
from model_training.images.reach import Reach
from model_training.proxies import through

CONNECT_S: Final = 2.0  # seconds; a registry that is there accepts in milliseconds
TOTAL_S: Final = 5.0  # seconds for all that one image needs; a person waits for the answer
PAUSE_S: Final = 1.0  # seconds that a host is left alone after it failed as a whole
LONGEST_PAUSE_S: Final = 30.0  # seconds, where it asks for more by Retry-After
REDIRECT_LIMIT: Final = 3  # of one blob; storage behind a registry is one or two away

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_FAILED: Final = frozenset({429}) | frozenset(range(500, 600))

_SENTENCES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (httpx2.ConnectTimeout, f"{{host}} takes no connection within {CONNECT_S:.0f} s"),
    (httpx2.TimeoutException, "{host} does not answer in time"),
    (ssl.SSLError, "{host} does not speak TLS; plain HTTP is used only for hosts named insecure"),
    (httpx2.ProxyError, "{host} is not reached: the proxy refuses"),
    (gaierror, "the name of {host} cannot be resolved"),
    (ConnectionRefusedError, "{host} refuses the connection"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``repr`` shows no header, as one may be a secret."""

    method: str
    url: httpx2.URL
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    content: bytes | None = field(default=None, repr=False)
    limit: int = 0
    """bytes of the body that are read; a longer one is a failure"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: httpx2.Headers = field(repr=False)
    body: bytes = field(repr=False)


class Exchange:
    """The connections to registries.

    Args:
        reach: how they are reached.
        now: seconds of a clock that nobody sets.
    """

    def __init__(self, reach: Reach, now: Callable[[], float] = time.monotonic) -> None:
        self._reach = reach
        self._pauses: Kept[str, tuple[str, float]] = Kept(1024, now)
        self._now = now
        self._tls = ssl.create_default_context()  # the system's CAs, as every program here
        self._clients: dict[str | None, httpx2.AsyncClient] = {}
        """by the proxy that each goes through"""

    async def aclose(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.aclose()

    def url(self, address: str, path: str) -> httpx2.URL:
        """The URL of a path at a registry's address (a host, with or without port)."""
        return self._reach.url(address, path)

    async def ask(self, request: Request) -> Answer:
        """What the host answers: its word, neither overload nor a failure of its own.

        Raises:
            RegistryUnavailable: it could not be asked, or gave no whole answer.
        """
        there = Destination(request.url, host_of(request.url), request.url.host)
        return await self._ask(request, there, self._reach.proxy(request.url))

    async def ask_elsewhere(self, request: Request, registry: httpx2.URL) -> Answer:
        """The same of a host that the registry named, if that may be asked at all."""
        host = host_of(request.url)
        if request.url.scheme == "http" and self.url(host, "/").scheme != "http":
            raise RegistryUnavailable(f"{host_of(registry)} points to plain HTTP at {host}")
        proxy = self._reach.proxy(request.url)
        there = await destination(request.url, registry=registry, proxied=proxy is not None)
        headers = {**request.headers, "Host": there.host}
        return await self._ask(replace(request, headers=headers), there, proxy)

    async def ask_blob(self, request: Request) -> Answer:
        """The same, following a registry to where it keeps its blobs, without any login."""
        answer = await self.ask(request)
        if answer.status not in _REDIRECTS:
            return answer
        registry = url = request.url
        for _ in range(REDIRECT_LIMIT):
            url = foreign_url(answer.headers.get("location", ""), base=url)
            answer = await self.ask_elsewhere(replace(request, url=url, headers={}), registry)
            if answer.status == 200:
                return answer
            if answer.status not in _REDIRECTS:  # its 401 is none of the registry: not answered
                told = f"where {host_of(registry)} keeps its blobs, answers {answer.status}"
                raise RegistryUnavailable(f"{host_of(url)}, {told}")
        msg = f"{host_of(registry)} redirects more than {REDIRECT_LIMIT} times for one blob"
        raise RegistryUnavailable(msg)

    def pause(self, host: str, reason: str, seconds: float = PAUSE_S) -> None:
        """Leave a host alone for a moment, for this reason."""
        self._pauses.put(host, (reason, self._now() + seconds), seconds)

    async def _ask(self, request: Request, there: Destination, proxy: str | None) -> Answer:
        host = there.host
        if paused := self._pauses.get(host):
            reason, ends = paused
            raise RegistryUnavailable(reason, retry_after=_whole(ends - self._now()))
        try:
            answer = await self._send(request, there, proxy)
        except (httpx2.TransportError, RuntimeError) as error:
            # The latter is uvloop's for a connection that was closed meanwhile (its issue 506).
            reason = _failure(error, through(host, proxy))
            self.pause(host, reason)
            raise RegistryUnavailable(reason) from None
        if answer.status in _FAILED:
            raise self._overloaded(answer, host)
        return answer

    async def _send(self, request: Request, there: Destination, proxy: str | None) -> Answer:
        host = there.host
        streamed = self._client(proxy).stream(
            request.method,
            there.url,
            headers=dict(request.headers),
            content=request.content,
            extensions={"sni_hostname": there.name},
        )
        async with streamed as response:
            if request.method == "HEAD":
                return Answer(response.status_code, response.headers, b"")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise RegistryUnavailable(f"{host} compresses its answers without being asked to")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > request.limit:
                    msg = f"{host} answers with more than {request.limit} bytes"
                    raise RegistryUnavailable(msg)
            return Answer(response.status_code, response.headers, bytes(body))

    def _client(self, proxy: str | None) -> httpx2.AsyncClient:
        if proxy not in self._clients:
            self._clients[proxy] = httpx2.AsyncClient(
                verify=self._tls,
                proxy=self._proxy(proxy) if proxy else None,
                timeout=httpx2.Timeout(TOTAL_S, connect=CONNECT_S),
                # No .netrc: with which login somebody is asked is said by settings.
                trust_env=False,
                follow_redirects=False,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                # Not compressed: a small answer must not become a large one here.
                headers={"Accept-Encoding": "identity", "User-Agent": "model-training-api"},
            )
        return self._clients[proxy]

    def _proxy(self, proxy: str) -> httpx2.Proxy:
        tls = self._tls if proxy.startswith("https:") else None  # refused for plain HTTP
        return httpx2.Proxy(proxy, ssl_context=tls)

    def _overloaded(self, answer: Answer, host: str) -> RegistryUnavailable:
        asked = answer.headers.get("retry-after", "")
        seconds = min(float(asked), LONGEST_PAUSE_S) if asked.isdecimal() else PAUSE_S
        words = "asks for a pause" if answer.status == 429 else f"answers {answer.status}"
        reason = f"{host} {words}"
        self.pause(host, reason, max(seconds, PAUSE_S))
        if not asked.isdecimal():
            return RegistryUnavailable(reason)
        return RegistryUnavailable(reason, retry_after=_whole(seconds))


def _whole(seconds: float) -> int:
    return max(1, round(seconds))


def _failure(error: Exception, host: str) -> str:
    """Why a host could not be asked, in a sentence of ours."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):  # its words are OpenSSL's, not theirs
            return f"the certificate of {host} is not accepted: {cause.verify_message}"
        for kind, words in _SENTENCES:
            if isinstance(cause, kind):
                return words.format(host=host)
    return f"the connection to {host} broke"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):  # one for each address that was tried
            yield from cast("BaseExceptionGroup[BaseException]", error).exceptions
        error = error.__cause__ or error.__context__
