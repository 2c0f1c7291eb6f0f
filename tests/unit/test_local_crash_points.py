"""The server is killed at each named point of the local executor; nothing is lost or doubled."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model_training import crash_points
from model_training.executors.local import runs
from model_training.executors.local.executor import LocalExecutor
from model_training.folders import DataFolder
from model_training.jobs import JobState
from tests.unit.local_bench import Watcher, sh

pytestmark = pytest.mark.anyio

SERVER = """
import asyncio, sys
from pathlib import Path
from model_training.executors.local import runs
from model_training.executors.local.executor import LocalExecutor
from model_training.folders import DataFolder
from model_training.jobs import JobSpec, JobState
import json

async def main():
    data, plain, what = DataFolder(Path(sys.argv[1])), json.loads(sys.argv[2]), sys.argv[3]
    async with LocalExecutor(data, slots=1) as executor:
        events = executor.observe()
        await anext(events)
        wanted = JobSpec.from_json(plain)
        await executor.launch(wanted)
        print("accepted", flush=True)
        async for change in events:
            state = change.observations[-1].state
            if state is JobState.RUNNING and what == "stop":
                await executor.stop(wanted.name)
            if state.is_terminal and what == "remove":
                await executor.remove(wanted.name)
            elif state.is_terminal:
                return

asyncio.run(main())
"""
POINTS = [point for point, where in crash_points.POINTS.items() if where.startswith("local: ")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("point", POINTS)
async def test_a_server_killed_at_any_point_loses_and_doubles_nothing(
    tmp_path: Path, point: str
) -> None:
    what = point.partition(".")[0]
    data, witness = DataFolder(tmp_path / "data"), tmp_path / "witness"
    ends = "sleep 100" if what == "stop" else "exit 7"
    wanted = sh(f"echo started >> {witness}; {ends}")
    server = await asyncio.to_thread(_serve_and_die, data, wanted, what, point)
    assert server.returncode == -9, f"{point} was not reached: {server.stderr.decode()}"
    async with LocalExecutor(data, slots=1) as executor:
        watcher = Watcher(executor)
        known = await watcher.begin()
        if b"accepted" in server.stdout and what != "remove":
            assert known == {wanted.name}
        if not known and what == "launch":
            await executor.launch(wanted)  # nobody was promised anything: it is asked for again
        if what != "remove":
            async with asyncio.timeout(runs.IDLE_S * 0.9):  # by signal, not by a later look
                end = await watcher.end(wanted.name)
            assert end.state is (JobState.STOPPED if what == "stop" else JobState.FAILED)
            assert end.exit_code == (143 if what == "stop" else 7)
        await executor.remove(wanted.name)
        await watcher.until(wanted.name, gone=True)
        await watcher.close()
    assert witness.read_text() == "started\n"
    for folder in (data.open_jobs, data.new_jobs, data.gone_jobs, data.job(wanted.name).path):
        assert not folder.exists() or not list(folder.iterdir())


def _serve_and_die(
    data: DataFolder, wanted: object, what: str, point: str
) -> subprocess.CompletedProcess[bytes]:
    import json

    plain = json.dumps(wanted.to_json())  # pyright: ignore
    return subprocess.run(
        [sys.executable, "-c", SERVER, str(data.root), plain, what],
        env=os.environ | {crash_points.VARIABLE: f"{point}:1"},
        capture_output=True,
        timeout=30,
        check=False,
    )


def test_a_point_is_counted_and_another_is_passed_by() -> None:
    code = (
        "from model_training.crash_points import reached\n"
        "for n in range(3): print(n, flush=True); reached('end.observed'); reached('stop.written')"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {crash_points.VARIABLE: "stop.written:2"},
        capture_output=True,
        check=False,
    )
    assert (killed.returncode, killed.stdout) == (-9, b"0\n1\n")


def test_every_point_is_reached_somewhere_and_every_one_reached_is_listed() -> None:
    import re

    source = Path(crash_points.__file__).parent
    named = {
        name
        for path in source.rglob("*.py")
        for name in re.findall(r'\breached\(\s*"([^"]+)"', path.read_text())
    }
    assert named - {"..."} == set(crash_points.POINTS)
