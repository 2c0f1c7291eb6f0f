"""Whether an image lies on a node: for clusters whose images are loaded, not pulled.

What a node tells proves that an image is there, and never that it is not: a kubelet lists at most
50 of its images, the largest, each with at most five names (``nodeStatusMaxImages``,
https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/). Labels it does not tell.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec

from model_training.errors import ExecutorUnavailable
from model_training.executors.kubernetes import paths
from model_training.executors.kubernetes.api import ApiError, KubernetesApi
from model_training.images.outcomes import Outcome, Unknown, Unread
from model_training.images.reference import ImageReference

KEPT_S: Final = 10.0  # seconds; a kubelet tells of its images as often
PAGE: Final = 100  # nodes an answer: their images are some 10 kB each

Names = tuple[frozenset[str], ...]
"""of each image on each node, all the names it has there"""


class NodeImages:
    """Asks the nodes about images.

    Args:
        api: of the cluster, entered while it is asked. Needs the right to list nodes.
        now: seconds of a clock that nobody sets.
    """

    def __init__(self, api: KubernetesApi, now: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._now = now
        self._lock = asyncio.Lock()
        self._listed: Names = ()
        self._until = 0.0

    async def check(self, image: ImageReference) -> Outcome:
        """Whether a node has it. Raises nothing; never says that it is absent."""
        try:
            async with self._lock:  # one asks, the others wait for its answer
                listed = await self._names()
        except ExecutorUnavailable as error:
            return Unknown(error.message.removesuffix("."), error.retry_after)
        except ApiError as error:
            way_out = "; grant the verb list on nodes by a ClusterRole" * (error.status == 403)
            return Unknown(f"the API server answers {error.status} when asked for nodes{way_out}")
        except msgspec.DecodeError:
            return Unknown("what the API server says of its nodes cannot be read")
        here = [names for names in listed if str(image) in names]
        if not here:
            return Unknown("no node tells of it; nodes tell of 50 images at most")
        start = f"{image.host}/{image.repository}@"
        digests = {
            name.removeprefix(start) for names in here for name in names if name.startswith(start)
        }
        if len(digests) > 1:
            return Unknown("nodes hold different images of this name")
        return Unread(next(iter(digests), None))

    async def _names(self) -> Names:
        if self._now() >= self._until:
            self._listed = tuple(await self._list())
            self._until = self._now() + KEPT_S
        return self._listed

    async def _list(self) -> list[frozenset[str]]:
        found: list[frozenset[str]] = []
        params = {"limit": str(PAGE)}
        while True:
            page = msgspec.json.decode(await self._api.get(paths.nodes(), params), type=_Page)
            images = (image for node in page.items for image in node.status.images or ())
            found += (frozenset(image.names) for image in images if image.names)
            if not page.metadata.next:
                return found
            params = {"limit": str(PAGE), "continue": page.metadata.next}


class _Image(msgspec.Struct):
    names: list[str] | None = None


class _Status(msgspec.Struct):
    images: list[_Image] | None = None


class _Node(msgspec.Struct):
    status: _Status = msgspec.field(default_factory=_Status)


class _Metadata(msgspec.Struct):
    next: str = msgspec.field(name="continue", default="")


class _Page(msgspec.Struct):
    metadata: _Metadata
    items: list[_Node]
