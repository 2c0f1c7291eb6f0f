"""Performing effects with httpx2: once blocking, once with asyncio. No rule lives here."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import httpx2

from model_training import __version__
from model_training.client.address import Address, AddressFinder
from model_training.client.exchange import (
    Answer,
    Close,
    Disconnected,
    Effect,
    Emit,
    Open,
    Operation,
    Pause,
    Read,
    Renew,
    Reply,
    Request,
    Send,
)
from model_training.errors import Fault, InvalidRequest

_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)


@contextmanager
def _failures(url: str) -> Generator[None]:
    """Name every failure of the connection ``Disconnected``."""
    try:
        yield
    except httpx2.RequestError as error:
        why = f"{url}: {error or type(error).__name__}"
        raise Disconnected(why, sent=not isinstance(error, _NOT_SENT)) from error
    except httpx2.InvalidURL as error:
        raise InvalidRequest(Fault("url", str(error))) from error
    except UnicodeError as error:  # a host that no name server could know, a header beyond ASCII
        raise InvalidRequest(Fault("request", f"cannot be sent: {error}")) from error


def _prepared(
    http: httpx2.Client | httpx2.AsyncClient, address: Address, request: Request
) -> httpx2.Request:
    headers = {"user-agent": f"model-training/{__version__}", **request.headers}
    if address.token:
        headers["authorization"] = f"Bearer {address.token}"
    return http.build_request(
        request.method,
        address.url + request.path,
        params=list(request.query) or None,
        headers=headers,
        content=request.body or None,
        timeout=_timeout(http.timeout, request),
    )


def _timeout(own: httpx2.Timeout, request: Request) -> httpx2.Timeout:
    if request.within_s is not None:
        limits = (own.connect, request.within_s)
        return httpx2.Timeout(min(limit for limit in limits if limit is not None))
    if request.silence_s is not None:
        return httpx2.Timeout(own.connect, read=request.silence_s)
    return own


def _headers(response: httpx2.Response) -> Mapping[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


class BlockingWire:
    """Performs the effects of one operation."""

    def __init__(self, http: httpx2.Client, finder: AddressFinder) -> None:
        self._http = http
        self._finder = finder
        self._address: Address | None = None
        self._response: httpx2.Response | None = None
        self._pieces: Iterator[bytes] = iter(())

    def perform_all(self, operation: Operation[None]) -> Iterator[object]:
        """Do everything an operation asks for; gives what it emits."""
        step = partial(operation.send, None)
        try:
            while True:
                effect = step()
                step = partial(operation.send, None)
                if isinstance(effect, Emit):
                    yield effect.item
                    continue
                try:
                    step = partial(operation.send, self._perform(effect))
                except Disconnected as cut:
                    step = partial(operation.throw, cut)
        except StopIteration:
            return
        finally:
            self._close()

    def _perform(self, effect: Effect) -> Reply:
        match effect:
            case Send(request):
                return self._open(request, whole=True)
            case Open(request):
                return self._open(request, whole=False)
            case Read():
                return self._read()
            case Close():
                return self._close()
            case Renew():
                return self._address is not None and self._finder.renew(self._address)
            case Pause(seconds):
                threading.Event().wait(seconds)
            case _:
                pass
        return None

    def _open(self, request: Request, *, whole: bool) -> Answer:
        self._close()
        self._address = self._finder.find()
        with _failures(self._address.url + request.path):
            prepared = _prepared(self._http, self._address, request)
            response = self._http.send(prepared, stream=True)
            self._response = response
            if whole or response.status_code >= 300:
                body = response.read()
                self._close()
                return Answer(response.status_code, _headers(response), body)
        self._pieces = response.iter_bytes()
        return Answer(response.status_code, _headers(response))

    def _read(self) -> bytes:
        with _failures("the answer"):
            return next(self._pieces, b"")

    def _close(self) -> None:
        if self._response is not None:
            self._response.close()
        self._response = None


class AsyncWire:
    """Performs the effects of one operation with asyncio."""

    def __init__(self, http: httpx2.AsyncClient, finder: AddressFinder) -> None:
        self._http = http
        self._finder = finder
        self._address: Address | None = None
        self._response: httpx2.Response | None = None
        self._pieces: AsyncIterator[bytes] | None = None

    async def perform_all(self, operation: Operation[None]) -> AsyncGenerator[object]:
        """Do everything an operation asks for; gives what it emits."""
        step = partial(operation.send, None)
        try:
            while True:
                effect = step()
                step = partial(operation.send, None)
                if isinstance(effect, Emit):
                    yield effect.item
                    continue
                try:
                    step = partial(operation.send, await self._perform(effect))
                except Disconnected as cut:
                    step = partial(operation.throw, cut)
        except StopIteration:
            return
        finally:
            await self._close()

    async def _perform(self, effect: Effect) -> Reply:
        match effect:
            case Send(request):
                return await self._open(request, whole=True)
            case Open(request):
                return await self._open(request, whole=False)
            case Read():
                return await self._read()
            case Close():
                return await self._close()
            case Renew():
                if self._address is not None:
                    return await asyncio.to_thread(self._finder.renew, self._address)
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case _:
                pass
        return None

    async def _open(self, request: Request, *, whole: bool) -> Answer:
        await self._close()
        # A program may have to be asked for the token, or a provider.
        self._address = await asyncio.to_thread(self._finder.find)
        with _failures(self._address.url + request.path):
            prepared = _prepared(self._http, self._address, request)
            response = await self._http.send(prepared, stream=True)
            self._response = response
            if whole or response.status_code >= 300:
                body = await response.aread()
                await self._close()
                return Answer(response.status_code, _headers(response), body)
        self._pieces = response.aiter_bytes()
        return Answer(response.status_code, _headers(response))

    async def _read(self) -> bytes:
        if self._pieces is None:
            return b""
        with _failures("the answer"):
            return await anext(self._pieces, b"")

    async def _close(self) -> None:
        if self._response is not None:
            await self._response.aclose()
        self._response = None
