"""Environments for requirements: built once per content, never half, never waited for in vain."""

import os
import time
from pathlib import Path

import pytest

from model_training.executors.local import environments, records
from model_training.folders import DataFolder
from model_training.jobs import JobSpec
from tests.unit.local_bench import accept, begin, end_of, sh, stop
from tests.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text("wanted==1\n")
    return path


@pytest.fixture
def place(tmp_path: Path, requirements: Path) -> Path:
    return environments.place_of(tmp_path / "data" / "environments", requirements)


def never(_seconds: float) -> bool:
    raise AssertionError("there is nothing to wait for")


def test_the_place_follows_the_content_and_nothing_else(tmp_path: Path, requirements: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_bytes(requirements.read_bytes())
    same = environments.place_of(tmp_path, requirements)
    assert environments.place_of(tmp_path, other) == same
    other.write_text("wanted==2\n")
    assert environments.place_of(tmp_path, other) != same


def test_what_is_complete_is_not_built_again(place: Path, requirements: Path) -> None:
    place.parent.mkdir(parents=True)
    steps: list[list[str]] = []

    def tool(argv: list[str]) -> int:
        place.mkdir(exist_ok=True)
        steps.append(argv)
        return 0

    assert environments.build(place, requirements, tool, never)
    built = len(steps)
    assert built
    assert environments.is_complete(place)
    assert environments.build(place, requirements, tool, never)
    assert len(steps) == built


def test_leftovers_of_a_crash_go_before_it_is_built_anew(place: Path, requirements: Path) -> None:
    place.mkdir(parents=True)
    (place / "half").touch()

    def tool(_argv: list[str]) -> int:
        assert not (place / "half").exists()
        place.mkdir(exist_ok=True)
        return 0

    assert environments.build(place, requirements, tool, never)


def test_a_tool_that_fails_leaves_nothing_and_is_named(place: Path, requirements: Path) -> None:
    place.parent.mkdir(parents=True)

    def tool(argv: list[str]) -> int:
        place.mkdir(exist_ok=True)
        return 3 if "install" in argv else 0

    with pytest.raises(environments.CannotBuild, match=r"pip.* ended with exit code 3"):
        environments.build(place, requirements, tool, never)
    assert not place.exists()


def test_a_requirements_file_that_is_missing_is_named(tmp_path: Path) -> None:
    data = DataFolder(tmp_path / "data")
    job = accept(data, sh("true", folder=tmp_path, requirements="no.txt"))
    record = end_of(job, begin(job))
    assert (record["state"], record["reason"]) == ("failed", "EnvironmentFailed")
    assert "no.txt cannot be read: No such file or directory" in record["message"]


async def test_a_job_that_waits_for_anothers_build_can_be_stopped(
    tmp_path: Path, place: Path, requirements: Path
) -> None:
    job = accept(DataFolder(tmp_path / "data"), _needs(tmp_path, requirements))
    lock = records.lock(place.with_name(place.name + ".lock"))
    assert lock is not None
    pid = begin(job)
    await until(lambda: (records.read(job.folder.run) or {}).get("phase") == "preparing")
    stop(job, pid)
    assert end_of(job, pid)["state"] == "stopped"
    os.close(lock)


def test_waiting_for_anothers_build_ends_with_the_jobs_timeout(
    tmp_path: Path, place: Path, requirements: Path
) -> None:
    job = accept(DataFolder(tmp_path / "data"), _needs(tmp_path, requirements, timeout_s=0.3))
    lock = records.lock(place.with_name(place.name + ".lock"))
    assert lock is not None
    begin_s = time.monotonic()
    record = end_of(job, begin(job))
    assert (record["state"], record["reason"]) == ("failed", "Timeout")
    assert time.monotonic() - begin_s < 5
    os.close(lock)


def _needs(folder: Path, requirements: Path, **fields: object) -> JobSpec:
    return sh("true", folder=folder, requirements=requirements.name, **fields)
