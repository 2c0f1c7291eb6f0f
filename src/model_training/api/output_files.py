"""Files that jobs kept, as answers.

A model may have many gigabytes, and reading it whole takes seconds. So the digest of a large file
is not computed before the first byte: it is taken while the file is sent whole for the first time,
and told from then on, as long as the file stays the same.
"""

import asyncio
import base64
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator
from typing import Final
from urllib.parse import quote

from starlette.responses import Response

from model_training.api.answers import range_headers
from model_training.api.queries import ByteRange
from model_training.api.streaming import Streamed, Streams
from model_training.outputs import OpenOutput, sha256_of

HASHED_AT_ONCE: Final = 16 * 2**20  # bytes; takes some 20 ms
KEPT_DIGESTS: Final = 10_000  # of some 200 bytes each
Identity = tuple[int, int, int, int, int]


class OutputFiles:
    """Answers files, and remembers their digests."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._digests: OrderedDict[Identity, str] = OrderedDict()

    async def answer(self, opened: OpenOutput, asked: ByteRange | None) -> Response:
        """One file, or a range of it; closes it in the end."""
        size = opened.file.size
        try:
            start, end = asked.within(size) if asked else (0, size)
            digest = await self._digest(opened, is_whole=asked is None)
        except BaseException:
            opened.close()
            raise
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": _disposition(opened.file.path.rpartition("/")[2]),
            "Accept-Ranges": "bytes",
            "Content-Length": str(size),
        }
        if digest is not None:
            headers["Repr-Digest"] = f"sha-256=:{digest}:"
        if asked:
            headers |= range_headers(start, end, size)
        # Only what nobody knows yet is hashed as it goes out.
        is_news = asked is None and digest is None
        frames = self._whole(opened) if is_news else _frames(opened, start, end)
        status = 206 if asked else 200
        return Streamed(self._streams, frames, headers, status_code=status, close=opened.close)

    async def _digest(self, opened: OpenOutput, *, is_whole: bool) -> str | None:
        known = self._digests.get(opened.identity)
        if known is not None or not is_whole or opened.file.size > HASHED_AT_ONCE:
            return known
        digest = await asyncio.to_thread(sha256_of, opened.blocks(0, opened.file.size))
        self._keep(opened, digest)
        return digest

    async def _whole(self, opened: OpenOutput) -> AsyncGenerator[bytes]:
        sha256 = hashlib.sha256()
        sent = 0
        async for block in _frames(opened, 0, opened.file.size):
            await asyncio.to_thread(sha256.update, block)
            sent += len(block)
            yield block
        if sent == opened.file.size:
            self._keep(opened, base64.b64encode(sha256.digest()).decode())

    def _keep(self, opened: OpenOutput, digest: str) -> None:
        if not opened.is_unchanged():
            return
        self._digests[opened.identity] = digest
        while len(self._digests) > KEPT_DIGESTS:
            self._digests.popitem(last=False)


async def _frames(opened: OpenOutput, start: int, end: int) -> AsyncGenerator[bytes]:
    blocks = opened.blocks(start, end)
    while block := await asyncio.to_thread(next, blocks, b""):
        yield block


def _disposition(name: str) -> str:
    return f"attachment; filename*=UTF-8''{quote(name, safe='')}"
