"""Parts of one request alone, in the product's own process: ``access_alone.py < QUESTION``.

The second view of the figures, and the less noisy one: nothing here goes over HTTP but what goes to
the decision point. On standard input comes one object of JSON (``access_parts.py`` sends it), and
the answer is one: microseconds of each part at the median, those over HTTP asked by turns.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from bare_question import HEADERS

from model_training.access.access_file import read_access_file
from model_training.access.actions import Action
from model_training.access.decisions import Resource
from model_training.access.opening import Access, open_access
from model_training.access.principals import LocalToken
from model_training.folders import DataFolder

TIMES = 2000
JOB = Resource(
    "training_job",
    "model-training-fraud-one-line-0123456789abcdef",
    {
        "pipeline": "fraud-one-line",
        "owner": "corp/user-7",
        "state": "succeeded",
        "created_at": "2026-01-01T00:00:00Z",
    },
)

Step = Callable[[], Awaitable[object]]


async def by_turns(steps: dict[str, Step]) -> dict[str, float]:
    """Microseconds of each, at the median."""
    took: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(TIMES):
        for name, step in steps.items():
            began = time.perf_counter()
            await step()
            took[name].append(1e6 * (time.perf_counter() - began))
        await asyncio.sleep(0)  # what else runs in the loop has its turn, too
    return {name: statistics.median(some) for name, some in took.items()}


async def opened(path: str, stack: AsyncExitStack) -> Access:
    file = Path(path)
    return await open_access(
        read_access_file(file),
        data=DataFolder(file.parent),
        local=LocalToken("x" * 43),
        namespace="local",
        cluster=None,
        stack=stack,
    )


async def parts(given: dict[str, Any]) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        roles = await opened(given["roles"], stack)
        remote = await opened(given["authzen"], stack)
        session = await stack.enter_async_context(aiohttp.ClientSession(headers=HEADERS))
        tokens: dict[str, str] = given["tokens"]
        sent = {name: {"authorization": f"Bearer {token}"} for name, token in tokens.items()}
        who = await roles.authenticator.authenticate(sent["ES256"])

        async def remotely() -> None:
            await remote.guard.require(who, Action.READ, JOB)

        async def barely() -> None:
            async with session.post(given["point"] + asked["path"], data=asked["body"]) as answer:
                await answer.read()

        asked = {"body": ""}
        while JOB.id not in asked["body"]:  # the service asks about nobody, too, when it starts
            await remotely()
            async with session.get(given["point"] + "/asked") as answer:
                asked = await answer.json()
        steps: dict[str, Step] = {
            name: lambda headers=headers: roles.authenticator.authenticate(headers)
            for name, headers in sent.items()
        }
        steps["roles"] = lambda: roles.guard.require(who, Action.READ, JOB)
        return await by_turns(steps) | await by_turns({"AuthZEN": remotely, "bare": barely})


if __name__ == "__main__":
    print(json.dumps(uvloop.run(parts(json.load(sys.stdin)))))
