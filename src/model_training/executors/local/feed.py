"""Observations on their way to whoever observes: the newest of each job, never a backlog.

A reader that is slow misses steps in between, not the last one; so memory is bounded by the
number of jobs, and nothing ever waits for a reader.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable

from model_training.executors.base import Change
from model_training.jobs import Observation


class Reader:
    """One observer's place in the feed, from the moment it was made."""

    def __init__(self) -> None:
        self._fresh: dict[str, Observation] = {}
        self._news = asyncio.Event()

    def put(self, observations: Iterable[Observation]) -> None:
        """Keep the newest."""
        for observation in observations:
            # Taken out first, so that jobs stand in the order of their latest change.
            self._fresh.pop(observation.name, None)
            self._fresh[observation.name] = observation
        if self._fresh:
            self._news.set()

    async def changes(self) -> AsyncGenerator[Change]:
        """All that comes, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            batch, self._fresh = tuple(self._fresh.values()), {}
            yield Change(batch)


class Feed:
    """Passes observations to all readers."""

    def __init__(self) -> None:
        self._readers: set[Reader] = set()

    def open(self) -> Reader:
        """A reader that gets what is published from now on; close it with ``close``."""
        reader = Reader()
        self._readers.add(reader)
        return reader

    def close(self, reader: Reader) -> None:
        """Publish to it no more."""
        self._readers.discard(reader)

    def publish(self, *observations: Observation) -> None:
        """Pass on to everybody, as one batch."""
        for reader in self._readers:
            reader.put(observations)
