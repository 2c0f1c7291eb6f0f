"""How much of the service one caller may take: requests a second, and logs followed at once.

The single user of a local service has no share: the machine is theirs. A caller is a principal,
not an address: behind one address there may be a whole company, and one person may have many.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from model_training.access.principals import Principal, PrincipalKind
from model_training.errors import TooManyRequests

BURST_S: Final = 10.0  # seconds' worth of requests at once: a page that loads, a script that begins
CALLERS_KEPT: Final = 10_000  # those who asked last; who is forgotten has a full share again


class Shares:
    """What each caller has taken.

    Args:
        rate: requests a second.
        followers: logs followed at once.
        now: seconds of a clock that nobody sets.
    """

    def __init__(
        self, *, rate: int, followers: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._followers = followers
        self._now = now
        # When a caller's share will be whole again: the one number that a token bucket is.
        self._whole_at: OrderedDict[str, float] = OrderedDict()
        self._following: Counter[str] = Counter()

    def take_request(self, principal: Principal) -> None:
        """One more request of theirs.

        Raises:
            TooManyRequests: their share is used up.
        """
        if principal.kind is PrincipalKind.LOCAL:
            return
        now = self._now()
        whole_at = max(now, self._whole_at.get(principal.id, now)) + 1 / self._rate
        if (wait := round(whole_at - now - BURST_S, 6)) > 0:
            raise TooManyRequests(
                f"You ask for more than {self._rate} requests a second; wait a moment.",
                retry_after=max(1, round(wait)),
            )
        self._whole_at[principal.id] = whole_at
        self._whole_at.move_to_end(principal.id)
        if len(self._whole_at) > CALLERS_KEPT:
            self._whole_at.popitem(last=False)

    def take_follower(self, principal: Principal) -> None:
        """One more log that they follow, until ``give_back_follower``.

        Raises:
            TooManyRequests: they follow as many as they may.
        """
        if principal.kind is PrincipalKind.LOCAL:
            return
        if self._following[principal.id] >= self._followers:
            raise TooManyRequests(
                f"You follow {self._followers} logs already; end one of them first.",
                retry_after=5,
            )
        self._following[principal.id] += 1

    def give_back_follower(self, principal: Principal) -> None:
        """One of the logs that they followed has ended."""
        if principal.kind is PrincipalKind.LOCAL:
            return
        self._following[principal.id] -= 1
        if self._following[principal.id] <= 0:
            del self._following[principal.id]
