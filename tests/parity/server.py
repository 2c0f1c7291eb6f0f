"""The shipped server as a process, with the pipelines of the scenarios."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

from model_training import AsyncClient
from model_training.errors import JobNotFound
from tests.parity.stage import Stage

PIPELINES = Path(__file__).parent / "pipelines"
START_S = 60.0
END_S = 20.0


def local_stage(root: Path) -> AbstractAsyncContextManager[Stage]:
    """A server for jobs on this machine."""
    return serving(root, ["--slots", "16", "--pipelines", str(PIPELINES)])


@asynccontextmanager
async def serving(
    root: Path, options: Sequence[str], variables: Mapping[str, str] | None = None
) -> AsyncGenerator[Stage]:
    """A server with these options on a data folder of its own under ``root``, and its client."""
    data, tmp = root / "data", root / "tmp"
    tmp.mkdir(parents=True)
    # Made from scratch, so that jobs see the same variables wherever this runs.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": os.environ["HOME"], "LANG": "C.UTF-8", **(variables or {})}
    with (root / "server.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "model_training", "serve",
            "--port", "0", "--data", str(data), *options,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log,
            env=environment, umask=0o022,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_S):
            line = await process.stdout.readline()
        assert b"ready at" in line, (root / "server.log").read_text()
        async with AsyncClient(data=data) as client:
            yield Stage(client, tmp)
            await _delete_all(client)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(END_S):
            await process.wait()


async def _delete_all(client: AsyncClient) -> None:
    """Leave nothing: jobs outlive their server."""
    names = [job.name async for job in client.list()]
    await asyncio.gather(*map(client.delete, names))
    for name in names:
        with suppress(JobNotFound):  # it is gone already
            await client.delete(name, wait=60)
