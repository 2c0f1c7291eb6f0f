"""The two registries: one open, one that asks for a login. Both on loopback, over plain HTTP."""

import json
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from testbed.api import Api
from testbed.binaries import packages_folder
from testbed.components import Component

LOGIN = ("training", "training")
# Of that password, by bcrypt, the only method that this registry reads.
PASSWORD_LINE = "training:$2b$04$NfZWPCOMINFFy87bN2Jt/uxWCCNLLWjsWMxtxdrQcJOoezKUmE7O2\n"


@dataclass(frozen=True)
class Registry:
    """One registry.

    Attributes:
        address: ``HOST:PORT``.
        folder: of its configuration and its images.
        login: whether it asks for a login.
    """

    address: str
    folder: Path
    login: bool

    def prepare(self) -> None:
        """Write its configuration."""
        self.folder.mkdir(exist_ok=True)
        config: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.folder / "images")},
                "delete": {"enabled": True},
            },
            "http": {"addr": self.address, "secret": "one process needs no shared one"},
        }
        if self.login:
            users = self.folder / "users"
            users.write_text(PASSWORD_LINE)
            config["auth"] = {"htpasswd": {"realm": "model-training-testbed", "path": str(users)}}
            pair = b64encode(":".join(LOGIN).encode()).decode()
            (self.folder / "docker").mkdir(exist_ok=True)
            docker = {"auths": {self.address: {"auth": pair}}}
            (self.folder / "docker/config.json").write_text(json.dumps(docker))
        (self.folder / "config.yml").write_text(json.dumps(config))

    def component(self) -> Component:
        """How it runs."""
        program = packages_folder() / "docker-registry/usr/bin/docker-registry"
        status = 401 if self.login else 200
        return Component(
            (str(program), "serve", str(self.folder / "config.yml")),
            lambda: Api(f"http://{self.address}").answers("/v2/", status),
        )
