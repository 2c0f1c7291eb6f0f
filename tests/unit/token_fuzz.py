"""Tokens by the hundred thousand, each judged by us and by joserfc: ``scripts/fuzz``, and a test.

Two issuers are believed, one by a set of keys, one by a key in PEM as older deployments have it.
Their tokens, those of a stranger and all that ``token_forge`` makes are written in odd ways, get
several faults at once, are damaged, and are put together from the parts of three. Whether one is
good is known from how it was made.

A library with the same expectations may judge otherwise only where one of the rules that stand in
``second_opinion.py`` explains it, and may never take a token for somebody else's.
"""

import base64
import json
import random
import tempfile
import time
import warnings
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from model_training.access.credentials import Credentials
from model_training.access.issuers import Issuer
from model_training.access.jwt_tokens import Issuers
from model_training.errors import Unauthenticated
from tests.unit.key_server import running
from tests.unit.second_opinion import DOUBLED, NOW, Expected, Opinion, SecondOpinion, rule_of
from tests.unit.token_forge import AUDIENCE, ISSUER, Forge, Json, Token, b64, encoded, forged

OLDER_ISSUER, OLDER_AUDIENCE = "aissemble-security", "training"
ALGORITHMS = ("ES256", "RS256", "EdDSA")
KEPT = 100  # tokens that are damaged, or taken apart for others


# Making them


class Numbered(Forge):
    """Of whose tokens no two are alike, so that the signature of one is never good for another."""

    def __init__(self) -> None:
        super().__init__(lambda: NOW)
        self._numbers = count()

    def claims(self, **changes: object) -> Json:
        return super().claims(n=next(self._numbers), **changes)


@dataclass
class Maker:
    """Everybody who signs, and the latest tokens of all of them."""

    chance: random.Random
    corp: Forge = field(default_factory=Numbered)
    older: Forge = field(default_factory=Numbered)
    twins: Forge = field(default_factory=Numbered)
    stranger: Forge = field(default_factory=Numbered)
    latest: deque[Token] = field(default_factory=lambda: deque(maxlen=KEPT))

    def jwks(self) -> Json:
        """The keys of corp; of two with one id it is not known which is meant."""
        twins = [self.twins.ec_jwk(key, DOUBLED) for key in (self.twins.ec, self.twins.other_ec)]
        return {"keys": [*self.corp.jwks()["keys"], *twins]}

    def token(self) -> Token:
        made = self.chance.choice(PRODUCTIONS)(self)
        self.latest.append(made)
        return made

    def one_of(self, *some: Any) -> Any:
        return self.chance.choice(some)


def of_the_forge(maker: Maker) -> Token:
    made = forged(maker.corp, maker.chance)
    # Of the header, in which any number of spaces may stand before a token (RFC 9110, 11.4).
    return made._replace(is_good=True) if made.words == "a space before" else made


def crossed(maker: Maker) -> Token:
    """Who signs, by which algorithm, and whom the token says that it is of, each by chance."""
    signer = maker.one_of("corp", "older", "stranger")
    forge: Forge = getattr(maker, signer)
    algorithm, kid = maker.one_of(
        ("ES256", "ec-1"), ("RS256", "rsa-1"), ("EdDSA", "ed-1"), ("PS256", "rsa-1")
    )
    said, audience = maker.one_of((ISSUER, AUDIENCE), (OLDER_ISSUER, OLDER_AUDIENCE))
    audience = maker.one_of(audience, audience, AUDIENCE, OLDER_AUDIENCE, [audience, "other"])
    header = forge.header(alg=algorithm, kid=maker.one_of(kid, ...), typ=maker.one_of("JWT", ...))
    text = forge.sign(header, forge.claims(iss=said, aud=audience), algorithm)
    is_for = [audience] if isinstance(audience, str) else audience
    is_good = {
        "corp": said == ISSUER and AUDIENCE in is_for and algorithm in ALGORITHMS,
        "older": said == OLDER_ISSUER and OLDER_AUDIENCE in is_for and algorithm == "RS256",
        "stranger": False,
    }[signer]
    return Token(text, is_good, "crossed", f"{signer}, {said}, {audience}, {algorithm}")


def put_together(maker: Maker) -> Token:
    """The header of one token, the payload of another, the signature of a third."""
    parts = [maker.chance.choice(maker.latest or [of_the_forge(maker)]) for _ in range(3)]
    segments = [part.text.split(".") for part in parts]
    text = ".".join(each[min(at, len(each) - 1)] for at, each in enumerate(segments))
    return _as_it_was(maker, text, "put together", " + ".join(part.family for part in parts))


def damaged(maker: Maker) -> Token:
    """One or two signs or segments are missing, doubled, changed or elsewhere."""
    text = maker.chance.choice(maker.latest or [of_the_forge(maker)]).text
    done = [maker.one_of(*DAMAGES) for _ in range(maker.one_of(1, 2))]
    for damage in done:
        text = damage(maker.chance, text)
    return _as_it_was(maker, text, "damaged", ", ".join(each.__name__ for each in done))


def _as_it_was(maker: Maker, text: str, family: str, words: str) -> Token:
    """What came of others is good if it is one of them, sign for sign, which is."""
    is_good = any(one.is_good and one.text == text.lstrip(" ") for one in maker.latest)
    return Token(text, is_good, family, words)


def cut(chance: random.Random, text: str) -> str:
    return text[: chance.randrange(len(text) + 1)]


def without(chance: random.Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + text[at + 1 :]


def inserted(chance: random.Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice("AZaz09-_.=+/ \n\x00é\u200b\uff0e") + text[at:]


def exchanged(chance: random.Random, text: str) -> str:
    at = chance.randrange(max(1, len(text)))
    return text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :]


def in_other_case(chance: random.Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + text[at:].swapcase()


def segments_moved(chance: random.Random, text: str) -> str:
    segments = text.split(".")
    chance.shuffle(segments)
    return ".".join(segments)


def segment_doubled(chance: random.Random, text: str) -> str:
    segments = text.split(".")
    segments.insert(chance.randrange(len(segments) + 1), chance.choice(segments))
    return ".".join(segments)


Damage = Callable[[random.Random, str], str]
DAMAGES: tuple[Damage, ...] = (
    cut, without, inserted, exchanged, in_other_case, segments_moved, segment_doubled,
)  # fmt: skip

# Name, value, and whether a token is good with it.
Odd = tuple[str, object, bool]
ODD_CLAIMS: tuple[Odd, ...] = (
    ("iss", ISSUER + "/", False), ("iss", ISSUER.replace("e", "\u0435", 1), False),
    ("iss", ISSUER + "\u200b", False), ("iss", ISSUER + "#", False), ("iss", OLDER_ISSUER, False),
    ("iss", ISSUER.replace("https", "HTTPS"), False), ("iss", [ISSUER, OLDER_ISSUER], False),
    ("aud", AUDIENCE.upper(), False), ("aud", "\uff4d" + AUDIENCE[1:], False),
    ("aud", [[AUDIENCE]], False), ("aud", f"{AUDIENCE} other", False),
    ("aud", OLDER_AUDIENCE, False), ("aud", [AUDIENCE, None], False), ("aud", True, False),
    ("aud", [AUDIENCE] * 40, True), ("aud", ["\u0430", AUDIENCE], True),
    ("sub", "\u202elea", False), ("sub", "lea\u0000root", False), ("sub", "\u200b", False),
    ("sub", False, False), ("sub", "root", True), ("sub", "le\u0301a", True), ("exp", NOW, True),
    ("exp", NOW - 29, True), ("exp", NOW - 31, False), ("exp", 0, False),
    ("exp", int(NOW) + 3600, True), ("exp", -0.0, False), ("exp", f"{NOW + 300}", False),
    ("exp", {"a": 1}, False), ("exp", False, False), ("exp", 2**63, False), ("exp", 2**64, False),
    ("exp", NOW * 1000, False), ("exp", 10**4000, False), ("exp", ..., False),
    ("nbf", NOW + 29, True), ("nbf", NOW + 31, False), ("nbf", True, False), ("nbf", "", False),
    ("nbf", 1e300, False), ("nbf", NOW - 0.25, True), ("nbf", ..., True), ("iat", NOW + 31, False),
    ("iat", ..., True), ("iat", [], False), ("iat", -1, False), ("jti", 7, True),
    ("jti", "", True), ("groups", {"a": ["b"]}, True), ("groups", "ml", True),
    ("ISS", "https://evil.example", True), ("crit", ["exp"], True), ("alg", "none", True),
    ("\u0130ss", "x", True), ("iss\u0000", "x", True), ("", "", True), ("__proto__", {}, True),
)  # fmt: skip
ODD_HEADERS: tuple[Odd, ...] = (
    ("alg", "none", False), ("alg", "NONE", False), ("alg", "nOnE", False),
    ("alg", "HS256", False), ("alg", "ES256\u0000", False), ("alg", "\uff25S256", False),
    ("alg", "ES256K", False), ("alg", "RS256", False), ("alg", "PS256", False),
    ("alg", "Ed25519", False), ("alg", {}, False), ("kid", "EC-1", False),
    ("kid", "ec-1\u0000", False), ("kid", "' OR 1=1 --", False),
    ("kid", "../../../../dev/null", False), ("kid", "rsa-1", False), ("kid", "enc-1", False),
    ("kid", DOUBLED, False), ("kid", None, False), ("kid", ..., True), ("kid", False, False),
    ("typ", "JWS", False), ("typ", "at+JWT", True), ("typ", "application/jwt", True),
    ("typ", {}, False), ("typ", "at+jwt ", False), ("typ", "logout+jwt", False),
    ("typ", ..., True), ("typ", "dpop+jwt", False), ("crit", ["exp"], False), ("crit", [], False),
    ("crit", None, False), ("crit", ["b64"], False), ("b64", False, False), ("b64", True, False),
    ("b64", None, False), ("zip", "DEF", True), ("cty", "JWT", True), ("enc", "A256GCM", True),
    ("jku", "https://evil.example/keys", True), ("x5u", "https://evil.example/c.pem", True),
    ("x5c", ["bm9uZQ=="], True), ("x5t", "AAAA", True),
    ("jwk", {"kty": "oct", "k": "AAAA", "kid": "ec-1"}, True), ("ALG", "none", True),
    ("iss", "https://evil.example", True), ("epk", {}, True), ("apu", 7, True),
    ("nonce", None, True),
)  # fmt: skip


def odd(maker: Maker) -> Token:
    """Up to three odd claims and two odd parts of a header at once, signed as it must be."""
    header, claims = maker.corp.header(), maker.corp.claims()
    chosen = _some(maker, ODD_CLAIMS, 3), _some(maker, ODD_HEADERS, 2)
    for target, some in zip((claims, header), chosen, strict=True):
        for name, value, _ in some:
            target[name] = value
            if value is ...:
                del target[name]
    both = [*chosen[0], *chosen[1]]
    text = maker.corp.sign(header, claims)
    words = ", ".join(f"{name} {value!a:.40}" for name, value, _ in both)
    return Token(text, all(is_good for *_, is_good in both), "odd", words)


def _some(maker: Maker, odds: tuple[Odd, ...], most: int) -> list[Odd]:
    """At most one of a name, so that none takes back what another did."""
    chosen = maker.chance.sample(odds, maker.chance.randint(0, most))
    return list({name: (name, value, is_good) for name, value, is_good in chosen}.values())


def names_a_key(maker: Maker) -> Token:
    """By a stranger whose header says where the key is, or holds it."""
    forge = maker.stranger
    kid = maker.one_of("ec-1", "evil", DOUBLED)
    key = forge.ec_jwk(forge.ec, kid)
    certificate = base64.b64encode(forge.pem()).decode()
    header = forge.header(kid=kid, **maker.one_of(
        {"jwk": key}, {"jku": "https://evil.example/keys"}, {"x5u": "https://evil.example"},
        {"x5c": [certificate]}, {"jwk": key, "x5c": [certificate], "jku": ISSUER},
    ))  # fmt: skip
    return Token(forge.sign(header, forge.claims()), False, "names a key", ", ".join(header))


def of_a_doubled_key(maker: Maker) -> Token:
    header = maker.twins.header(kid=DOUBLED)
    return Token(maker.twins.sign(header, maker.twins.claims()), False, "a doubled key", "")


def encrypted(maker: Maker) -> Token:
    """As a JWE looks, in its five segments, or in three."""
    header = maker.one_of(
        {"alg": "RSA-OAEP", "enc": "A128GCM", "kid": "enc-1", "cty": "JWT"},
        {"alg": "dir", "enc": "A256GCM"}, {"alg": "ES256", "enc": "A128GCM", "kid": "ec-1"},
        {"alg": "PBES2-HS256+A128KW", "p2c": 2**31, "p2s": "AAAA", "enc": "A128GCM"},
    )  # fmt: skip
    sizes = (256, 12, 60, 16) if maker.one_of(True, True, False) else (200, 64)
    segments = [b64(maker.chance.randbytes(size)) for size in sizes]
    return Token(".".join([encoded(header), *segments]), False, "encrypted", str(header["alg"]))


def written_otherwise(maker: Maker) -> Token:
    """The same JSON in other words, which is good, or words that only look like the same."""
    claims = json.dumps(maker.corp.claims())
    ways: dict[str, tuple[str, bool]] = {
        "spaces": (json.dumps(maker.corp.claims(), indent=4), True),
        "spaces around": (f" \t\r\n{claims}\n ", True),
        "escaped names": (claims.replace('"iss"', '"\\u0069ss"'), True),
        "escaped values": (claims.replace('"lea"', '"\\u006cea"'), True),
        "escaped slashes": (claims.replace("/", "\\/"), True),
        "other order": (json.dumps(dict(reversed(maker.corp.claims().items()))), True),
        "exponents": (claims.replace(f"{NOW + 300}", "18000003005e-1"), True),
        "the largest float": (claims[:-1] + ', "x": 1.7976931348623157e308}', True),
        "a pair": (claims[:-1] + ', "x": "\\ud83d\\ude00"}', True),
        "64 levels": (claims[:-1] + ', "x": ' + "[" * 63 + "]" * 63 + "}", True),
        "65 levels": (claims[:-1] + ', "x": ' + "[" * 64 + "]" * 64 + "}", False),
        "twice, once escaped": (claims[:-1] + ', "\\u0073ub": "root"}', False),
        "twice, inside": (claims[:-1] + ', "x": [{"a": 1, "a": 2}]}', False),
        "no-break space": (claims.replace(" ", "\u00a0", 1), False),
        "a comma at the end": (claims[:-1] + ",}", False),
        "single quotes": (claims.replace('"', "'"), False),
        "a comment": (claims + "// x", False),
        "-Infinity": (claims[:-1] + ', "x": -Infinity}', False),
        "-1e999": (claims[:-1] + ', "x": [-1e999]}', False),
        "a leading zero": (claims.replace('"exp": ', '"exp": 0'), False),
        "a plus": (claims.replace('"exp": ', '"exp": +'), False),
        "hexadecimal": (claims[:-1] + ', "x": 0x10}', False),
        "NUL behind": (claims + "\x00", False),
        "UTF-7": (claims.replace("{", "+AHs-", 1), False),
    }
    words = maker.one_of(*ways)
    payload, is_good = ways[words]
    text = maker.corp.sign(maker.corp.header(), b64(payload.encode()))
    return Token(text, is_good, "written otherwise", words)


def in_other_bytes(maker: Maker) -> Token:
    """JSON in another encoding than UTF-8, which some parsers guess."""
    encoding = maker.one_of("utf-16", "utf-16-le", "utf-32-be", "utf-8-sig", "latin-1")
    claims = json.dumps(maker.corp.claims(sub="l\u00e9a"), ensure_ascii=False)
    text = maker.corp.sign(maker.corp.header(), b64(claims.encode(encoding)))
    return Token(text, False, "in other bytes", encoding)


Production = Callable[[Maker], Token]
PRODUCTIONS: tuple[Production, ...] = (
    of_the_forge, of_the_forge, of_the_forge, crossed, crossed, put_together, damaged, odd, odd,
    names_a_key, of_a_doubled_key, encrypted, written_otherwise, in_other_bytes,
)  # fmt: skip


# The campaign


@dataclass
class Report:
    """What was seen."""

    seed: int
    sent: int = 0
    good: int = 0
    seconds: float = 0.0
    families: Counter[str] = field(default_factory=Counter)
    by_rule: Counter[str] = field(default_factory=Counter)
    """what joserfc judged otherwise"""
    forged_believed: list[Token] = field(default_factory=list)
    good_refused: list[Token] = field(default_factory=list)
    unexplained: list[Token] = field(default_factory=list)

    def __str__(self) -> str:
        rules = "".join(f"\n{number:9,} {rule}" for rule, number in self.by_rule.most_common())
        per_second = self.sent / self.seconds
        return (
            f"{self.sent:,} tokens, seed {self.seed}, {per_second:,.0f} a second: "
            f"{self.good:,} good, of them refused {len(self.good_refused)}; "
            f"{self.sent - self.good:,} others, of them accepted {len(self.forged_believed)}; "
            f"without explanation judged otherwise by joserfc: {len(self.unexplained)}.\n"
            f"It judged otherwise {self.by_rule.total():,}, by these rules of ours:{rules}"
        )

    @property
    def wrong(self) -> list[Token]:
        return [*self.forged_believed, *self.good_refused, *self.unexplained]


@asynccontextmanager
async def believed(maker: Maker) -> AsyncGenerator[Credentials]:
    with running() as server, tempfile.TemporaryDirectory() as folder:
        server.put("/keys", maker.jwks())
        pem = Path(folder) / "older.pem"
        pem.write_bytes(maker.older.pem())
        corp = Issuer(
            name="corp", issuer=ISSUER, audience=AUDIENCE, algorithms=ALGORITHMS,
            jwks=f"{server.url}/keys",
        )  # fmt: skip
        older = Issuer(
            name="older",
            issuer=OLDER_ISSUER,
            audience=OLDER_AUDIENCE,
            algorithms=("RS256",),
            key=pem,
        )
        async with Issuers([corp, older], now=lambda: NOW) as issuers:
            yield Credentials(issuers=issuers)


async def our_opinion(credentials: Credentials, text: str) -> Opinion:
    try:
        who = await credentials.authenticate({"authorization": f"Bearer {text}"})
    except Unauthenticated:
        return None
    return {"corp": ISSUER, "older": OLDER_ISSUER}[who.issuer], who.name


async def fuzz_tokens(number: int, seed: int) -> Report:
    """Make so many tokens and have each judged twice."""
    maker = Maker(random.Random(seed))
    second = SecondOpinion(
        [
            Expected(issuer=ISSUER, audience=AUDIENCE, algorithms=ALGORITHMS, keys=maker.jwks()),
            Expected(
                issuer=OLDER_ISSUER,
                audience=OLDER_AUDIENCE,
                algorithms=("RS256",),
                keys=maker.older.pem(),
            ),
        ],
        NOW,
    )
    report = Report(seed)
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "EdDSA is deprecated")
        async with believed(maker) as credentials:
            while report.sent < number:
                token = maker.token()
                ours = await our_opinion(credentials, token.text)
                _take(report, token, ours, second.of(token.text.lstrip(" ")))
    report.seconds = time.monotonic() - began
    return report


def _take(report: Report, token: Token, ours: Opinion, theirs: Opinion) -> None:
    report.sent += 1
    report.good += token.is_good
    report.families[token.family] += 1
    if ours and not token.is_good:
        report.forged_believed.append(token)
    if token.is_good and not ours:
        report.good_refused.append(token)
    if ours == theirs:
        return
    is_alike = bool(ours) == bool(theirs)  # and yet of two people
    rule = None if is_alike else rule_of(token.text, is_believed=bool(ours))
    if rule is None:
        report.unexplained.append(token)
    else:
        report.by_rule[rule] += 1
