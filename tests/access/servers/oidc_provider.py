"""oidc-provider: an OpenID provider with the device flow, and refresh tokens that are good once.

It is started with a key set, and its keys rotate by a restart with another one.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from joserfc.jwk import RSAKey

from tests.access.servers.browser import Browser
from tests.access.servers.node_modules import NODE, node_folder
from tests.access.servers.tools import PolicyProcess, free_port, started

CLIENT = "model-training"
AUDIENCE = "urn:example:training"


@dataclass
class OidcProvider:
    """A provider at work."""

    process: PolicyProcess
    settings: Path
    client_id: str = CLIENT
    audience: str = AUDIENCE

    @property
    def url(self) -> str:
        """Its issuer."""
        return self.process.url

    def rotate_keys(self) -> None:
        """Start it anew with another key, and without a memory of who is logged in."""
        self.process.stop()
        told = json.loads(self.settings.read_text())
        self.settings.write_text(json.dumps(told | {"keys": [_key()]}))
        self.process.start()

    def approve(self, verification_uri_complete: str, login: str) -> None:
        """What a person does in the browser: confirm the code, log in, consent."""
        with Browser() as browser:
            self._confirm(browser, verification_uri_complete)
            browser.submit(login=login, password="any")
            browser.submit()  # to what is asked for
            assert "Sign-in Success" in browser.page.text, browser.page.text

    def refuse(self, verification_uri_complete: str) -> None:
        """What a person does who began no login."""
        with Browser() as browser:
            browser.open(verification_uri_complete)
            browser.submit()
            browser.submit(abort="yes")

    def _confirm(self, browser: Browser, url: str) -> None:
        browser.open(url)
        browser.submit()  # as the script in the page does
        browser.submit(without=("abort",), confirm="yes")
        assert browser.asks_for("login"), browser.page.text


def version() -> str:
    """As its package says."""
    package = node_folder() / "node_modules/oidc-provider/package.json"
    return json.loads(package.read_text())["version"]


@contextmanager
def oidc_provider(root: Path, *, lifetime: int = 600) -> Iterator[OidcProvider]:
    """A provider whose files are in ``root``; its access tokens live for so many seconds."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = root / "provider.json"
    settings.write_text(
        json.dumps({
            "module": str(node_folder() / "node_modules/oidc-provider/lib/index.js"),
            "issuer": url, "port": port, "client": CLIENT, "keys": [_key()], "lifetime": lifetime,
        })
    )  # fmt: skip
    argv = ["node", str(NODE / "provider.mjs"), str(settings)]
    process = PolicyProcess(url, argv, root, "/.well-known/openid-configuration")
    with started(process):
        yield OidcProvider(process, settings)


def _key() -> dict[str, object]:
    return RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True).as_dict(
        private=True
    )
