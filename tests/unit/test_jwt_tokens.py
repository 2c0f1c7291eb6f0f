"""JSON Web Tokens: who they are of, and that nobody else's are believed."""

import logging
import random
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_training.access.issuers import Issuer
from model_training.access.jwt_tokens import Issuers
from model_training.access.principals import Principal, PrincipalKind
from model_training.errors import SettingsError, Unauthenticated
from tests.unit.key_server import KeyServer, running
from tests.unit.token_forge import AUDIENCE, FAMILIES, ISSUER, Forge, b64, encoded, forged
from tests.unit.token_holders import accepts, holder

pytestmark = pytest.mark.anyio

ALGORITHMS = ("ES256", "RS256", "EdDSA")
FORGE = Forge()
FORGED = 5000  # the campaign of scripts/fuzz sends 100,000
SECOND_OPINIONS = 2000  # of a library that is slower


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def server() -> Iterator[KeyServer]:
    with running() as keys:
        keys.put("/keys", FORGE.jwks())
        yield keys


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pem") / "public.pem"
    path.write_bytes(FORGE.pem())
    return path


def issuer(server: KeyServer, **more: Any) -> Issuer:
    usual: dict[str, Any] = {"jwks": f"{server.url}/keys", "algorithms": ALGORITHMS}
    return Issuer(name="corp", issuer=ISSUER, audience=AUDIENCE, **(usual | more))


@asynccontextmanager
async def believed(server: KeyServer, **more: Any) -> AsyncGenerator[Issuers]:
    async with Issuers([issuer(server, **more)]) as issuers:
        yield issuers


async def test_a_good_token_is_its_user(server: KeyServer):
    token = FORGE.good(groups=["ml", "ops"], roles=["admin"], jti="j-1", exp=FORGE.now() + 300)
    async with believed(server) as issuers:
        who = await holder(issuers, token)

    assert who == Principal(
        PrincipalKind.USER,
        "corp/lea",
        name="lea",
        issuer="corp",
        groups=("ml", "ops"),
        roles=("admin",),
        fingerprint=who.fingerprint,
        expires_at=who.expires_at,
        token=token,
    )
    assert who.expires_at == pytest.approx(FORGE.now() + 330, abs=20)  # until it is refused
    assert len(who.fingerprint) == 12
    assert token not in repr(who)


async def test_claims_are_found_where_the_settings_say(server: KeyServer):
    token = FORGE.good(
        sub="7", preferred_username="lea", realm_access={"roles": ["ml"]}, **{"x.y": ["dotted"]}
    )
    more = {"subject": "preferred_username", "roles": "realm_access.roles", "groups": "x.y"}
    async with believed(server, **more) as issuers:
        who = await holder(issuers, token)
    assert (who.id, who.roles, who.groups) == ("corp/lea", ("ml",), ("dotted",))


@pytest.mark.parametrize("claim", ["ml", {"a": 1}, 7, None, [7], [["ml"]]])
async def test_groups_that_are_none_are_none(server: KeyServer, claim: object):
    async with believed(server) as issuers:
        assert (await holder(issuers, FORGE.good(groups=claim))).groups == ()


async def test_two_subjects_never_have_one_id(server: KeyServer):
    async with believed(server) as issuers:
        names = ["a:b", "a%3Ab", "a/b", "a b", "a|b", "é", "a"]
        ids = {(await holder(issuers, FORGE.good(sub=name))).id for name in names}
    assert len(ids) == len(names)
    assert not any(":" in each for each in ids)


async def test_an_address_is_nobody_before_it_is_verified(server: KeyServer):
    async with believed(server, subject="email") as issuers:
        for verified in (False, "true", 1, None, ...):
            token = FORGE.good(email="lea@example.org", email_verified=verified)
            assert not await accepts(issuers, token)
        who = await holder(issuers, FORGE.good(email="lea@example.org", email_verified=True))
    assert who.name == "lea@example.org"


async def test_all_groups_of_a_token_are_told(server: KeyServer):
    groups = [f"g{n}" for n in range(700)]
    async with believed(server) as issuers:
        assert (await holder(issuers, FORGE.good(groups=groups))).groups == tuple(groups)


async def test_types_are_compared_as_types_of_media_are(server: KeyServer):
    async with believed(server, types=("application/AT+JWT",)) as issuers:
        for typ, is_good in (("at+jwt", True), ("AT+JWT", True), ("JWT", False), (..., False)):
            token = FORGE.sign(FORGE.header(typ=typ), FORGE.claims())
            assert await accepts(issuers, token) == is_good


async def test_a_token_of_one_issuer_is_none_of_another(server: KeyServer):
    """The keys of one say nothing about another, whatever the token calls its key."""
    other, theirs = "https://other.example.org", Forge()
    server.put("/theirs", theirs.jwks())
    both = [issuer(server), Issuer(
        name="other", issuer=other, audience=AUDIENCE, algorithms=("ES256",),
        jwks=f"{server.url}/theirs",
    )]  # fmt: skip
    async with Issuers(both) as issuers:
        assert (await holder(issuers, theirs.good(iss=other))).id == "other/lea"
        assert not await accepts(issuers, theirs.good())
        assert not await accepts(issuers, FORGE.good(iss=other))
        of_no_use_here = theirs.sign(
            theirs.header(alg="RS256", kid="rsa-1"), theirs.claims(iss=other), "RS256"
        )
        assert not await accepts(issuers, of_no_use_here)


async def test_keys_that_a_token_names_are_never_asked_for():
    evil = Forge()
    with running() as server:
        server.put("/keys", FORGE.jwks())
        server.put("/evil", evil.jwks())
        async with believed(server) as issuers:
            for name in ("jku", "x5u"):
                header = evil.header(**{name: f"{server.url}/evil", "kid": "evil"})
                assert not await accepts(issuers, evil.sign(header, evil.claims()))
        assert set(server.asked) == {"/keys"}


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 10**4299, 1e308, -0.0, "\ud800"])
    | st.floats()
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
SEGMENTS = (
    st.text(max_size=30)
    | st.binary(max_size=80).map(b64)
    | st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "iss", "aud", "sub", "exp", "iat", "nbf"]),
        st.sampled_from(["ES256", "ec-1", "JWT", ISSUER, AUDIENCE]) | JSON_VALUES,
    ).map(encoded)
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text() | st.lists(SEGMENTS, min_size=3, max_size=3).map(".".join))
async def test_any_text_is_refused_and_nothing_else(pem: Path, text: str):
    async with Issuers([of_pem(pem)]) as issuers:
        assert not await accepts(issuers, text)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    claim=st.sampled_from(["exp", "nbf", "iat", "aud", "sub", "jti", "groups"]), value=JSON_VALUES
)
async def test_whatever_a_claim_is_the_answer_is_yes_or_no(pem: Path, claim: str, value: object):
    """Signed by the issuer, so that all that is read afterwards is reached."""
    token = FORGE.sign({"alg": "RS256"}, FORGE.claims(**{claim: value}), "RS256")
    async with Issuers([of_pem(pem)]) as issuers:
        assert await accepts(issuers, token) in (True, False)


async def test_no_forged_token_is_believed_and_no_good_one_refused(server: KeyServer):
    chance = random.Random(20261127)
    seen: set[str] = set()
    async with believed(server) as issuers:
        for _ in range(FORGED):
            token = forged(FORGE, chance)
            seen.add(token.family)
            assert await accepts(issuers, token.text) == token.is_good, token
    assert seen == FAMILIES.keys()


async def test_why_a_token_is_refused_stands_in_the_log_alone(server: KeyServer, caplog):
    token = FORGE.good(exp=FORGE.now() - 100)
    with caplog.at_level(logging.INFO):
        async with believed(server) as issuers:
            with pytest.raises(Unauthenticated):
                await holder(issuers, token)
    assert "a token is refused: it has expired" in caplog.text
    assert token not in caplog.text


def of_pem(path: Path, **more: Any) -> Issuer:
    usual: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ("RS256",)}
    return Issuer(name="corp", key=path, **(usual | more))


async def test_a_key_in_pem_as_older_deployments_have_it(pem: Path):
    header = {"alg": "RS256"}
    async with Issuers([of_pem(pem)]) as issuers:
        assert (await holder(issuers, FORGE.sign(header, FORGE.claims(), "RS256"))).name == "lea"
        for bad in (
            FORGE.sign({"alg": "PS256"}, FORGE.claims(), "PS256"),
            FORGE.good(),
            FORGE.sign(header, FORGE.claims(aud="audience"), "RS256"),
        ):
            with pytest.raises(Unauthenticated):
                await holder(issuers, bad)


# Settings


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"algorithms": ("HS256",)}, r"issuers\[corp\]\.algorithms: HS256 is none that a public"),
        ({"algorithms": ("none",)}, r"issuers\[corp\]\.algorithms: none is none"),
        ({"algorithms": ()}, r"issuers\[corp\]\.algorithms: it is empty"),
        ({"audience": ""}, r"issuers\[corp\]\.audience: it is empty"),
        ({"audience": " "}, r"issuers\[corp\]\.audience: it is empty"),
        ({"name": "a/b"}, r"issuers\[a/b\]\.name: expects"),
        ({"jwks": "https://a/k", "key": Path("k")}, r"issuers\[corp\]\.key: there is jwks, too"),
        ({"jwks": "https://[a"}, r"issuers\[corp\]\.jwks: 'https://\[a' is no address"),
        ({"jwks": "https://a:99999/"}, r"issuers\[corp\]\.jwks: .* is no address"),
        ({"jwks": "https://a/\n"}, r"issuers\[corp\]\.jwks: .* is no address"),
        ({"jwks": "file:///etc/passwd"}, r"issuers\[corp\]\.jwks: .* is no address"),
        ({"jwks": "https://u:pw@a/k"}, r"issuers\[corp\]\.jwks: the address of a has a login"),
        ({"jwks": "http://127.0.0.1.example.org/"}, r"issuers\[corp\]\.jwks: .* is not https"),
        ({"ca": Path("/nowhere/ca")}, r"issuers\[corp\]\.ca: .*No such file"),
        ({"jwks": "http://login.example.org/keys"}, r"issuers\[corp\]\.jwks: .* is not https"),
        ({"jwks": None, "issuer": "http://login.example.org"}, r"issuers\[corp\]\.issuer: .*https"),
        ({"jwks": None, "key": Path("/nowhere/k.pem")}, r"issuers\[corp\]\.key: .*No such file"),
        ({"leeway_s": 61.0}, r"issuers\[corp\]\.leeway: expects 0 to 60"),
    ],
)
def test_an_issuer_that_cannot_be_believed_ends_the_start(server: KeyServer, more, sentence):
    with pytest.raises(SettingsError, match=sentence):
        Issuers([Issuer(**{"name": "corp", "issuer": ISSUER, "audience": AUDIENCE, **more})])


def test_a_file_without_a_key_ends_the_start(tmp_path: Path):
    path = tmp_path / "k.pem"
    private = FORGE.rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    weak = pem_of(rsa.generate_private_key(65537, 1024))
    for content, words in (
        (b"nonsense", "no public key: there is none in PEM in it"),
        (b"", "no public key: there is none in PEM in it"),
        (private, "no public key: it is a private one"),
        (weak, "1024 bits"),
        (pem_of(FORGE.ec), "checks no signature by RS256"),
    ):
        path.write_bytes(content)
        with pytest.raises(SettingsError, match=rf"issuers\[corp\]\.key: .*{words}"):
            Issuers([of_pem(path)])


def pem_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_two_issuers_of_one_name_end_the_start(server: KeyServer):
    for name, url in (("corp", "https://b.example"), ("b", ISSUER)):
        other = Issuer(name=name, issuer=url, audience=AUDIENCE)
        with pytest.raises(SettingsError, match="two of this name"):
            Issuers([issuer(server), other])
