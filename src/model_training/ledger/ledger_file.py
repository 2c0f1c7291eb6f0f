"""The ledger's file: made, checked and brought up to date before anything reads it.

A file that is not wholly ours is refused, never repaired and never half used: what is in it can
be rebuilt from what the executor knows, so moving it away is always a way out. The check reads
the header and the schema, never the rows, so that it takes as long for a million jobs as for
none; that the file was cut short SQLite itself finds from the header.

Schema changes are numbered files from the first release on; the number of the last one applied is
kept in the file (``user_version``).
"""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_training.errors import SettingsError
from model_training.ledger.queries import QUERIES

APPLICATION_ID: Final = 0x4D544C47  # "MTLG", kept in the file's header; set by schema.sql
OLDEST_SQLITE: Final = (3, 37, 0)  # STRICT tables
BUSY_TIMEOUT: Final = 5.0  # seconds to wait for a person who looks into the file with other tools
WAL_LIMIT: Final = 64 * 2**20  # bytes kept of the write-ahead log after a burst

_HERE: Final = Path(__file__).parent


def schema_steps(folder: Path = _HERE) -> tuple[str, ...]:
    """The schema of the first release and each later change, in order: step N makes version N."""
    changes = sorted((folder / "migrations").glob("[0-9][0-9][0-9][0-9]_*.sql"))
    paths = [folder / "schema.sql", *changes]
    return tuple(path.read_text(encoding="utf-8") for path in paths)


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """The one connection that writes, and whether the ledger still has to be rebuilt."""

    writer: sqlite3.Connection
    created: bool


def open_file(path: Path, steps: tuple[str, ...] | None = None) -> OpenedFile:
    """Open the ledger's file for writing, made if it is not there.

    Raises:
        SettingsError: the file is no ledger, is damaged, belongs to a newer version, or cannot
            be used; the message says what to do.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        msg = (
            f"The ledger needs SQLite {oldest} or newer; this Python was built with "
            f"{sqlite3.sqlite_version}. Use a newer Python."
        )
        raise SettingsError(msg)
    try:
        # Before SQLite does it: parameters of jobs are nobody else's business.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT
        )
    except (OSError, sqlite3.Error) as error:
        msg = f"The ledger {path} cannot be opened: {error}. Make its folder writable."
        raise SettingsError(msg) from error
    try:
        return _prepare(connection, path, steps or schema_steps())
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _refused(path, error) from error
    except SettingsError:
        connection.close()
        raise


def open_reader(path: Path, *, timeout: float) -> sqlite3.Connection:
    """A connection that cannot write; ``timeout`` in seconds."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=timeout,
    )
    connection.row_factory = sqlite3.Row
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, steps: tuple[str, ...]) -> OpenedFile:
    connection.row_factory = sqlite3.Row
    _check_is_ours(connection, path, known=len(steps))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # what was promised survives a power cut
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
    _migrate(connection, steps)
    _check_is_whole(connection, path, steps)
    rebuilt = connection.execute(QUERIES["is_rebuilt"]).fetchone()
    return OpenedFile(connection, created=not rebuilt or not rebuilt[0])


def _check_is_ours(connection: sqlite3.Connection, path: Path, *, known: int) -> None:
    version = _pragma(connection, "user_version")
    mark = _pragma(connection, "application_id")
    is_new = version == 0 and mark == 0 and not connection.execute(QUERIES["shape"]).fetchone()
    if not is_new and mark != APPLICATION_ID:
        raise _moved_away(path, "is no ledger of this service")
    if version > known:
        msg = (
            f"The ledger {path} was written by a newer release (its version is {version}, this "
            f"release knows {known}). Run that release, or {_way_out(path)}."
        )
        raise SettingsError(msg)


def _migrate(connection: sqlite3.Connection, steps: tuple[str, ...]) -> None:
    version = _pragma(connection, "user_version")
    for number, step in enumerate(steps[version:], start=version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{step}\n;PRAGMA user_version = {number};\nCOMMIT;"
        )


def _check_is_whole(connection: sqlite3.Connection, path: Path, steps: tuple[str, ...]) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        _migrate(model, steps)
        wanted = [tuple(row) for row in model.execute(QUERIES["shape"])]
    if [tuple(row) for row in connection.execute(QUERIES["shape"])] != wanted:
        raise _moved_away(path, "has not the tables that it should have")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    number: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return number


def _refused(path: Path, error: sqlite3.DatabaseError) -> SettingsError:
    if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
        return _moved_away(path, "is no ledger, or is damaged")
    return SettingsError(
        f"The ledger {path} cannot be used: {error}. Its folder must be writable, have space, "
        "and no other program may hold the file."
    )


def _moved_away(path: Path, what: str) -> SettingsError:
    return SettingsError(f"The file {path} {what}. To go on, {_way_out(path)}.")


def _way_out(path: Path) -> str:
    return (
        f"move it away with its -wal and -shm files (mv {path}* ELSEWHERE): a new ledger is "
        "rebuilt from the jobs that are still there"
    )
