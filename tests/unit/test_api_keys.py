"""API keys: made by the command, good until they end, and kept as digests alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.access.actions import Action
from model_training.access.api_keys import ApiKeys, make_key, revoke_key
from model_training.access.principals import Ceiling, PrincipalKind
from model_training.errors import AccessUnavailable, NotFound, SettingsError, Unauthenticated

DAY = 86_400.0


class Clock:
    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "api-keys.json"


def make(path: Path, clock: Clock, name: str = "nightly", **more: float) -> str:
    key, _ = make_key(
        path,
        name,
        actions=[Action.CREATE, Action.READ],
        pipelines=["fraud-*"],
        lifetime_s=more.get("lifetime_s", DAY),
        now=clock(),
    )
    return key


def test_a_key_is_its_holder_with_a_ceiling(path: Path, clock: Clock):
    key = make(path, clock)
    who = ApiKeys(path, clock).principal(key)

    assert (who.kind, who.id, who.name) == (PrincipalKind.API_KEY, "key/nightly", "nightly")
    assert who.ceiling == Ceiling(frozenset({Action.CREATE, Action.READ}), ("fraud-*",))
    assert who.expires_at == clock() + DAY
    assert who.fingerprint == key.split("_")[1]
    assert who.token == ""


def test_the_file_proves_nothing_to_who_reads_it(path: Path, clock: Clock):
    key = make(path, clock)
    secret = key.split("_", 2)[2]

    assert secret not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert key not in repr(ApiKeys(path, clock).principal(key))


def test_an_expired_or_revoked_key_is_good_no_more(path: Path, clock: Clock):
    keys = ApiKeys(path, clock)
    old = make(path, clock)
    new = make(path, clock)
    revoke_key(path, new.split("_")[1], now=clock())

    assert keys.principal(old).name == "nightly"
    with pytest.raises(Unauthenticated):
        keys.principal(new)
    clock.seconds += DAY
    with pytest.raises(Unauthenticated):
        keys.principal(old)


def test_two_keys_are_one_holder(path: Path, clock: Clock):
    keys = ApiKeys(path, clock)
    assert keys.principal(make(path, clock)).id == keys.principal(make(path, clock)).id


@pytest.mark.parametrize("change", ["secret", "id", "both"])
def test_a_guess_is_refused(path: Path, clock: Clock, change: str):
    key = make(path, clock)
    other = make(path, clock, "other")
    _, identity, secret = key.split("_", 2)
    _, other_identity, other_secret = other.split("_", 2)
    guess = {
        "secret": f"mta_{identity}_{other_secret}",
        "id": f"mta_{other_identity}_{secret}",
        "both": f"mta_aaaaaaaa_{secret}",
    }[change]
    with pytest.raises(Unauthenticated):
        ApiKeys(path, clock).principal(guess)


@given(st.text(max_size=80))
def test_other_tokens_are_no_keys(tmp_path_factory, token: str):
    keys = ApiKeys(tmp_path_factory.getbasetemp() / "absent.json")
    assert not keys.is_key(token)
    with pytest.raises(Unauthenticated):
        keys.principal(token)


def test_a_file_that_others_can_read_ends_the_start(path: Path, clock: Clock):
    make(path, clock)
    path.chmod(0o640)
    with pytest.raises(SettingsError, match=r"The setting api_keys\.file: .*chmod 600"):
        ApiKeys(path, clock)


BROKEN = {
    "no JSON": "{",
    "no keys": "{}",
    "a key without a digest": '{"keys": [{"id": "aaaaaaaa"}]}',
    "an action that is none": None,
    "a time that is a text": None,
}


def spoiled(path: Path, case: str) -> str:
    if (text := BROKEN[case]) is not None:
        return text
    plain = json.loads(path.read_text())
    if case == "an action that is none":
        plain["keys"][0]["actions"] = ["fly"]
    else:
        plain["keys"][0]["expires_at"] = "never"
    return json.dumps(plain)


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_ends_the_start_and_later_makes_no_key_good(path: Path, clock: Clock, case):
    key = make(path, clock)
    keys = ApiKeys(path, clock)
    whole = path.read_text()
    path.write_text(spoiled(path, case))

    with pytest.raises(SettingsError, match="cannot be used"):
        ApiKeys(path, clock)
    with pytest.raises(AccessUnavailable):
        keys.principal(key)
    path.write_text(whole + " ")
    assert keys.principal(key).name == "nightly"


def test_a_file_that_was_removed_makes_no_key_good(path: Path, clock: Clock):
    key = make(path, clock)
    keys = ApiKeys(path, clock)
    path.unlink()
    with pytest.raises(Unauthenticated):
        keys.principal(key)


def test_only_a_key_that_there_is_can_be_revoked(path: Path, clock: Clock):
    with pytest.raises(NotFound, match="no API key with the id 'zzzzzzzz'"):
        revoke_key(path, "zzzzzzzz", now=clock())


# The command

ENVIRONMENT = {name: value for name, value in os.environ.items() if "MODEL_TRAINING" not in name}


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "model_training", "access", "key", *arguments]
    env = {**ENVIRONMENT, "MODEL_TRAINING_DATA": str(folder)}
    return subprocess.run(argv, check=False, capture_output=True, text=True, env=env)


MORE = ("--actions", "create,read", "--pipelines", "digits,fraud-*")


def test_the_command_makes_lists_and_revokes(tmp_path: Path):
    made = command(tmp_path, "create", "nightly", *MORE, "--expires", "30d")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    keys = ApiKeys(tmp_path / "api-keys.json")
    assert keys.principal(key).ceiling == Ceiling(
        frozenset({Action.CREATE, Action.READ}), ("digits", "fraud-*")
    )

    [row] = command(tmp_path, "list").stdout.splitlines()
    identity, name, state, _, actions, pipelines = row.split("\t")
    assert (name, state, actions, pipelines) == (
        "nightly",
        "good",
        "create,read",
        "digits,fraud-*",
    )
    assert command(tmp_path, "revoke", identity).returncode == 0
    with pytest.raises(Unauthenticated):
        keys.principal(key)
    assert json.loads(command(tmp_path, "list", "--json").stdout)[0]["state"] == "revoked"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--actions", "fly", "--pipelines", "*"), "names an action that is none"),
        (("--actions", "read", "--pipelines", "a/b"), "is no name of a pipeline"),
        (("--actions", "read", "--pipelines", "*", "--expires", "3650d"), "at most 366 days"),
        (("--actions", "read", "--pipelines", "*", "--expires", "soon"), "soon"),
        (("--actions", "read"), "--pipelines"),
    ],
)
def test_what_the_command_does_not_take_is_told(tmp_path: Path, arguments, words: str):
    refused = command(tmp_path, "create", "nightly", *arguments)
    assert refused.returncode == 2
    assert words in refused.stderr
    assert not (tmp_path / "api-keys.json").exists()


def test_commands_at_once_lose_no_key(tmp_path: Path):
    argv = [sys.executable, "-m", "model_training", "access", "key", "create"]
    env = {**ENVIRONMENT, "MODEL_TRAINING_DATA": str(tmp_path)}
    running = [
        subprocess.Popen([*argv, f"n{i}", *MORE], env=env, stdout=subprocess.PIPE, text=True)
        for i in range(6)
    ]
    made = [process.communicate()[0].strip() for process in running]
    keys = ApiKeys(tmp_path / "api-keys.json")
    assert sorted(keys.principal(key).name for key in made) == [f"n{i}" for i in range(6)]
