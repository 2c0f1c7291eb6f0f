"""Logging in, staying so and logging out, at an OpenID provider that also misbehaves."""

import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from model_training import AsyncClient, Client
from model_training.access.access_file import read_access_file
from model_training.cli.login import SCOPE
from model_training.client import logins, openid
from model_training.client.client_file import ServerTable, server_table
from model_training.client.device_flow import request_code, wait_for_tokens
from model_training.client.exchange import Disconnected
from model_training.client.logins import Login, LoginFile, Registration, Tokens
from model_training.client.openid import Endpoints, Provider
from model_training.errors import (
    ModelTrainingError,
    ServerUnreachable,
    SettingsError,
    Unauthenticated,
)
from tests.unit.bearer_server import BearerServer, bearer_server
from tests.unit.fake_issuer import DISCOVERY, FakeIssuer, fake_issuer, jwt
from tests.waiting import until

pytestmark = pytest.mark.anyio

SECRETS = re.compile(r"secret|signature")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own folders, with nothing in them."""
    for name in [name for name in os.environ if name.startswith("MODEL_TRAINING")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MODEL_TRAINING_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with fake_issuer() as one:
        yield one


@pytest.fixture
def server() -> Iterator[BearerServer]:
    with bearer_server() as one:
        yield one


def command(server: BearerServer, *arguments: str, **more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "model_training", *arguments],
        env={**os.environ, "MODEL_TRAINING_URL": server.url, **more},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ran(server: BearerServer, *arguments: str, **more: str) -> tuple[int, str]:
    """Exit code and what was said; no secret is ever among it."""
    with command(server, *arguments, **more) as process:
        out, err = process.communicate(timeout=60)
    assert out == ""
    assert not SECRETS.search(err), err
    return process.returncode, err


def logged_in(server: BearerServer, issuer: FakeIssuer, *more: str) -> str:
    code, said = ran(server, "login", "--issuer", issuer.url, "--client-id", "laptop", *more)
    assert code == 0, said
    return said


def keep(server: BearerServer, issuer: FakeIssuer, **more: object) -> LoginFile:
    """A login as the command keeps it, of an access token that has ended."""
    first = issuer.answer("/token", {"grant_type": "device"})[1]
    issuer.asked.clear()
    assert isinstance(first, dict)
    tokens = {
        "access_token": first["access_token"], "refresh_token": first.get("refresh_token"),
        "obtained_at": 0.0, "expires_at": 1.0,
    }  # fmt: skip
    file = LoginFile(server.url)
    registration = Registration(issuer=issuer.url, client_id="laptop", scope="openid")
    with file.locked():
        file.write(
            Login(
                server=file.server,
                registration=registration,
                tokens=Tokens(**(tokens | more)),  # pyright: ignore[reportArgumentType]
            )
        )
    return file


# The command


def test_who_has_logged_in_is_known_from_then_on(
    home: Path, issuer: FakeIssuer, server: BearerServer
):
    said = logged_in(server, issuer)
    assert "open this page:  https://login.example.org/device\n" in said
    assert "and enter:       ABCD-EFGH\n" in said
    assert "or open:         https://login.example.org/device?user_code=ABCD-EFGH\n" in said
    assert f"logged in at {server.url} as lea\n" in said

    assert ran(server, "pipeline", "list") == (0, "")
    assert server.shown == issuer.tokens[-1:]
    files = [home / "state/model-training/logins", LoginFile(server.url).path]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o700, 0o600]
    assert {path.name for path in files[0].iterdir()} == {
        files[1].name,
        files[1].name + ".lock",
    }


def test_what_is_asked_for_is_what_was_said_or_was_said_last(
    home: Path, issuer: FakeIssuer, server: BearerServer
):
    logged_in(server, issuer, "--scope", "openid train", "--audience", "urn:training")
    asked = {"client_id": "laptop", "scope": "openid train", "audience": "urn:training"}
    asked["resource"] = "urn:training"
    more = {
        "device_code": "secret-device-code",
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
    }
    assert issuer.asked == [("/device", asked), ("/token", asked | more)]
    issuer.asked.clear()
    assert ran(server, "login")[0] == 0
    assert issuer.asked[0] == ("/device", asked)
    issuer.asked.clear()
    assert ran(server, "login", "--audience", "training")[0] == 0
    asked["audience"] = "training"
    del asked["resource"]
    assert issuer.asked[0] == ("/device", asked)


def test_what_a_login_needs_may_stand_in_the_file(
    home: Path, issuer: FakeIssuer, server: BearerServer
):
    code, said = ran(server, "login")
    assert code == 1
    assert "give --issuer and --client-id" in said
    file = home / "config/model-training/client.toml"
    assert str(file) in said
    file.parent.mkdir(parents=True)
    file.write_text(f'[servers."{server.url}"]\nissuer = "{issuer.url}"\nclient_id = "desk"\n')
    assert ran(server, "login")[0] == 0
    assert issuer.asked[0][1] == {"client_id": "desk", "scope": "openid offline_access"}
    with fake_issuer() as other:  # whose client has another name
        code, said = ran(server, "login", "--issuer", other.url)
        assert code == 1
        assert "--client-id" in said
        assert other.asked == []


def test_whoever_shows_something_else_is_told_so(issuer: FakeIssuer, server: BearerServer):
    code, said = ran(
        server, "login", "--issuer", issuer.url, "--client-id", "x", MODEL_TRAINING_TOKEN="t"
    )
    assert code == 0
    assert "warning: something else goes before this login" in said
    assert "warning: something else" not in logged_in(server, issuer)


def test_a_login_that_will_not_last_or_not_do_is_told_so(issuer: FakeIssuer, server: BearerServer):
    issuer.refreshable = False
    assert "warning: there is no refresh token, so the login ends in 10 min" in logged_in(
        server, issuer
    )
    issuer.put("/token", {"access_token": "opaque", "token_type": "bearer"})
    assert "warning: the token is no JWT" in logged_in(server, issuer)


def test_what_the_provider_says_does_not_act_on_a_terminal(
    issuer: FakeIssuer, server: BearerServer
):
    issuer.code["user_code"] = "\x1b]0;title\x07A\x9b2J\nlogged in"
    issuer.put(
        "/token",
        {"access_token": jwt(sub="\x1b[2Jlea\nroot"), "token_type": "Bearer", "expires_in": 600},
    )
    said = logged_in(server, issuer)
    assert not set(said) & {*map(chr, range(10)), *map(chr, range(11, 32)), "\x9b"}
    assert "and enter:       ␛]0;title␇A�2J␊logged in\n" in said
    issuer.refuse("/token", "server_\x1b[2J", error_description="\x1b[2J\nok")
    code, said = ran(server, "login")
    assert code == 4
    assert "\x1b" not in said
    assert "\nok" not in said


@pytest.mark.parametrize("answer", ["access_denied", "expired_token", "invalid_client"])
def test_a_login_that_is_refused_keeps_nothing(
    issuer: FakeIssuer, server: BearerServer, answer: str
):
    words = {
        "access_denied": "The login was refused in the browser",
        "expired_token": "The code was not entered in time",
        "invalid_client": 'The provider gives no token: invalid_client "who?"',
    }
    issuer.refuse("/token", answer, error_description="who?")
    code, said = ran(server, "login", "--issuer", issuer.url, "--client-id", "laptop")
    assert (code, words[answer] in said) == (4, True)
    assert not LoginFile(server.url).exists()


def test_ctrl_c_ends_the_waiting(issuer: FakeIssuer, server: BearerServer):
    # A signal that comes just before the wait begins is seen at its end: so short is this one.
    issuer.code["interval"] = 20
    process = command(server, "login", "--issuer", issuer.url, "--client-id", "laptop")
    assert process.stderr is not None
    while "waiting for it" not in process.stderr.readline():
        pass
    process.send_signal(2)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "\ninterrupted\n")
    assert not LoginFile(server.url).exists()


# Waiting for the person


def waited(issuer: FakeIssuer) -> tuple[Tokens, list[float]]:
    """The tokens, and the pauses before each question."""
    pauses: list[float] = []
    registration = Registration(issuer=issuer.url, client_id="laptop", scope="openid")
    with Provider(issuer.url) as provider:
        endpoints = provider.discover()
        code = request_code(provider, endpoints, registration)
        return wait_for_tokens(provider, endpoints, registration, code, pauses.append), pauses


def test_it_is_asked_as_often_as_the_provider_wants(issuer: FakeIssuer):
    issuer.code["interval"] = 7
    issuer.refuse("/token", "authorization_pending", "slow_down", "slow_down", "access_denied")
    issuer.instead["/token"].pop()
    assert waited(issuer)[1] == [7, 7, 12, 17]
    del issuer.code["interval"]
    assert waited(issuer)[1] == [5]
    issuer.code["interval"] = 0
    assert waited(issuer)[1] == [1]


def test_a_provider_that_is_away_meanwhile_is_asked_again_less_often(issuer: FakeIssuer):
    issuer.put("/token", b"<html>", status=502)
    issuer.put("/token", {}, status=302, Location=f"{issuer.url}/elsewhere")
    issuer.put("/token", b"<html>welcome", status=200)
    tokens, pauses = waited(issuer)
    assert pauses == [1, 2, 4, 8]
    assert tokens.access_token == issuer.tokens[-1]
    assert "/elsewhere" not in [path for path, _ in issuer.asked]


def test_the_code_s_own_end_ends_the_waiting(issuer: FakeIssuer):
    issuer.code |= {"interval": 10, "expires_in": 30}
    issuer.refuse("/token", *["authorization_pending"] * 9)
    with pytest.raises(Unauthenticated, match="not entered in time"):
        waited(issuer)
    assert len(issuer.instead["/token"]) == 6


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"token_type": "mac"}, "no bearer token"),
        ({"token_type": None}, "no bearer token"),
        ({"access_token": None}, "no bearer token"),
        ({"access_token": "secret\nX-Evil: 1"}, "something else than one token"),
        ({"access_token": ""}, "is empty"),
        ({"refresh_token": 1}, "a refresh token that is none"),
    ],
)
def test_tokens_that_are_none_are_refused(issuer: FakeIssuer, answer: dict, words: str):
    good = {"access_token": "a", "token_type": "BEARER", "refresh_token": "r", "expires_in": 5}
    issuer.put("/token", good | answer)
    with pytest.raises(ModelTrainingError) as refused:
        waited(issuer)
    assert words in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("lifetime", "expires_in"),
    [(600, 600), (1.5, 1.5), (-5, 0), (1e300, 366 * 86_400), ("600", None), (True, None),
     (None, None)],
)  # fmt: skip
def test_a_lifetime_is_taken_where_it_is_one(issuer: FakeIssuer, lifetime, expires_in):
    issuer.lifetime = lifetime
    tokens, _ = waited(issuer)
    found = None if tokens.expires_at is None else tokens.expires_at - tokens.obtained_at
    assert found == (None if expires_in is None else pytest.approx(expires_in, abs=0.01))


def test_without_a_lifetime_the_token_says_when_it_ends(issuer: FakeIssuer):
    issuer.put("/token", {"access_token": jwt(exp=4e9), "token_type": "Bearer"})
    assert waited(issuer)[0].expires_at == 4e9


# Who the provider is


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"issuer": "https://evil.example"}, 'is of the issuer "https://evil.example", and'),
        ({"issuer": None}, "is of the issuer null"),
        ({"token_endpoint": None}, "names no token_endpoint"),
        ({"token_endpoint": "http://evil.example/t"}, "without TLS"),
        ({"token_endpoint": "file:///etc/passwd"}, "is no address"),
        ({"token_endpoint": 1}, "is no address"),
        ({"device_authorization_endpoint": "https://me:secret@x"}, "has a login in it"),
        ({"device_authorization_endpoint": None}, "has no device_authorization_endpoint"),
    ],
)
def test_another_provider_than_was_meant_is_sent_nothing(
    issuer: FakeIssuer, change: dict[str, object], words: str
):
    issuer.document |= change
    with pytest.raises(SettingsError) as refused:
        waited(issuer)
    assert words in str(refused.value)
    assert "secret" not in str(refused.value)
    assert issuer.asked == []


def test_an_issuer_must_be_equal_to_the_last_sign(issuer: FakeIssuer):
    with Provider(issuer.url + "/") as provider, pytest.raises(SettingsError, match="last sign"):
        provider.discover()


@pytest.mark.parametrize("url", ["http://login.example.org", "login.example.org", "https://a:b@c"])
def test_an_issuer_that_others_could_play_is_refused(url: str):
    with pytest.raises(SettingsError):
        Provider(url)


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (b"<html>", 200, "without a JSON object"),
        ([], 200, "without a JSON object"),
        (b'{"issuer": "a", "issuer": "b"}', 200, "without a JSON object"),
        (b"[" * 100_000, 200, "without a JSON object"),
        (b" " * (openid.ANSWER_BYTES + 1), 200, "more than 262144 bytes"),
        ({}, 404, "answers 404"),
        ({}, 302, "answers 302"),
        ({}, 500, "answers 500"),
    ],
)
def test_what_is_no_answer_of_a_provider_says_nothing(
    issuer: FakeIssuer, server: BearerServer, answer: object, status: int, words: str
):
    issuer.put(DISCOVERY, answer, status=status, Location=f"{issuer.url}/elsewhere")
    code, said = ran(server, "login", "--issuer", issuer.url, "--client-id", "laptop")
    assert code == 5
    assert "The provider cannot be asked now" in said
    assert words in said
    assert issuer.asked == []


def test_an_answer_that_drips_ends(issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(openid, "ANSWER_S", -1.0)
    with Provider(issuer.url) as provider, pytest.raises(Disconnected, match="is not done"):
        provider.discover()


@pytest.mark.parametrize(
    "change",
    [
        {"device_code": None}, {"device_code": 1}, {"device_code": ""}, {"user_code": "x" * 5000},
        {"verification_uri": None}, {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "https://x/\x1b[2J"}, {"verification_uri": "https://x/\nhttps://y"},
        {"verification_uri_complete": "https://x/ y"}, {"expires_in": None},
        {"expires_in": "600"}, {"expires_in": -1}, {"interval": "5"}, {"interval": True},
    ],
)  # fmt: skip
def test_a_code_that_nobody_could_enter_is_refused(issuer: FakeIssuer, change: dict[str, object]):
    issuer.code |= change
    [name] = change
    with pytest.raises(ModelTrainingError, match=f"cannot be used: its {name} is no"):
        waited(issuer)
    assert len(issuer.asked) == 1


def test_a_client_that_the_provider_does_not_know_is_named(issuer: FakeIssuer):
    issuer.refuse("/device", "invalid_client", error_description="client not found")
    with pytest.raises(SettingsError, match=r"the client 'laptop' no code: invalid_client"):
        waited(issuer)


# Refreshing


async def test_a_login_is_refreshed_before_it_ends(issuer: FakeIssuer, server: BearerServer):
    keep(server, issuer)
    with Client(server.url) as client:
        client.pipelines()
        client.pipelines()
    async with AsyncClient(server.url) as client:
        await client.pipelines()
    assert server.shown == issuer.tokens[-1:] * 3
    assert issuer.asked == [
        (
            "/token",
            {
                "client_id": "laptop",
                "grant_type": "refresh_token",
                "refresh_token": "secret-refresh-1",
            },
        )
    ]
    assert LoginFile(server.url).path.stat().st_mode & 0o777 == 0o600


async def test_a_login_that_the_server_refuses_is_refreshed(
    issuer: FakeIssuer, server: BearerServer
):
    keep(server, issuer, expires_at=None)
    server.good = {jwt(sub="lea", jti="2")}
    with Client(server.url) as client:
        client.pipelines()
    assert server.shown == issuer.tokens
    server.good = {jwt(sub="lea", jti="3")}
    async with AsyncClient(server.url) as client:
        await client.pipelines()
    assert server.shown == [*issuer.tokens[:2], *issuer.tokens[1:]]
    server.good = set()
    with Client(server.url) as client, pytest.raises(Unauthenticated):
        client.pipelines()
    assert issuer.refreshes == 3


async def test_a_refresh_token_is_used_once_by_however_many(
    issuer: FakeIssuer, server: BearerServer
):
    keep(server, issuer)
    issuer.may_answer.clear()
    processes = [command(server, "pipeline", "list") for _ in range(3)]
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            with Client(server.url) as client:
                client.pipelines()
        except ModelTrainingError as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    await until(lambda: issuer.refreshes == 1)
    issuer.may_answer.set()
    for thread in threads:
        thread.join()
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in processes] == [
        ("", 0)
    ] * 3
    assert failed == []
    assert issuer.refreshes == 1
    assert server.shown == issuer.tokens[-1:] * 7


def test_a_provider_that_keeps_the_refresh_token_is_asked_by_it_again(
    issuer: FakeIssuer, server: BearerServer
):
    keep(server, issuer)
    again = {"access_token": "second", "token_type": "Bearer", "expires_in": 0}
    issuer.put("/token", again, again | {"access_token": "third"})
    with Client(server.url) as client:
        client.pipelines()
        client.pipelines()
    assert server.shown == ["second", "third"]
    assert {form["refresh_token"] for _, form in issuer.asked} == {"secret-refresh-1"}


def test_a_login_that_was_ended_says_how_to_begin_again(issuer: FakeIssuer, server: BearerServer):
    keep(server, issuer)
    issuer.refuse("/token", "invalid_grant", error_description="no secret-refresh-1")
    code, said = ran(server, "pipeline", "list")
    assert code == 4
    assert f"The login at {server.url} has ended (the provider says invalid_grant)" in said
    assert "log in again: model-training login" in said
    assert ran(server, "pipeline", "list")[0] == 4
    assert issuer.refreshes == 1
    assert server.shown == []


def test_another_refusal_does_not_end_the_login(issuer: FakeIssuer, server: BearerServer):
    keep(server, issuer)
    issuer.refuse("/token", "invalid_client")
    with Client(server.url) as client:
        with pytest.raises(Unauthenticated, match="invalid_client"):
            client.pipelines()
        client.pipelines()
    assert server.shown == issuer.tokens[-1:]


def test_while_the_provider_is_away_the_token_is_used_until_its_end(
    issuer: FakeIssuer, server: BearerServer
):
    file = keep(server, issuer, obtained_at=0, expires_at=4e9)
    issuer.put(DISCOVERY, *[b"<html>"] * 9, status=503)
    server.good = set()
    with Client(server.url, patience=0) as client, pytest.raises(Unauthenticated):
        client.pipelines()
    assert len(server.shown) == 1
    server.good = None
    keep(server, issuer)
    with Client(server.url, patience=0) as client, pytest.raises(ServerUnreachable) as away:
        client.pipelines()
    assert "answers 503" in str(away.value)
    issuer.instead.clear()
    with Client(server.url, patience=0) as client:
        client.pipelines()
    assert file.read() is not None
    assert server.shown[1:] == issuer.tokens[-1:]


def test_a_short_life_is_used_for_most_of_it():
    tokens = Tokens(access_token="a", obtained_at=0, expires_at=60, refresh_token=None)
    assert [tokens.is_fresh(now) for now in (0, 47, 49)] == [True, True, False]
    tokens = Tokens(access_token="a", obtained_at=0, expires_at=3600, refresh_token=None)
    assert [tokens.is_fresh(now) for now in (3569, 3571)] == [True, False]


# The file


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "", lambda text: text[:100], lambda text: "[]",
        lambda text: json.dumps(json.loads(text) | {"server": "https://other.example.org"}),
        lambda text: json.dumps(json.loads(text) | {"tokens": {"access_token": "secret"}}),
        lambda text: text.replace('"secret-refresh-1"', "[1]"),
        lambda text: text.replace("1.0", '"secret"'),
        lambda text: "[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_login_is_named_and_not_shown(issuer: FakeIssuer, server: BearerServer, change):
    file = keep(server, issuer)
    file.path.write_text(change(file.path.read_text()))
    code, said = ran(server, "pipeline", "list")
    assert code == 1
    assert f"{file.path} is damaged" in said
    assert ran(server, "logout")[0] == 0
    assert ran(server, "pipeline", "list") == (0, "")
    assert server.shown == [None]


def test_a_login_that_others_can_read_is_not_used(issuer: FakeIssuer, server: BearerServer):
    file = keep(server, issuer)
    file.path.chmod(0o640)
    code, said = ran(server, "pipeline", "list")
    assert (code, "can be read by others" in said) == (1, True)
    logged_in(server, issuer)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert ran(server, "pipeline", "list")[0] == 0


def test_the_way_out_of_a_login_that_others_saw_ends_it_for_them_too(
    issuer: FakeIssuer, server: BearerServer
):
    for command in ("logout", "login"):
        file = keep(server, issuer)
        file.path.chmod(0o640)
        [refresh_token] = [file.read(to_end_it=True).tokens.refresh_token]
        if command == "logout":
            assert ran(server, "logout") == (0, f"logged out at {server.url}\n")
        else:
            logged_in(server, issuer)
        ended = [form["token"] for path, form in issuer.asked if path == "/revoke"]
        assert ended == [refresh_token]


def test_a_login_that_cannot_be_looked_at_is_no_reason_to_be_somebody_else(
    server: BearerServer, home: Path
):
    (home / "data").mkdir()
    (home / "data/token").write_text("of somebody else")
    path = LoginFile(server.url).path
    path.parent.mkdir(parents=True)
    path.symlink_to(path)
    with Client(server.url) as client, pytest.raises(SettingsError, match="cannot be read"):
        client.pipelines()
    assert server.shown == []


def test_a_token_that_nobody_can_withdraw_is_told_of(issuer: FakeIssuer, server: BearerServer):
    keep(server, issuer, expires_at=time.time() + 3600)
    assert "can be withdrawn by nobody, and ends in 60 min" in ran(server, "logout")[1]


def test_who_holds_the_lock_holds_nobody_up_for_long(
    issuer: FakeIssuer, server: BearerServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(logins, "LOCK_S", 0.2)
    file = keep(server, issuer)
    with (
        file.locked(),
        Client(server.url, patience=0.1) as client,
        pytest.raises(ServerUnreachable, match="another process has refreshed"),
    ):
        client.pipelines()


def test_a_revocation_is_answered_by_its_status_alone(issuer: FakeIssuer, server: BearerServer):
    keep(server, issuer)
    issuer.put("/revoke", b"<p>done</p>")
    assert ran(server, "logout") == (0, f"logged out at {server.url}\n")


# Logging out


def test_logging_out_ends_the_login_here_and_there(issuer: FakeIssuer, server: BearerServer):
    file = keep(server, issuer)
    assert ran(server, "logout") == (0, f"logged out at {server.url}\n")
    assert not file.exists()
    assert issuer.asked == [
        (
            "/revoke",
            {
                "client_id": "laptop",
                "token": "secret-refresh-1",
                "token_type_hint": "refresh_token",
            },
        )
    ]
    assert ran(server, "logout") == (0, f"nobody was logged in at {server.url}\n")


@pytest.mark.parametrize("how", ["away", "refuses", "other", "cannot"])
def test_logging_out_here_needs_no_provider(issuer: FakeIssuer, server: BearerServer, how: str):
    file = keep(server, issuer)
    if how == "away":
        issuer.put(DISCOVERY, b"", status=503)
    elif how == "refuses":
        issuer.refuse("/revoke", "invalid_client", error_description="secret-refresh-1")
    elif how == "other":
        issuer.document["issuer"] = "https://evil.example"
    else:
        del issuer.document["revocation_endpoint"]
    code, said = ran(server, "logout")
    assert code == 0
    assert "warning: the provider was not told" in said
    assert not file.exists()
    assert issuer.revoked == []


def test_endpoints_are_told_as_they_are(issuer: FakeIssuer):
    with Provider(issuer.url) as provider:
        assert provider.discover() == Endpoints(
            token=f"{issuer.url}/token",
            device_authorization=f"{issuer.url}/device",
            revocation=f"{issuer.url}/revoke",
        )


# The documents

DOCS = Path(__file__).parents[2] / "docs"


def test_the_files_of_the_howto_are_good_ones(home: Path):
    page = (DOCS / "howto/log-in.md").read_text()
    files = re.findall(r"^```toml\n# (\S+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    folder = home / "config/model-training"
    folder.mkdir(parents=True)
    tables: list[ServerTable] = []
    for name, text in files:
        (folder / name).write_text(text)
        if name == "client.toml":
            tables.append(server_table("https://training.example.org/"))
    assert [bool(table.token_command) for table in tables] == [True, False]
    assert tables[1].scope == SCOPE
    [issuer] = read_access_file(folder / "access.toml").issuers
    assert issuer.issuer == tables[1].issuer


def test_the_keys_of_the_file_are_those_of_the_page():
    section = (DOCS / "reference/files.md").read_text().partition('| key of `servers."URL"`')[2]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = [word for cell in rows for word in re.findall("`([^`]+)`", cell)]
    assert named == [field.name for field in fields(ServerTable)]
