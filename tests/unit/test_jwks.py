"""The keys of issuers: which are taken, where they are fetched, and how they are kept in step."""

import asyncio
import datetime
import ipaddress
import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from model_training.access.issuers import Issuer
from model_training.access.jwks import read_key_set
from model_training.access.jwks_source import KeySource
from model_training.access.jwt_tokens import Issuers
from model_training.access.signed_text import take_apart
from model_training.errors import (
    AccessUnavailable,
    MalformedRequest,
    SettingsError,
)
from tests.unit.key_server import KeyServer, running
from tests.unit.token_forge import AUDIENCE, ISSUER, Forge, b64
from tests.unit.token_holders import accepts, holder
from tests.waiting import until

pytestmark = pytest.mark.anyio

ALGORITHMS = ("ES256", "RS256", "EdDSA")
FORGE = Forge()
NEW = Forge()  # whose key "ec-2" is what FORGE's issuer changes to


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def issuer(server: KeyServer, **more: Any) -> Issuer:
    usual: dict[str, Any] = {"jwks": f"{server.url}/keys", "algorithms": ALGORITHMS}
    return Issuer(**{"name": "corp", "issuer": ISSUER, "audience": AUDIENCE} | usual | more)


@asynccontextmanager
async def rotating(server: KeyServer, clock: Clock) -> AsyncGenerator[Issuers]:
    server.put("/keys", FORGE.jwks())
    async with Issuers([issuer(server)], steady=clock) as issuers:
        yield issuers


def of_new() -> str:
    return NEW.sign(NEW.header(kid="ec-2"), NEW.claims())


def new_jwk() -> dict[str, Any]:
    return NEW.ec_jwk(NEW.ec, "ec-2")


def both() -> dict[str, Any]:
    return {"keys": [*FORGE.jwks()["keys"], new_jwk()]}


# Which keys are taken


def read(*keys: object) -> list[str | None]:
    return [key.id for key in read_key_set(json.dumps({"keys": keys}).encode()).keys]


def test_keys_for_encryption_are_passed_over_wherever_they_stand():
    assert read(*FORGE.jwks()["keys"]) == ["rsa-1", "ec-1", "ed-1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"use": "enc"},
        {"use": None},
        {"use": ["sig"]},
        {"key_ops": ["encrypt"]},
        {"key_ops": "verify"},
        {"key_ops": []},
        {"d": "AQAB"},
        {"kid": 7},
        {"kid": None},
        {"kid": ["ec-3"]},
        {"alg": 7},
        {"alg": ["ES256"]},
        {"kty": "oct", "k": "AQAB"},
        {"kty": "oct"},
        {"kty": ["EC"]},
        {"kty": "RSA"},
        {"crv": "P-257"},
        {"crv": "P-384"},
        {"x": "AQAB"},
        {"x": 7},
        {"y": None},
    ],
)
def test_a_key_that_is_not_clearly_one_for_signatures_is_passed_over(changes: dict[str, object]):
    odd = {**FORGE.ec_jwk(FORGE.other_ec, "odd"), **changes}
    assert read(odd, new_jwk()) == ["ec-2"]


def test_of_two_keys_with_one_id_none_is_taken():
    assert read(FORGE.ec_jwk(FORGE.ec, "a"), FORGE.ec_jwk(FORGE.other_ec, "a"), new_jwk()) == [
        "ec-2"
    ]


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (FORGE.rsa_jwk(FORGE.rsa, "k"), {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        ({**FORGE.rsa_jwk(FORGE.rsa, "k"), "alg": "PS256"}, {"PS256"}),
        (FORGE.rsa_jwk(rsa.generate_private_key(65537, 1024), "k"), set()),
        (FORGE.ec_jwk(FORGE.ec, "k"), {"ES256"}),
        ({**FORGE.ec_jwk(FORGE.ec, "k"), "alg": "ES384"}, set()),
        ({**FORGE.ec_jwk(FORGE.ec, "k"), "alg": "none"}, set()),
        (FORGE.jwks()["keys"][3], {"EdDSA"}),
    ],
)
def test_a_key_is_good_for_its_own_algorithms_alone(key: dict[str, Any], algorithms: set[str]):
    [taken] = read_key_set(json.dumps({"keys": [key]}).encode()).keys
    known = (
        "none HS256 HS384 HS512 RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES256K ES384 ES512 EdDSA"
    )
    assert {each for each in [*known.split(), ""] if taken.fits(each)} == algorithms


JWK_VALUES = (
    st.none() | st.integers() | st.text(max_size=8) | st.lists(st.text(max_size=3), max_size=2)
) | st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "sig", "verify", "AQAB", "ES256"])
JWKS_KEYS = st.sampled_from(["kty", "crv", "x", "y", "n", "e", "kid", "alg", "use", "key_ops"])


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60)
    | st.lists(st.dictionaries(JWKS_KEYS, JWK_VALUES), max_size=3).map(
        lambda keys: json.dumps({"keys": keys}).encode()
    )
)
def test_whatever_a_server_answers_is_read_or_refused(body: bytes):
    try:
        keys = read_key_set(body).keys
    except (ValueError, MalformedRequest):
        return
    assert keys


async def test_a_token_without_an_id_needs_one_key_that_fits():
    token = FORGE.sign(FORGE.header(kid=...), FORGE.claims())
    with running() as server:
        server.put("/keys", FORGE.jwks())
        async with Issuers([issuer(server)]) as issuers:
            assert await accepts(issuers, token)
        server.put("/keys", both())
        async with Issuers([issuer(server)]) as issuers:
            assert not await accepts(issuers, token)


async def test_two_keys_of_one_id_are_none():
    doubled = FORGE.jwks()
    doubled["keys"].append(FORGE.ec_jwk(FORGE.other_ec, "ec-1"))
    with running() as server:
        server.put("/keys", doubled)
        async with Issuers([issuer(server)]) as issuers:
            assert not await accepts(issuers, FORGE.good())
            rsa_header = FORGE.header(alg="RS256", kid="rsa-1")
            assert await accepts(issuers, FORGE.sign(rsa_header, FORGE.claims(), "RS256"))


# Where they are fetched


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, b"", {}), "answers 404"),
        ((302, b"", {"Location": "/keys"}), "answers 302"),
        ((200, b"<html>", {}), "cannot be used"),
        ((200, b"{}", {}), "it is no set of keys"),
        ((200, b'{"keys": []}', {}), "no key that signatures can be checked with"),
        ((200, b'{"keys": [' + b"{}," * 100 + b"{}]}", {}), "more than 100 keys"),
        ((200, b"[" + b" " * 300_000 + b"]", {}), "more than 262144 bytes"),
        ((200, b"{}", {"Content-Encoding": "gzip"}), "compresses its answer"),
    ],
)
async def test_keys_that_cannot_be_fetched_end_the_start(answer: Any, words: str):
    with running() as server:
        server.documents["/bad"] = answer
        server.put("/keys", FORGE.jwks())
        issuers = Issuers([issuer(server, jwks=f"{server.url}/bad")])
        with pytest.raises(SettingsError, match=rf"issuers\[corp\]\.jwks: .*{words}"):
            async with issuers:
                pass
        assert server.asked == ["/bad"]


async def test_a_server_that_is_away_ends_the_start():
    with running() as server:
        pass
    with pytest.raises(SettingsError, match=r"issuers\[corp\]\.jwks: .*cannot be asked"):
        async with Issuers([issuer(server)]):
            pass


async def test_a_server_that_never_answers_ends_the_start():
    with running() as server:
        server.waits.clear()
        source = KeySource(issuer(server), fetch_s=0.1)
        with pytest.raises(SettingsError, match=r"issuers\[corp\]\.jwks: .*within 0.1 s"):
            await source.start()
        await source.aclose()


async def test_a_start_that_ends_early_leaves_no_connection():
    with running() as server:
        server.put("/keys", FORGE.jwks())
        two = [issuer(server), issuer(server, name="b", issuer="b", jwks=f"{server.url}/bad")]
        with pytest.raises(SettingsError):
            async with Issuers(two):
                pass
        await until(lambda: server.connections == 0)


async def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch):
    with running() as proxy, running() as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        server.put("/keys", FORGE.jwks())
        async with Issuers([issuer(server)]) as issuers:
            assert await accepts(issuers, FORGE.good())
        assert proxy.asked == []


def certified(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of this machine that nobody but who is given it believes."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "keys of a test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    certificate, private = folder / "ca.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, private)
    return certificate, tls


async def test_a_server_is_believed_by_the_certificates_of_the_settings(tmp_path: Path):
    ca, tls = certified(tmp_path)
    with running(tls) as server:
        server.put("/keys", FORGE.jwks())
        async with Issuers([issuer(server, ca=ca)]) as issuers:
            assert await accepts(issuers, FORGE.good())
        with pytest.raises(SettingsError, match=r"issuers\[corp\]\.jwks: .*certificate"):
            async with Issuers([issuer(server)]):
                pass


def test_a_file_without_certificates_ends_the_start(tmp_path: Path):
    path = tmp_path / "ca.pem"
    path.write_text("nonsense")
    with running() as server, pytest.raises(SettingsError, match=r"\.ca: .* holds no certificate"):
        Issuers([issuer(server, ca=path)])


# Discovery


def discovery(server: KeyServer, **changes: str) -> Issuer:
    document = {"issuer": server.url, "jwks_uri": f"{server.url}/keys", **changes}
    server.put("/.well-known/openid-configuration", document)
    return issuer(server, issuer=server.url, jwks=None)


async def test_keys_are_found_by_discovery_also_where_they_move():
    clock = Clock()
    with running() as server:
        server.put("/keys", FORGE.jwks())
        async with Issuers([discovery(server)], steady=clock) as issuers:
            assert await accepts(issuers, FORGE.good(iss=server.url))
            del server.documents["/keys"]
            server.put("/moved", {"keys": [new_jwk()]})
            discovery(server, jwks_uri=f"{server.url}/moved")
            clock.seconds += 31
            token = NEW.sign(NEW.header(kid="ec-2"), NEW.claims(iss=server.url))
            assert await accepts(issuers, token)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issuer": "https://evil.example"}, "is of another issuer"),
        ({"jwks_uri": "http://evil.example/keys"}, "names no safe address"),
        ({"jwks_uri": "https://evil.example/keys"}, "names keys elsewhere"),
        ({"jwks_uri": "file:///etc/passwd"}, "names no safe address"),
        ({"jwks_uri": "http://[x/keys"}, "names no safe address"),
        ({"jwks_uri": "http://127.0.0.1/\x00"}, "names no safe address"),
    ],
)
async def test_a_discovery_document_leads_nowhere_else(changes: dict[str, str], words: str):
    with running() as server, pytest.raises(SettingsError, match=words):
        async with Issuers([discovery(server, **changes)]):
            pass


# Rotation, by a clock that the test moves


async def test_a_new_key_is_found_and_a_withdrawn_one_forgotten():
    clock = Clock()
    with running() as server:
        async with rotating(server, clock) as issuers:
            clock.seconds += 31
            assert not await accepts(issuers, of_new())

            server.put("/keys", both())
            clock.seconds += 31
            assert await accepts(issuers, of_new())
            assert await accepts(issuers, FORGE.good())

            server.put("/keys", {"keys": [new_jwk()]})
            clock.seconds += 301
            assert not await accepts(issuers, FORGE.good())
            assert await accepts(issuers, of_new())


async def test_a_withdrawn_key_is_not_good_once_more_after_a_quiet_hour():
    """All who come at once wait for the one fetch."""
    clock = Clock()
    with running() as server:
        async with rotating(server, clock) as issuers:
            server.put("/keys", {"keys": [new_jwk()]})
            clock.seconds += 3500
            crowd = [accepts(issuers, FORGE.good()) for _ in range(20)]
            assert await asyncio.gather(*crowd) == [False] * 20
            assert len(server.asked) == 2


async def test_nobody_waits_for_a_slow_issuer_while_the_keys_are_fresh():
    clock = Clock()
    with running() as server:
        async with rotating(server, clock) as issuers:
            server.put("/keys", {"keys": [new_jwk()]})
            server.waits.clear()
            clock.seconds += 241
            assert await accepts(issuers, FORGE.good())  # and asks, behind its back
            await until(lambda: len(server.asked) == 2)
            assert await accepts(issuers, FORGE.good())
            server.waits.set()
            await until(lambda: _is_refused(issuers, FORGE.good()))
            assert len(server.asked) == 2


async def _is_refused(issuers: Issuers, token: str) -> bool:
    return not await accepts(issuers, token)


async def test_one_waits_for_an_issuer_that_fails_and_then_nobody():
    clock = Clock()
    text = take_apart(FORGE.good())
    with running() as server:
        server.put("/keys", FORGE.jwks())
        source = KeySource(issuer(server), clock)
        await source.start()
        server.put("/keys", b"", status=500)
        server.waits.clear()
        clock.seconds += 301
        waiting = asyncio.create_task(source.key_of(text))
        await until(lambda: len(server.asked) == 2)
        assert not waiting.done()
        server.waits.set()
        assert await waiting is not None

        server.waits.clear()
        clock.seconds += 30
        async with asyncio.timeout(1):  # of the 5 s that the next question may take
            assert await source.key_of(text) is not None
        await until(lambda: len(server.asked) == 3)
        await source.aclose()


async def test_unknown_keys_are_asked_for_once_in_half_a_minute():
    clock = Clock()
    with running() as server:
        async with rotating(server, clock) as issuers:
            for n in range(10_000):
                clock.seconds = 31 + n * 0.009  # three windows
                head = b64(json.dumps(FORGE.header(kid=f"unknown-{n}")).encode())
                payload = b64(json.dumps(FORGE.claims()).encode())
                assert not await accepts(issuers, f"{head}.{payload}.{b64(bytes(64))}")
            assert len(server.asked) == 1 + 3


async def test_all_who_bring_a_new_key_wait_for_one_fetch():
    clock = Clock()
    with running() as server:
        async with rotating(server, clock) as issuers:
            server.put("/keys", both())
            clock.seconds += 31
            crowd = [accepts(issuers, of_new()) for _ in range(50)]
            assert await asyncio.gather(*crowd) == [True] * 50
            assert len(server.asked) == 2


async def test_who_gives_up_takes_nobody_along():
    clock = Clock()
    with running() as server:
        async with rotating(server, clock) as issuers:
            server.put("/keys", both())
            server.waits.clear()
            clock.seconds += 31
            one, other = (asyncio.create_task(accepts(issuers, of_new())) for _ in range(2))
            await until(lambda: len(server.asked) == 2)
            one.cancel()
            server.waits.set()
            assert await other


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"keys": []}'])
async def test_keys_stay_good_for_an_hour_without_the_issuer_and_are_none_afterwards(body: bytes):
    clock = Clock()
    with running() as server:
        async with rotating(server, clock) as issuers:
            server.put("/keys", body, status=200 if body else 500)
            clock.seconds += 3599
            assert await accepts(issuers, FORGE.good())
            clock.seconds += 60
            with pytest.raises(AccessUnavailable, match="keys of corp cannot be fetched"):
                await holder(issuers, FORGE.good())
            server.put("/keys", FORGE.jwks())
            clock.seconds += 31
            assert await accepts(issuers, FORGE.good())
