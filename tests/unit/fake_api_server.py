"""A fake of the API server, for answers that a real one gives too seldom to wait for."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from model_training.executors.kubernetes.cluster import ClusterConfig
from model_training.executors.kubernetes.credentials import Credentials, FixedCredentials, Grant

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeApiServer:
    """Answers with what was prepared: the next of ``answers``, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[web.Request] = []
        self.url = ""
        self.is_there = True

    def config(self, credentials: Credentials | None = None) -> ClusterConfig:
        return ClusterConfig(
            server=self.url,
            namespace="n",
            credentials=credentials or FixedCredentials(Grant("t0ken")),
            origin="a test",
        )

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/livez":
            return web.Response(text="ok") if self.is_there else await never(request)
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)


@asynccontextmanager
async def fake_api_server(*answers: Answer) -> AsyncGenerator[FakeApiServer]:
    server = FakeApiServer()
    server.answers.extend(answers)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


def text(status: int, body: str, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, text=body, headers=named)

    return answer


def no(status: int, reason: str, message: str, **headers: str) -> Answer:
    """A refusal as Kubernetes writes it."""
    body = {"kind": "Status", "code": status, "reason": reason, "message": message}
    return text(status, json.dumps(body), **headers)


def listed(version: int, *objects: dict[str, Any]) -> Answer:
    body = {"metadata": {"resourceVersion": str(version)}, "items": objects}
    return text(200, json.dumps(body))


def job(name: str, version: int) -> dict[str, Any]:
    metadata = {"namespace": "n", "name": name, "uid": name, "resourceVersion": str(version)}
    metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
    return {"metadata": metadata, "spec": {"template": {}}}


def event(kind: str, what: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": what}).encode() + b"\n"


def watched(*chunks: bytes, then: str = "stay") -> Answer:
    """A watch of these chunks; then it stays open, is closed, or is cut off."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if then == "stay":
            await asyncio.Event().wait()
        if then == "cut" and request.transport:
            request.transport.close()
        return response

    return answer


async def never(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError
