"""Pages of the list: which jobs, newest first, in a time that does not grow with the ledger.

Each filter is a walk along the index that fits it (``queries.sql``). Only who may read what does
not fit an index by itself, so it is done in two steps: first the walk without it, each job held
against the pairs that may be read, which is soon done for somebody who may read much; if that
finds too little, the walk along those pairs alone, which is soon done for somebody who may read
little. Whoever may read thousands of pairs, all of them with old jobs only, pays a few
microseconds for each pair.
"""

import json
import sqlite3
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from model_training.jobs import JobState, TrainingJob, format_time
from model_training.ledger.queries import QUERIES
from model_training.ledger.rows import Value, job_of

Pair = tuple[str | None, str]

CANDIDATES = 1000  # jobs held against the pairs before the walk goes along the pairs
ABOVE_ALL = 2**63 - 1  # no sequence number reaches it
_EARLIEST = ""  # sorts before every time
_LATEST = "9999-12-31T24"  # sorts behind every time


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs. What is left out does not restrict."""

    pipeline: str | None = None
    states: frozenset[JobState] = frozenset()
    """empty: all"""
    owner: str | None = None
    created_after: datetime | None = None
    """at this moment or later"""
    created_before: datetime | None = None
    """earlier than this moment"""
    pairs: frozenset[Pair] | None = None
    """(pipeline, owner) that may be read; None: all of them"""


def read_page(
    connection: sqlite3.Connection, job_filter: JobFilter, *, before: int | None, limit: int
) -> list[tuple[int, TrainingJob]]:
    """At most ``limit`` jobs with a sequence number below ``before``, newest first."""
    connection.execute("BEGIN")  # one moment for the walk and for what is read of its jobs
    try:
        values = _values(connection, job_filter, before)
        chosen = _choose(connection, job_filter, values, limit)
        rows = connection.execute(QUERIES["rows"], {"sequences": json.dumps(chosen)}).fetchall()
    finally:
        connection.execute("ROLLBACK")
    return [(row["sequence"], job_of(row)) for row in rows]


def read_pairs(connection: sqlite3.Connection) -> frozenset[Pair]:
    """The distinct (pipeline, owner) of all jobs, in a time that grows with them, not the jobs."""
    rows = connection.execute(QUERIES["pairs"])
    return frozenset((pipeline or None, owner) for pipeline, owner in rows)


def matching_pairs(pairs: frozenset[Pair], job_filter: JobFilter) -> frozenset[Pair]:
    """The pairs that the filter leaves, as far as it speaks of them."""
    if job_filter.pairs is not None:
        pairs &= job_filter.pairs
    if job_filter.pipeline is None and job_filter.owner is None:
        return pairs
    return frozenset(
        (pipeline, owner)
        for pipeline, owner in pairs
        if job_filter.pipeline in {None, pipeline} and job_filter.owner in {None, owner}
    )


def _choose(
    connection: sqlite3.Connection, job_filter: JobFilter, values: dict[str, Value], limit: int
) -> list[int]:
    """The sequence numbers of the page."""
    walk = _walk(connection, job_filter, values)
    if job_filter.pairs is None:
        return [row["sequence"] for row in islice(walk, limit)]
    candidates = list(islice(walk, max(CANDIDATES, limit)))
    chosen = [
        row["sequence"]
        for row in candidates
        if (row["pipeline"] or None, row["owner"]) in job_filter.pairs
    ]
    missing = limit - len(chosen)
    if missing > 0 and len(candidates) >= CANDIDATES:
        values = {**values, "below": candidates[-1]["sequence"]}
        rest = _walk_pairs(connection, matching_pairs(job_filter.pairs, job_filter), values)
        chosen += [row["sequence"] for row in islice(rest, missing)]
    return chosen[:limit]


def _walk(
    connection: sqlite3.Connection, job_filter: JobFilter, values: dict[str, Value]
) -> Iterator[sqlite3.Row]:
    """Along the index that fits best, the pairs that may be read aside."""
    pipeline, owner = job_filter.pipeline, job_filter.owner
    if pipeline is not None and owner is not None:
        return _walk_pairs(connection, {(pipeline, owner)}, values)
    if pipeline is not None:
        return connection.execute(QUERIES["walk_pipeline"], {**values, "pipeline": pipeline})
    if owner is not None:
        return connection.execute(QUERIES["walk_owner"], {**values, "owner": owner})
    return connection.execute(QUERIES["walk_states" if job_filter.states else "walk_all"], values)


def _walk_pairs(
    connection: sqlite3.Connection, pairs: AbstractSet[Pair], values: dict[str, Value]
) -> Iterator[sqlite3.Row]:
    keys = json.dumps([[pipeline or "", owner] for pipeline, owner in pairs])
    return connection.execute(QUERIES["walk_pairs"], {**values, "pairs": keys})


def _values(
    connection: sqlite3.Connection, job_filter: JobFilter, before: int | None
) -> dict[str, Value]:
    """What every walk binds."""
    after, until = job_filter.created_after, job_filter.created_before
    values: dict[str, Value] = {
        "after": format_time(after) if after else _EARLIEST,
        "before": format_time(until) if until else _LATEST,
        "above": 0,
        "below": ABOVE_ALL if before is None else before,
        "states": _states(job_filter),
    }
    if after or until:
        lowest, beyond = connection.execute(QUERIES["sequences_in_time"], values).fetchone()
        values["above"] = lowest
        values["below"] = min(beyond, ABOVE_ALL if before is None else before)
    return values


def _states(job_filter: JobFilter) -> str:
    return json.dumps(sorted(job_filter.states or JobState))
