"""The gate before every route: who is being asked, from where, how much, and under which id.

Pure ASGI, because every open stream keeps what stands before it in memory. In order: an id for
the request; Host (421: a page that rebinds its name to this address must not reach it) and
Origin (403), on every method; the size of the body (413); the path, taken apart before it is
decoded, so that an encoded slash never becomes one. Each answer gets the id and ``nosniff``;
each request one line in the log and one count. What escapes a route is logged here, once, and
answered without its words.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Final
from urllib.parse import unquote_to_bytes
from uuid import uuid4

import orjson
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model_training.api.client_addresses import Network, client_address
from model_training.api.cross_origin import (
    allowing,
    is_preflight,
    is_same_origin,
    origins_of,
    preflight,
)
from model_training.api.problems import FOREIGN_HOST, FOREIGN_ORIGIN, INTERNAL, Problem, problem_of
from model_training.api.streaming import ABORT
from model_training.errors import RequestTooLarge

logger = logging.getLogger(__name__)
access_log = logging.getLogger("model_training.access")

PROBES: Final = frozenset({"/livez", "/readyz"})
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
IMPOSSIBLE: Final = "\0"  # stands where a path cannot be decoded; no name and no file has it
HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),  # what a caller may read, a cache between must not
)
STRICT_TRANSPORT: Final = (b"strict-transport-security", b"max-age=31536000")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(rb"([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.IGNORECASE)

Count = Callable[[Scope, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRules:
    """What the gate lets through."""

    allowed_hosts: frozenset[str]
    """names under which the service is asked, beside those of loopback"""
    body_limit: int
    """bytes"""
    proxies: tuple[Network, ...] = ()
    """who is believed about the client's address"""
    origins: frozenset[bytes] = frozenset()
    """whose pages may ask, beside our own"""
    is_tls: bool = False


class Gate:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, rules: GateRules, count: Count) -> None:
        self._app = app
        self._hosts = LOOPBACK | {host.lower() for host in rules.allowed_hosts}
        self._rules = rules
        self._headers = HEADERS + (STRICT_TRANSPORT,) * rules.is_tls
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passage = _Passage(scope, receive, send, self._rules.body_limit, self._headers)
        passage.headers += self._allowing(scope)
        address = (scope.get("client") or ("",))[0]
        scope["state"]["client"] = client_address(address, scope["headers"], self._rules.proxies)
        try:
            if problem := self._refusal(scope, passage):
                await problem.response(passage.request_id)(scope, receive, passage.send)
            elif is_preflight(scope["method"], scope["headers"]) and self._allowing(scope):
                await preflight()(scope, receive, passage.send)
            else:
                await self._app(scope, passage.receive, passage.send)
        except ClientDisconnect:
            pass  # nobody is left to be answered
        except Exception:
            # The last place where an error of ours can be told from words for the client.
            logger.exception("request %s failed", passage.request_id)
            await passage.fail()
        finally:
            self._count(scope, passage.status)
            passage.log()

    def _refusal(self, scope: Scope, passage: "_Passage") -> Problem | None:
        scope["path"] = decode_path(scope["raw_path"])
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        hosts = [value for name, value in headers if name == b"host"]
        if scope["path"] not in PROBES and not self._is_ours(hosts):
            return FOREIGN_HOST
        origins = origins_of(headers)
        if any(o not in self._rules.origins and not is_same_origin(o, headers) for o in origins):
            return FOREIGN_ORIGIN
        if passage.declared > self._rules.body_limit:
            return problem_of(too_large(self._rules.body_limit))
        return None

    def _allowing(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        if not self._rules.origins:
            return []
        named = [o for o in origins_of(scope["headers"]) if o in self._rules.origins]
        return allowing(named[0]) if len(named) == 1 else []

    def _is_ours(self, hosts: list[bytes]) -> bool:
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        return match is not None and match[1].decode().lower() in self._hosts


def too_large(limit: int) -> RequestTooLarge:
    """The one answer for a body above the limit."""
    return RequestTooLarge(f"The body is larger than {limit} bytes, the most this service reads.")


def decode_path(raw: bytes) -> str:
    """The path, with each segment decoded by itself.

    A segment that holds an encoded slash, or is no UTF-8, becomes one that matches nothing.
    """
    return "/".join(_decode_segment(segment) for segment in raw.split(b"/"))


def _decode_segment(segment: bytes) -> str:
    try:
        text = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        return IMPOSSIBLE
    return IMPOSSIBLE if "/" in text else text


class _Passage:
    """One request on its way through the gate."""

    __slots__ = (
        "_began", "_is_complete", "_limit", "_read", "_receive", "_scope", "_send",
        "declared", "headers", "request_id", "status",
    )  # fmt: skip

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        limit: int,
        headers: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        self._scope, self._receive, self._send, self._limit = scope, receive, send, limit
        self._began = perf_counter()
        self._read = 0
        self._is_complete = False
        self.status = 0
        self.declared = 0
        self.request_id = uuid4().hex[:16]
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                self.declared = int(value[:20])
            elif name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                self.request_id = value.decode()
        scope["state"]["request_id"] = self.request_id
        self.headers = [*headers, (b"x-request-id", self.request_id.encode())]

    async def receive(self) -> Message:
        message = await self._receive()
        self._read += len(message.get("body", b""))
        if self._read > self._limit and not self.status:
            raise too_large(self._limit)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = message.get("headers", ())
            names = {name for name, _ in given}
            message["headers"] = [
                *given,
                *(header for header in self.headers if header[0] not in names),
            ]
        else:
            self._is_complete = not message.get("more_body", False)
        await self._send(message)

    async def fail(self) -> None:
        if not self.status:
            await INTERNAL.response(self.request_id)(self._scope, self._receive, self.send)
        elif not self._is_complete:
            self._scope["extensions"][ABORT]()

    def log(self) -> None:
        if not access_log.isEnabledFor(logging.INFO):
            return
        # The query is left out: it may hold what a client put there by mistake, such as a token.
        line = {
            "request_id": self.request_id,
            "client": self._scope["state"].get("client", ""),
            "principal": self._scope["state"].get("principal"),
            "method": self._scope["method"],
            "path": self._scope["path"][:200],
            "status": self.status,
            "duration_ms": round((perf_counter() - self._began) * 1000, 1),
        }
        access_log.info("%s", orjson.dumps(line).decode())
