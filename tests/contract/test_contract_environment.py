"""What a job finds around it: its parameters, its folders, its variables, and nothing else."""

import json
import stat
from collections.abc import Callable

import pytest

from model_training.jobs import JobState, Reason
from tests.contract.lab import Case, Lab
from tests.waiting import until

pytestmark = pytest.mark.anyio

PARAMETERS = {
    "epochs": 20,
    "rate": 0.1,
    "name": "caf\u00e9 $HOME `x` \"quoted\" 'too' %s \\ \u4f60\u597d",
    "text": "two\nlines\n",
    "number_as_text": "007",
    "shuffle": True,
    "nothing": None,
    "empty": "",
    "layers": [64, 32],
    "options": {"b": 1, "a": "\u00e9"},
}
DUMP = """
import json, stat, sys
parameters = os.environ["MODEL_TRAINING_PARAMETERS_FILE"]
output = os.environ["MODEL_TRAINING_OUTPUT"]
json.dump({
    "environment": dict(os.environ),
    "file": open(parameters, encoding="utf-8").read(),
    "mode": stat.S_IMODE(os.stat(output).st_mode),
    "beside": os.listdir(output),
    "cwd": os.getcwd(),
    "input": sys.stdin.read(),
    "descriptors": len(os.listdir("/proc/self/fd")) - 1,
    "session": os.getsid(0) == os.getpid(),
}, sys.stdout)
open(output + "/model.json", "w").write("{}")"""


async def _dump(lab: Lab, **fields: object) -> dict:
    name = await lab.launch(lab.py(DUMP), **fields)
    end = await lab.ended(name)
    assert end.state is JobState.SUCCEEDED, lab.log(name)
    assert (lab.bench.output(name) / "model.json").read_text() == "{}"
    return json.loads(lab.log(name)) | {"name": name}


async def test_parameters_arrive_in_three_ways_byte_for_byte(lab: Lab) -> None:
    seen = await _dump(lab, parameters=PARAMETERS)
    environment = seen["environment"]
    assert json.loads(environment["MODEL_TRAINING_PARAMETERS"]) == PARAMETERS
    assert seen["file"].rstrip("\n") == environment["MODEL_TRAINING_PARAMETERS"]
    assert "\n" not in environment["MODEL_TRAINING_PARAMETERS"]
    for name in ("name", "text", "number_as_text", "empty"):
        assert environment[name] == PARAMETERS[name]
    for name in ("epochs", "rate", "shuffle", "layers", "options"):
        assert json.loads(environment[name]) == PARAMETERS[name]
    assert environment["nothing"] == ""


async def test_a_job_without_parameters_finds_an_empty_object(lab: Lab) -> None:
    seen = await _dump(lab)
    assert seen["file"].strip() == seen["environment"]["MODEL_TRAINING_PARAMETERS"] == "{}"


async def test_many_parameters_arrive(lab: Lab) -> None:
    parameters = {f"p{i}": "x" * 900 for i in range(100)}  # near the limit of 100,000 bytes
    seen = await _dump(lab, parameters=parameters)
    assert json.loads(seen["file"]) == parameters
    assert all(seen["environment"][name] == value for name, value in parameters.items())


async def test_the_output_folder_is_the_jobs_own(lab: Lab) -> None:
    first, second = await _dump(lab), await _dump(lab)
    assert lab.bench.output(first["name"]) != lab.bench.output(second["name"])
    assert [first["beside"], second["beside"]] == [[], []]


async def test_the_output_folder_is_private(lab: Lab) -> None:
    lab.needs(Case.FOLDER)
    seen = await _dump(lab)
    assert seen["mode"] == 0o700
    assert stat.S_IMODE(lab.bench.output(seen["name"]).stat().st_mode) == 0o700


async def test_what_the_server_knows_stays_with_the_server(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUD_SECRET_KEY", "a-secret-of-the-server")
    monkeypatch.setenv("MODEL_TRAINING_TOKEN", "the-token")
    seen = await _dump(lab, environment={"OMP_NUM_THREADS": "2"})
    environment = seen["environment"]
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["MODEL_TRAINING_JOB"] == seen["name"]
    assert environment["PATH"]
    assert "MODEL_TRAINING_TOKEN" not in environment
    assert "CLOUD_SECRET_KEY" not in environment
    assert not set(environment) & {"PYTEST_CURRENT_TEST", "PYTEST_VERSION", "OLDPWD"}


async def test_what_is_to_be_passed_on_is(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.needs(Case.PASSED_VALUES)
    monkeypatch.setenv("HF_TOKEN", "passed-on")
    seen = await _dump(lab, pass_env=("HF_TOKEN", "NOT_SET_ANYWHERE"))
    assert seen["environment"]["HF_TOKEN"] == "passed-on"
    assert "NOT_SET_ANYWHERE" not in seen["environment"]


async def test_passed_on_values_are_written_nowhere(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.needs(Case.PASSED_VALUES)
    monkeypatch.setenv("HF_TOKEN", "not-to-be-written")
    name = await lab.launch(lab.waiting('test -n "$HF_TOKEN"'), pass_env=("HF_TOKEN",))
    await lab.begun(name)
    files = [path for path in lab.bench.shared.parent.rglob("*") if path.is_file()]
    assert [path for path in files if b"not-to-be-written" in path.read_bytes()] == []
    await lab.go(name)
    assert (await lab.ended(name)).state is JobState.SUCCEEDED


async def test_a_job_has_no_input_no_foreign_descriptor_and_a_session_of_its_own(
    lab: Lab,
) -> None:
    seen = await _dump(lab)
    assert seen["input"] == ""
    assert seen["descriptors"] == 3
    assert seen["session"]


async def test_a_job_runs_in_its_folder(lab: Lab) -> None:
    lab.needs(Case.FOLDER)
    folder = lab.bench.shared / "with space \u00e9"
    folder.mkdir()
    assert (await _dump(lab, folder=str(folder)))["cwd"] == str(folder)


async def test_an_environment_is_built_once_for_all_who_need_it(
    lab: Lab, slow_requirements: Callable[[str], str]
) -> None:
    lab.needs(Case.FOLDER)
    requirements = slow_requirements("needed")
    argv = ["python3", "-c", "import needed, sys; print(sys.prefix)"]
    first = await lab.launch(argv, requirements=requirements)
    await until((lab.bench.shared / "needed.building").exists, 30)
    second = await lab.launch(argv, requirements=requirements)
    for name in (first, second):
        await lab.seen(name, JobState.PENDING, reason=Reason.PREPARING_ENVIRONMENT)
    await lab.go("needed")
    for name in (first, second):
        end = await lab.ended(name, within=30)
        assert end.state is JobState.SUCCEEDED, lab.log(name)
    third = await lab.launch(argv, requirements=requirements)
    await lab.ended(third)
    prefixes = {lab.log(name).splitlines()[-1] for name in (first, second, third)}
    assert len(prefixes) == 1
    assert len((lab.bench.shared / "needed.building").read_text().splitlines()) == 1
