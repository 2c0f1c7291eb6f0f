"""An executor in a process of its own, so that it can be killed as a server can.

``ServerProcess`` starts this very file with the name of a function that makes the executor,
and passes calls on; answers and observations come back as pickles, a line each. Killing it
kills its whole process group, as closing a terminal or a crash of the machine's session would.
"""

import asyncio
import base64
import importlib
import os
import pickle
import signal
import sys
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Self

from model_training.executors.base import Change, Executor, Snapshot
from model_training.jobs import JobSpec, Observation

ROOT = Path(__file__).parents[2]
LINE_LIMIT = 64 * 1024 * 1024  # bytes; a snapshot of a few hundred jobs is one line


def _encode(value: object) -> bytes:
    return base64.b64encode(pickle.dumps(value)) + b"\n"


def _decode(line: bytes) -> object:
    return pickle.loads(base64.b64decode(line))


class ServerProcess:
    """Calls an executor that lives in another process."""

    def __init__(self, argv: tuple[str, ...]) -> None:
        self._argv = argv
        self._answers: dict[int, asyncio.Future[object]] = {}
        self._events: asyncio.Queue[Snapshot | Change | None] = asyncio.Queue()
        self._count = 0

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=LINE_LIMIT,
            cwd=ROOT,
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """End it as a shutdown does: it leaves its executor."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(10):
            await self._process.wait()
        await self._reader
        assert self._process.returncode == 0

    async def end(self, by: signal.Signals) -> None:
        """Send a signal to its whole process group, as a terminal does, and wait for its end."""
        os.killpg(self._process.pid, by)
        await self._process.wait()
        await self._reader
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def launch(self, spec: JobSpec) -> Observation:
        return await self._call("launch", spec)  # pyright: ignore

    async def stop(self, name: str) -> None:
        await self._call("stop", name)

    async def remove(self, name: str) -> None:
        await self._call("remove", name)

    async def write_off(self, names: Iterable[str]) -> list[str]:
        return await self._call("write_off", list(names))  # pyright: ignore

    async def settle(self, names: Iterable[str]) -> None:
        await self._call("settle", list(names))

    async def observe(self, *, everything: bool = False) -> AsyncGenerator[Snapshot | Change]:
        assert not everything, "the process observes once, what is not settled"
        while (event := await self._events.get()) is not None:
            yield event

    async def _call(self, method: str, argument: object) -> object:
        assert self._process.stdin is not None
        self._count += 1
        answer = self._answers[self._count] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(_encode((self._count, method, argument)))
        return await answer

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            number, value = _decode(line)  # pyright: ignore
            if number is None:
                self._events.put_nowait(value)
            elif isinstance(value, Exception):
                self._answers.pop(number).set_exception(value)
            else:
                self._answers.pop(number).set_result(value)
        for answer in self._answers.values():
            answer.set_exception(ConnectionError("the server process died"))


async def _serve(executor: Executor) -> None:
    loop = asyncio.get_running_loop()
    requests = asyncio.StreamReader(limit=LINE_LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin.buffer)
    async with executor, asyncio.TaskGroup() as tasks:
        observing = tasks.create_task(_observe(executor))
        async for line in requests:
            tasks.create_task(_answer(executor, *_decode(line)))  # pyright: ignore
        observing.cancel()


async def _observe(executor: Executor) -> None:
    async for event in executor.observe():
        _say(None, type(event)(tuple(event.observations)))


async def _answer(executor: Executor, number: int, method: str, argument: object) -> None:
    try:
        answer = await getattr(executor, method)(argument)
    except Exception as error:  # noqa: BLE001 - passed on to the caller, who fails by it
        answer = error
    _say(number, answer)


def _say(number: int | None, value: object) -> None:
    sys.stdout.buffer.write(_encode((number, value)))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    module, _, function = sys.argv[1].partition(":")
    asyncio.run(_serve(getattr(importlib.import_module(module), function)(*sys.argv[2:])))
