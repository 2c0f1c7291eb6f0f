"""Whether a decision point has answered once since the start: until then the service is not ready.

Health endpoints are not asked: those of real decision points say yes before any policy is loaded,
and where no decision can be made. What is asked is a question about nobody.

Once it has answered, an outage is no reason to be taken for not ready: each request is told of it
by a 503 of its own, and a service that is sent no requests cannot tell anybody.
"""

import asyncio
import logging
from typing import Final, Protocol

from model_training.errors import AccessUnavailable

AGAIN_S: Final = 5.0  # seconds; a person who starts both waits no longer than that for the second

logger: Final = logging.getLogger(__name__)


class Checked(Protocol):
    """A decision point that can be tried out."""

    async def check(self) -> str | None:
        """What is doubtful about its answer to a question about nobody; None: nothing is.

        Raises:
            AccessUnavailable: it does not answer with a decision.
        """
        ...


class FirstAnswer:
    """Asks until there is an answer.

    Args:
        decider: is asked.
        where: its address, for the log.
        again_s: seconds between two times.
    """

    def __init__(self, decider: Checked, where: str, again_s: float = AGAIN_S) -> None:
        self.is_there = False
        self._decider = decider
        self._where = where
        self._again_s = again_s

    async def run(self) -> None:
        """Ask, and say in the log why there is no answer: each reason once."""
        said = ""
        while not self.is_there:
            try:
                doubt = await self._decider.check()
            except AccessUnavailable as error:
                if error.message != said:
                    said = error.message
                    logger.warning("Not ready, as %s must decide: %s", self._where, said)
                await asyncio.sleep(self._again_s)
            else:
                self.is_there = True
                if doubt:
                    logger.warning("%s answers, but %s.", self._where, doubt)
                elif said:
                    logger.info("%s answers.", self._where)
