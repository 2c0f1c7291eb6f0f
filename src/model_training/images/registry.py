"""Whether an image is there, and what its labels say: a client of OCI registries.

It knows nothing of jobs. One question costs a HEAD; the labels of a digest never change and are
fetched once. Answers are kept for a moment, and however many ask for one image at once, the
registry is asked once. What cannot be told is not kept: the next who asks may be luckier.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

from model_training.errors import Fault, InvalidDeclaration, RegistryUnavailable
from model_training.images.credentials import DockerConfig
from model_training.images.documents import (
    ACCEPT,
    DOCUMENT_LIMIT,
    Platform,
    digest_of,
    read_labels,
    read_manifest,
    says_absent,
    verified,
)
from model_training.images.exchange import TOTAL_S, Answer, Exchange, Request
from model_training.images.kept import Kept
from model_training.images.logins import Logins
from model_training.images.outcomes import Absent, Outcome, Present, Unknown, Unusable
from model_training.images.reach import Reach
from model_training.images.reference import ImageReference, is_digest

PRESENT_S: Final = 60.0  # seconds that a tag is believed to stand for the same image
PINNED_S: Final = 3600.0  # seconds that an image is believed to be there, named by its digest
ABSENT_S: Final = 5.0  # seconds, also of what is no image; whoever just pushed it is waiting
PLATFORM: Final[Platform] = ("linux", "amd64")  # whose labels count where there are several
LABELS_S: Final = 86_400.0  # seconds; they never change, but need not be kept for ever
KEPT: Final = 1024  # images at once, each with the labels that are asked for


class RegistryClient:
    """Asks registries about images.

    Args:
        config: where logins are found; None has none.
        reach: how they are reached; None: over TLS, directly.
        label_prefix: labels whose names begin otherwise are left out; a configuration may hold
            megabytes of them.
        now: seconds of a clock that nobody sets.
    """

    def __init__(
        self,
        config: DockerConfig | None = None,
        *,
        reach: Reach | None = None,
        label_prefix: str = "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exchange = Exchange(reach or Reach(), now)
        self._logins = Logins(self._exchange, config, now)
        self._label_prefix = label_prefix
        self._outcomes: Kept[ImageReference, Present | Absent | Unusable] = Kept(KEPT, now)
        self._labels: Kept[str, Mapping[str, str]] = Kept(KEPT, now)
        self._asking: dict[ImageReference, asyncio.Task[Outcome]] = {}

    async def aclose(self) -> None:
        """Ask nothing more, and close the connections."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        await self._exchange.aclose()

    async def check(self, image: ImageReference) -> Outcome:
        """Whether an image is there. Takes 5 s at most, and raises nothing."""
        if (kept := self._outcomes.get(image)) is not None:
            return kept
        task = self._asking.get(image)
        if task is None:
            task = asyncio.create_task(self._check(image), name=f"check {image}")
            self._asking[image] = task
            task.add_done_callback(lambda _: self._asking.pop(image, None))
        return await asyncio.shield(task)  # who gives up must not take the others along

    async def _check(self, image: ImageReference) -> Outcome:
        try:
            async with asyncio.timeout(TOTAL_S):
                outcome = await self._look(image)
        except TimeoutError:
            reason = f"{image.address} does not answer within {TOTAL_S:.0f} s"
            self._exchange.pause(image.address, reason)
            return Unknown(reason)
        except RegistryUnavailable as error:
            return Unknown(error.message, error.retry_after)
        except InvalidDeclaration as error:
            outcome = Unusable(error.faults[0].message)
        if isinstance(outcome, Present):
            self._outcomes.put(image, outcome, PINNED_S if image.digest else PRESENT_S)
        else:
            self._outcomes.put(image, outcome, ABSENT_S)
        return outcome

    async def _look(self, image: ImageReference) -> Present | Absent:
        """One question to the registry, and the labels if they are not known yet."""
        content = None
        answer = await self._manifest("HEAD", image)
        digest = answer.headers.get("docker-content-digest", "")
        if answer.status != 200 or not is_digest(digest):
            # A HEAD has no body that could say more, and some registries cannot do one.
            answer = await self._manifest("GET", image)
            if answer.status == 404 and says_absent(answer.body):
                return Absent()
            content = _content(answer, image)
            digest = digest_of(content)
        pinned = image.pinned(image.digest or digest)
        labels = self._labels.get(pinned.target)
        if labels is None:
            labels = await self._fetch_labels(pinned, content)
            self._labels.put(pinned.target, labels, LABELS_S)
        return Present(pinned.target, labels)

    async def _fetch_labels(
        self, image: ImageReference, content: bytes | None
    ) -> Mapping[str, str]:
        name = str(image)
        if content is None:
            content = _content(await self._manifest("GET", image), image)
        manifest = read_manifest(verified(content, image.target, name), name)
        if manifest.config is None:
            image = image.pinned(manifest.chosen(PLATFORM, name))
            content = _content(await self._manifest("GET", image), image)
            manifest = read_manifest(verified(content, image.target, name), name)
        if manifest.config is None:
            raise InvalidDeclaration(Fault(name, "is an index of indexes, which nothing runs"))
        answer = await self._get("GET", image, f"blobs/{manifest.config}", DOCUMENT_LIMIT)
        config = verified(_content(answer, image), manifest.config, name)
        labels = read_labels(config, name)
        return {n: value for n, value in labels.items() if n.startswith(self._label_prefix)}

    async def _manifest(self, method: str, image: ImageReference) -> Answer:
        return await self._get(method, image, f"manifests/{image.target}", DOCUMENT_LIMIT)

    async def _get(self, method: str, image: ImageReference, path: str, limit: int) -> Answer:
        """The answer to a request, logged in as far as the registry wants it."""
        url = self._exchange.url(image.address, f"/v2/{image.repository}/{path}")
        ask = self._exchange.ask_blob if path.startswith("blobs/") else self._exchange.ask
        headers = {"Accept": ACCEPT, **self._logins.known(image)}
        answer = await ask(Request(method, url, headers, limit=limit))
        if answer.status == 401:
            headers["Authorization"] = await self._logins.answer(image, answer, url)
            answer = await ask(Request(method, url, headers, limit=limit))
        if answer.status in {401, 403}:
            raise await self._logins.refusal(image)
        return answer


def _content(answer: Answer, image: ImageReference) -> bytes:
    """The body of a 200.

    Raises:
        RegistryUnavailable: it is something else.
    """
    if answer.status == 200:
        return answer.body
    if 300 <= answer.status < 400:
        msg = f"{image.address} sends elsewhere; name the registry by its own address"
        raise RegistryUnavailable(msg)
    if answer.status == 404:
        raise RegistryUnavailable(
            f"{image.address} answers 404 as no registry does, or has lost a part of {image}"
        )
    raise RegistryUnavailable(f"{image.address} answers {answer.status}")
