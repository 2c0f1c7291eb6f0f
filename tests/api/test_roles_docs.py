"""The howto of roles, followed by a reader whose provider is a key that we know."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.test_access import FORGE
from tests.api.test_access_docs import AccessReader
from tests.api.test_docs_commands import blocks, shows, steps

PAGE = "howto/decide-with-roles.md"
SERVE = "model-training serve --access access.toml"
ISSUER = "https://login.example.org/realms/ml"


def alice() -> str:
    claims = FORGE.claims(sub="alice", iss=ISSUER, aud="model-training")
    return FORGE.sign({"alg": "RS256", "typ": "JWT"}, claims, "RS256")


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[AccessReader]:
    reader = AccessReader(tmp_path, pdp="")
    reader.save(PAGE)
    reader.environment["TOKEN"] = alice()
    path = tmp_path / "access.toml"
    path.write_text(path.read_text().replace("[[issuers]]", '[[issuers]]\nkey = "public.pem"'))
    yield reader
    reader.close()


KEY, END = "o46owilb", "2026-12-28 09:00"


def test_every_command_of_the_page_shows_what_the_page_shows(reader: AccessReader):
    commands = [step for block in blocks(PAGE, "console") for step in steps(block.text)]
    assert SERVE in dict(commands)
    key = KEY
    for command, expected in commands:
        if command == SERVE:
            reader.start(command)
            continue
        shown = reader.run(command.replace(KEY, key))
        if made := re.match(r"the key (\S+) of nightly ends", shown):
            key = made[1]
        shown = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d(?= UTC)", END, shown.replace(key, KEY))
        assert shows(shown, expected), f"$ {command}\n{shown}"
