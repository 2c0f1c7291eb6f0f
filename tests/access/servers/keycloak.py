"""Keycloak, with a realm of two users and a client for the command.

Its distribution comes from Maven, is unpacked into the cache that the other servers are in, and is
made ready there once: that takes half a minute, which each start would take otherwise. All that a
run keeps is in memory.
"""

import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2

from testbed.binaries import cache, made_once, say
from tests.access.servers.browser import Browser
from tests.access.servers.tools import PolicyProcess, free_port, output, started

VERSION: Final = "26.7.3"
REALM: Final = "ml"
CLIENT: Final = "model-training-command"
AUDIENCE: Final = "model-training"
PASSWORD: Final = "of a test"
USERS: Final = ("lea", "eve")
LIFETIME: Final = 60  # seconds of an access token, the default of older versions
# What does not change while it runs is settled when it is made ready.
BUILT: Final = ("--db=dev-mem", "--cache=local", "--health-enabled=false")


@dataclass
class Keycloak:
    """Keycloak at work."""

    process: PolicyProcess
    client_id: str = CLIENT
    audience: str = AUDIENCE

    @property
    def url(self) -> str:
        """The issuer of the realm."""
        return f"{self.process.url}/realms/{REALM}"

    def id_of(self, login: str) -> str:
        """What the tokens of a user have as ``sub``, for ever."""
        [user] = self.admin("GET", f"/{REALM}/users?exact=true&username={login}").json()
        return user["id"]

    def approve(self, verification_uri_complete: str, login: str) -> None:
        """What a person does in the browser: log in, and grant what is asked for."""
        with Browser() as browser:
            browser.open(verification_uri_complete)
            assert browser.asks_for("password"), browser.page.text
            browser.submit(username=login, password=PASSWORD)
            assert browser.asks_for("accept"), browser.page.text
            browser.submit(without=("cancel",))
            assert "Device Login Successful" in browser.page.text, browser.page.text

    def admin(
        self, method: str, path: str, body: Mapping[str, object] | None = None
    ) -> httpx2.Response:
        """Ask its admin API, below ``/admin/realms``."""
        form = {
            "grant_type": "password", "client_id": "admin-cli", "username": "admin",
            "password": PASSWORD,
        }  # fmt: skip
        tokens = f"{self.process.url}/realms/master/protocol/openid-connect/token"
        token = httpx2.post(tokens, data=form, timeout=60).json()["access_token"]
        answer = httpx2.request(
            method, f"{self.process.url}/admin/realms{path}", json=body, timeout=60,
            headers={"Authorization": f"Bearer {token}"},
        )  # fmt: skip
        assert answer.status_code < 300, answer.text
        return answer


def home() -> Path:
    """Its folder, fetched and made ready now if it was not yet (some minutes).

    Raises:
        ServerMissing: it cannot be had; there is no Maven, say.
    """
    folder = made_once(cache() / f"keycloak-{VERSION}", _fetch)
    return folder / f"keycloak-{VERSION}"


def version() -> str:
    """The one that is fetched by name, once it is there."""
    return home().name.removeprefix("keycloak-")


@contextmanager
def keycloak(root: Path) -> Iterator[Keycloak]:
    """A server with its realm; its log is in ``root``."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [
        "env", f"KC_BOOTSTRAP_ADMIN_PASSWORD={PASSWORD}", "KC_BOOTSTRAP_ADMIN_USERNAME=admin",
        "JAVA_OPTS_KC_HEAP=-Xms64m -Xmx512m",
        # The first compiler alone: the second never pays in a run of a minute.
        "JAVA_OPTS_APPEND=-XX:TieredStopAtLevel=1",
        str(home() / "bin/kc.sh"), "start", "--optimized", "--cache=local",
        f"--hostname={url}", "--http-enabled=true", "--http-host=127.0.0.1", f"--http-port={port}",
    ]  # fmt: skip
    process = PolicyProcess(url, argv, root, "/realms/master/.well-known/openid-configuration")
    with started(process):
        server = Keycloak(process)
        server.admin("POST", "", _realm())
        yield server


def _fetch(folder: Path) -> None:
    say(f"fetching Keycloak into {folder.parent} and making it ready (some minutes, once)")
    artifact = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
    output(
        "mvn", "--batch-mode", "--quiet", "dependency:copy", f"-Dartifact={artifact}",
        f"-DoutputDirectory={folder}", cwd=folder,
    )  # fmt: skip
    archive = folder / f"keycloak-quarkus-dist-{VERSION}.zip"
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    archive.unlink()
    program = folder / f"keycloak-{VERSION}" / "bin/kc.sh"
    program.chmod(0o755)
    output(str(program), "build", *BUILT, env=dict(os.environ))
    shutil.rmtree(folder / f"keycloak-{VERSION}" / "data", ignore_errors=True)


def _realm() -> dict[str, object]:
    audience = {
        "name": "audience",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-audience-mapper",
        "config": {"included.custom.audience": AUDIENCE, "access.token.claim": "true"},
    }
    client = {
        "clientId": CLIENT,
        "publicClient": True,
        "standardFlowEnabled": False,
        "directAccessGrantsEnabled": False,
        "attributes": {"oauth2.device.authorization.grant.enabled": "true"},
        "protocolMappers": [audience],
    }
    users = [
        {
            "username": name, "enabled": True, "emailVerified": True, "firstName": name,
            "lastName": name, "email": f"{name}@example.org",
            "realmRoles": [f"default-roles-{REALM}"],  # among them the right to stay logged in
            "credentials": [{"type": "password", "value": PASSWORD, "temporary": False}],
        }
        for name in USERS
    ]  # fmt: skip
    return {
        "realm": REALM, "enabled": True, "accessTokenLifespan": LIFETIME, "clients": [client],
        "users": users,
    }  # fmt: skip
