import asyncio
import contextlib
import random
import resource
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from model_training.errors import LedgerUnavailable, SettingsError
from model_training.jobs import JobState
from model_training.ledger.ledger import JobFilter, Ledger
from model_training.ledger.ledger_file import open_file, schema_steps
from tests.unit.ledger_jobs import names, seen, spec

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def ledger(tmp_path):
    opened = await Ledger.open(tmp_path / "ledger.sqlite3")
    yield opened
    await opened.close()


async def test_reads_go_on_while_another_program_holds_the_file(ledger, tmp_path):
    await ledger.apply([seen(spec(1))])
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)) as person:
        person.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(ledger.apply([seen(spec(2))]))
        assert await ledger.get(spec(1).name) is not None
        assert await names(ledger) == [spec(1).name]
        assert not waiting.done()
        person.execute("COMMIT")
    assert len(await waiting) == 1


async def test_what_was_answered_survives_the_death_of_the_process(tmp_path):
    path = tmp_path / "ledger.sqlite3"
    argv = [sys.executable, "-m", "tests.unit.ledger_jobs", str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        answered = [child.stdout.readline().strip() for _ in range(200)]
        child.send_signal(signal.SIGKILL)
        answered += child.stdout.read().split("\n")[:-1]
    ledger = await Ledger.open(path)
    try:
        assert set(answered) <= set(await names(ledger, limit=10**6))
    finally:
        await ledger.close()


@contextlib.contextmanager
def no_file_larger_than(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


async def test_a_disk_without_space_is_said_and_forgotten_once_there_is_some(ledger, tmp_path):
    await ledger.apply([seen(spec(1), JobState.RUNNING, 1)])
    large = {"text": "x" * 90_000}
    with no_file_larger_than((tmp_path / "ledger.sqlite3-wal").stat().st_size + 8192):
        with pytest.raises(LedgerUnavailable):
            await ledger.apply(
                [seen(spec(1), JobState.RUNNING, 3), seen(spec(2, parameters=large))]
            )
        assert (await ledger.get(spec(1).name)).state is JobState.RUNNING
        assert await ledger.get(spec(2).name) is None
    # What was lost does not count as seen either.
    assert len(await ledger.apply([seen(spec(1), JobState.RUNNING, 2, message="goes on")])) == 1
    assert len(await ledger.apply([seen(spec(2, parameters=large))])) == 1
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as person:
        assert person.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_closed_ledger_says_so(tmp_path):
    ledger = await Ledger.open(tmp_path / "ledger.sqlite3")
    await ledger.close()
    await ledger.close()
    for call in (
        ledger.get("x"),
        ledger.page(JobFilter(), before=None, limit=1),
        ledger.remove("x"),
    ):
        with pytest.raises(LedgerUnavailable, match="closed"):
            await call


async def test_nothing_of_a_removed_job_stays_in_the_file(ledger, tmp_path):
    await ledger.apply([seen(spec())])
    await ledger.remove(spec().name)
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as person:
        for table in ("jobs", "transitions", "tallies"):
            assert person.execute(f"SELECT * FROM {table}").fetchall() == []


async def test_the_file_is_readable_by_its_owner_alone(ledger, tmp_path):
    await ledger.apply([seen(spec())])
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}
    assert "ledger.sqlite3-wal" in modes


async def test_a_new_ledger_asks_to_be_rebuilt_until_it_was(tmp_path):
    path = tmp_path / "ledger.sqlite3"
    for _ in range(2):
        ledger = await Ledger.open(path)
        assert ledger.created
        await ledger.apply([seen(spec())])
        await ledger.close()
    ledger = await Ledger.open(path)
    await ledger.note_rebuilt()
    assert not ledger.created
    await ledger.close()
    ledger = await Ledger.open(path)
    assert not ledger.created
    await ledger.close()


async def test_a_ledger_whose_main_file_was_removed_is_new_and_empty(tmp_path):
    path = tmp_path / "ledger.sqlite3"
    ledger = await Ledger.open(path)
    await ledger.note_rebuilt()
    await ledger.apply([seen(spec())])
    left = {name: Path(f"{path}{name}").read_bytes() for name in ("-wal", "-shm")}
    await ledger.close()
    path.unlink()
    for name, content in left.items():  # as a killed server leaves them
        Path(f"{path}{name}").write_bytes(content)
    ledger = await Ledger.open(path)
    assert ledger.created
    assert await names(ledger) == []
    await ledger.close()


def foreign_text(path):
    path.write_text("a shopping list")


def foreign_bytes(path):
    path.write_bytes(random.Random(1).randbytes(20_000))


def foreign_database(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE jobs (id)")


def broken_header(path):
    path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])


def broken_schema(path):
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xff" * 3996
    path.write_bytes(content)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-8192])


def missing_index(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP INDEX jobs_by_pair")


def newer(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 1000")


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "breakage",
    [foreign_text, foreign_bytes, foreign_database, broken_header, broken_schema, cut_short,
     missing_index, newer, a_folder],
)  # fmt: skip
async def test_a_file_that_is_not_wholly_ours_is_refused_and_left_as_it_is(tmp_path, breakage):
    path = tmp_path / "ledger.sqlite3"
    if not breakage.__name__.startswith("foreign"):
        ledger = await Ledger.open(path)
        await ledger.apply([seen(spec(number)) for number in range(200)])
        await ledger.close()
    breakage(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(SettingsError, match=str(path)) as refused:
        await Ledger.open(path)
    assert breakage is a_folder or "move it away" in str(refused.value)
    if breakage is newer:
        assert "newer release" in str(refused.value)
    assert (path.read_bytes() if path.is_file() else None) == before


async def test_an_older_ledger_is_brought_up_to_date_and_keeps_its_jobs(tmp_path):
    path = tmp_path / "ledger.sqlite3"
    ledger = await Ledger.open(path)
    await ledger.apply([seen(spec())])
    await ledger.close()
    steps = (*schema_steps(), "ALTER TABLE ledger ADD COLUMN colour TEXT;")
    for _ in range(2):
        with closing(open_file(path, steps).writer) as db:
            assert db.execute("PRAGMA user_version").fetchone()[0] == len(steps)
            assert db.execute("SELECT count(colour), count(*) FROM ledger").fetchone()[1] == 1
            assert db.execute("SELECT name FROM jobs").fetchone()[0] == spec().name
    with pytest.raises(SettingsError, match="newer release"):
        await Ledger.open(path)


def test_a_migration_that_fails_changes_nothing(tmp_path):
    path = tmp_path / "ledger.sqlite3"
    open_file(path).writer.close()
    steps = (*schema_steps(), "CREATE TABLE half (a); CREATE TABLE jobs (a);")
    with pytest.raises(SettingsError):
        open_file(path, steps)
    with closing(open_file(path).writer) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == len(schema_steps())
