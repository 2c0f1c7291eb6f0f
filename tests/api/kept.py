"""What lies in a data folder, to see whether a request has changed anything of it."""

import hashlib
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

# Written by being asked: the audit log, and the ledger's file by being read.
CHANGING = ("audit.jsonl", "ledger.")


def kept(data: Path, apart: Iterable[str] = ()) -> dict[str, str]:
    """Every file and every row of the ledger, but for those of some jobs."""
    names = set(apart)
    found = {
        str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(data.rglob("*"))
        if path.is_file()
        and not path.name.startswith(CHANGING)
        and not names.intersection(path.parts)
    }
    return found | {f"row {row[0]}": repr(row) for row in rows(data) if row[0] not in names}


def rows(data: Path) -> list[tuple[object, ...]]:
    """Every job of the ledger, its name first."""
    with closing(sqlite3.connect(f"file:{data}/ledger.sqlite3?mode=ro", uri=True)) as ledger:
        return ledger.execute("SELECT name, * FROM jobs").fetchall()


def states(data: Path) -> dict[str, str]:
    """The state of each job."""
    with closing(sqlite3.connect(f"file:{data}/ledger.sqlite3?mode=ro", uri=True)) as ledger:
        return dict(ledger.execute("SELECT name, state FROM jobs"))
