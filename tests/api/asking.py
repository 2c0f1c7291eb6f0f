"""Many requests at once, each with what is expected of its answer.

Sent by the standard library's client, which sends paths, methods and doubled headers as they are
given.
"""

import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Cell:
    """A request, and what is expected of it."""

    who: str
    method: str
    target: str
    headers: Headers
    expected: str
    challenge: str = ""
    allow: str = ""
    twins: tuple[str, str] | None = None
    """a hidden name, and that of nothing, to which the same request must be answered the same"""
    unseen: tuple[str, ...] = ()
    """names of jobs that no answer may tell"""

    def told(self) -> str:
        return f"{self.method} {self.target} by {self.who}: expected {self.expected}"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, list[str]]
    body: bytes

    @property
    def short(self) -> str:
        """As the table has it."""
        if self.status < 400:
            return str(self.status)
        return f"{self.status} {json.loads(self.body)['type'].removeprefix('/problems/')}"

    def like(self, other: "Reply", name: str, absent: str) -> bool:
        """The same to the byte, but for the name that was asked for and the date."""
        unlike = {"date": []}
        return (
            self.status == other.status
            and self.body.replace(name.encode(), absent.encode()) == other.body
            and self.headers | unlike == other.headers | unlike
        )


class Asking:
    """Asks many things at once, a connection a lane."""

    def __init__(self, url: str, lanes: int) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname or "", address.port
        self._lanes = lanes
        self._local = threading.local()
        self._opened: list[http.client.HTTPConnection] = []

    def faults(self, cells: list[Cell]) -> list[str]:
        """What is answered otherwise than the table says."""
        with ThreadPoolExecutor(self._lanes) as pool:
            told = [fault for found in pool.map(self._faults, cells) for fault in found]
        for connection in self._opened:
            connection.close()
        return told

    def _faults(self, cell: Cell) -> list[str]:
        reply = self._ask(cell, cell.target)
        found = list(faults_of(cell, reply))
        if cell.twins and not found:
            name, absent = cell.twins
            other = self._ask(cell, cell.target.replace(name, absent))
            if not reply.like(other, name, absent):
                found.append(f"not as for what is absent: {reply} but {other}")
        return [f"{cell.told()}: {words}" for words in found]

    def _ask(self, cell: Cell, target: str) -> Reply:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=90)
            self._local.connection = connection
            self._opened.append(connection)
        body = b"{}" if cell.method in {"POST", "PUT", "PATCH"} else b""
        connection.putrequest(cell.method, target, skip_accept_encoding=True)
        for name, value in [("X-Request-ID", "matrix"), *cell.headers]:
            connection.putheader(name, value)
        if body:
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        answer = connection.getresponse()
        headers: dict[str, list[str]] = {}
        for name, value in answer.getheaders():
            headers.setdefault(name.lower(), []).append(value)
        return Reply(answer.status, headers, answer.read())


def faults_of(cell: Cell, reply: Reply) -> Iterator[str]:
    """What is wrong with one answer."""
    if cell.method == "HEAD":
        if str(reply.status) != cell.expected[:3]:
            yield f"got {reply.status}"
    elif reply.short != cell.expected:
        yield f"got {reply.short}: {reply.body[:300]!r}"
    yield from _leaks(cell, reply)
    expected = {"www-authenticate": cell.challenge, "allow": cell.allow}
    for name, value in expected.items():
        if reply.headers.get(name, []) != [value] * bool(value):
            yield f"{name} is {reply.headers.get(name)}"
    waits = [int(value) for value in reply.headers.get("retry-after", [])]
    if (reply.status == 503) != (len(waits) == 1 and 1 <= waits[0] <= 5):
        yield f"retry-after is {waits}"


def _leaks(cell: Cell, reply: Reply) -> Iterator[str]:
    if reply.status >= 400 and (b"canary" in reply.body or "canary" in str(reply.headers)):
        yield f"tells of what it refuses: {reply}"
    if told := [name for name in cell.unseen if name.encode() in reply.body]:
        yield f"tells of {told}"
