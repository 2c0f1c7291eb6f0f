"""Jobs for the tests of the ledger, and a process that fills one until it is killed.

    python -m tests.unit.ledger_jobs FILE

prints the name of each job once it has been recorded.
"""

import asyncio
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from model_training.jobs import TERMINAL, JobSpec, JobState, Observation
from model_training.ledger.ledger import JobFilter, Ledger

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVERYTHING = JobFilter()
CALLERS = 8


def spec(number=1, pipeline="digits", owner="ann", **changes):
    wanted = JobSpec(
        name=f"model-training-{pipeline}-{number}",
        id=f"id-{number}",
        pipeline=pipeline,
        namespace="local",
        owner=owner,
        created_at=START + timedelta(minutes=number),
        parameters={"epochs": number},
        request_digest=f"request-{number}",
        executor="local",
        command=("python3", "train.py"),
    )
    return replace(wanted, **changes)


def seen(wanted, state=JobState.PENDING, version=1, **changes):
    if state in TERMINAL:
        changes.setdefault("finished_at", wanted.created_at + timedelta(minutes=5))
    return Observation(spec=wanted, version=version, state=state, **changes)


async def names(ledger, job_filter=EVERYTHING, limit=100, before=None):
    return [job.name for _, job in await ledger.page(job_filter, before=before, limit=limit)]


async def fill(path):
    ledger = await Ledger.open(path)

    async def submit(first):
        for number in range(first, sys.maxsize, CALLERS):
            await ledger.apply([seen(spec(number))])
            print(spec(number).name, flush=True)  # noqa: T201 - the test reads it

    await asyncio.gather(*(submit(first) for first in range(CALLERS)))


if __name__ == "__main__":
    asyncio.run(fill(Path(sys.argv[1])))
