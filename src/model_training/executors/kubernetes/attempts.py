"""One attempt of a job: a pod, and the log that its output is copied to."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from model_training.errors import ExecutorUnavailable
from model_training.executors.kubernetes.log_copies import Copier, End
from model_training.executors.kubernetes.log_plans import Miss, Read, next_step
from model_training.executors.kubernetes.objects import PodRow

logger = logging.getLogger(__name__)

BACKOFF_S: Final = 0.2  # before the second try
BACKOFF_LIMIT_S: Final = 3.0
SETTLE_S: Final = 2.0  # from the end of a stream to the pod's status: the kubelet looks each second
# (the longer, the later it shows that the stream ended because the kubelet did)
REFUSED_S: Final = 10.0  # how long a log of an ended container that is refused is asked for

_GONE: Final = "the pod was gone before its log was copied; how many bytes are missing is not known"
_REFUSED: Final = "the node no longer had the log; how many bytes are missing is not known"
_RESTARTED: Final = (
    "the container was restarted before its log was copied; how many bytes are missing is not known"
)


class Attempt:
    """Copies what a pod prints, as long as there is something to copy.

    ``is_complete`` once all of it is in the log, or a gap says what is not.
    """

    def __init__(
        self, copier: Copier, name: str, done: Callable[[], None], *, is_saved: bool
    ) -> None:
        """Begin, or go on, where the copier's source says.

        Args:
            copier: of this attempt's log.
            name: for people.
            done: called when the log has become complete.
            is_saved: which pod it is of need not be written down (again).
        """
        self.is_complete = copier.source.complete
        self._copier = copier
        self._name = name
        self._done = done
        self._is_saved = is_saved
        self._pod: PodRow | None = None
        self._is_gone = False
        self._went_unseen = False
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._reading: Read | None = None
        self._backoff_s = BACKOFF_S
        self._refused_since: float | None = None

    @property
    def copied(self) -> int:
        """Bytes of its log, while that is open."""
        return self._copier.position

    def look(self, pod: PodRow) -> None:
        """The pod is in this state now."""
        if not self.is_complete and not self._is_gone and pod != self._pod:
            self._pod = pod
            self._wake()

    def lose(self, *, went_unseen: bool) -> None:
        """The pod is gone; if nobody saw how, it may have run since it was last seen."""
        if not self.is_complete and not self._is_gone:
            self._is_gone, self._went_unseen = True, went_unseen
            self._wake()

    async def join(self, within_s: float) -> None:
        """Wait for what is being written down, but no longer."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=within_s)

    async def close(self) -> None:
        """Stop copying; what is there stays, and another ``Attempt`` goes on from it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        with suppress(OSError):  # what did not reach the disk is on the node still
            await self._copier.close()

    def _wake(self) -> None:
        self._changed.set()
        if self._task is None:
            if self._has_work():
                self._task = asyncio.create_task(self._work(), name=f"log of {self._name}")
        elif self._reading is not None and (self._is_gone or self._next() != self._reading):
            self._copier.hurry()

    def _has_work(self) -> bool:
        if self._is_gone or not self._is_saved or self._next() is not None:
            return True
        return self._pod is not None and self._pod.has_ended

    def _next(self) -> Read | Miss | None:
        return None if self._pod is None else next_step(self._pod, self._copier.source)

    async def _work(self) -> None:
        try:
            while not self.is_complete and self._has_work():
                self._changed.clear()
                try:
                    await self._take_step()
                except OSError as error:
                    logger.warning("The log of %s cannot be written now: %s.", self._name, error)
                    await self._pause(BACKOFF_LIMIT_S)
        except Exception:
            logger.exception("The log of %s is not copied any further.", self._name)
        finally:
            self._task = None
        if self.is_complete:
            self._done()

    async def _take_step(self) -> None:
        if not self._is_saved:
            await self._copier.save()
            self._is_saved = True
        step = self._next()
        if self._is_gone:
            await self._conclude(step)
        elif self._pod is None or step is None:
            if self._pod is not None and self._pod.has_ended:
                is_lost = self._is_begun and not self._copier.is_whole
                await self._complete(_REFUSED if is_lost else None)
        elif isinstance(step, Miss):
            await self._copier.finish(step.container, step.instance, _RESTARTED)
        else:
            await self._read(self._pod, step)

    async def _read(self, pod: PodRow, step: Read) -> None:
        begun = time.monotonic()
        self._reading = step
        try:
            end = await self._copier.read(pod, step)
        except ExecutorUnavailable:
            end = End.CUT
        finally:
            self._reading = None
        if time.monotonic() - begun > BACKOFF_LIMIT_S:
            self._backoff_s = BACKOFF_S
        if end is not End.REFUSED:
            self._refused_since = None
        if end is End.WHOLE:
            await self._take_whole(step)
        elif end is End.REFUSED and step.has_ended and self._refused_long_enough(step):
            is_lost = not step.never_ran and not self._copier.is_whole
            await self._finish(step, _REFUSED if is_lost else None)
        else:
            await self._pause(self._backoff_s)
            self._backoff_s = min(BACKOFF_LIMIT_S, self._backoff_s * 2)

    async def _take_whole(self, step: Read) -> None:
        if not step.has_ended:
            await self._pause(SETTLE_S)
        elif not self._copier.brought_news:
            await self._finish(step)
        # Else once more: a connection that the API server lost to the kubelet ends like a log.

    def _refused_long_enough(self, step: Read) -> bool:
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
        return step.never_ran or now - self._refused_since >= REFUSED_S

    async def _conclude(self, step: Read | Miss | None) -> None:
        """The pod is gone, and with it all that is not in the log."""
        source = self._copier.source
        never_ran = isinstance(step, Read) and step.never_ran
        if self._is_begun and (self._copier.is_whole or never_ran):
            await self._copier.finish(source.container, source.instance)
        else:
            is_lost = self._is_begun or (step is not None and not never_ran) or self._may_have_run
            await self._complete(_GONE if is_lost else None)

    @property
    def _may_have_run(self) -> bool:
        """Whether its pod may have printed what nobody asked for."""
        if self._pod is None:
            return True
        training = self._pod.training
        had_ended = self._pod.has_ended or (training and training.state.terminated is not None)
        return self._went_unseen and not had_ended

    @property
    def _is_begun(self) -> bool:
        """Whether an instance is being copied."""
        source = self._copier.source
        return bool(source.container) and not source.copied

    async def _finish(self, step: Read, loss: str | None = None) -> None:
        await self._copier.finish(step.container, step.instance, loss)
        self._backoff_s, self._refused_since = BACKOFF_S, None

    async def _complete(self, loss: str | None) -> None:
        try:
            await self._copier.complete(loss)
        except OSError as error:
            logger.warning("The end of the log of %s cannot be written: %s.", self._name, error)
        self.is_complete = True

    async def _pause(self, seconds: float) -> None:
        """Until the pod changes, but no longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
