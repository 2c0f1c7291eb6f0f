"""The real application on a loopback socket of this process, with parts that a test may swap.

Nothing is imitated: real ledger, real files, the local executor, uvicorn with our protocol. Tests
that need the whole program use the ``server`` fixture, which is a process.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx2
import uvicorn
from fastapi import FastAPI

from model_training.access.decisions import (
    Action,
    Decider,
    Decision,
    LocalDecider,
    Resource,
)
from model_training.access.guard import Guard
from model_training.access.principals import LocalToken, Principal
from model_training.api.app import create_app
from model_training.api.deadlines import DeadlineProtocol
from model_training.executors.local.executor import LocalExecutor
from model_training.folders import DataFolder
from model_training.ledger.ledger import Ledger
from model_training.logs.follow import Followers
from model_training.pipelines.folders import FolderSource
from model_training.service import Parts, TrainingService
from model_training.settings import load_settings
from model_training.tracker import Tracker

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
    **options: float | tuple[str, ...],
) -> AsyncGenerator[Lab]:
    """Run the application in ``root``; ``options`` are deadlines and settings."""
    deadlines = {name: options.pop(name) for name in list(options) if name.endswith("_timeout")}
    data = DataFolder(root / "data")
    data.root.mkdir(exist_ok=True)
    if not (root / "pipelines").exists():
        write_pipeline(root / "pipelines")
    settings = load_settings(data=data.root, pipelines=(root / "pipelines",), **options)
    stopping = asyncio.Event()
    async with AsyncExitStack() as stack:
        ledger = await Ledger.open(data.ledger)
        stack.push_async_callback(ledger.close)
        executor = await stack.enter_async_context(LocalExecutor(data, slots=slots))
        followers = Followers()
        tracker = await stack.enter_async_context(Tracker(executor, ledger, followers, data))
        parts = Parts(
            executor=executor,
            source=FolderSource(settings.pipelines, data.pipelines),
            ledger=ledger,
            tracker=tracker,
            followers=followers,
            guard=Guard(decider or LocalDecider()),
            data=data,
        )
        service = TrainingService(parts, disk_reserve=0)
        app = create_app(service, LocalToken(TOKEN), settings=settings, stopping=stopping)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        config = uvicorn.Config(
            app,
            http=partial(DeadlineProtocol, **deadlines),  # pyright: ignore
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=1,
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        client = await stack.enter_async_context(
            httpx2.AsyncClient(
                base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20
            )
        )
        await tracker.synced.wait()
        try:
            yield Lab(app, client, url, data, service, stopping, port)
        finally:
            await _end_jobs(ledger, executor)
            stopping.set()
            server.should_exit = True
            await serving


async def _end_jobs(ledger: Ledger, executor: LocalExecutor) -> None:
    """Leave no process behind, whatever a test has started."""
    from model_training.jobs import ACTIVE
    from model_training.ledger.ledger import JobFilter
    from tests.waiting import until

    async def active() -> list[str]:
        rows = await ledger.page(JobFilter(states=ACTIVE), before=None, limit=1000)
        return [job.name for _, job in rows]

    for name in await active():
        await executor.remove(name)

    async def none_active() -> bool:
        return not await active()

    await until(none_active, within=20)
