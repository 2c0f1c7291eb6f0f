"""A fake of the API server and kubelet, for logs alone; what it sends is worked out as in the
kubelet's own sources (k8s.io/cri-client/pkg/logs/logs.go). The real one: tests/cluster.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple

from model_training.errors import ExecutorUnavailable
from model_training.executors.kubernetes.api import ApiError
from model_training.executors.kubernetes.stamped_text import stamp_of

START = 1_700_000_000 * 10**9  # 2023-11-14T22:13:20Z


class Entry(NamedTuple):
    """A line of a container's log file: text that ends in a newline, or one part of a line."""

    time_ns: int
    text: bytes


def render(entries: list[Entry], since_ns: int = 0, zone: str = "Z") -> bytes:
    """What the kubelet sends of a log file with ``timestamps=true``."""
    out, begins_line = [], True
    for time_ns, text in entries:
        if time_ns >= since_ns:
            out.append((stamp_of(time_ns, zone).encode() + b" " if begins_line else b"") + text)
        begins_line = text.endswith(b"\n")
    return b"".join(out)


class FakeKubelet:
    """One container; ``files`` are its log files, of which only the last can be read.

    ``cut_after``: of each stream to come, after how many bytes it breaks off; None: not at all.
    ``says``: what it sends behind the text instead of more of it.
    """

    def __init__(self, chunk: int = 7, zone: str = "Z") -> None:
        self.files: list[list[Entry]] = [[]]
        self.chunk = chunk
        self.zone = zone
        self.cut_after: list[int | None] = []
        self.says = b""
        self.error: Exception | None = None
        self.pod = b""
        self.requests: list[Mapping[str, str]] = []

    async def get(self, path: str) -> bytes:
        assert re.fullmatch(r"/api/v1/namespaces/n/pods/p", path)
        return self.pod

    @asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str], *, stall_s: float
    ) -> AsyncGenerator[AsyncIterator[bytes]]:
        assert path == "/api/v1/namespaces/n/pods/p/log"
        assert params["timestamps"] == "true"
        self.requests.append(params)
        if self.error is not None:
            raise self.error
        yield self._chunks(params)

    async def _chunks(self, params: Mapping[str, str]) -> AsyncIterator[bytes]:
        since = params.get("sinceTime")
        since_ns = int(datetime.fromisoformat(since).timestamp()) * 10**9 if since else 0
        data = render(self.files[-1], since_ns, self.zone) + self.says
        cut = self.cut_after.pop(0) if self.cut_after else None
        for at in range(0, len(data[:cut]), self.chunk):
            yield data[:cut][at : at + self.chunk]
        if cut is not None:
            raise ExecutorUnavailable("cut")


NOT_FOUND = ApiError(404, "NotFound", "pods p not found")
