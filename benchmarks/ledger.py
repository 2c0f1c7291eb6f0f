"""How long the ledger takes among a million jobs. By hand, or as a part of scripts/bench.

    .venv/bin/python benchmarks/ledger.py [--jobs N] [--keep FILE]

Prints JSON: milliseconds (median, p99, worst) for the first page of 100 by several filters, the
milliseconds to open the file, and how many jobs a second are accepted by 16 callers at once.
"""

import argparse
import asyncio
import json
import platform
import random
import sqlite3
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from model_training.jobs import JobSpec, JobState, Observation, first_record, format_time
from model_training.ledger.ledger import JobFilter, Ledger
from model_training.ledger.ledger_file import open_file
from model_training.ledger.queries import QUERIES
from model_training.ledger.rows import Value, values_of_new

PIPELINES = 50
OWNERS = 200
PAGE = 100
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
APART = timedelta(seconds=20)  # a million jobs in 231 days

# Only the newest jobs are active, as in a service that has run for long.
STATES = {JobState.SUCCEEDED: 70, JobState.FAILED: 25, JobState.STOPPED: 5}
ACTIVE = 64


def spec(number: int, pipeline: str, owner: str, created_at: datetime) -> JobSpec:
    """A plausible job."""
    identity = uuid.UUID(int=random.Random(number).getrandbits(128), version=4)
    return JobSpec(
        name=f"model-training-{pipeline}-{identity.hex[:16]}",
        id=str(identity),
        pipeline=pipeline,
        namespace="local",
        owner=owner,
        created_at=created_at,
        parameters={"epochs": number % 50, "learning_rate": 0.001, "seed": number},
        request_digest=identity.hex * 2,
        executor="local",
        command=("python3", "train.py", "--epochs", str(number % 50)),
        digest="sha256:" + identity.hex * 2,
    )


def rows(jobs: int) -> Iterator[dict[str, Value]]:
    """Jobs of 50 pipelines and 200 owners; `rare` has ten of them, the oldest."""
    chance = random.Random(1)
    states = chance.choices(list(STATES), list(STATES.values()), k=jobs)
    common = {state: row_of(state) for state in JobState}
    for number, ended in enumerate(states):
        state = ended
        pipeline = "rare" if number < 10 else f"pipeline-{chance.randrange(PIPELINES):02}"
        digits = f"{chance.getrandbits(128):032x}"
        if number >= jobs - ACTIVE:
            state = JobState.RUNNING if number % 2 else JobState.PENDING
        yield {
            **common[state],
            "name": f"model-training-{pipeline}-{digits[:16]}",
            "id": str(uuid.UUID(digits)),
            "pipeline": pipeline,
            "owner": f"owner-{chance.randrange(OWNERS):03}",
            "created_at": format_time(FIRST + number * APART),
            "request_digest": digits * 2,
            "digest": f"sha256:{digits * 2}",
            "parameters": f'{{"epochs":{number % 50},"learning_rate":0.001,"seed":{number}}}',
        }


def row_of(state: JobState) -> dict[str, Value]:
    """A row of a job in that state."""
    seen = Observation(
        spec=spec(0, "pipeline", "owner", FIRST),
        version=1,
        state=state,
        reason="Error" if state is JobState.FAILED else None,
        started_at=None if state is JobState.PENDING else FIRST,
        finished_at=FIRST + timedelta(hours=1) if state.is_terminal else None,
        duration_s=3600.0 if state.is_terminal else None,
        exit_code=(0 if state is JobState.SUCCEEDED else 1) if state.is_terminal else None,
    )
    return values_of_new(first_record(seen), seen)


def fill(path: Path, jobs: Iterable[dict[str, Value]]) -> None:
    """Make a ledger of these jobs, each with a history of three lines, fast.

    Without indexes, triggers and syncs while it is written: for measuring, good for nothing else.
    """
    opened = open_file(path)
    with closing(opened.writer) as db:
        derived = db.execute(
            "SELECT type, name, sql FROM sqlite_schema "
            "WHERE type IN ('index', 'trigger') AND sql IS NOT NULL"
        ).fetchall()
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -400000")  # KiB
        db.execute("BEGIN")
        for item in derived:
            db.execute(f"DROP {item['type']} {item['name']}")
        db.executemany(QUERIES["add"], jobs)
        for number, state in enumerate(("'pending'", "'running'", "state"), start=1):
            db.execute(
                "INSERT INTO transitions "
                f"SELECT sequence, {number}, created_at, {state}, reason, NULL FROM jobs"
            )
        db.execute(
            "INSERT INTO tallies SELECT pipeline, owner, state, count(*) FROM jobs GROUP BY 1, 2, 3"
        )
        db.execute(
            "INSERT INTO hours SELECT substr(created_at, 1, 13), min(sequence), max(sequence) "
            "FROM jobs GROUP BY 1"
        )
        for item in derived:
            db.execute(item["sql"])
        db.execute(QUERIES["note_rebuilt"], {"at": format_time(FIRST)})
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def filters(every_pair: frozenset[tuple[str | None, str]]) -> dict[str, JobFilter]:
    """What is asked for, by what it is called in the result."""
    done = frozenset({JobState.SUCCEEDED})
    failed = frozenset({JobState.FAILED, JobState.STOPPED})
    active = frozenset(state for state in JobState if state.group == "active")
    some = sorted(every_pair, key=str)
    return {
        "first page": JobFilter(),
        "one pipeline": JobFilter(pipeline="pipeline-07"),
        "a pipeline with 10 old jobs": JobFilter(pipeline="rare"),
        "a pipeline without jobs": JobFilter(pipeline="nothing"),
        "completed": JobFilter(states=done),
        "failed": JobFilter(states=failed),
        "active": JobFilter(states=active),
        "deleting, of which there are none": JobFilter(states=frozenset({JobState.DELETING})),
        "one owner": JobFilter(owner="owner-042"),
        "pipeline and failed": JobFilter(pipeline="pipeline-07", states=failed),
        "pipeline and active": JobFilter(pipeline="pipeline-07", states=active),
        "pipeline and owner": JobFilter(pipeline="pipeline-07", owner="owner-042"),
        "created long ago": JobFilter(created_before=FIRST + timedelta(hours=1)),
        "failed, created long ago": JobFilter(
            states=failed, created_before=FIRST + timedelta(hours=1)
        ),
        "one pipeline on one day": JobFilter(
            pipeline="pipeline-07",
            created_after=FIRST + timedelta(days=100),
            created_before=FIRST + timedelta(days=101),
        ),
        "reader of one job in 10,000": JobFilter(pairs=frozenset(some[:1])),
        "reader of 10 old jobs": JobFilter(
            pairs=frozenset(pair for pair in every_pair if pair[0] == "rare")
        ),
        "reader of nothing": JobFilter(pairs=frozenset()),
        "reader of half of all pairs": JobFilter(pairs=frozenset(some[::2])),
        "reader of all pairs": JobFilter(pairs=every_pair),
        "reader of all pairs, active": JobFilter(pairs=every_pair, states=active),
        "reader of 5,000 pairs, one owner's": JobFilter(
            pairs=frozenset(some[:5000]), owner="owner-042"
        ),
    }


async def page_times(ledger: Ledger, job_filter: JobFilter, times: int) -> dict[str, float]:
    taken: list[float] = []
    rows = []
    for _ in range(times):
        began = time.perf_counter()
        rows = await ledger.page(job_filter, before=None, limit=PAGE)
        taken.append((time.perf_counter() - began) * 1000)
    return {**summary(taken), "rows": len(rows)}


def summary(taken: list[float]) -> dict[str, float]:
    taken = sorted(taken)
    return {
        "median_ms": round(statistics.median(taken), 2),
        "p99_ms": round(taken[int(len(taken) * 0.99)], 2),
        "worst_ms": round(taken[-1], 2),
    }


async def open_times(path: Path, times: int) -> dict[str, float]:
    taken: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        ledger = await Ledger.open(path)
        await ledger.page(JobFilter(), before=None, limit=1)
        taken.append((time.perf_counter() - began) * 1000)
        await ledger.close()
    return summary(taken)


async def accept(ledger: Ledger, jobs: int, callers: int) -> dict[str, float]:
    """New jobs, each durable before its caller gives the next."""
    now = datetime.now(UTC)
    taken: list[float] = []

    async def caller(first: int) -> None:
        for number in range(first, jobs, callers):
            wanted = spec(2**40 + number, "accepted", "somebody", now)
            seen = Observation(spec=wanted, version=1, state=JobState.PENDING)
            began = time.perf_counter()
            await ledger.apply([seen])
            taken.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(caller(first) for first in range(callers)))
    return {"per_second": round(jobs / (time.perf_counter() - began)), **summary(taken)}


async def measure(path: Path, times: int) -> dict[str, object]:
    result: dict[str, object] = {"open": await open_times(path, 20)}
    ledger = await Ledger.open(path)
    result["counts"] = {str(state): jobs for state, jobs in (await ledger.counts()).items()}
    taken: list[float] = []
    pairs: frozenset[tuple[str | None, str]] = frozenset()
    for _ in range(times):
        began = time.perf_counter()
        pairs = await ledger.pairs(JobFilter())
        taken.append((time.perf_counter() - began) * 1000)
    result["pairs"] = {**summary(taken), "rows": len(pairs)}
    result["pages"] = {
        name: await page_times(ledger, job_filter, times)
        for name, job_filter in filters(pairs).items()
    }
    began = time.perf_counter()
    names = [job.name for _, job in await ledger.page(JobFilter(), before=None, limit=1000)]
    for name in names:
        await ledger.get(name)
    result["get_us"] = round((time.perf_counter() - began) / len(names) * 1e6, 1)
    result["accept, 16 callers"] = await accept(ledger, 4000, 16)
    await ledger.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=200, help="of each page")
    parser.add_argument("--keep", type=Path, help="make the ledger here, or use the one there")
    parser.add_argument("--fill", type=Path, help="only make a ledger here")
    options = parser.parse_args()
    if options.fill:
        fill(options.fill, rows(options.jobs))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.keep or Path(folder) / "ledger.sqlite3"
        began = time.perf_counter()
        if not path.exists():
            fill(path, rows(options.jobs))
        filled = time.perf_counter() - began
        result = asyncio.run(measure(path, options.times))
        size = path.stat().st_size
    about = {
        "jobs": options.jobs,
        "fill_s": round(filled, 1),
        "file_mb": round(size / 1e6),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    print(json.dumps({**about, **result}, indent=2))


if __name__ == "__main__":
    main()
