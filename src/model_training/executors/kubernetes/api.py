"""Every request to the API server of Kubernetes; the HTTP client is known here and nowhere else.

Why this client: ``docs/adr/0004-aiohttp-speaks-to-kubernetes.md``.
"""

import asyncio
import os
import socket
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, Final, Self

import aiohttp
import msgspec
from msgspec import Struct

from model_training import __version__
from model_training.errors import ExecutorUnavailable
from model_training.executors.kubernetes.cluster import ClusterConfig, tls_of
from model_training.executors.kubernetes.credentials import Certificate, FixedCredentials, Grant
from model_training.proxies import through

CONNECT_S: Final = 3.0  # TCP and TLS; the API server is near
CALL_S: Final = 15.0  # a page of 500 Jobs of a busy server takes one or two
CALLS_AT_ONCE: Final = 64  # connections; what is more waits here rather than in the API server
BUFFER: Final = 1024 * 1024  # bytes of a stream read ahead of whoever takes them
KEEPALIVE_S: Final = 10  # an idle stream asks the peer's kernel so often: three times unanswered,
# it is cut. Otherwise a connection that a firewall forgot would stay silent for ever.

Params = Mapping[str, str]
NONE: Final[Params] = MappingProxyType({})


class ApiError(Exception):
    """The API server said no. Does not leave this package.

    ``reason`` is Kubernetes' own word (NotFound, AlreadyExists, Expired), empty if it gave none;
    ``retry_after`` is in seconds, where it asked for that.
    """

    def __init__(
        self, status: int, reason: str, message: str, retry_after: float | None = None
    ) -> None:
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        super().__init__(f"{status} {reason}: {message}")


class Unanswered(Exception):
    """A call was sent, and no whole answer came: it may have been done. Stays in this package."""


class KubernetesApi:
    """Calls and streams, with our credentials; renews them once where they are refused.

    ``counts`` has the number of requests by Kubernetes' verb and resource, ``("create", "jobs")``.
    ``answered_at`` is the loop's time of the latest answer to a call, whatever it said.

    A call or stream raises ``ApiError`` for a definite no, and ``ExecutorUnavailable`` where it
    may be tried again: no connection, no (whole) answer in time, 401 also with new credentials,
    429, 5xx. Its cause is then the ``ApiError``, if there was an answer, or ``Unanswered``; after
    that, and after a 5xx, a POST may or may not have been done.
    """

    def __init__(self, config: ClusterConfig) -> None:
        self.config: Final = config
        self.counts: Final = Counter[tuple[str, str]]()
        self.answered_at = 0.0
        self._tls: tuple[Certificate | None, ssl.SSLContext] | None = None
        self._calls: aiohttp.ClientSession
        self._streams: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._calls = _session(aiohttp.TCPConnector(limit=CALLS_AT_ONCE))
        # Each stream has a connection of its own: one from a pool may have died unseen.
        self._streams = _session(
            aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=_kept_alive)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._calls.close()
        await self._streams.close()

    async def get(self, path: str, params: Params = NONE, *, timeout_s: float = CALL_S) -> bytes:
        """The body of the answer."""
        return await self._call(_Request("GET", path, params), timeout_s)

    async def post(
        self, path: str, body: bytes, params: Params = NONE, *, at_most: int | None = None
    ) -> bytes:
        """The body of the answer to this JSON; a longer one than ``at_most`` bytes is none."""
        return await self._call(_Request("POST", path, params, body), CALL_S, at_most)

    async def delete(self, path: str, body: bytes, params: Params = NONE) -> bytes:
        """The body of the answer; ``body`` is the JSON of DeleteOptions."""
        return await self._call(_Request("DELETE", path, params, body), CALL_S)

    async def probe(self, within_s: float) -> None:
        """Ask for any answer at all, through the same network as everything else.

        ``/livez`` is answered before all queues, and to everybody; without etcd in it, it says
        that the API server itself is there, which is what an open watch needs.

        Raises:
            ExecutorUnavailable: there was none within so many seconds.
        """
        try:
            await self.get("/livez", {"exclude": "etcd"}, timeout_s=within_s)
        except ApiError:
            return
        except ExecutorUnavailable as error:
            if not isinstance(error.__cause__, ApiError):
                raise

    @asynccontextmanager
    async def stream(
        self, path: str, params: Params = NONE, *, stall_s: float | None
    ) -> AsyncGenerator["Chunks"]:
        """The body as it comes, in chunks that end anywhere; the iterator ends with the body.

        Entering waits for the answer's head, which for the log of a silent container comes with
        the first line.

        Args:
            path: of the resource, from the root.
            params: of the query.
            stall_s: raise ExecutorUnavailable after so many seconds without a byte; None: wait.
        """
        request = _Request("GET", path, params)
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=stall_s)
        response = await self._answer(self._streams, request, limits)
        connection = response.connection  # None once the body has ended
        transport = None if connection is None else connection.transport
        try:
            yield Chunks(response.content, self._unavailable)
        finally:
            if transport is not None:
                transport.abort()  # a TLS farewell would wait half a minute for a silent peer
            response.close()

    async def _call(
        self, request: "_Request", timeout_s: float, at_most: int | None = None
    ) -> bytes:
        limits = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S)
        response = await self._answer(self._calls, request, limits)
        async with response:
            try:
                if at_most is None:
                    return await response.read()
                body = await _up_to(response.content, at_most + 1)
            except _CUT as error:
                raise self._unavailable(error) from Unanswered()
        if len(body) > at_most:
            raise ExecutorUnavailable(
                f"The API server {self.config.server} answers with more than {at_most} bytes.",
                retry_after=1,
            ) from Unanswered()
        return body

    async def _answer(
        self, session: aiohttp.ClientSession, request: "_Request", limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """An answer that is not a no."""
        grant = await self.config.credentials.grant()
        response = await self._exchange(session, request, limits, grant)
        if response.status == 401:
            response.release()
            grant = await self.config.credentials.renew(grant)
            response = await self._exchange(session, request, limits, grant)
        if response.status < 300:
            return response
        async with response:
            no = await self._no_of(response)
        if no.status in _TRY_AGAIN or no.status >= 500:
            raise self._try_again(no) from no
        raise no

    async def _exchange(
        self,
        session: aiohttp.ClientSession,
        request: "_Request",
        limits: aiohttp.ClientTimeout,
        grant: Grant,
    ) -> aiohttp.ClientResponse:
        self.counts[request.verb_and_resource] += 1
        headers = {} if request.body is None else {"Content-Type": "application/json"}
        if grant.token is not None:
            headers["Authorization"] = f"Bearer {grant.token}"
        try:
            response = await session.request(
                request.method,
                self.config.server + request.path,
                params=request.params,
                data=request.body,
                headers=headers,
                timeout=limits,
                ssl=self._tls_for(grant.certificate),
                server_hostname=self.config.trust.server_name,
                proxy=self.config.proxy,
                allow_redirects=False,  # nobody else gets our token
            )
        except _NOT_SENT as error:
            raise self._unavailable(error) from None
        except _CUT as error:
            raise self._unavailable(error) from Unanswered()
        self.answered_at = asyncio.get_running_loop().time()
        return response

    def _tls_for(self, certificate: Certificate | None) -> ssl.SSLContext:
        if self._tls is None or self._tls[0] != certificate:
            try:
                self._tls = certificate, tls_of(self.config.trust, certificate)
            except ValueError as error:
                raise ExecutorUnavailable(
                    f"The client certificate of {self.config.origin} cannot be used: {error}."
                ) from None
        return self._tls[1]

    async def _no_of(self, response: aiohttp.ClientResponse) -> ApiError:
        try:
            async with asyncio.timeout(CALL_S):  # a stream has no deadline of its own
                body = await _up_to(response.content, _NO_BYTES)
        except _CUT as error:
            raise self._unavailable(error) from Unanswered()
        try:
            status = msgspec.json.decode(body, type=_Status)
        except (msgspec.DecodeError, ValueError):  # of a gateway, or of the kubelet
            status = _Status(message=body.decode(errors="replace")[:_SHOWN].strip())
        asked = response.headers.get("Retry-After", "")
        return ApiError(
            response.status,
            status.reason,
            status.message or (response.reason or ""),
            float(asked) if asked.isdecimal() else None,
        )

    def _try_again(self, no: ApiError) -> ExecutorUnavailable:
        after = 1 if no.retry_after is None else max(1, int(no.retry_after))
        if no.status == 401:
            return ExecutorUnavailable(
                f"The API server {self.config.server} does not accept our credentials (from "
                f"{self.config.origin}): they have ended or were withdrawn. {self._login}",
                retry_after=after,
            )
        return ExecutorUnavailable(
            f"The API server {self.config.server} cannot do that now: {no.status} {no.message}",
            retry_after=after,
        )

    @property
    def _login(self) -> str:
        if isinstance(self.config.credentials, FixedCredentials):
            return "Log in again, then start the service again, which reads them at its start."
        return "Log in again."

    def _unavailable(self, error: BaseException) -> ExecutorUnavailable:
        return ExecutorUnavailable(
            f"The API server {through(self.config.server, self.config.proxy)} cannot be asked now: "
            f"{_reason_of(error)}.",
            retry_after=1,
        )


class Chunks:
    """The bytes of a stream; taking the next may be cancelled and tried again."""

    def __init__(
        self,
        content: aiohttp.StreamReader,
        unavailable: Callable[[BaseException], ExecutorUnavailable],
    ) -> None:
        self._content = content
        self._unavailable = unavailable

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._content.readany()
        except _CUT as error:
            raise self._unavailable(error) from None
        if not chunk:
            raise StopAsyncIteration
        return chunk


class _Status(Struct):
    reason: str = ""
    message: str = ""


class _Request(Struct, frozen=True):
    method: str
    path: str
    params: Params
    body: bytes | None = None

    @property
    def verb_and_resource(self) -> tuple[str, str]:
        """As Kubernetes' own metrics and rules name it: ``("list", "jobs")``."""
        segments = self.path.strip("/").split("/")
        rest = segments[{"api": 2, "apis": 3}.get(segments[0], len(segments)) :]
        if rest[:1] == ["namespaces"] and len(rest) > 2:
            rest = rest[2:]
        if not rest:
            return self.method.lower(), self.path
        resource = "/".join([rest[0], *rest[2:]])
        if self.method != "GET":
            return _VERBS[self.method], resource
        if "watch" in self.params:
            return "watch", resource
        return ("get" if len(rest) > 1 else "list"), resource


_VERBS: Final = {"POST": "create", "DELETE": "delete"}
_TRY_AGAIN: Final = frozenset({401, 408, 429})
_NOT_SENT: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
)
# uvloop raises a RuntimeError where a connection is used that the other side has just closed
# (its issue 506), and neither it nor aiohttp makes an OSError of that.
_CUT: Final = (aiohttp.ClientError, OSError, TimeoutError, RuntimeError)


async def _up_to(content: aiohttp.StreamReader, size: int) -> bytes:
    """The beginning of a body: as much as there is, which a single ``read`` need not give."""
    parts: list[bytes] = []
    while size > 0 and (part := await content.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


_NO_BYTES: Final = 64 * 1024
_SHOWN: Final = 300  # characters of an answer that is no Status


def _session(
    connector: aiohttp.TCPConnector,
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=BUFFER,
        headers={
            "User-Agent": f"model-training-api/{__version__}",
            "Accept": "application/json, */*;q=0.1",
            # To unpack a page costs three times as much as to decode it.
            "Accept-Encoding": "identity",
        },
    )


def _kept_alive(
    address: tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]],
) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
        if hasattr(socket, option):  # not on every system
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), KEEPALIVE_S)
    if hasattr(socket, "TCP_KEEPCNT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    return made


def _words_of(error: OSError) -> str:
    if error.errno is not None and error.errno > 0:  # asyncio puts its own text over the system's
        return os.strerror(error.errno)
    return error.strerror or str(error)


def _reason_of(error: BaseException) -> str:
    """What went wrong, in words; never the address of a proxy, which may hold a password."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate is not trusted: {error.certificate_error}"
        case aiohttp.ClientConnectorError():
            return _words_of(error.os_error)
        case aiohttp.ClientResponseError():
            return f"{error.status} {error.message}"
        case aiohttp.ClientPayloadError() | RuntimeError():
            return "the connection was lost in the middle of an answer"
        case TimeoutError():
            return "no answer in time"
        case _:
            return str(error) or type(error).__name__
