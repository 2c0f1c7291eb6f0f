"""JSON Web Tokens: who they are of, and that nobody else's are believed."""

import base64
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import errors as joserfc_errors
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet as JoserfcKeys

from model_training.access.issuers import Issuer
from model_training.access.jwt_tokens import Issuers
from model_training.access.principals import Principal, PrincipalKind
from model_training.errors import AccessUnavailable, SettingsError, Unauthenticated
from tests.unit.token_forge import AUDIENCE, FAMILIES, ISSUER, Forge, forged
from tests.waiting import until

pytestmark = pytest.mark.anyio

ALGORITHMS = ("ES256", "RS256", "EdDSA")
FORGE = Forge()
FORGED = 5000  # the campaign of scripts/fuzz sends 100,000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class KeyServer:
    """A server of key sets; what it answers is set by the test."""

    def __init__(self) -> None:
        self.documents: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                status, body, headers = outer.documents.get(self.path, (404, b"", {}))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def put(self, path: str, value: object, status: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else orjson.dumps(value)
        self.documents[path] = status, body, headers


@contextmanager
def running() -> Iterator[KeyServer]:
    keys = KeyServer()
    thread = Thread(target=keys.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield keys
    finally:
        keys.server.shutdown()
        thread.join()
        keys.server.server_close()


@pytest.fixture(scope="module")
def server() -> Iterator[KeyServer]:
    with running() as keys:
        keys.put("/keys", FORGE.jwks())
        yield keys


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
        who = await issuers.principal(token)

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
    assert who.expires_at == pytest.approx(FORGE.now() + 300, abs=30)
    assert len(who.fingerprint) == 12
    assert token not in repr(who)


async def test_claims_are_found_where_the_settings_say(server: KeyServer):
    token = FORGE.good(
        sub="7", preferred_username="lea", realm_access={"roles": ["ml"]}, **{"x.y": ["dotted"]}
    )
    more = {"subject": "preferred_username", "roles": "realm_access.roles", "groups": "x.y"}
    async with believed(server, **more) as issuers:
        who = await issuers.principal(token)
    assert (who.id, who.roles, who.groups) == ("corp/lea", ("ml",), ("dotted",))


@pytest.mark.parametrize("claim", ["ml", {"a": 1}, 7, None, [7], [["ml"]]])
async def test_groups_that_are_none_are_none(server: KeyServer, claim: object):
    async with believed(server) as issuers:
        assert (await issuers.principal(FORGE.good(groups=claim))).groups == ()


async def test_two_subjects_never_have_one_id(server: KeyServer):
    async with believed(server) as issuers:
        names = ["a:b", "a%3Ab", "a/b", "a b", "a|b", "é", "a"]
        ids = {(await issuers.principal(FORGE.good(sub=name))).id for name in names}
    assert len(ids) == len(names)
    assert not any(":" in each for each in ids)


async def test_no_forged_token_is_believed_and_no_good_one_refused(server: KeyServer):
    chance = random.Random(20261127)
    seen: set[str] = set()
    async with believed(server) as issuers:
        for _ in range(FORGED):
            token = forged(FORGE, chance)
            seen.add(token.family)
            assert await accepts(issuers, token.text) == token.is_good, token
    assert seen == FAMILIES.keys()


# What joserfc believes and we do not, by the family of the token, and the rule of ours that is
# stricter than the standards.
STRICTER = {
    "claims": "a lifetime of a day at most; names of 1 to 256 printable signs; times of this age",
    "header": "no extension is understood; types are those of the settings; ids of keys are short",
    "odd JSON": "of two equal keys the last one; numbers that are none; depth; halves of signs",
    "a changed sign": "bits of base64 that mean nothing",
    "another writing": "base64 with its padding, or in another alphabet; no more than 8 KiB",
}


def joserfc_believes(token: str, keys: JoserfcKeys) -> bool:
    registry = joserfc_jwt.JWTClaimsRegistry(
        leeway=30,
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": AUDIENCE},
        sub={"essential": True},
        exp={"essential": True},
    )
    try:
        registry.validate(joserfc_jwt.decode(token, keys, algorithms=list(ALGORITHMS)).claims)
    except (joserfc_errors.JoseError, ValueError, TypeError, RecursionError, KeyError):
        return False
    return True


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_a_second_library_refuses_what_we_refuse_but_for_rules_of_ours(server: KeyServer):
    keys = JoserfcKeys.import_key_set(FORGE.jwks())  # pyright: ignore[reportArgumentType]
    chance = random.Random(7)
    async with believed(server) as issuers:
        for _ in range(2000):
            token = forged(FORGE, chance)
            theirs, ours = joserfc_believes(token.text, keys), await accepts(issuers, token.text)
            if ours and not theirs:  # it takes some RSA key, also one that is for encryption
                assert token.is_good, token
                assert b'"kid"' not in base64.urlsafe_b64decode(token.text.split(".")[0] + "==")
            elif theirs and not ours:
                assert token.family in STRICTER, token


async def test_why_a_token_is_refused_stands_in_the_log_alone(server: KeyServer, caplog):
    token = FORGE.good(exp=FORGE.now() - 100)
    with caplog.at_level(logging.INFO):
        async with believed(server) as issuers:
            with pytest.raises(Unauthenticated):
                await issuers.principal(token)
    assert "a token is refused: it has expired" in caplog.text
    assert token not in caplog.text


async def test_a_key_in_pem_as_older_deployments_have_it(tmp_path: Path, server: KeyServer):
    path = tmp_path / "public.pem"
    path.write_bytes(FORGE.pem())
    header = {"alg": "RS256"}
    async with believed(server, jwks=None, key=path, algorithms=("RS256",)) as issuers:
        assert (await issuers.principal(FORGE.sign(header, FORGE.claims(), "RS256"))).name == "lea"
        for bad in (
            FORGE.sign({"alg": "PS256"}, FORGE.claims(), "PS256"),
            FORGE.good(),
            FORGE.sign(header, FORGE.claims(aud="audience"), "RS256"),
        ):
            with pytest.raises(Unauthenticated):
                await issuers.principal(bad)


# Settings


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"algorithms": ("HS256",)}, r"issuers\[corp\]\.algorithms: HS256 is none that a public"),
        ({"algorithms": ("none",)}, r"issuers\[corp\]\.algorithms: none is none"),
        ({"audience": ""}, r"issuers\[corp\]\.audience: it is empty"),
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
    for content, words in ((b"nonsense", "no public key"), (weak_pem(), "1024 bits")):
        path.write_bytes(content)
        with pytest.raises(SettingsError, match=words):
            Issuers([Issuer(name="corp", issuer=ISSUER, audience=AUDIENCE, key=path)])


def weak_pem() -> bytes:
    weak = Forge.__new__(Forge)
    weak.rsa = rsa.generate_private_key(65537, 1024)
    return weak.pem()


def test_two_issuers_of_one_name_end_the_start(server: KeyServer):
    other = Issuer(name="corp", issuer="https://b.example", audience=AUDIENCE)
    with pytest.raises(SettingsError, match="two of this name"):
        Issuers([issuer(server), other])


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
async def test_keys_that_cannot_be_fetched_end_the_start(answer, words: str):
    with running() as server:
        server.documents["/bad"] = answer
        issuers = Issuers([issuer(server, jwks=f"{server.url}/bad")])
        with pytest.raises(SettingsError, match=rf"issuers\[corp\]\.jwks: .*{words}"):
            async with issuers:
                pass


async def test_a_server_that_is_away_ends_the_start():
    with running() as server:
        pass
    with pytest.raises(SettingsError, match=r"issuers\[corp\]\.jwks: .*cannot be asked"):
        async with believed(server):
            pass


# Discovery


def discovery(server: KeyServer, **changes: str) -> Issuer:
    document = {"issuer": server.url, "jwks_uri": f"{server.url}/keys", **changes}
    server.put("/.well-known/openid-configuration", document)
    return Issuer(name="corp", issuer=server.url, audience=AUDIENCE, algorithms=ALGORITHMS)


async def test_keys_are_found_by_discovery():
    with running() as server:
        server.put("/keys", FORGE.jwks())
        async with Issuers([discovery(server)]) as issuers:
            assert (await issuers.principal(FORGE.good(iss=server.url))).name == "lea"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issuer": "https://evil.example"}, "is of another issuer"),
        ({"jwks_uri": "http://evil.example/keys"}, "names no safe address"),
        ({"jwks_uri": "https://evil.example/keys"}, "names keys elsewhere"),
        ({"jwks_uri": "file:///etc/passwd"}, "names no safe address"),
    ],
)
async def test_a_discovery_document_leads_nowhere_else(changes, words: str):
    with running() as server, pytest.raises(SettingsError, match=words):
        async with Issuers([discovery(server, **changes)]):
            pass


# Rotation, by a clock that the test moves


@asynccontextmanager
async def rotating(
    server: KeyServer, clock: Clock, now: Callable[[], float] = time.time
) -> AsyncGenerator[Issuers]:
    async with Issuers([issuer(server)], now=now, steady=clock) as issuers:
        yield issuers


async def accepts(issuers: Issuers, token: str) -> bool:
    try:
        await issuers.principal(token)
    except Unauthenticated:
        return False
    return True


async def is_refused(issuers: Issuers, token: str) -> bool:
    return not await accepts(issuers, token)


async def test_a_new_key_is_found_and_a_withdrawn_one_forgotten():
    old, new, clock = FORGE, Forge(), Clock()
    with running() as server:
        server.put("/keys", old.jwks())
        async with rotating(server, clock) as issuers:
            header = new.header(kid="ec-2")
            token = new.sign(header, new.claims())
            clock.seconds += 31
            assert not await accepts(issuers, token)

            both = old.jwks()
            both["keys"].append(new.ec_jwk(new.ec, "ec-2"))
            server.put("/keys", both)
            clock.seconds += 31
            assert await accepts(issuers, token)
            assert await accepts(issuers, old.good())

            server.put("/keys", {"keys": [new.ec_jwk(new.ec, "ec-2")]})
            clock.seconds += 301
            await accepts(issuers, token)  # begins to fetch
            await until(lambda: is_refused(issuers, old.good()), 5)
            assert await accepts(issuers, token)


async def test_unknown_keys_are_asked_for_once_in_half_a_minute():
    clock = Clock()
    with running() as server:
        server.put("/keys", FORGE.jwks())
        async with rotating(server, clock) as issuers:
            for window in range(3):
                clock.seconds += 31
                for n in range(500):
                    token = FORGE.sign(FORGE.header(kid=f"k{window}-{n}"), FORGE.claims())
                    assert not await accepts(issuers, token)
            assert len(server.asked) == 1 + 3


async def test_keys_stay_good_for_an_hour_without_the_issuer_and_are_none_afterwards():
    clock = Clock()
    with running() as server:
        server.put("/keys", FORGE.jwks())
        async with rotating(server, clock) as issuers:
            server.put("/keys", b"", status=500)
            clock.seconds += 3599
            assert await accepts(issuers, FORGE.good())
            clock.seconds += 60
            with pytest.raises(AccessUnavailable, match="keys of corp cannot be fetched"):
                await issuers.principal(FORGE.good())
            server.put("/keys", FORGE.jwks())
            clock.seconds += 31
            assert await accepts(issuers, FORGE.good())


async def test_two_keys_of_one_id_are_none(server: KeyServer):
    doubled = FORGE.jwks()
    doubled["keys"].append(FORGE.ec_jwk(FORGE.other_ec, "ec-1"))
    with running() as own:
        own.put("/keys", doubled)
        async with believed(own) as issuers:
            assert not await accepts(issuers, FORGE.good())
            rsa_header = FORGE.header(alg="RS256", kid="rsa-1")
            assert await accepts(issuers, FORGE.sign(rsa_header, FORGE.claims(), "RS256"))
