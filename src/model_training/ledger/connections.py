"""One thread that writes, a few that read pages, and point reads where they are asked for.

*Writing*: calls that wait at the same time share one transaction and so one sync of the disk
(group commit); a call returns when it is durable. Where a transaction fails, each of its calls
is tried by itself, so that one that cannot be done does not fail its neighbours. A call may do
without a sync: then a power cut, and nothing less, may take it until a later one is synced.

*Reading*: a point read by key takes some 10 us, and handing it to a thread ten times as much, so
it is done at once, on the event loop: readers never wait for the writer (write-ahead log), and
what it may touch is bounded by the depth of an index. Pages and sums go to two threads of their
own, so that nothing else that uses threads can hold up the list.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from model_training.errors import LedgerUnavailable
from model_training.ledger.ledger_file import BUSY_TIMEOUT, open_reader

T = TypeVar("T")

BATCH: Final = 256  # calls in one transaction, so that the first does not wait for ever
READERS: Final = 2  # threads for pages; more would only compete for the interpreter
POINT_TIMEOUT: Final = 0.05  # seconds that a read on the event loop may wait for a lock

_CLOSED: Final = "The ledger is closed; the service is going down."
_BY_CODE: Final = {
    sqlite3.SQLITE_FULL: "The disk of the ledger is full; make space there, then try again.",
    sqlite3.SQLITE_READONLY: "The ledger's file cannot be written; make it writable again.",
    sqlite3.SQLITE_CANTOPEN: "The ledger's files cannot be opened; make its folder usable again.",
    sqlite3.SQLITE_BUSY: "Another program holds the ledger's file; end it, then try again.",
    sqlite3.SQLITE_CORRUPT: "The ledger's file is damaged; stop the service and move it away: a "
    "new one is rebuilt from the jobs that are still there.",
}
_OTHERWISE: Final = "The ledger's file cannot be read or written; see to its disk, then try again."


@contextmanager
def translated() -> Generator[None]:
    """Faults of the file or the disk become ``LedgerUnavailable``; our own mistakes stay."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_ERROR:  # wrong SQL
            raise
        raise LedgerUnavailable(_BY_CODE.get(code, _OTHERWISE)) from error


@dataclass(frozen=True, slots=True)
class _Call(Generic[T]):
    work: Callable[[sqlite3.Connection], T]
    future: "asyncio.Future[T]"
    loop: asyncio.AbstractEventLoop
    synced: bool


@dataclass(frozen=True, slots=True)
class _Outcome:
    call: _Call[Any]
    result: object = None
    error: Exception | None = None


class Writer:
    """The thread that writes. ``kept`` and ``lost`` are called in it after each transaction."""

    def __init__(
        self, connection: sqlite3.Connection, *, kept: Callable[[], None], lost: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._kept = kept
        self._lost = lost
        self._synchronous = ""
        self._calls: queue.SimpleQueue[_Call[Any] | None] = queue.SimpleQueue()
        self._is_closed = False
        # A daemon, so that a process that fails before close() can end; nothing that was
        # answered can be lost by it.
        self._thread = threading.Thread(target=self._serve, name="ledger-writer", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], T], *, synced: bool = True) -> T:
        """Do ``work`` in a transaction; on return it is durable, if ``synced`` by the disk too.

        If the caller is cancelled meanwhile, it may still be done.

        Raises:
            LedgerUnavailable: the file cannot be written now; nothing was changed.
        """
        if self._is_closed:
            raise LedgerUnavailable(_CLOSED)
        loop = asyncio.get_running_loop()
        call = _Call(work, loop.create_future(), loop, synced)
        self._calls.put(call)
        return await call.future

    async def close(self) -> None:
        """Finish what was asked for, then close the file."""
        if self._is_closed:
            return
        self._is_closed = True
        self._calls.put(None)
        await asyncio.to_thread(self._thread.join)
        self._connection.close()

    def _serve(self) -> None:
        is_last = False
        while not is_last:
            calls: list[_Call[Any] | None] = [self._calls.get()]
            while len(calls) < BATCH and not self._calls.empty():
                calls.append(self._calls.get())
            is_last = None in calls
            self._deliver(self._outcomes([call for call in calls if call is not None]))

    def _outcomes(self, calls: list[_Call[Any]]) -> list[_Outcome]:
        try:
            results = self._transaction(calls) if calls else []
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to a caller
            if len(calls) == 1:
                return [_Outcome(calls[0], error=error)]
            return [outcome for call in calls for outcome in self._outcomes([call])]
        return [_Outcome(call, result) for call, result in zip(calls, results, strict=True)]

    def _transaction(self, calls: list[_Call[Any]]) -> list[object]:
        connection = self._connection
        try:
            with translated():
                if connection.in_transaction:  # the roll-back of the last one failed
                    connection.execute("ROLLBACK")
                self._sync("FULL" if any(call.synced for call in calls) else "NORMAL")
                connection.execute("BEGIN IMMEDIATE")
                results: list[object] = [call.work(connection) for call in calls]
                connection.execute("COMMIT")
        except BaseException:
            self._lost()
            with translated():
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise
        self._kept()
        return results

    def _sync(self, synchronous: str) -> None:
        """FULL: sync the write-ahead log at each commit; NORMAL: only before it is taken over."""
        if self._synchronous != synchronous:
            self._connection.execute(f"PRAGMA synchronous = {synchronous}")
            self._synchronous = synchronous

    @staticmethod
    def _deliver(outcomes: list[_Outcome]) -> None:
        if not outcomes:
            return
        try:
            outcomes[0].call.loop.call_soon_threadsafe(_resolve, outcomes)
        except RuntimeError:  # the loop was closed: nobody waits any more
            return


def _resolve(outcomes: list[_Outcome]) -> None:
    for outcome in outcomes:
        future = outcome.call.future
        if future.done():  # its caller was cancelled
            continue
        if outcome.error is None:
            future.set_result(outcome.result)
        else:
            future.set_exception(outcome.error)


class Readers:
    """Connections that read: one for the event loop, one for each thread."""

    def __init__(self, path: Path) -> None:
        self._point = open_reader(path, timeout=POINT_TIMEOUT)
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        for _ in range(READERS):
            self._idle.put(open_reader(path, timeout=BUSY_TIMEOUT))
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="ledger-reader")
        self._is_closed = False

    def first(self, query: str, values: dict[str, str]) -> sqlite3.Row | None:
        """The first row, read at once: for reads by a key only.

        Raises:
            LedgerUnavailable: the file cannot be read now.
        """
        if self._is_closed:
            raise LedgerUnavailable(_CLOSED)
        with translated():
            cursor = self._point.execute(query, values)
            row: sqlite3.Row | None = cursor.fetchone()
            cursor.close()  # or the read transaction stays open and holds old pages
        return row

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Read in a thread.

        Raises:
            LedgerUnavailable: the file cannot be read now.
        """
        if self._is_closed:
            raise LedgerUnavailable(_CLOSED)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, work)

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._idle.get()
        try:
            with translated():
                return work(connection)
        finally:
            self._idle.put(connection)

    async def close(self) -> None:
        """Finish what was asked for, then close the file."""
        if self._is_closed:
            return
        self._is_closed = True
        await asyncio.to_thread(self._threads.shutdown)
        self._point.close()
        for _ in range(READERS):
            self._idle.get().close()
