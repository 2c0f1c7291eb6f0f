"""Plan and launch: what is created, what is started, and how often."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from model_training.executors.base import Snapshot
from model_training.jobs import JobState, Reason
from tests.contract.lab import Case, Lab

pytestmark = pytest.mark.anyio


async def test_a_job_runs_and_ends(lab: Lab) -> None:
    spec = lab.spec(lab.waiting("echo done"))
    accepted = await lab.launch_spec(spec)
    assert accepted.spec == spec
    assert accepted.state in (JobState.PENDING, JobState.RUNNING)
    running = await lab.running(spec.name)
    await lab.go(spec.name)
    end = await lab.ended(spec.name)
    assert (end.state, end.exit_code, end.attempt) == (JobState.SUCCEEDED, 0, 1)
    assert running.started_at == end.started_at
    assert spec.created_at <= end.started_at <= end.finished_at
    took = (end.finished_at - end.started_at).total_seconds()
    assert end.duration_s == pytest.approx(took, abs=0.2)
    assert lab.log(spec.name) == b"done\n"


async def test_plan_creates_nothing_and_shows_no_secret(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUB_TOKEN", "a-secret-of-the-server")
    spec = lab.spec(lab.sh("echo hello"), pass_env=("HUB_TOKEN",), parameters={"epochs": 3})
    plan = await lab.executor.plan(spec)
    assert "echo hello" in json.dumps(plan)
    assert "a-secret-of-the-server" not in json.dumps(plan)
    assert lab.bench.traces() == []
    assert await _everything(lab) == set()
    assert lab.starts(spec.name) == 0
    await lab.launch_spec(spec)  # and what was planned can still be launched
    assert (await lab.ended(spec.name)).state is JobState.SUCCEEDED


async def test_launching_a_name_again_starts_nothing_and_answers_the_first_spec(lab: Lab) -> None:
    first = lab.spec(lab.waiting("echo first"), parameters={"epochs": 1})
    await lab.launch_spec(first)
    await lab.running(first.name)
    other = replace(first, command=lab.sh("echo other"), parameters={"epochs": 2})
    again = await lab.launch_spec(other)
    assert (again.spec, again.state) == (first, JobState.RUNNING)
    await lab.go(first.name)
    await lab.ended(first.name)
    late = await lab.launch_spec(other)
    assert (late.spec, late.state, late.exit_code) == (first, JobState.SUCCEEDED, 0)
    barrier = await lab.launch(lab.sh("true"))
    await lab.ended(barrier)
    assert lab.starts(first.name) == 1
    assert lab.log(first.name) == b"first\n"


async def test_the_same_name_launched_by_many_at_once_starts_once(lab: Lab) -> None:
    spec = lab.spec(lab.waiting("echo once"))
    specs = [replace(spec, parameters={"caller": caller}) for caller in range(20)]
    answers = await asyncio.gather(*map(lab.launch_spec, specs))
    assert len({json.dumps(answer.spec.to_json()) for answer in answers}) == 1
    await lab.go(spec.name)
    end = await lab.ended(spec.name)
    assert end.spec == answers[0].spec
    assert lab.starts(spec.name) == 1
    assert lab.log(spec.name) == b"once\n"


async def test_a_name_is_free_again_once_its_job_is_gone(lab: Lab) -> None:
    spec = lab.spec(lab.sh("echo first"))
    await lab.launch_spec(spec)
    await lab.ended(spec.name)
    await lab.executor.remove(spec.name)
    await lab.gone(spec.name)
    again = await lab.launch_spec(replace(spec, command=lab.sh("echo second; exit 3")))
    assert not again.gone
    # The controller of a cluster takes its time with a name whose Job it has just seen go.
    end = await lab.seen(spec.name, JobState.FAILED, within=30)
    assert end.exit_code == 3
    assert lab.log(spec.name) == b"second\n"


@pytest.mark.parametrize("argv", [("no-such-command", "x"), ("/no/such/folder/train",), ("/",)])
async def test_a_command_that_cannot_be_started_fails_with_its_name(
    lab: Lab, argv: tuple[str, ...]
) -> None:
    end = await lab.ended(await lab.launch(argv))
    assert (end.state, end.reason) == (JobState.FAILED, Reason.START_FAILED)
    assert argv[0] in (end.message or "")


async def test_a_file_without_the_executable_bit_cannot_be_started(lab: Lab) -> None:
    lab.needs(Case.FOLDER)
    script = lab.bench.shared / "train.sh"
    script.write_text("#!/bin/sh\ntrue\n")
    end = await lab.ended(await lab.launch([str(script)]))
    assert (end.state, end.reason) == (JobState.FAILED, Reason.START_FAILED)
    assert str(script) in (end.message or "")


async def test_a_missing_working_folder_is_named(lab: Lab, tmp_path: Path) -> None:
    lab.needs(Case.FOLDER)
    missing = str(tmp_path / "not-there")
    name = await lab.launch(lab.sh("true"), folder=missing)
    end = await lab.ended(name)
    assert (end.state, end.reason) == (JobState.FAILED, Reason.START_FAILED)
    assert missing in (end.message or "")
    assert lab.starts(name) == 0


async def test_a_job_in_an_unwritable_folder_runs_and_still_has_its_output_folder(
    lab: Lab,
) -> None:
    lab.needs(Case.FOLDER)
    script = """
        if touch here 2>/dev/null; then echo writable; exit 9; fi
        echo model > "$MODEL_TRAINING_OUTPUT/model" && pwd"""
    # /proc refuses new files even to root, whom a file mode does not hold back.
    name = await lab.launch(lab.sh(script), folder="/proc")
    end = await lab.ended(name)
    assert (end.state, lab.log(name)) == (JobState.SUCCEEDED, b"/proc\n")
    assert (lab.bench.output(name) / "model").read_text() == "model\n"


async def test_an_environment_that_cannot_be_built_fails_and_its_log_says_why(lab: Lab) -> None:
    lab.needs(Case.FOLDER)
    requirements = lab.bench.shared / "requirements.txt"
    requirements.write_text("--no-index\nno-such-package-of-anybody==1.0\n")
    fields = {"requirements": str(requirements)}
    first, second = [await lab.launch(lab.sh("true"), **fields) for _ in range(2)]
    for name in (first, second):
        end = await lab.ended(name, within=30)
        assert (end.state, end.reason) == (JobState.FAILED, Reason.ENVIRONMENT_FAILED)
        assert b"no-such-package-of-anybody" in lab.log(name)
        assert lab.starts(name) == 0


async def test_a_settled_job_is_in_a_snapshot_of_everything_only(lab: Lab) -> None:
    ended = await lab.launch(lab.sh("exit 4"))
    running = await lab.launch(lab.waiting())
    await lab.ended(ended)
    await lab.running(running)
    await lab.restart()
    assert set(lab.watch.snapshot) == {ended, running}  # nobody has recorded the end yet
    assert lab.watch.snapshot[ended].exit_code == 4
    await lab.executor.settle([ended, running, "model-training-not-there"])
    marks = lab.has(Case.SETTLED_MARK)
    await lab.restart()
    assert set(lab.watch.snapshot) == {running} | (set() if marks else {ended})
    assert await _everything(lab) == {ended, running}
    await lab.go(running)
    await lab.ended(running)


async def _everything(lab: Lab) -> set[str]:
    stream = lab.executor.observe(everything=True)
    first = await anext(stream)
    assert isinstance(first, Snapshot)
    names = {seen.name for seen in first.observations}
    await stream.aclose()
    return names
