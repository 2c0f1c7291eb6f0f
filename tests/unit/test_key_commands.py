"""``model-training access key``: what it prints, where, and what it leaves in the file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model_training.access.actions import Action
from model_training.access.api_keys import ApiKeys
from model_training.access.principals import Ceiling
from model_training.cli.main import run
from model_training.errors import Unauthenticated

ENVIRONMENT = {name: value for name, value in os.environ.items() if "MODEL_TRAINING" not in name}
KEY_COMMAND = (sys.executable, "-m", "model_training", "access", "key")
MORE = ("--actions", "create,read", "--pipelines", "digits,fraud-*")


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**ENVIRONMENT, "MODEL_TRAINING_DATA": str(folder)}
    return subprocess.run(
        [*KEY_COMMAND, *arguments], check=False, capture_output=True, text=True, env=env
    )


def test_the_command_makes_lists_and_revokes(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    made = command(tmp_path, "create", "nightly", *MORE, "--expires", "30d")
    assert made.returncode == 0, made.stderr
    [key] = made.stdout.splitlines()
    assert key not in made.stderr
    path = tmp_path / "api-keys.json"
    keys = ApiKeys(path)
    assert keys.principal(key).ceiling == Ceiling(
        frozenset({Action.CREATE, Action.READ}), ("digits", "fraud-*")
    )

    def told(*arguments: str) -> str:
        assert run(["access", "key", *arguments, "--file", str(path)]) == 0
        out, err = capfd.readouterr()
        assert key.split("_", 2)[2] not in out + err
        return out

    [row] = told("list").splitlines()
    identity, name, state, _, actions, pipelines = row.split("\t")
    assert identity == key.split("_")[1]
    assert (name, state) == ("nightly", "good")
    assert (actions, pipelines) == ("create,read", "digits,fraud-*")
    told("revoke", identity)
    with pytest.raises(Unauthenticated):
        keys.principal(key)
    assert json.loads(told("list", "--json"))[0]["state"] == "revoked"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--actions", "fly", "--pipelines", "*"), "names an action that is none"),
        (("--actions", "", "--pipelines", "*"), "names an action that is none"),
        (("--actions", "read", "--pipelines", "a/b"), "is no name of a pipeline"),
        (("--actions", "read", "--pipelines", ""), "is no name of a pipeline"),
        (("--actions", "read", "--pipelines", "*", "--expires", "3650d"), "at most 366 days"),
        (("--actions", "read", "--pipelines", "*", "--expires", "0s"), "at most 366 days"),
        (("--actions", "read", "--pipelines", "*", "--expires", "soon"), "soon"),
        (("--actions", "read"), "--pipelines"),
        (("--pipelines", "*"), "--actions"),
    ],
)
def test_what_the_command_does_not_take_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
):
    path = tmp_path / "api-keys.json"
    code = run(["access", "key", "create", "nightly", "--file", str(path), *arguments])
    out, err = capfd.readouterr()
    assert (code, out) == (2, "")
    assert words in " ".join(err.split())
    assert not path.exists()


@pytest.mark.parametrize("name", ["", "x" * 65, "two\nlines"])
def test_a_holder_has_a_name_that_can_be_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
):
    path = tmp_path / "api-keys.json"
    assert run(["access", "key", "create", name, "--file", str(path), *MORE]) == 2
    assert "1 to 64 printable signs" in capfd.readouterr().err
    assert not path.exists()


def test_to_revoke_what_is_not_there_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert run(["access", "key", "revoke", "zzzzzzzz", "--file", str(tmp_path / "k.json")]) == 3
    assert "no API key with the id 'zzzzzzzz'" in capfd.readouterr().err


def test_without_room_on_the_disk_the_keys_stay_and_no_key_is_printed(tmp_path: Path):
    [key] = command(tmp_path, "create", "nightly", *MORE).stdout.splitlines()
    path = tmp_path / "api-keys.json"
    before = path.read_bytes()
    full = subprocess.run(
        ["bash", "-c", 'ulimit -f 0; exec "$@"', "bash", *KEY_COMMAND, "create", "other", *MORE],
        check=False,
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "MODEL_TRAINING_DATA": str(tmp_path)},
    )
    assert (full.returncode, full.stdout) == (1, "")
    assert "cannot be written" in full.stderr
    assert "Traceback" not in full.stderr
    assert path.read_bytes() == before
    assert ApiKeys(path).principal(key).name == "nightly"


def test_what_to_do_next_is_of_this_command(tmp_path: Path):
    (tmp_path / "api-keys.json").write_text("[]")
    (tmp_path / "api-keys.json").chmod(0o666)
    done = command(tmp_path, "list")
    assert done.returncode == 1
    [next_step] = [line for line in done.stderr.splitlines() if line.startswith("  next:")]
    assert "correct what is named" in next_step
    assert "serve" not in next_step
