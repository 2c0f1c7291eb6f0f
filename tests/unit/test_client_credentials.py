"""Which token the client shows to which server, and what happens when it is refused."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from model_training import AsyncClient, Client
from model_training.client import token_command
from model_training.client.address import AddressFinder
from model_training.client.bearer_tokens import end_of
from model_training.client.logins import Login, LoginFile, Registration, Tokens
from model_training.client.token_command import TokenCommand
from model_training.errors import (
    InvalidRequest,
    ModelTrainingError,
    SettingsError,
    Unauthenticated,
)
from tests.unit.bearer_server import BearerServer, bearer_server
from tests.unit.fake_issuer import jwt

pytestmark = pytest.mark.anyio

SOURCES = ("argument", "variable", "variable_file", "command", "login", "data_folder")


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
    (tmp_path / "config/model-training").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.fixture
def server() -> Iterator[BearerServer]:
    with bearer_server() as one:
        yield one


def write_client_file(home: Path, text: str) -> None:
    (home / "config/model-training/client.toml").write_text(text)


def program(home: Path, code: str) -> list[str]:
    """The argv of a program that notes each of its runs."""
    path = home / "program.py"
    path.write_text(f"open({str(home / 'runs')!r}, 'a').write('.')\nimport os, sys, time\n{code}\n")
    return [sys.executable, str(path)]


def runs(home: Path) -> int:
    return len((home / "runs").read_text()) if (home / "runs").exists() else 0


def use_command(home: Path, server: BearerServer, code: str, *arguments: str) -> None:
    argv = json.dumps([*program(home, code), *arguments])
    write_client_file(home, f'[servers."{server.url}"]\ntoken_command = {argv}\n')


def keep_login(url: str, token: str) -> LoginFile:
    file = LoginFile(url)
    with file.locked():
        file.write(
            Login(
                server=file.server,
                registration=Registration(issuer="http://127.0.0.1:1", client_id="x", scope="s"),
                tokens=Tokens(
                    access_token=token, obtained_at=0, expires_at=None, refresh_token=None
                ),
            )
        )
    return file


# The order


@pytest.mark.parametrize(
    "present", [set(some) for n in range(7) for some in combinations(SOURCES, n)], ids=str
)
def test_the_first_that_there_is_goes(
    home: Path, server: BearerServer, monkeypatch: pytest.MonkeyPatch, present: set[str]
):
    if "variable" in present:
        monkeypatch.setenv("MODEL_TRAINING_TOKEN", "variable")
    if "variable_file" in present:
        (home / "token").write_text("variable_file\n")
        monkeypatch.setenv("MODEL_TRAINING_TOKEN_FILE", str(home / "token"))
    if "command" in present:
        use_command(home, server, "print('command')")
    if "login" in present:
        keep_login(server.url, "login")
    if "data_folder" in present:
        (home / "data/token").write_text("data_folder")
    with Client(server.url, token="argument" if "argument" in present else None) as client:
        client.pipelines()
    assert server.shown == [next((name for name in SOURCES if name in present), None)]


def test_a_token_file_that_was_named_goes_before_the_variables(
    home: Path, server: BearerServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MODEL_TRAINING_TOKEN", "variable")
    (home / "mine").write_text("mine")
    with Client(server.url, token_file=home / "mine") as client:
        client.pipelines()
    assert server.shown == ["mine"]
    with pytest.raises(SettingsError, match="not both"):
        Client(server.url, "given", token_file=home / "mine")


def test_what_is_there_and_cannot_be_used_is_never_passed_over(
    home: Path, server: BearerServer, monkeypatch: pytest.MonkeyPatch
):
    (home / "data/token").write_text("of somebody else")
    keep_login(server.url, "login")
    monkeypatch.setenv("MODEL_TRAINING_TOKEN_FILE", str(home / "absent"))
    with Client(server.url) as client, pytest.raises(SettingsError, match="absent cannot be read"):
        client.pipelines()
    monkeypatch.delenv("MODEL_TRAINING_TOKEN_FILE")
    use_command(home, server, "sys.exit(3)")
    with Client(server.url) as client, pytest.raises(Unauthenticated, match="it ended with 3"):
        client.pipelines()
    assert server.shown == []


# To whom


def test_a_login_and_a_command_are_of_one_server_alone(home: Path, server: BearerServer):
    keep_login(server.url, "login")
    with bearer_server() as other, Client(other.url) as client:
        client.pipelines()
        assert other.shown == [None]
    for same in (server.url + "/", server.url.replace("http", "HTTP")):
        with Client(same) as client:
            client.pipelines()
    use_command(home, server, "print('command')")
    with bearer_server() as other, Client(other.url) as client:
        client.pipelines()
        assert other.shown == [None]
    assert server.shown == ["login"] * 2
    assert runs(home) == 0


@pytest.mark.parametrize("url", ["http://training.example", "http://127.evil.co.uk:80/x"])
def test_no_token_goes_over_plain_http_beyond_this_machine(home: Path, url: str):
    keep_login(url, "login")
    for client in (Client(url, token="secret"), Client(url)):
        with client, pytest.raises(SettingsError, match=r"without TLS .* Use its https address"):
            client.pipelines()


def test_no_redirect_takes_a_token_elsewhere(server: BearerServer):
    with bearer_server() as other:
        server.redirect = other.url
        for ask in (lambda one: one.pipelines(), lambda one: list(one.logs("name"))):
            client = Client(server.url, token="secret", patience=0)
            with client, pytest.raises(ModelTrainingError, match="307, a redirect"):
                ask(client)
        assert other.shown == []


@pytest.mark.parametrize("url", ["http://me:secret@127.0.0.1:1", "https://secret@training.example"])
def test_an_address_with_a_login_in_it_is_refused_without_showing_it(url: str):
    with pytest.raises(SettingsError, match="has a login in it") as refused:
        Client(url)
    assert "secret" not in str(refused.value)


# Token files


def test_a_token_file_is_read_again(home: Path, server: BearerServer):
    file = home / "token"
    file.write_text("one\n")
    with Client(server.url, token_file=file) as client:
        client.pipelines()
        (home / "next").write_text("two\n")
        (home / "next").rename(file)
        client.pipelines()
    assert server.shown == ["one", "two"]


async def test_a_token_that_is_replaced_while_it_is_refused_is_shown_once_more(
    home: Path, server: BearerServer
):
    file = home / "token"
    server.good = {"two"}
    server.meanwhile = lambda: file.write_text("two")
    file.write_text("one")
    with Client(server.url, token_file=file) as client:
        assert client.pipelines() == ()
    file.write_text("one")
    async with AsyncClient(server.url, token_file=file) as client:
        assert await client.pipelines() == ()
    assert server.shown == ["one", "two"] * 2


async def test_a_refused_token_without_another_is_shown_once(home: Path, server: BearerServer):
    server.good = set()
    with Client(server.url, token="one") as client, pytest.raises(Unauthenticated):
        client.pipelines()
    async with AsyncClient(server.url, token="one") as client:
        with pytest.raises(Unauthenticated):
            await client.pipelines()
    assert server.shown == ["one", "one"]


def test_a_pipe_is_read_once(server: BearerServer):
    reader, writer = os.pipe()
    os.write(writer, b"piped\n")
    os.close(writer)
    with Client(server.url, token_file=f"/dev/fd/{reader}") as client:
        client.pipelines()
        client.pipelines()
    os.close(reader)
    assert server.shown == ["piped", "piped"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"secret\nsecret", "something else than one token"),
        (b"Bearer secret", "something else than one token"),
        ("sécret".encode(), "something else than one token"),
        (b"secret\x00", "something else than one token"),
        (b"secret" * 100_000, "something else than one token"),
    ],
)
def test_what_is_no_token_is_never_sent_and_never_shown(
    home: Path,
    server: BearerServer,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    words: str,
):
    file = home / "token"
    file.write_bytes(content)
    with Client(server.url, token_file=file) as client, pytest.raises(SettingsError) as refused:
        client.pipelines()
    assert words in str(refused.value)
    assert str(file) in str(refused.value)
    assert "secret" not in str(refused.value)
    if content.strip() and len(content) < 1000 and b"\0" not in content:
        monkeypatch.setenv("MODEL_TRAINING_TOKEN", os.fsdecode(content))
        with pytest.raises(SettingsError) as refused:
            Client(server.url)
        assert "secret" not in str(refused.value)
    assert server.shown == []


def test_nothing_that_holds_a_token_shows_it(server: BearerServer):
    finder = AddressFinder(server.url, "secret")
    tokens = Tokens(access_token="secret", obtained_at=0, expires_at=1, refresh_token="secret")
    shown = [finder, vars(finder), finder.find(), tokens, TokenCommand(["x", "secret"])]
    assert "secret" not in repr(shown)


# token_command


def test_a_command_is_run_without_a_shell(home: Path, server: BearerServer):
    use_command(home, server, "print(sys.argv[1])", "$(touch;{x}")
    with Client(server.url) as client:
        client.pipelines()
    assert server.shown == ["$(touch;{x}"]


async def test_what_a_command_prints_is_kept_until_it_is_refused(home: Path, server: BearerServer):
    use_command(home, server, f"print(len(open({str(home / 'runs')!r}).read()))")
    with Client(server.url) as client:
        client.pipelines()
        client.pipelines()
        server.good = {"2"}
        client.pipelines()
    assert server.shown == ["1", "1", "1", "2"]
    server.good = {"4"}
    async with AsyncClient(server.url) as client:
        await client.pipelines()
    assert server.shown[4:] == ["3", "4"]


def test_what_a_command_prints_is_kept_until_shortly_before_its_end(home: Path):
    now = 1000.0
    token = jwt(exp=1600)
    command = TokenCommand(program(home, f"print({token!r})"), now=lambda: now)
    command.token()
    now = 1600 - token_command.EARLY_S - 1
    assert command.token() == token
    assert runs(home) == 1
    now += 2
    command.token()
    assert runs(home) == 2


def test_the_end_of_a_token_may_be_anything():
    assert end_of(jwt(exp=10**400)) is None
    assert end_of(jwt(exp=1600)) == 1600


def test_an_empty_argument_is_no_reason_to_be_somebody_else(server: BearerServer, home: Path):
    (home / "data/token").write_text("of somebody else")
    for given in ({"token": ""}, {"token_file": ""}):
        with pytest.raises(SettingsError), Client(server.url, **given) as client:
            client.pipelines()
    assert server.shown == []


def test_what_cannot_be_sent_is_told(server: BearerServer):
    with Client(server.url, "given") as client:
        with pytest.raises(InvalidRequest):
            client.status("x" * 70_000)
        with pytest.raises(InvalidRequest):
            client.create("digits", idempotency_key="\u043a\u043b\u044e\u0447")
    with pytest.raises(SettingsError, match="query"):
        Client("http://127.0.0.1:9/?x=1#f")


def test_one_run_serves_all_threads(home: Path):
    command = TokenCommand(program(home, "time.sleep(0.2); print('t')"))
    threads = [threading.Thread(target=command.token) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runs(home) == 1
    threads = [threading.Thread(target=command.renew, args=("t",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert runs(home) == 2


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print('secret'); sys.exit(3)", "it ended with 3"),
        ("os.kill(os.getpid(), 9)", "it ended with -9"),
        ("pass", "its output is empty"),
        ("print('secret secret')", "its output holds something else"),
        ("while True: print('secret' * 1000)", "it printed more than"),
        ("print('secret', flush=True); time.sleep(60)", "it did not end within 1 s"),
        ("os.close(1); time.sleep(60)", "it did not end within 1 s"),
        ("import subprocess; subprocess.Popen(['sleep', '3'])", "it did not end within 1 s"),
    ],
)
def test_a_command_that_gives_no_token_says_why(home: Path, code: str, words: str):
    began = time.monotonic()
    command = TokenCommand([*program(home, code), "secret"], run_s=1)
    with pytest.raises(Unauthenticated) as failed:
        command.token()
    assert words in str(failed.value)
    assert "secret" not in str(failed.value)
    assert time.monotonic() - began < 10


def test_a_command_that_is_not_there_is_named(home: Path):
    with pytest.raises(Unauthenticated, match=r"'absent' .* cannot be started: No such file"):
        TokenCommand(["absent", "secret"]).token()


def test_what_a_command_says_reaches_the_person(
    home: Path, server: BearerServer, capfd: pytest.CaptureFixture[str]
):
    use_command(home, server, "print('touch your key', file=sys.stderr); print('t')")
    with Client(server.url) as client:
        client.pipelines()
    assert capfd.readouterr() == ("", "touch your key\n")


# client.toml

TABLE = '[servers."https://training.example.org"]\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "Expected '='"),
        ("token = 't'", "unknown key 'token'"),
        ("servers = 1", "servers is no table"),
        ("servers.x = {}", "'x' is no address of a server"),
        ("[servers.'https://training.example.org']\n[servers.'https://Training.example.org:443/']",
         "two tables for https://training.example.org"),
        ("servers.'https://secret@x' = {}", "has a login in it"),
        ("servers.'https://x' = 1", "the entry of https://x is no table"),
        (TABLE + "token = 'secret'", "'token' of https://training.example.org is unknown"),
        (TABLE + "issuer = 1", "issuer of https://training.example.org expects a text"),
        (TABLE + "issuer = ''", "issuer of https://training.example.org expects a text"),
        (TABLE + "token_command = 'vault secret'", "without a shell"),
        (TABLE + "token_command = []", "without a shell"),
        (TABLE + "token_command = ['vault', 1]", "without a shell"),
        (TABLE + "token_command = ['']", "without a shell"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_told_whichever_server_is_asked(
    home: Path, server: BearerServer, text: str, words: str
):
    write_client_file(home, text)
    with Client(server.url) as client, pytest.raises(SettingsError) as refused:
        client.pipelines()
    assert words in str(refused.value)
    assert str(home / "config/model-training/client.toml") in str(refused.value)
    assert "secret" not in str(refused.value)
    assert server.shown == []


def test_without_a_home_folder_a_given_token_is_enough(
    server: BearerServer, monkeypatch: pytest.MonkeyPatch
):
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    with Client(server.url) as client:
        client.pipelines()
    with Client(server.url, token="t") as client:
        client.pipelines()
    assert server.shown == [None, "t"]


# The command


def test_the_command_takes_a_file_and_no_token(home: Path, server: BearerServer):
    (home / "token").write_text("mine\n")
    environment = os.environ | {"MODEL_TRAINING_URL": server.url, "MODEL_TRAINING_TOKEN": "other"}

    def ran(*arguments: str) -> "subprocess.CompletedProcess[str]":
        argv = [sys.executable, "-m", "model_training", *arguments]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)

    assert ran("--token-file", str(home / "token"), "pipeline", "list").returncode == 0
    assert server.shown == ["mine"]
    refused = ran("--token-file", str(home / "absent"), "pipeline", "list")
    assert (refused.returncode, server.shown) == (1, ["mine"])
    assert f"The token file {home / 'absent'} cannot be read: No such file" in refused.stderr
    assert "No such option" in ran("--token", "secret", "pipeline", "list").stderr
