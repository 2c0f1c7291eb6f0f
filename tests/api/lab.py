"""The real application on a loopback socket of this process, with parts that a test may swap.

Nothing is imitated: real ledger, real files, the local executor, uvicorn with our protocol. Tests
that need the whole program use the ``server`` fixture, which is a process.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import httpx2
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from model_training.access.actions import Action
from model_training.access.decisions import (
    Decider,
    Decision,
    LocalDecider,
    Resource,
)
from model_training.access.guard import Guard
from model_training.access.principals import LocalToken, Principal
from model_training.api.app import create_app
from model_training.api.deadlines import DeadlineProtocol
from model_training.executors.base import Executor
from model_training.executors.local.executor import LocalExecutor
from model_training.folders import DataFolder
from model_training.jobs import ACTIVE
from model_training.ledger.ledger import JobFilter, Ledger
from model_training.logs.follow import Followers
from model_training.pipelines.folders import FolderSource
from model_training.pipelines.pipeline import PipelineSource
from model_training.service import Parts, TrainingService
from model_training.settings import Settings, load_settings
from model_training.tracker import Tracker
from tests.waiting import until

TOKEN = "a-token-for-tests"
PRINT = """
name = "print"
command = ["python3", "-u", "main.py"]
"""
# Runs what it is given as the parameter CODE, so that a test says beside its claim what happens.
PRINT_CODE = "import os\nexec(os.environ.get('CODE', ''))\n"


class RefuseAll:
    """A decision point that says no to everything."""

    async def decide(
        self, principal: Principal, action: Action, resources: Sequence[Resource]
    ) -> Sequence[Decision]:
        return [Decision(permitted=False)] * len(resources)


@dataclass
class Lab:
    """One running application."""

    app: FastAPI
    client: httpx2.AsyncClient
    url: str
    data: DataFolder
    service: TrainingService
    stopping: asyncio.Event
    port: int

    async def create(self, code: str = "", **query: str) -> str:
        """Start a job of the pipeline ``print`` that runs ``code``; its name."""
        answer = await self.client.post(
            "/training-jobs", params={"pipeline": "print", **query}, json={"CODE": code}
        )
        assert answer.status_code == 201, answer.text
        return answer.json()["name"]

    async def state(self, name: str) -> str:
        return (await self.client.get(f"/training-jobs/{name}/status")).json()["state"]

    async def ended(self, name: str) -> bool:
        return await self.state(name) in {"succeeded", "failed", "stopped"}


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def write_pipeline(parent: Path, name: str = "print", text: str = PRINT) -> Path:
    folder = parent / name
    folder.mkdir(parents=True)
    (folder / "pipeline.toml").write_text(text)
    (folder / "main.py").write_text(PRINT_CODE)
    return folder


@asynccontextmanager
async def lab(
    root: Path,
    *,
    decider: Decider | None = None,
    slots: int = 4,
    ends_jobs: bool = True,
    source: PipelineSource | None = None,
    recheck_s: float = 60.0,
    **options: float | tuple[str, ...],
) -> AsyncGenerator[Lab]:
    """Run the application in ``root``; ``options`` are deadlines and settings.

    Jobs are ended with it, but for a test that goes on with them in another life.
    """
    deadlines = {name: options.pop(name) for name in list(options) if name.endswith("_timeout")}
    if not (root / "pipelines").exists():
        write_pipeline(root / "pipelines")
    settings = load_settings(data=root / "data", pipelines=(root / "pipelines",), **options)
    stopping = asyncio.Event()
    async with open_parts(settings, decider or LocalDecider(), slots) as parts:
        chosen = replace(parts, source=source or parts.source)
        service = TrainingService(chosen, disk_reserve=0)
        app = create_app(
            service, LocalToken(TOKEN), settings=settings, stopping=stopping, recheck_s=recheck_s
        )
        protocol = partial(DeadlineProtocol, **deadlines)  # pyright: ignore
        async with serving(app, protocol, stopping) as (url, port), client(url) as http:
            await parts.tracker.synced.wait()
            try:
                yield Lab(app, http, url, parts.data, service, stopping, port)
            finally:
                if ends_jobs:
                    await _end_jobs(parts.ledger, parts.executor)


@asynccontextmanager
async def open_parts(settings: Settings, decider: Decider, slots: int) -> AsyncGenerator[Parts]:
    """What the service works with, from the moment at which it begins to work."""
    data = DataFolder(Path(settings.data))
    data.root.mkdir(exist_ok=True)
    followers = Followers()
    async with AsyncExitStack() as stack:
        ledger = await Ledger.open(data.ledger)
        stack.push_async_callback(ledger.close)
        executor = await stack.enter_async_context(LocalExecutor(data, slots=slots))
        tracker = await stack.enter_async_context(Tracker(executor, ledger, followers, data))
        yield Parts(
            executor=executor,
            source=FolderSource(settings.pipelines, data.pipelines),
            ledger=ledger,
            tracker=tracker,
            followers=followers,
            guard=Guard(decider),
            data=data,
        )


@asynccontextmanager
async def serving(
    app: ASGIApp, protocol: Callable[..., asyncio.Protocol], stopping: asyncio.Event
) -> AsyncGenerator[tuple[str, int]]:
    """Serve an application on a free port; its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=protocol,  # pyright: ignore
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    port = listener.getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", port
    finally:
        stopping.set()
        server.should_exit = True
        await task


def client(url: str) -> httpx2.AsyncClient:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx2.AsyncClient(base_url=url, headers=headers, timeout=20)


async def _end_jobs(ledger: Ledger, executor: Executor) -> None:
    """Leave no process behind, whatever a test has started."""

    async def active() -> list[str]:
        rows = await ledger.page(JobFilter(states=ACTIVE), before=None, limit=1000)
        return [job.name for _, job in rows]

    for name in await active():
        await executor.remove(name)

    async def none_active() -> bool:
        return not await active()

    await until(none_active, within=20)
