"""Values that are kept for a while, and only so many of them."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Kept(Generic[K, V]):
    """A bounded cache whose values end by time; the oldest goes when it is full.

    Args:
        size: values at most.
        now: seconds of a clock that nobody sets.
    """

    def __init__(self, size: int, now: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._now = now
        self._values: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """The value, if it is there and its time has not passed."""
        found = self._values.get(key)
        if found is None:
            return None
        ends, value = found
        if self._now() < ends:
            return value
        del self._values[key]
        return None

    def put(self, key: K, value: V, seconds: float) -> None:
        """Keep a value for so long."""
        self._values.pop(key, None)
        self._values[key] = self._now() + seconds, value
        if len(self._values) > self._size:
            self._values.popitem(last=False)

    def drop(self, key: K) -> None:
        """Forget a value."""
        self._values.pop(key, None)
