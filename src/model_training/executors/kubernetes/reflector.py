"""What the API server knows of one kind of object, kept here and kept in step with it.

A whole list, then a watch from its resource version. Whatever happens to the watch, either it goes
on from where it was, or a new list is compared with what is known, so that no change and no
deletion is missed. It never gives up, and says since when it may lag behind. The protocol:
https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Generic

import msgspec

from model_training.errors import ExecutorUnavailable
from model_training.executors.kubernetes.api import NONE, ApiError, Chunks, KubernetesApi, Params
from model_training.executors.kubernetes.row_store import Key, Listener, Row, RowStore, version_of
from model_training.executors.kubernetes.watch_wire import (
    Event,
    EventLines,
    Page,
    decode_event,
    decode_page,
    outline_of,
)

PAGE: Final = 500  # objects, about 3 MB
WATCH_S: Final = (240, 480)  # how long a watch is asked for: at random, so that many do not meet
OPEN_S: Final = 10.0  # until a watch is answered; a busy server may take a while
QUIET_S: Final = 4.0  # of silence, after which it is asked whether anybody is there
PROBE_S: Final = 3.0  # for any answer; with the above, a stopped server is noticed after 7 s
STALL_S: Final = 130.0  # of silence of the watch alone: bookmarks come about once a minute
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 2.0  # while it cannot be reached: in step within 10 s of its return
REFUSED_PAUSE_S: Final = 30.0  # while it says no, as without a right: a person has to mend that
EMPTY_WATCHES: Final = 5  # closed in a row without a line: then its version is lost, silently

logger: Final = logging.getLogger(__name__)


class Reflector(Generic[Row]):
    """The objects of one path, as rows.

    ``synced`` is set after the first whole list. ``stale_since`` is the Unix time since which the
    rows may lag behind, and ``trouble`` says why; both are None while they do not. Counted are
    ``lists`` (whole ones), ``watches`` (opened), ``events`` (of objects), and ``poisoned``: objects
    that could not be decoded, which are left as they were.
    """

    def __init__(
        self,
        api: KubernetesApi,
        path: str,
        decode: Callable[[msgspec.Raw], Row],
        *,
        params: Params = NONE,
        keep: Callable[[Row], bool] = lambda _: True,
        listener: Listener[Row],
    ) -> None:
        """Say what to follow; nothing is asked before ``run``.

        Args:
            api: open while ``run`` runs.
            path: of the collection: ``/apis/batch/v1/namespaces/N/jobs``.
            decode: a row from an object's JSON; may raise whatever it likes.
            params: selectors.
            keep: whether a row matters; others are treated as if they were not there.
            listener: is told what changes.
        """
        self.synced: Final = asyncio.Event()
        self.stale_since: float | None = time.time()
        self.trouble: str | None = None
        self.lists = 0
        self.watches = 0
        self.events = 0
        self.poisoned = 0
        self._api = api
        self._path = path
        self._decode = decode
        self._params = dict(params)
        self._keep = keep
        self._listener = listener
        self._store = RowStore(listener)
        self._heard_at = 0.0  # loop time of the latest byte
        self._failures = 0  # in a row
        self._empty = 0  # watches in a row that closed without a line
        self._is_listed = False
        self._named: set[str] = set()  # poisoned objects that stand in the log
        self._reasons: set[str] = set()  # of this outage that stand in the log

    @property
    def rows(self) -> Mapping[Key, Row]:
        """By namespace and name: the newest whole list and what the watch said since.

        While a new list is on its way, the old rows stay.
        """
        return self._store.rows

    def put(self, row: Row) -> None:
        """Take over what a POST or DELETE returned, unless something newer is known."""
        if self._keep(row):
            self._store.put(row)

    async def run(self) -> None:
        """Keep the rows in step, for ever, until cancelled."""
        while True:
            try:
                if not self._is_listed:
                    await self._list()
                await self._watch()
            except _ListAgain as reason:
                self._is_listed = False
                self._lag(str(reason))
                await self._pause(LONGEST_PAUSE_S)
            except ExecutorUnavailable as error:
                self._lag(error.message)
                no = error.__cause__
                asked = no.retry_after if isinstance(no, ApiError) else None
                await self._pause(LONGEST_PAUSE_S, asked or 0.0)
            except ApiError as error:
                self._lag(str(error))
                await self._pause(REFUSED_PAUSE_S)
            except Exception as error:  # of what is called with a change: others must be told
                logger.exception("%s: following it failed", self._path)
                self._is_listed = False
                self._lag(repr(error))
                await self._pause(LONGEST_PAUSE_S)

    async def _pause(self, longest_s: float, at_least_s: float = 0.0) -> None:
        most = min(longest_s, FIRST_PAUSE_S * 2 ** min(self._failures, 16))
        self._failures += 1
        await asyncio.sleep(max(at_least_s, random.uniform(0, most)))  # noqa: S311 - no secret

    def _lag(self, reason: str) -> None:
        if self.stale_since is None:
            silence = asyncio.get_running_loop().time() - self._heard_at
            self.stale_since = time.time() - silence
        self.trouble = reason
        if reason not in self._reasons and len(self._reasons) < _NAMED:
            self._reasons.add(reason)
            logger.warning("%s is not followed at the moment: %s", self._path, reason)

    def _catch_up(self) -> None:
        if self._reasons and self.stale_since is not None:
            lag = time.time() - self.stale_since
            logger.info("%s is followed again, after %.1f s", self._path, lag)
        self._reasons.clear()
        self.stale_since = self.trouble = None
        self._listener.in_step()

    # The list.

    async def _list(self) -> None:
        self._store.begin_list()
        rows: dict[Key, Row] = {}
        page = await self._page("")
        version = int(page.metadata.resourceVersion)
        self._take_page(page, rows)
        while page.metadata.next:
            page = await self._page(page.metadata.next)
            self._take_page(page, rows)
        self._store.end_list(rows, version)
        self.lists += 1
        self._is_listed = True
        self.synced.set()

    async def _page(self, token: str) -> Page:
        # No resourceVersion: the newest there is, never what a lagging cache holds.
        params = {**self._params, "limit": str(PAGE)}
        if token:
            params["continue"] = token
        try:
            return decode_page(await self._api.get(self._path, params))
        except (msgspec.DecodeError, ValueError) as error:
            raise ExecutorUnavailable(f"{self._path} answered no list: {error}.") from None

    def _take_page(self, page: Page, rows: dict[Key, Row]) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        known = self._store.rows
        for raw in page.items or ():
            row = self._row(raw)
            if row is None:
                meta = outline_of(raw).metadata
                row = known.get((meta.namespace, meta.name))
            if row is None or not self._keep(row):
                continue
            key = row.namespace, row.name
            old = known.get(key)
            same = old is not None and old.resource_version == row.resource_version
            rows[key] = old if old is not None and same and old.uid == row.uid else row

    def _row(self, raw: msgspec.Raw) -> Row | None:
        try:
            row = self._decode(raw)
            version_of(row)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one, others go on
            self._poisoned(raw, error)
            return None
        return row

    def _poisoned(self, raw: msgspec.Raw, error: Exception) -> None:
        self.poisoned += 1
        meta = outline_of(raw).metadata
        name = f"{meta.namespace}/{meta.name}"
        if name not in self._named and len(self._named) < _NAMED:
            self._named.add(name)
            logger.error("%s: %s is left out, as it cannot be read: %r", self._path, name, error)

    # The watch.

    async def _watch(self) -> None:
        """Follow until it is closed; only a normal end returns."""
        try:
            heard = await self._follow()
        except ExecutorUnavailable as error:
            # The API server may have come back with an older database (a restored backup), where
            # to go on from our version would be silence, or events of another history. It need not
            # have refused anybody meanwhile: a connection can wait until it has started.
            self._is_listed = self._is_listed and _is_overload(error)
            raise
        if not heard:
            self._empty += 1
            if self._empty >= EMPTY_WATCHES:
                self._empty = 0
                raise _ListAgain(f"{EMPTY_WATCHES} watches ended without a word")
            await self._pause(LONGEST_PAUSE_S)

    async def _follow(self) -> bool:
        """Whether there was a line."""
        lines = EventLines()
        heard = False
        async with AsyncExitStack() as stack:
            chunks = await self._open(stack)
            self._catch_up()
            async for chunk in chunks:
                self._heard_at = asyncio.get_running_loop().time()
                for line in lines.feed(chunk):
                    self._take_line(line)
                    self._failures, self._empty, heard = 0, 0, True
        return heard

    async def _open(self, stack: AsyncExitStack) -> Chunks:
        params = {
            **self._params,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": str(self._store.version),
            "timeoutSeconds": str(random.randint(*WATCH_S)),  # noqa: S311 - no secret
        }
        stream = self._api.stream(self._path, params, stall_s=STALL_S)
        try:
            async with asyncio.timeout(OPEN_S):
                chunks = await stack.enter_async_context(stream)
        except TimeoutError:
            raise ExecutorUnavailable(f"The watch was not answered in {OPEN_S:.0f} s.") from None
        except ApiError as error:
            if error.status == 410:
                raise _ListAgain(error.message) from None
            raise
        self.watches += 1
        self._heard_at = asyncio.get_running_loop().time()
        await stack.enter_async_context(self._guard())
        return chunks

    @asynccontextmanager
    async def _guard(self) -> AsyncGenerator[None]:
        """End what runs inside when everything was silent and nobody answers a question."""
        try:
            async with asyncio.timeout(None) as deadline:
                asking = asyncio.create_task(self._ask_in_silence(deadline))
                try:
                    yield
                finally:
                    asking.cancel()
                    await asyncio.gather(asking, return_exceptions=True)
        except TimeoutError:
            reason = f"The API server was silent, and did not answer a question in {PROBE_S:.0f} s."
            raise ExecutorUnavailable(reason) from None

    async def _ask_in_silence(self, deadline: asyncio.Timeout) -> None:
        loop = asyncio.get_running_loop()
        while True:
            quiet = loop.time() - max(self._heard_at, self._api.answered_at)
            if quiet < QUIET_S:
                await asyncio.sleep(QUIET_S - quiet)
                continue
            try:
                await self._api.probe(PROBE_S)
            except ExecutorUnavailable:
                deadline.reschedule(loop.time())
                return

    def _take_line(self, line: bytes) -> None:
        try:
            event = decode_event(line)
        except (msgspec.DecodeError, ValueError) as error:
            self._poisoned(msgspec.Raw(line), error)
            return
        match event.type:
            case "ADDED" | "MODIFIED" | "DELETED":
                self._take_event(event)
            case "BOOKMARK":
                self._advance(outline_of(event.object).metadata.resourceVersion)
            case "ERROR":
                status = outline_of(event.object)
                raise _ListAgain(f"{status.code} {status.message}")
            case _:  # of a newer Kubernetes
                pass

    def _take_event(self, event: Event) -> None:
        self.events += 1
        row = self._row(event.object)
        if row is None:
            meta = outline_of(event.object).metadata
            key, version = (meta.namespace, meta.name), meta.resourceVersion
        else:
            key, version = (row.namespace, row.name), row.resource_version
        self._advance(version)
        if event.type == "DELETED":
            self._store.remove(key, self._store.version, row)
        elif row is None:
            pass  # left as it was
        elif self._keep(row):
            self._store.set(row)
        else:
            self._store.remove(key, version_of(row))

    def _advance(self, version: str) -> None:
        if version.isdecimal():
            self._store.version = int(version)


class _ListAgain(Exception):
    """The watch cannot go on from where it was."""


_NAMED: Final = 100  # poisoned objects, or reasons of an outage, that are named in the log


def _is_overload(error: ExecutorUnavailable) -> bool:
    return isinstance(error.__cause__, ApiError) and error.__cause__.status == 429
