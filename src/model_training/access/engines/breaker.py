"""A breaker between this service and a decision point that is away.

Without it each request would wait two seconds to learn what the one before it has learned, and a
decision point that comes back would be met by all of them at once.
"""

import time
from collections.abc import Callable
from typing import Final

FAILURES: Final = 5  # in a row; fewer happen by chance, and each costs somebody two seconds
OPEN_S: Final = 5.0  # seconds; longer than a question takes, so that none from before ends after it
PROBING_S: Final = 1.0  # seconds to come again in while one question finds out how things are


class Breaker:
    """Closed until it failed five times in a row, then open; after five seconds one may try.

    Whoever was told to go on tells how it went: ``answered``, ``failed``, or at least ``left``.

    Args:
        now: seconds of a clock that nobody sets.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._failures = 0
        self._open_until: float | None = None
        self._is_probing = False

    def wait_s(self) -> float:
        """Seconds for which nothing is to be asked; 0: go on."""
        if self._open_until is None:
            return 0.0
        left = self._open_until - self._now()
        if left > 0:
            return left
        if self._is_probing:
            return PROBING_S
        self._is_probing = True
        return 0.0

    def answered(self) -> None:
        """There was an answer, whatever it said."""
        self._failures = 0
        self._open_until = None
        self._is_probing = False

    def failed(self) -> bool:
        """There was none. Whether this opened the breaker."""
        self._failures += 1
        was_closed = self._open_until is None
        if not self._is_probing and (not was_closed or self._failures < FAILURES):
            return False  # a question from before it opened does not keep it open for longer
        self._open_until = self._now() + OPEN_S
        self._is_probing = False
        return was_closed

    def left(self) -> None:
        """Whoever asked did not wait for the end: nothing is known, and another may try."""
        self._is_probing = False
