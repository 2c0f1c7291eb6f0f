"""API keys: made by the command, good until they end, and kept as digests alone."""

import json
import resource
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.access.actions import Action
from model_training.access.api_keys import ApiKeys, known_keys, make_key, revoke_key
from model_training.access.principals import Ceiling, PrincipalKind
from model_training.errors import AccessUnavailable, NotFound, SettingsError, Unauthenticated

DAY = 86_400.0
HANDS = 4  # that change the file at once


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


@given(st.data())
def test_a_key_with_one_other_sign_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    path = tmp_path_factory.mktemp("keys") / "api-keys.json"
    key = make(path, Clock())
    at = data.draw(st.integers(0, len(key) - 1))
    sign = data.draw(st.characters().filter(lambda sign: sign != key[at]))
    with pytest.raises(Unauthenticated):
        ApiKeys(path, Clock()).principal(key[:at] + sign + key[at + 1 :])


@given(st.text(max_size=80))
def test_other_tokens_are_no_keys(tmp_path_factory: pytest.TempPathFactory, token: str):
    keys = ApiKeys(tmp_path_factory.getbasetemp() / "absent.json")
    assert not keys.is_key(token)
    with pytest.raises(Unauthenticated):
        keys.principal(token)


def test_a_file_that_others_can_read_ends_the_start(path: Path, clock: Clock):
    make(path, clock)
    path.chmod(0o640)
    with pytest.raises(SettingsError, match=r"The setting api_keys\.file: .*chmod 600"):
        ApiKeys(path, clock)


def test_a_file_that_others_can_write_later_makes_no_key_good(path: Path, clock: Clock):
    key = make(path, clock)
    keys = ApiKeys(path, clock)
    path.chmod(0o666)
    for _ in range(2):
        with pytest.raises(AccessUnavailable):
            keys.principal(key)
    path.chmod(0o600)
    assert keys.principal(key).name == "nightly"


Plain = dict[str, object]

TEXTS = {"no JSON": "{", "no keys": "{}", "empty": "", "of another kind": "[]"}
CHANGES: dict[str, Plain] = {
    "no digest": {"digest": None},
    "a digest that is none": {"digest": "\u00e9" * 64},
    "an action that is none": {"actions": ["fly"]},
    "a pattern that is none": {"pipelines": ["a/b"]},
    "a time that is a text": {"expires_at": "9999999999"},
    "a time that never comes": {"expires_at": float("inf")},
    "a field that we do not know": {"suspended": True},
    "a name that is empty": {"name": ""},
}


def spoiled(text: str, case: str) -> str:
    if case in TEXTS:
        return TEXTS[case]
    if case == "a revocation taken back":
        return text.replace('"revoked_at": null', '"revoked_at": 5, "revoked_at": null')
    plain = json.loads(text)
    if case == "an id twice":
        plain["keys"] *= 2
    else:
        plain["keys"][0].update(CHANGES[case])
    return json.dumps(plain)


@pytest.mark.parametrize("case", [*TEXTS, *CHANGES, "a revocation taken back", "an id twice"])
def test_a_broken_file_ends_the_start_and_later_makes_no_key_good(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, case: str
):
    key = make(path, clock)
    keys = ApiKeys(path, clock)
    whole = path.read_text()
    path.write_text(spoiled(whole, case))

    with pytest.raises(SettingsError, match=r"The setting api_keys\.file: .* cannot be used"):
        ApiKeys(path, clock)
    for _ in range(3):
        with pytest.raises(AccessUnavailable):
            keys.principal(key)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    path.write_text(whole + " ")
    assert keys.principal(key).name == "nightly"


@contextmanager
def no_more_files() -> Generator[None]:
    """This process can open none, as under a flood of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_could_not_be_read_for_a_moment_is_read_again(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
):
    key = make(path, clock)
    keys = ApiKeys(path, clock)
    revoked = make(path, clock, "other")
    revoke_key(path, revoked.split("_")[1], now=clock())

    with no_more_files():
        for _ in range(3):
            with pytest.raises(AccessUnavailable):
                keys.principal(key)
    assert len(caplog.records) == 1
    assert keys.principal(key).name == "nightly"
    with pytest.raises(Unauthenticated):
        keys.principal(revoked)


def test_a_place_that_cannot_be_looked_at_makes_no_key_good(path: Path, clock: Clock):
    key = make(path, clock)
    keys = ApiKeys(path, clock)
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.write_text("a file where the folder was")

    with pytest.raises(AccessUnavailable):
        keys.principal(key)
    with pytest.raises(SettingsError, match=r"api_keys\.file: .*Not a directory"):
        ApiKeys(path, clock)


@pytest.mark.parametrize("name", ["keys", "keys.json", "keys.lock", "keys.new"])
def test_the_file_may_have_any_name(tmp_path: Path, clock: Clock, name: str):
    near = tmp_path / "keys.old"
    near.write_text("of somebody else")
    made = [make(tmp_path / name, clock, holder) for holder in ("a", "b")]
    keys = ApiKeys(tmp_path / name, clock)

    assert [keys.principal(key).name for key in made] == ["a", "b"]
    assert near.read_text() == "of somebody else"


def test_a_file_that_would_be_too_large_to_read_stays_as_it_was(path: Path, clock: Clock):
    key = make(path, clock)
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="would be larger than"):
        make_key(
            path,
            "hoarder",
            actions=[Action.READ],
            pipelines=["x" * 9_000_000],
            lifetime_s=DAY,
            now=clock(),
        )
    assert path.read_bytes() == before
    assert ApiKeys(path, clock).principal(key).name == "nightly"


def test_changes_at_once_lose_nothing(path: Path, clock: Clock):
    """Each has the file open by itself, so that threads exclude each other as processes do."""
    doomed = [make(path, clock, f"doomed{i}").split("_")[1] for i in range(HANDS)]

    def work(hand: int) -> list[str]:
        made = [make(path, clock, f"n{hand}-{i}") for i in range(8)]
        revoke_key(path, doomed[hand], now=clock())
        return made

    with ThreadPoolExecutor(HANDS) as pool:
        made = [key for each in pool.map(work, range(HANDS)) for key in each]
    keys = ApiKeys(path, clock)
    assert len({keys.principal(key).name for key in made}) == HANDS * 8
    ended = {record.id for record in known_keys(path) if record.revoked_at is not None}
    assert ended == set(doomed)


def test_a_second_revocation_does_not_move_the_first(path: Path, clock: Clock):
    identity = make(path, clock).split("_")[1]
    assert revoke_key(path, identity, now=5.0).revoked_at == 5.0
    assert revoke_key(path, identity, now=9.0).revoked_at == 5.0


def test_a_file_that_was_removed_makes_no_key_good(path: Path, clock: Clock):
    key = make(path, clock)
    keys = ApiKeys(path, clock)
    path.unlink()
    with pytest.raises(Unauthenticated):
        keys.principal(key)


def test_only_a_key_that_there_is_can_be_revoked(path: Path, clock: Clock):
    with pytest.raises(NotFound, match="no API key with the id 'zzzzzzzz'"):
        revoke_key(path, "zzzzzzzz", now=clock())
