"""A fake of the API server's reviews, since a real one never lies, and fails when it likes."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from model_training.executors.kubernetes.api import KubernetesApi
from model_training.executors.kubernetes.reviewing import Reviewing
from tests.unit.fake_api_server import fake_api_server

Status = Callable[[dict[str, Any]], dict[str, Any]]


class FakeReviews:
    """Fills in a status, or answers as ``instead`` says; keeps what it was asked."""

    def __init__(self, status: Status) -> None:
        self.status = status
        self.instead: web.Response | None = None
        self.asked: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.most_at_once = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._at_once = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.paths.append(request.path)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await self.may_answer.wait()
        finally:
            self._at_once -= 1
        if self.instead is not None:
            return clone(self.instead)
        filled = {**body, "status": self.status(body["spec"])}
        return web.Response(status=201, text=json.dumps(filled), content_type="application/json")


def clone(answer: web.Response) -> web.Response:
    """One that was sent cannot be sent again."""
    return web.Response(status=answer.status, body=answer.body, headers=answer.headers)


@asynccontextmanager
async def fake_reviews(status: Status) -> AsyncGenerator[tuple[FakeReviews, Reviewing]]:
    """The fake, and how the product asks it, over a socket."""
    fake = FakeReviews(status)
    async with (
        fake_api_server(fake.answer) as server,
        KubernetesApi(server.config()) as api,
    ):
        yield fake, Reviewing(api)
