"""stub"""

from collections.abc import Callable, Sequence
from typing import Self

from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.objects import PodRow
from model_training.folders import DataFolder


class Collector:
    def __init__(
        self, api: KubernetesApi, data: DataFolder, *, log_limit: int, done: Callable[[str], None]
    ) -> None: ...
    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...
    def look(self, job: str, pods: Sequence[PodRow]) -> None: ...
    def vanished(self, job: str, pods: Sequence[PodRow]) -> None: ...
    def is_complete(self, job: str) -> bool:
        return True

    async def forget(self, job: str) -> None: ...
