"""When to try again, and for how long.

Everything the client sends may be repeated: reading changes nothing, stop and delete are
idempotent, and a create always carries an Idempotency-Key. So a lost connection, an answer cut
in the middle and "busy" are tried again; any other answer is an answer.
"""

import random
import time
from collections.abc import Callable

from model_training.client.exchange import Answer

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
LONGEST_RETRY_AFTER_S = 60.0  # a server that asks for more is taken to be away
# A server that went away while a job is followed or waited for is given much longer than one
# that does not answer a first request: the job goes on, and a host may take minutes to come back.
LASTING_PATIENCE_S = 300.0
BUSY = frozenset({429, 502, 503, 504})  # 502 and 504 come from a proxy in front of the service


class Retries:
    """Doubling delays with jitter, within a limit on the whole time without success.

    That time begins with the first failure; with ``from_now`` at once, so that a first attempt
    that hangs is part of it.
    """

    def __init__(
        self,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        from_now: bool = False,
    ) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._failing_since = clock() if from_now else None
        self._paused_s = 0.0
        self._failures = 0

    def succeeded(self, *, progress: bool) -> None:
        """The server answers. Without ``progress`` the delays do not begin anew.

        So a server that accepts each connection and cuts it at once is not asked in a tight loop.
        """
        self._failing_since = None
        self._paused_s = 0.0
        if progress:
            self._failures = 0

    def delay_after_cut(self) -> float | None:
        """Seconds until the next attempt, or None to give up."""
        delay = min(FIRST_DELAY_S * 2**self._failures, LONGEST_DELAY_S)
        # Jitter: clients that lost the same server do not come back in step.
        return self._within_patience(delay * random.uniform(0.5, 1.0))  # noqa: S311 no secret

    def delay_after_busy(self, answer: Answer) -> float | None:
        """The same after an answer in ``BUSY``, which may say how long to wait."""
        asked = answer.headers.get("retry-after", "")
        if not (asked.isascii() and asked.isdigit()):
            return self.delay_after_cut()
        seconds = float(asked[:9])
        if seconds > LONGEST_RETRY_AFTER_S:
            return None
        return self._within_patience(seconds + random.uniform(0, FIRST_DELAY_S))  # noqa: S311

    def _within_patience(self, delay: float) -> float | None:
        now = self._clock()
        if self._failing_since is None:
            self._failing_since = now
        self._failures = min(self._failures + 1, 16)
        # A pause that was asked for has passed, whatever the clock says of a suspended machine.
        passed = max(now - self._failing_since, self._paused_s)
        self._paused_s += delay
        return delay if passed + delay <= self._patience_s else None
