"""The seam between what the client decides and how bytes travel.

An operation is a generator that yields effects and is sent what they gave. It holds every rule
(what is sent, what is tried again, where a log goes on) and no socket, so that the blocking and
the asyncio client share all of it and each only performs effects. A connection
that fails is thrown into the operation as ``Disconnected``.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request; the shell adds address, token and version."""

    method: str = "GET"
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    silence_s: float | None = None
    """longest silence to bear, in seconds; None: the client's own"""
    within_s: float | None = None
    """what is left of the caller's time, in seconds: neither connecting nor silence is longer"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class Disconnected(Exception):
    """No connection, or no whole answer. ``sent``: the server may have acted on the request."""

    def __init__(self, why: str, *, sent: bool) -> None:
        self.why = why
        self.sent = sent
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request and read the whole answer; gives an Answer."""

    request: Request


@dataclass(frozen=True, slots=True)
class Open:
    """Send a request and read the head of the answer, or all of it if it is an error.

    Gives an Answer. One at a time is open; the shell closes it when the operation ends.
    """

    request: Request


@dataclass(frozen=True, slots=True)
class Read:
    """Read on in what was opened; gives bytes, none of them at its proper end."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close what was opened."""


@dataclass(frozen=True, slots=True)
class Renew:
    """The server refused what it was shown; gives whether there is something else to show."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Let this many seconds pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Emit:
    """Hand this to whoever iterates."""

    item: object


Effect: TypeAlias = Send | Open | Read | Close | Renew | Pause | Emit
Reply: TypeAlias = Answer | bytes | bool | None
T = TypeVar("T")
Operation: TypeAlias = Generator[Effect, Reply, T]


def emitting_its_result(operation: Operation[T]) -> Operation[None]:
    """An operation that emits, last of all, what the other returns.

    Asynchronous generators return nothing, so this is how both shells get at a result.
    """
    yield Emit((yield from operation))
