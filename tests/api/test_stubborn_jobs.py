"""Jobs that cannot be removed hold up no others, not even over a restart."""

import asyncio
import base64
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from model_training.executors.local.executor import LocalExecutor
from model_training.folders import DataFolder
from model_training.ledger.ledger import Ledger
from model_training.logs.follow import Followers
from model_training.tracker import Tracker
from tests.api.lab import Lab, lab
from tests.unit.ledger_jobs import seen, spec
from tests.waiting import until

pytestmark = pytest.mark.anyio

DEEP = (
    "import os, pathlib\n"
    "os.chdir(os.environ['MODEL_TRAINING_OUTPUT'])\n"
    "for _ in range(1500):\n"
    "    os.mkdir('d'); os.chdir('d')\n"
)


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """A file that even root cannot remove, until it may again."""
    if shutil.which("chattr") is None:
        pytest.skip("no chattr here to make a file that cannot be removed")
    made = subprocess.run(["chattr", "+i", str(path)], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no file can be made immutable here: {made.stderr.strip()}")
    try:
        yield
    finally:
        for place in path.parent.parent.parent.parent.rglob(path.name):
            subprocess.run(["chattr", "-i", str(place)], check=True)


async def ended(one: Lab, code: str = "") -> str:
    name = await one.create(code)
    await until(lambda: one.ended(name))
    return name


async def is_gone(one: Lab, name: str) -> bool:
    return (await one.client.get(f"/training-jobs/{name}/status")).status_code == 404


async def test_jobs_that_cannot_be_removed_hold_up_no_others(tmp_path: Path):
    keeps = "import os; open(os.environ['MODEL_TRAINING_OUTPUT'] + '/kept', 'w')"
    async with lab(tmp_path) as one:
        kept, torn, deep = [await ended(one, code) for code in (keeps, "", DEEP)]
        await until(lambda: not list(one.data.open_jobs.iterdir()))
        one.data.job(torn).spec.write_text('{"job": ')
        stuck = one.data.job(kept).output / "kept"
    with immutable(stuck):
        async with lab(tmp_path, ends_jobs=False) as one:
            for name in (kept, torn, deep):
                answer = await one.client.delete(f"/training-jobs/{name}")
                assert answer.status_code == 202
            await until(lambda: is_gone(one, torn))
            await until(lambda: is_gone(one, deep))
            again = await one.client.delete(f"/training-jobs/{kept}")
            assert (again.status_code, again.json()["state"]) == (202, "deleting")
        async with lab(tmp_path, ends_jobs=False) as one:
            assert (await one.client.get("/readyz")).status_code == 200
            await ended(one)
            assert await one.state(kept) == "deleting"
    async with lab(tmp_path) as one:
        await until(lambda: is_gone(one, kept))


async def test_a_job_that_breaks_its_own_record_holds_up_no_others(running: Lab):
    code = (
        "import os, pathlib\n"
        "spec = pathlib.Path(os.environ['MODEL_TRAINING_OUTPUT']).parent / 'spec.json'\n"
        "spec.unlink(); spec.symlink_to(spec)"
    )
    await ended(running, code)

    other = await ended(running)
    answer = await running.client.delete(f"/training-jobs/{other}?wait=5")
    assert answer.status_code == 204


async def test_outputs_of_a_deep_tree_are_listed(running: Lab):
    name = await ended(running, DEEP + "open('leaf', 'w')\n")

    answer = await running.client.get(f"/training-jobs/{name}/outputs")
    assert answer.status_code == 200
    # A tree so deep is more than what cleans up after the tests can remove.
    gone = await running.client.delete(f"/training-jobs/{name}?wait=30")
    assert gone.status_code == 204


@pytest.mark.parametrize(
    ("query", "body"),
    [("&timeout=bogus", b'{"A": 1}'), ("&nonsense=1", b'{"A": 1}'), ("", b"[1, 2]")],
)
async def test_a_faulty_repeat_with_a_known_key_is_refused(running: Lab, query: str, body: bytes):
    headers = {"Idempotency-Key": "one", "Content-Type": "application/json"}
    await running.client.post("/training-jobs?pipeline=print", content=b'{"A": 1}', headers=headers)

    again = await running.client.post(
        f"/training-jobs?pipeline=print{query}", content=body, headers=headers
    )
    assert again.status_code == 422


async def test_a_large_file_is_digested_while_it_is_sent(running: Lab):
    code = (
        "import os; file = open(os.environ['MODEL_TRAINING_OUTPUT'] + '/model', 'wb');"
        "file.write(bytes(17 << 20))"
    )
    at = f"/training-jobs/{await ended(running, code)}/outputs/model"
    part = {"Range": "bytes=0-9"}

    assert "repr-digest" not in (await running.client.get(at, headers=part)).headers
    assert len((await running.client.get(at)).content) == 17 << 20
    digest = base64.b64encode(hashlib.sha256(bytes(17 << 20)).digest()).decode()
    for headers in ({}, part):
        again = await running.client.head(at, headers=headers)
        assert again.headers["repr-digest"] == f"sha-256=:{digest}:"


async def test_waited_deletes_leave_nothing_in_memory(running: Lab):
    tracker = running.service._tracker
    for _ in range(3):
        name = await ended(running)
        answer = await running.client.delete(f"/training-jobs/{name}?wait=30")
        assert answer.status_code == 204

    assert tracker._changed == {}
    assert tracker._ended == {}


async def test_everybody_who_waits_for_the_end_of_a_removal_is_told(tmp_path: Path):
    ledger = await Ledger.open(tmp_path / "ledger.sqlite3")
    data = DataFolder(tmp_path / "data")
    tracker = Tracker(LocalExecutor(data, slots=1), ledger, Followers(), data)
    await ledger.apply([seen(spec())])
    name = spec().name
    try:
        first = asyncio.create_task(tracker.until_gone(name))
        await until(lambda: tracker._changed)
        await ledger.remove(name)
        async with asyncio.timeout(5):
            await tracker.until_gone(name)
            await first
    finally:
        await ledger.close()
