"""From a login in the browser to a job and its log, with real OpenID providers.

The service believes the provider by its access file and nothing else. Who may do what is in a file
of roles, because the story is about who somebody is.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.access.person import Person, person
from tests.access.servers.keycloak import Keycloak, keycloak
from tests.access.servers.oidc_provider import OidcProvider, oidc_provider
from tests.api.test_access import Service, serving, write_files
from tests.waiting import until

pytestmark = pytest.mark.anyio

ACCESS = """
[[issuers]]
name = "corp"
issuer = "{issuer}"
audience = "{audience}"
leeway = 0

[decisions]
engine = "roles"
file = "roles.toml"
"""
ROLES = """
[roles.scientist]
service = ["list"]
allow = [
    {{ actions = ["create", "list", "read", "read_logs", "read_outputs"], pipelines = ["*"] }},
    {{ actions = ["stop", "delete"], pipelines = ["*"], owner = "self" }},
]

[[bindings]]
role = "scientist"
principals = ["corp/{who}"]
"""
WAITING = """
name = "waiting"
command = ["sh", "-c", "echo begun; while [ ! -e {flag} ]; do sleep 0.1; done; echo done"]
"""
LIFETIME = 6  # seconds of an access token: it ends several times while a log is followed
NEW_KEY_S = 60.0  # the service asks an issuer for an unknown key every half minute


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcProvider]:
    with oidc_provider(tmp_path_factory.mktemp("provider"), lifetime=LIFETIME) as one:
        yield one


@pytest.fixture
def service(tmp_path: Path, provider: OidcProvider) -> Iterator[Service]:
    with believing(provider, tmp_path / "service", "lea") as one:
        yield one


@contextmanager
def believing(provider: OidcProvider | Keycloak, root: Path, who: str) -> Iterator[Service]:
    """A service that believes the provider, in which the subject ``who`` may train."""
    access = ACCESS.format(issuer=provider.url, audience=provider.audience)
    write_files(root, access, ROLES.format(who=who))
    folder = root / "pipelines/waiting"
    folder.mkdir()
    (folder / "pipeline.toml").write_text(WAITING.format(flag=root / "flag"))
    with serving(root) as one:
        yield one


def options(provider: OidcProvider) -> tuple[str, ...]:
    return (
        "--issuer", provider.url, "--client-id", provider.client_id,
        "--audience", provider.audience,
    )  # fmt: skip


def logged_in(tmp_path: Path, name: str, service: Service, provider: OidcProvider) -> Person:
    somebody = person(tmp_path, name, service.url)
    code, said = somebody.log_in(lambda url: provider.approve(url, name), *options(provider))
    assert code == 0, said
    assert f"logged in at {service.url} as {name}" in said
    return somebody


def end_login(somebody: Person) -> str:
    """Have them believe that their access token has ended; that token."""
    kept = json.loads(somebody.login)
    kept["tokens"]["expires_at"] = 0
    somebody.login_file.write_text(json.dumps(kept))
    return kept["tokens"]["access_token"]


async def test_a_job_is_followed_beyond_the_end_of_the_token(
    tmp_path: Path, service: Service, provider: OidcProvider
):
    lea = logged_in(tmp_path, "lea", service, provider)
    before = lea.login
    follower = lea.start("run", "waiting")
    await until(lambda: lea.login != before, within=LIFETIME * 5, what="the token is refreshed")
    (service.root / "flag").touch()
    out, said = follower.communicate(timeout=60)

    assert (follower.returncode, out) == (0, "begun\ndone\n"), said
    owners = {line["subject"]["id"] for line in service.audit()}
    assert owners == {"corp/lea"}
    for secret in (before, lea.login):
        token = secret.partition('"access_token": "')[2].partition('"')[0]
        assert token
        assert token not in said + (service.root / "server.log").read_text()


def test_who_may_do_nothing_is_known_and_refused(
    tmp_path: Path, service: Service, provider: OidcProvider
):
    eve = logged_in(tmp_path, "eve", service, provider)
    code, out, said = eve.run("create", "fraud")
    assert (code, out) == (4, "")
    assert "log in" not in said


def test_who_did_not_begin_the_login_refuses_it(
    tmp_path: Path, service: Service, provider: OidcProvider
):
    kim = person(tmp_path, "kim", service.url)
    code, said = kim.log_in(provider.refuse, *options(provider))
    assert (code, "refused in the browser" in said) == (4, True)
    assert list(kim.home.glob(".local/state/model-training/logins/*")) == []
    assert kim.run("list")[0] == 4


def test_after_logging_out_the_refresh_token_is_good_for_nothing(
    tmp_path: Path, service: Service, provider: OidcProvider
):
    lea = logged_in(tmp_path, "lea", service, provider)
    kept = lea.login
    assert lea.run("logout") == (0, "", f"logged out at {service.url}\n")
    assert lea.run("list")[0] == 4

    lea.login_file.write_text(kept)
    lea.login_file.chmod(0o600)
    end_login(lea)
    code, _, said = lea.run("list")
    assert (code, "invalid_grant" in said) == (4, True), said


async def test_after_its_keys_were_rotated_one_logs_in_again(
    tmp_path: Path, service: Service, provider: OidcProvider
):
    lea = logged_in(tmp_path, "lea", service, provider)
    assert lea.run("create", "fraud")[0] == 0
    await asyncio.to_thread(provider.rotate_keys)
    ended = await until(
        lambda: said if (said := lea.run("list"))[0] else None, within=LIFETIME * 5
    )  # fmt: skip
    assert ended[0] == 4
    assert "log in again: model-training login" in ended[2]

    code, said = lea.log_in(lambda url: provider.approve(url, "lea"))
    assert code == 0, said
    await until(lambda: lea.run("list")[0] == 0, within=NEW_KEY_S)


# Keycloak: once, from the login to the job


@pytest.fixture(scope="module")
def keycloak_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keycloak]:
    with keycloak(tmp_path_factory.mktemp("keycloak")) as one:
        yield one


@pytest.mark.timeout(600)  # of which Keycloak takes half a minute, and minutes to be fetched once
async def test_with_keycloak_from_the_login_to_the_job_and_its_log(
    tmp_path: Path, keycloak_server: Keycloak
):
    lea_s_id = keycloak_server.id_of("lea")
    with believing(keycloak_server, tmp_path / "service", lea_s_id) as service:
        lea, eve = (person(tmp_path, name, service.url) for name in ("lea", "eve"))
        client = ("--issuer", keycloak_server.url, "--client-id", keycloak_server.client_id)
        for somebody in (lea, eve):
            name = somebody.home.name
            code, said = somebody.log_in(partial(keycloak_server.approve, login=name), *client)
            assert code == 0, said
            assert f"logged in at {service.url} as {name}\n" in said

        follower = lea.start("run", "waiting")
        assert follower.stdout is not None
        assert follower.stdout.readline() == "begun\n"
        (service.root / "flag").touch()
        out, said = follower.communicate(timeout=60)
        assert (follower.returncode, out) == (0, "done\n"), said

        code, out, said = eve.run("create", "fraud")
        assert (code, out) == (4, ""), said

        before = end_login(lea)
        assert lea.run("list")[0] == 0
        assert json.loads(lea.login)["tokens"]["access_token"] != before
        kept = lea.login
        assert lea.run("logout") == (0, "", f"logged out at {service.url}\n")
        lea.login_file.write_text(kept)
        lea.login_file.chmod(0o600)
        end_login(lea)
        code, _, said = lea.run("list")
        assert (code, "has ended (the provider says invalid_grant" in said) == (4, True), said
