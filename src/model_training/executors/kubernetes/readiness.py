"""Whether the executor may do what it must, looked at again and again, and told in the log."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from model_training.errors import ExecutorUnavailable
from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.rights import RIGHTS, Right, missing_rights

LOOK_S: Final = 30.0  # a dozen small requests; a right that was withdrawn is told within it
RETRY_S: Final = 5.0  # while something is in the way: a person is mending it and waits

logger: Final = logging.getLogger(__name__)


class Readiness:
    """Looks at our rights; ``is_ready`` is what was found last, and False before.

    Where the API server cannot be asked, what was found last stands: its absence says nothing
    about rights, and what is known of jobs can still be read.
    """

    def __init__(
        self,
        api: KubernetesApi,
        namespace: str,
        *,
        all_namespaces: bool,
        rights: Sequence[Right] = RIGHTS,
    ) -> None:
        self.is_ready = False
        self._rights = rights
        self._api = api
        self._namespace = namespace
        self._all_namespaces = all_namespaces
        self._said: tuple[str, ...] = ()

    async def run(self) -> None:
        """Look, for ever, until cancelled."""
        while True:
            await self._look()
            await asyncio.sleep(LOOK_S if self.is_ready else RETRY_S)

    async def _look(self) -> None:
        try:
            missing = await missing_rights(
                self._api,
                self._namespace,
                all_namespaces=self._all_namespaces,
                rights=self._rights,
            )
        except ExecutorUnavailable as error:
            if not self.is_ready:  # afterwards the reflectors tell of it
                self._say(error.message)
            return
        self.is_ready = not missing
        self._say(
            *(
                f"The service may not {each.words}, which it needs to {each.right.why}; "
                f"{each.way_out}."
                for each in missing
            )
        )

    def _say(self, *obstacles: str) -> None:
        """Each once, and all of them again when one has come or gone."""
        if obstacles == self._said:
            return
        self._said = obstacles
        for obstacle in obstacles:
            logger.warning("Not ready: %s", obstacle)
        if not obstacles:
            logger.info("Nothing is in the way any more: the service has every right it needs.")
