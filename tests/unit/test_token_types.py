"""Which kinds of tokens an issuer's access file lets in, from the file to the yes or no."""

from pathlib import Path

import pytest

from model_training.access.access_file import read_access_file
from model_training.access.jwt_tokens import Issuers
from model_training.access.opening import _issuer
from tests.unit.key_server import running
from tests.unit.token_forge import AUDIENCE, ISSUER, Forge
from tests.unit.token_holders import accepts

pytestmark = pytest.mark.anyio
FORGE = Forge()
TYPES = {"at+jwt": "at+jwt", "JWT": "JWT", "none": "none", "no type": ...}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def taken(folder: Path, more: str) -> set[str]:
    """The types that get in."""
    (folder / "corp.pem").write_bytes(FORGE.pem())
    path = folder / "access.toml"
    path.write_text(
        f'[[issuers]]\nname = "corp"\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\n{more}\n'
        '[decisions]\nengine = "permit"\n'
    )
    tables = read_access_file(path).issuers
    async with Issuers([_issuer(table) for table in tables]) as issuers:
        found = {
            name: await accepts(issuers, FORGE.sign(header(typ), FORGE.claims(), "RS256"))
            for name, typ in TYPES.items()
        }
    return {name for name, is_taken in found.items() if is_taken}


def header(typ: object) -> dict[str, object]:
    return FORGE.header(alg="RS256", kid="rsa-1", typ=typ)


async def test_an_issuer_with_a_key_set_gives_its_tokens_types(tmp_path: Path):
    with running() as server:
        server.put("/keys", FORGE.jwks())
        jwks = f'jwks = "{server.url}/keys"'
        assert await taken(tmp_path, jwks) == {"at+jwt", "JWT"}
        assert await taken(tmp_path, f'{jwks}\ntypes = ["at+jwt"]') == {"at+jwt"}
        assert await taken(tmp_path, f'{jwks}\ntypes = ["JWT", "none"]') == {"JWT", "no type"}


async def test_one_with_a_key_may_leave_them_out(tmp_path: Path):
    key = 'key = "corp.pem"'
    assert await taken(tmp_path, key) == {"at+jwt", "JWT", "no type"}
    assert await taken(tmp_path, f'{key}\ntypes = ["JWT"]') == {"JWT"}
