"""The ledger: one row a job, in sequence, with its history. It outlives processes and executors.

Everything that was seen or asked for goes through here, one transaction a call, durable on
return. What follows from it is decided in ``records.py``, how the file is kept in
``ledger_file.py``, who reads and writes when in ``connections.py``, and the SQL stands in
``queries.sql``.
"""

import asyncio
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, cast

from model_training.jobs import JobState, Observation, TrainingJob, format_time, parse_time
from model_training.ledger.connections import Readers, Writer
from model_training.ledger.ledger_file import open_file
from model_training.ledger.listing import (
    ABOVE_ALL,
    JobFilter,
    Pair,
    matching_pairs,
    read_page,
    read_pairs,
)
from model_training.ledger.queries import QUERIES
from model_training.ledger.records import (
    Entry,
    Question,
    ask,
    first_entry,
    follow,
    moment_of,
    vanish,
)
from model_training.ledger.rows import entry_of, job_of, values_of_change, values_of_new
from model_training.ledger.versions import Versions

__all__ = ["JobFilter", "Ledger", "Transition"]

_ASKED: Final = {"stop": "note_stop", "delete": "note_delete"}


class Transition(NamedTuple):
    """One line of a job's history."""

    at: datetime
    state: JobState
    reason: str | None
    message: str | None


class Ledger:
    """Every method may raise ``LedgerUnavailable``: nothing was changed; it works again later."""

    def __init__(self, connection: sqlite3.Connection, path: Path, *, created: bool) -> None:
        self.created = created
        """The file is new, or its rebuilding was cut short: read everything from the executor,
        then call ``note_rebuilt``."""
        self._versions = Versions()
        self._pairs: frozenset[Pair] | None = None  # set in the writing thread only
        self._readers = Readers(path)
        self._writer = Writer(connection, kept=self._versions.keep, lost=self._versions.lose)

    @classmethod
    async def open(cls, path: Path) -> "Ledger":
        """Open the file, made if it is not there; takes as long however many jobs are in it.

        Raises:
            SettingsError: the file is no ledger of ours, damaged, or of a newer release; the
                message says what to do.
        """
        opened = await asyncio.to_thread(open_file, path)
        return cls(opened.writer, path, created=opened.created)

    async def close(self) -> None:
        """Finish what was asked for, and close the file."""
        await self._readers.close()
        await self._writer.close()

    async def note_rebuilt(self) -> None:
        """Everything that the executor knew has been applied: never read it all again."""
        at = format_time(datetime.now(UTC))
        await self._writer.run(lambda db: db.execute(QUERIES["note_rebuilt"], {"at": at}))
        self.created = False

    # What was seen

    async def apply(self, observations: Sequence[Observation]) -> list[TrainingJob]:
        """Record what was seen, in one transaction; the jobs that changed, as they are now.

        Passed over is what says nothing new: about a job that has ended, older than what was
        applied before, or that a job is gone whose removal was asked for (its row stays until
        ``remove``). A job that is gone and did neither end nor was to be removed has failed, with
        the reason ``RemovedOutside``. Jobs seen for the first time get their place in the list
        by the time of their creation.

        What says nothing of an end is not synced to the disk: an executor keeps its active jobs
        durably by itself, and tells them again after a power cut; ends it forgets.
        """
        now = datetime.now(UTC)
        # What is accepted comes twice, from the submit and from the executor's own report.
        news = [
            seen for seen in observations if not self._versions.is_kept(seen.name, seen.version)
        ]
        if not news:
            return []
        in_order = sorted(news, key=lambda seen: seen.spec.created_at)

        def work(db: sqlite3.Connection) -> list[TrainingJob]:
            changed: dict[str, TrainingJob] = {}
            for seen in in_order:
                if job := self._apply_one(db, seen, now):
                    changed[job.name] = job
            return list(changed.values())

        synced = any(seen.gone or seen.state.is_terminal for seen in news)
        return await self._writer.run(work, synced=synced)

    def _apply_one(
        self, db: sqlite3.Connection, seen: Observation, now: datetime
    ) -> TrainingJob | None:
        if seen.version <= self._versions.last(seen.name):
            return None
        entry = _find(db, seen.name)
        if entry is None:
            belated = seen.gone or self._versions.was_removed(seen.name, seen.spec.created_at)
            return None if belated else self._add(db, seen, now)
        if entry.ended:
            return None
        self._versions.note(seen.name, seen.version)
        followed = follow(entry, seen, now)
        return None if followed is entry else self._change(db, entry, followed, now)

    def _add(self, db: sqlite3.Connection, seen: Observation, now: datetime) -> TrainingJob:
        job = first_entry(seen, now)
        sequence = cast("int", db.execute(QUERIES["add"], values_of_new(job, seen)).lastrowid)
        _note_transition(db, sequence, job, job.created_at)
        if not job.state.is_terminal:
            self._versions.note(seen.name, seen.version)
        if self._pairs is not None and (job.pipeline, job.owner) not in self._pairs:
            self._pairs |= {(job.pipeline, job.owner)}
        return job

    def _change(
        self, db: sqlite3.Connection, before: Entry, after: Entry, now: datetime
    ) -> TrainingJob:
        values = {**values_of_change(after.job, ended=after.ended), "sequence": after.sequence}
        db.execute(QUERIES["change"], values)
        if (before.job.state, before.job.reason) != (after.job.state, after.job.reason):
            _note_transition(db, after.sequence, after.job, moment_of(after.job, now))
        if after.ended:
            self._versions.forget(after.job.name)
        return after.job

    async def missing(self, present: Collection[str], *, up_to: int | None = None) -> list[str]:
        """After a snapshot: the active jobs that are not in it, but for those being deleted.

        Args:
            present: the names in the snapshot.
            up_to: what ``newest()`` said before the snapshot was asked for. Jobs that were
                accepted later are not missing from it. None: nothing was accepted meanwhile.
        """
        values = {"up_to": ABOVE_ALL if up_to is None else up_to}
        known = frozenset(present)
        return [n for n in await self._names(QUERIES["active"], values) if n not in known]

    async def write_off(self, names: Iterable[str]) -> list[TrainingJob]:
        """Jobs that vanished have failed, ``RemovedOutside``; the jobs that did, as they are.

        Passed over is what has ended since or is being deleted: ``deleting()`` names those, and
        removing them again yields ``gone``.
        """
        now = datetime.now(UTC)

        def work(db: sqlite3.Connection) -> list[TrainingJob]:
            entries = [entry for name in names if (entry := _find(db, name))]
            missing = [each for each in entries if not each.ended and not each.asked.delete]
            return [self._change(db, entry, vanish(entry, now), now) for entry in missing]

        return await self._writer.run(work)

    # What was asked for

    async def ask(self, name: str, what: Question, by: str, at: datetime) -> TrainingJob | None:
        """Note that somebody asked for a stop or a removal; the job as it is now.

        Asking again changes nothing, nor does a stop of a job that has ended. None if there is
        no such job.
        """

        def work(db: sqlite3.Connection) -> TrainingJob | None:
            before = _find(db, name)
            if before is None:
                return None
            after = ask(before, what, by)
            if after is before:
                return before.job
            noted = {"sequence": after.sequence, "at": format_time(at), "by": by}
            db.execute(QUERIES[_ASKED[what]], noted)
            return self._change(db, before, after, at)

        return await self._writer.run(work)

    async def remove(self, name: str) -> None:
        """Forget the job and its history; nothing happens if there is no such job."""

        def work(db: sqlite3.Connection) -> None:
            if entry := _find(db, name):
                db.execute(QUERIES["remove"], {"sequence": entry.sequence})
                self._versions.note_removed(name, entry.job.created_at)

        await self._writer.run(work)

    async def deleting(self) -> list[str]:
        """Jobs whose removal was asked for and has not happened, oldest first."""
        return await self._names(QUERIES["names_in_state"], {"state": JobState.DELETING.value})

    async def stopping(self) -> list[str]:
        """Jobs whose stop was asked for and has not happened, oldest first."""
        return await self._names(QUERIES["names_in_state"], {"state": JobState.STOPPING.value})

    async def ended_before(self, moment: datetime, limit: int) -> list[str]:
        """At most ``limit`` jobs that ended before the moment, longest ended first."""
        values = {"moment": format_time(moment), "limit": limit}
        return await self._names(QUERIES["ended_before"], values)

    async def _names(self, query: str, values: Mapping[str, str | int]) -> list[str]:
        return await self._readers.run(
            lambda db: [row["name"] for row in db.execute(query, values)]
        )

    # What is known

    async def get(self, name: str) -> TrainingJob | None:
        """The job of this name."""
        row = self._readers.first(QUERIES["entry_by_name"], {"name": name})
        return None if row is None else job_of(row)

    async def get_by_id(self, job_id: str) -> TrainingJob | None:
        """The job of this UUID; should there be several, the one accepted first."""
        row = self._readers.first(QUERIES["entry_by_id"], {"id": job_id})
        return None if row is None else job_of(row)

    async def request_digest(self, name: str) -> str | None:
        """The digest of the request that made the job."""
        row = self._readers.first(QUERIES["request_digest"], {"name": name})
        return None if row is None else row["request_digest"]

    async def newest(self) -> int:
        """The highest sequence number in use; 0 if there is no job."""
        row = self._readers.first(QUERIES["newest"], {})
        return 0 if row is None else row[0]

    async def page(
        self, job_filter: JobFilter, *, before: int | None, limit: int
    ) -> list[tuple[int, TrainingJob]]:
        """At most ``limit`` jobs with their sequence numbers, newest first.

        Args:
            job_filter: which jobs.
            before: only jobs with a lower sequence number than this.
            limit: how many, at least 1.
        """
        return await self._readers.run(
            lambda db: read_page(db, job_filter, before=before, limit=limit)
        )

    async def pairs(self, job_filter: JobFilter) -> frozenset[Pair]:
        """Every (pipeline, owner) that a job of the filter may have, to decide who may read what.

        States and times do not narrow it, and a pair stays in it until the next start after its
        last job was removed. Takes a time that grows with the pairs, not with the jobs.
        """
        pairs = self._pairs
        if pairs is None:
            pairs = await self._writer.run(self._load_pairs)
        return matching_pairs(pairs, job_filter)

    def _load_pairs(self, db: sqlite3.Connection) -> frozenset[Pair]:
        # In the writing thread, where pairs are added too: none can come in between.
        if self._pairs is None:
            self._pairs = read_pairs(db)
        return self._pairs

    async def counts(self) -> dict[JobState, int]:
        """How many jobs there are in each state."""
        rows = await self._readers.run(lambda db: db.execute(QUERIES["counts"]).fetchall())
        return dict.fromkeys(JobState, 0) | {JobState(state): number for state, number in rows}

    async def transitions(self, name: str) -> list[Transition]:
        """The job's history, oldest first; empty if there is no such job."""
        rows = await self._readers.run(
            lambda db: db.execute(QUERIES["transitions"], {"name": name}).fetchall()
        )
        return [
            Transition(parse_time(at), JobState(state), reason, message)
            for at, state, reason, message in rows
        ]


def _find(db: sqlite3.Connection, name: str) -> Entry | None:
    row = db.execute(QUERIES["entry_by_name"], {"name": name}).fetchone()
    return None if row is None else entry_of(row)


def _note_transition(db: sqlite3.Connection, sequence: int, job: TrainingJob, at: datetime) -> None:
    values = {
        "sequence": sequence,
        "at": format_time(at),
        "state": job.state.value,
        "reason": None if job.reason is None else str(job.reason),
        "message": job.message,
    }
    db.execute(QUERIES["note_transition"], values)
