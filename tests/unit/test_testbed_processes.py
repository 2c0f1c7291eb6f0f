"""The test cluster's processes: found by their record, and nobody else taken for them."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.processes import Record, carrying, launch
from tests.waiting import until

pytestmark = pytest.mark.anyio

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"  # noqa: E501


def start(folder: Path, *argv: str, **environment: str) -> Record:
    return launch(argv, folder / "record.json", folder / "log", environment)


async def test_a_process_is_known_from_its_start_to_its_end(tmp_path: Path):
    record = start(tmp_path, "/bin/sleep", "60")
    assert record == Record.read(tmp_path / "record.json")
    await until(record.state)
    assert os.getsid(record.pid) == record.pid
    record.end()
    assert record.state() is None
    assert not record.send(signal.SIGTERM)


async def test_one_that_ignores_sigterm_is_killed(tmp_path: Path):
    record = start(tmp_path, sys.executable, "-c", STUBBORN)
    await until(lambda: "deaf" in (tmp_path / "log").read_text())
    record.end(seconds=0.2)
    assert record.state() is None


async def test_a_paused_one_ends_too(tmp_path: Path):
    record = start(tmp_path, "/bin/sleep", "60")
    record.send(signal.SIGSTOP)
    await until(lambda: record.state() == "T")
    record.end()
    assert record.state() is None


def test_nobody_is_signalled_by_a_record_of_somebody_else(tmp_path: Path):
    record = start(tmp_path, "/bin/sleep", "60")
    strangers = (
        replace(record, started=record.started + 1),
        replace(record, boot="an earlier one"),
        replace(record, argv=("/bin/sleep", "61")),
    )
    for stranger in strangers:
        assert stranger.state() is None
        assert not stranger.send(signal.SIGKILL)
        stranger.end()
    assert record.state()
    record.end()


def test_it_gets_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://secret@proxy")
    record = start(tmp_path, "/usr/bin/env", GIVEN="yes")
    record.ended(10)
    names = {line.partition("=")[0] for line in (tmp_path / "log").read_text().splitlines()}
    assert names <= {"PATH", "GIVEN", "LC_CTYPE"}  # the last is Python's own


async def test_a_program_that_is_not_there_leaves_a_record_of_somebody_gone(tmp_path: Path):
    record = start(tmp_path, "/no/such/program")
    await until(lambda: record.state() is None)
    assert "No such file" in (tmp_path / "log").read_text()


async def test_processes_are_found_by_their_arguments(tmp_path: Path):
    mark = tmp_path.name
    process = subprocess.Popen([sys.executable, "-c", "input()", mark], stdin=subprocess.PIPE)
    try:
        await until(lambda: [found.pid for found in carrying("input", mark)] == [process.pid])
    finally:
        process.communicate()
    assert not list(carrying("input", mark))


def test_no_record_is_no_process(tmp_path: Path):
    assert Record.read(tmp_path / "record.json") is None


def test_a_record_is_never_half_written(tmp_path: Path):
    record = start(tmp_path, "/bin/sleep", "60")
    assert json.loads((tmp_path / "record.json").read_text())["pid"] == record.pid
    assert not (tmp_path / "record.json.new").exists()
    record.end()


async def test_it_has_ended_only_when_its_last_thread_has(tmp_path: Path):
    # The first thread ends at once, the second when told to: so do those of a killed server.
    os.mkfifo(tmp_path / "go")
    code = (
        "import ctypes, threading, sys, os\n"
        "threading.Thread(target=lambda: (open(sys.argv[1]).read(), os._exit(0))).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    record = start(tmp_path, sys.executable, "-c", code, str(tmp_path / "go"))
    await until(lambda: record.state() is None)  # the first is a zombie
    tasks = Path(f"/proc/{record.pid}/task")
    assert len(list(tasks.iterdir())) == 2
    assert not record.ended(0)
    (tmp_path / "go").write_text("")
    assert record.ended(10)
