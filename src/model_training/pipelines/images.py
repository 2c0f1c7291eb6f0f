"""Pipelines in images: ``model-training-PIPELINE`` in a registry is the pipeline.

A pipeline is looked up when it is asked for, and pinned by its digest, so that the job runs what
was checked. An image that is definitely not there is a pipeline that is not there. Where that
cannot be told, a setting decides: nothing is started (``refuse``), or the job is, with a warning
and without its parameters being checked (``submit``).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from model_training.errors import (
    Fault,
    InvalidDeclaration,
    ModelTrainingError,
    PipelineNotFound,
    RegistryUnavailable,
)
from model_training.images.outcomes import Absent, Outcome, Present, Unknown, Unread, Unusable
from model_training.images.reference import ImageReference, Registry, pipeline_image
from model_training.names import nearest, pipeline_fault
from model_training.pipelines.labels import read_labels
from model_training.pipelines.pipeline import NEAREST_NAMES, BrokenPipeline, Pipeline

ASKED_AT_ONCE: Final = 8  # images of a list; a registry serves others, too

Check: TypeAlias = Callable[[ImageReference], Awaitable[Outcome]]
"""Tells whether an image is there: asks a registry, or nodes."""
KnownNames: TypeAlias = Callable[[], Awaitable[Collection[str]]]
"""The names of pipelines that somebody knows of; a registry has no list that we may read."""
WhenUnknown: TypeAlias = Literal["refuse", "submit"]

_Entries: TypeAlias = list[Pipeline | BrokenPipeline]  # RegistrySource has a method named list

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImageNames:
    """Which image a pipeline is, by settings."""

    registry: Registry
    tag: str

    def of(self, pipeline: str) -> ImageReference:
        """The image of a pipeline whose name is valid."""
        return pipeline_image(self.registry, pipeline, self.tag)


class RegistrySource:
    """Finds pipelines by the name of their image.

    Args:
        names: which image a pipeline is.
        check: tells whether it is there; None believes that it is, without a check.
        known: for near names and for lists.
        when_unknown: what to do where the check cannot tell.
    """

    def __init__(
        self,
        names: ImageNames,
        check: Check | None,
        known: KnownNames,
        *,
        when_unknown: WhenUnknown = "refuse",
    ) -> None:
        self._names = names
        self._check = check
        self._known = known
        self._when_unknown = when_unknown

    async def resolve(self, name: str) -> Pipeline:
        """The pipeline of this name, its image pinned by digest.

        Raises:
            PipelineNotFound: there is no such image; ``nearest`` as in ``PipelineSource``.
            InvalidDeclaration: there is one, but it is no image, or its labels are broken.
            RegistryUnavailable: whether there is one cannot be told now.
        """
        if pipeline_fault(name, path=""):  # no such name reaches a registry
            raise PipelineNotFound(name, nearest=await self._nearest(name))
        image = self._names.of(name)
        if self._check is None:
            return Pipeline(name=name, folder=None, image=str(image))
        outcome = await self._check(image)
        if isinstance(outcome, Absent):
            near = await self._nearest(name)
            raise PipelineNotFound(name, looked=(str(image),), nearest=near)
        return self._found(name, image, outcome)

    async def list(self) -> _Entries:
        """Every known pipeline whose image is there or cannot be used, by name."""
        names = sorted(name for name in await self._known() if not pipeline_fault(name, path=""))
        limit = asyncio.Semaphore(ASKED_AT_ONCE)

        async def entry(name: str) -> Pipeline | BrokenPipeline | None:
            async with limit:
                return await self._entry(name)

        entries = await asyncio.gather(*map(entry, names))
        return [entry for entry in entries if entry is not None]

    async def _entry(self, name: str) -> Pipeline | BrokenPipeline | None:
        image = str(self._names.of(name))
        try:
            return await self.resolve(name)
        except PipelineNotFound:
            return None
        except InvalidDeclaration as error:
            problems = error.faults
        except RegistryUnavailable as error:
            problems = (Fault(image, error.message),)
        return BrokenPipeline(name=name, folder=None, image=image, problems=problems)

    async def _nearest(self, name: str) -> tuple[str, ...]:
        try:
            known = await self._known()
        except ModelTrainingError:  # a hint only: that the image is not there stands without it
            logger.warning("no near names are told: the known pipelines cannot be read now")
            return ()
        return nearest(name, (other for other in known if other != name), limit=NEAREST_NAMES)

    def _found(
        self, name: str, image: ImageReference, outcome: Present | Unread | Unusable | Unknown
    ) -> Pipeline:
        """What a job runs, where it is not known that there is nothing."""
        if isinstance(outcome, Unusable):
            raise InvalidDeclaration(Fault(str(image), outcome.reason))
        if isinstance(outcome, Unknown):
            return self._unchecked(name, image, outcome)
        if isinstance(outcome, Present):
            return read_labels(name, image, digest=outcome.digest, labels=outcome.labels)
        digest = outcome.digest
        pinned = image.pinned(digest) if digest else image
        warning = (
            "its labels are not known, as no registry is asked: the parameters were not checked"
        )
        return Pipeline(
            name=name, folder=None, image=str(pinned), digest=digest, warnings=(warning,)
        )

    def _unchecked(self, name: str, image: ImageReference, outcome: Unknown) -> Pipeline:
        if self._when_unknown == "refuse":
            raise RegistryUnavailable(
                f"Whether there is an image {image} cannot be told: {outcome.reason}. "
                "Nothing was started; try again.",
                retry_after=outcome.retry_after,
            )
        logger.warning("image %s is used without a check: %s", image, outcome.reason)
        warning = f"the image was not checked, so the parameters were not either: {outcome.reason}"
        return Pipeline(name=name, folder=None, image=str(image), warnings=(warning,))
