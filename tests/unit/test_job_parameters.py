"""parameters() as training code calls it, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

from model_training.jobs import canonical_json

SOURCE = Path(__file__).parents[2] / "src"
HEAVY = ("httpx2", "click", "pydantic", "yaml", "rich", "asyncio", "dataclasses", "pathlib")


def run(code, environment):
    """The training code in an interpreter that sees the standard library and our source alone."""
    start = f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", start + code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def ask(environment):
    code = (
        "import json; from model_training import parameters\n"
        "print(json.dumps(parameters(epochs=20, name='x')))"
    )
    result = run(code, environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_outside_a_job_the_defaults_are_the_parameters():
    assert ask({}) == {"epochs": 20, "name": "x"}


def test_given_parameters_are_laid_over_the_defaults():
    given = {"MODEL_TRAINING_PARAMETERS": canonical_json({"epochs": 3, "extra": [None, "ä"]})}
    assert ask(given) == {"epochs": 3, "name": "x", "extra": [None, "ä"]}


def test_the_file_counts_before_the_variable(tmp_path):
    file = tmp_path / "parameters.json"
    file.write_text(canonical_json({"name": "数字"}), encoding="utf-8")
    environment = {
        "MODEL_TRAINING_PARAMETERS_FILE": str(file),
        "MODEL_TRAINING_PARAMETERS": '{"name": "old"}',
        "LC_ALL": "C",
    }
    assert ask(environment) == {"epochs": 20, "name": "数字"}


def test_a_file_that_is_gone_is_an_error_and_no_silent_default(tmp_path):
    code = "from model_training import parameters; parameters(epochs=1)"
    gone = {"MODEL_TRAINING_PARAMETERS_FILE": str(tmp_path / "gone")}
    assert "FileNotFoundError" in run(code, gone).stderr


def test_something_else_than_an_object_is_an_error():
    code = "from model_training import parameters; parameters()"
    result = run(code, {"MODEL_TRAINING_PARAMETERS": "[1]"})
    assert "must hold a JSON object" in result.stderr


def test_it_loads_nothing_beyond_the_standard_library():
    code = (
        "from model_training import parameters; parameters()\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert run(code, {}).stdout.strip() == "[]"
