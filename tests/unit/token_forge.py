"""Tokens good and bad, made with nothing but base64, JSON and the primitives of ``cryptography``.

Imports nothing of the code that it is to deceive. ``Forge`` has the keys of an issuer;
``forged`` gives one token of a family chosen by chance, whether it is to be believed, and what is
wrong with it.
"""

import base64
import hashlib
import hmac
import json
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER = "https://login.example.org/realms/ml"
AUDIENCE = "model-training"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
Json = dict[str, Any]


class Token(NamedTuple):
    """One token."""

    text: str
    is_good: bool
    family: str
    words: str
    """which of the family it is"""


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def encoded(value: object) -> str:
    return b64(json.dumps(value, separators=(",", ":")).encode())


def number(value: int, size: int | None = None) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


class Forge:
    """The keys of an issuer, of an attacker, and what can be made with them."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.other_ec = ec.generate_private_key(ec.SECP256R1())
        self.ed = ed25519.Ed25519PrivateKey.generate()
        self.encryption = rsa.generate_private_key(65537, 2048)

    def jwks(self) -> Json:
        """What the issuer publishes, its encryption key first, as Keycloak does."""
        return {
            "keys": [
                {**self.rsa_jwk(self.encryption, "enc-1"), "use": "enc", "alg": "RSA-OAEP"},
                {**self.rsa_jwk(self.rsa, "rsa-1"), "use": "sig", "alg": "RS256"},
                {**self.ec_jwk(self.ec, "ec-1"), "use": "sig"},
                {"kty": "OKP", "crv": "Ed25519", "kid": "ed-1", "x": b64(self._raw(self.ed))},
            ]
        }

    @staticmethod
    def _raw(key: ed25519.Ed25519PrivateKey) -> bytes:
        return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @staticmethod
    def rsa_jwk(key: rsa.RSAPrivateKey, kid: str) -> Json:
        numbers = key.public_key().public_numbers()
        return {"kty": "RSA", "kid": kid, "n": number(numbers.n), "e": number(numbers.e)}

    @staticmethod
    def ec_jwk(key: ec.EllipticCurvePrivateKey, kid: str) -> Json:
        numbers = key.public_key().public_numbers()
        x, y = number(numbers.x, 32), number(numbers.y, 32)
        return {"kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": y}

    def pem(self) -> bytes:
        return self.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def claims(self, **changes: object) -> Json:
        now = self.now()
        claims = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": "lea", "iat": now - 5, "exp": now + 3600,
        }  # fmt: skip
        claims.update(changes)
        return {name: value for name, value in claims.items() if value is not ...}

    def signature(self, algorithm: str, signed: bytes) -> bytes:
        if algorithm == "RS256":
            return self.rsa.sign(signed, padding.PKCS1v15(), SHA256())
        if algorithm == "PS256":
            salt = padding.PSS(padding.MGF1(SHA256()), 32)
            return self.rsa.sign(signed, salt, SHA256())
        if algorithm == "EdDSA":
            return self.ed.sign(signed)
        if algorithm == "by the encryption key":
            return self.encryption.sign(signed, padding.PKCS1v15(), SHA256())
        return raw_ecdsa(self.ec, signed)

    def sign(self, header: Json | str, claims: Json | str, algorithm: str = "ES256") -> str:
        """A token; parts that are texts are segments already."""
        parts = [part if isinstance(part, str) else encoded(part) for part in (header, claims)]
        signed = ".".join(parts).encode()
        return f"{signed.decode()}.{b64(self.signature(algorithm, signed))}"

    def header(self, **changes: object) -> Json:
        header = {"alg": "ES256", "kid": "ec-1", "typ": "at+jwt", **changes}
        return {name: value for name, value in header.items() if value is not ...}

    def good(self, **claims: object) -> str:
        return self.sign(self.header(), self.claims(**claims))


def raw_ecdsa(key: ec.EllipticCurvePrivateKey, signed: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


Made = tuple[str, str]  # the token, and which of its family it is
Family = Callable[[Forge, random.Random], Made]


def _one(chance: random.Random, some: dict[str, str]) -> Made:
    words = chance.choice(list(some))
    return some[words], words


def _good(forge: Forge, chance: random.Random) -> Made:
    now = forge.now()
    algorithm, kid = chance.choice([("ES256", "ec-1"), ("RS256", "rsa-1"), ("EdDSA", "ed-1")])
    typ = chance.choice(["at+jwt", "JWT", "jwt", "application/at+jwt", ...])
    claims: Json = {
        "aud": chance.choice([AUDIENCE, [AUDIENCE], ["other", AUDIENCE]]),
        "sub": chance.choice(["lea", "1", "auth0|5f", "ä/b", "x" * 256]),
        "nbf": chance.choice([..., 0, now, now + 20]),
        "iat": chance.choice([int(now), now - 5, now + 20, now - 86_000]),
        "exp": chance.choice([int(now) + 300, now - 5]),
        "x": chance.choice([..., None, 10**400, {"iss": "https://evil.example"}]),
    }
    header = forge.header(alg=algorithm, kid=chance.choice([kid, ...]), typ=typ)
    return forge.sign(header, forge.claims(**claims), algorithm), f"{algorithm}, typ {typ}"


def _ignored(forge: Forge, chance: random.Random) -> Made:
    """Names of keys elsewhere, which are to be passed over."""
    del chance
    evil = forge.ec_jwk(forge.other_ec, "ec-1")
    header = forge.header(jwk=evil, jku="https://evil.example/keys", x5u="https://evil.example")
    return forge.sign(header, forge.claims()), "names keys elsewhere"


def _twin(forge: Forge, chance: random.Random) -> Made:
    """ECDSA has two signatures for one; neither is a secret, and a token is not told by them."""
    del chance
    signed, _, signature = forge.good().rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    other = P256_ORDER - int.from_bytes(raw[32:], "big")
    return f"{signed}.{b64(raw[:32] + other.to_bytes(32, 'big'))}", "the other s"


def _claims(forge: Forge, chance: random.Random) -> Made:
    now = forge.now()
    name, value, words = chance.choice([
        ("iss", ISSUER + "/", ""), ("iss", ISSUER[:-1], ""), ("iss", "https://evil.example", ""),
        ("iss", ..., ""), ("iss", [ISSUER], ""), ("iss", None, ""), ("iss", ISSUER.upper(), ""),
        ("iss", {"a": 1}, ""), ("iss", 7, ""),
        ("aud", "other", ""), ("aud", ["other"], ""), ("aud", ..., ""), ("aud", None, ""),
        ("aud", [], ""), ("aud", {"a": AUDIENCE}, ""), ("aud", [AUDIENCE, 7], ""),
        ("aud", AUDIENCE + " ", ""), ("aud", "", ""), ("aud", AUDIENCE[:-1], ""),
        ("exp", now - 31, "past"), ("exp", ..., ""), ("exp", None, ""), ("exp", True, ""),
        ("exp", str(now + 300), "text"), ("exp", now + 90_000, "25 hours"), ("exp", 10**20, ""),
        ("exp", 10**400, "400 digits"), ("exp", -(10**400), "-400 digits"), ("exp", -1, ""),
        ("exp", 1e308, ""), ("exp", [now + 300], "list"),
        ("nbf", now + 60, "later"), ("nbf", "0", ""), ("nbf", False, ""), ("nbf", [0], ""),
        ("nbf", -5, ""), ("nbf", 10**400, "400 digits"), ("nbf", None, ""),
        ("iat", now + 60, "later"), ("iat", "yesterday", ""), ("iat", {}, ""), ("iat", None, ""),
        ("iat", now - 90_000, "25 hours"), ("iat", 10**400, "400 digits"), ("iat", 0, ""),
        ("sub", ..., ""), ("sub", "", ""), ("sub", None, ""), ("sub", 7, ""), ("sub", ["lea"], ""),
        ("sub", "x" * 257, "257 signs"), ("sub", "lea\n", ""), ("sub", "\x00", ""),
        ("sub", "lea\u202e", ""), ("sub", {"a": 1}, ""),
    ])  # fmt: skip
    text = forge.sign(forge.header(), forge.claims(**{name: value}))
    return text, f"{name} {words or ascii(value)}"


def _header(forge: Forge, chance: random.Random) -> Made:
    name, value = chance.choice([
        ("alg", "none"), ("alg", "None"), ("alg", ""), ("alg", ...), ("alg", None), ("alg", 7),
        ("alg", ["ES256"]), ("alg", "es256"), ("alg", "ES256 "), ("alg", "RS256"),
        ("alg", "ES384"), ("alg", "HS256"), ("alg", "EdDSA"), ("alg", "PS256"),
        ("alg", "RSA-OAEP"), ("crit", ["exp"]), ("crit", []), ("crit", ["b64"]), ("b64", False),
        ("b64", True), ("typ", "secevent+jwt"), ("typ", "JWE"), ("typ", 7), ("typ", None),
        ("typ", ""), ("kid", "rsa-1"), ("kid", "enc-1"), ("kid", "unknown"), ("kid", ""),
        ("kid", 7), ("kid", None), ("kid", ["ec-1"]), ("kid", "../ec-1"), ("kid", "x" * 300),
    ])  # fmt: skip
    header = forge.header(**{name: value})
    if chance.random() < 0.2:
        header |= {"jwk": forge.ec_jwk(forge.other_ec, "ec-1"), "jku": "https://evil.example/keys"}
    return forge.sign(header, forge.claims()), f"{name} {value!a:.40}"


def _other_key(forge: Forge, chance: random.Random) -> Made:
    if chance.random() < 0.5:
        header = forge.header(alg="RS256", kid=chance.choice(["enc-1", "rsa-1", ...]))
        return forge.sign(header, forge.claims(), "by the encryption key"), "for encryption"
    kid = chance.choice(["ec-1", "evil"])
    header = forge.header(jwk=forge.ec_jwk(forge.other_ec, kid), kid=kid)
    signed = f"{encoded(header)}.{encoded(forge.claims())}"
    return f"{signed}.{b64(raw_ecdsa(forge.other_ec, signed.encode()))}", "in its header"


def _unsigned(forge: Forge, chance: random.Random) -> Made:
    text = forge.good()
    head, payload, signature = text.split(".")
    none, jwe = encoded({"alg": "none"}), encoded({"alg": "dir", "enc": "A128GCM"})
    words = chance.choice([
        f"{head}.{payload}.", f"{head}.{payload}", f"{text}.x", f"..{signature}", "", ".", "..",
        f"{head}..{signature}", f".{payload}.{signature}", f"{none}.{payload}.",
        f"{text}.{signature}.{signature}", f"{jwe}..{signature}.{payload}.{signature}",
        f"{none}.{payload}.{signature}",
    ])  # fmt: skip
    return words, f"{words.count('.') + 1} segments"


def _odd_signature(forge: Forge, chance: random.Random) -> Made:
    if chance.random() < 0.25:
        return _odd_rsa_signature(forge, chance)
    signed, _, signature = forge.good().rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    made = {
        "in DER": encode_dss_signature(r, s),
        "one byte less": raw[:-1],
        "one byte more": raw + b"\0",
        "zeros": bytes(64),
        "r is 0": bytes(32) + raw[32:],
        "s is 0": raw[:32] + bytes(32),
        "s and r": raw[32:] + raw[:32],
        "r beyond the order": b"\xff" * 32 + raw[32:],
        "longer numbers": b"\0" + raw[:32] + b"\0" + raw[32:],
    }
    words = chance.choice(list(made))
    return f"{signed}.{b64(made[words])}", words


def _odd_rsa_signature(forge: Forge, chance: random.Random) -> Made:
    words = chance.choice(["RSA, longer", "RSA, shorter", "RSA of another kind"])
    signed = f"{encoded(forge.header(alg='RS256', kid='rsa-1'))}.{encoded(forge.claims())}"
    kind = "PS256" if words == "RSA of another kind" else "RS256"
    raw = forge.signature(kind, signed.encode())
    made = {"RSA, longer": b"\0" + raw, "RSA, shorter": raw[:-1]}.get(words, raw)
    return f"{signed}.{b64(made)}", words


def _public_key_as_secret(forge: Forge, chance: random.Random) -> Made:
    secret = chance.choice([forge.pem(), forge.pem().strip(), json.dumps(forge.jwks()).encode()])
    header = forge.header(alg="HS256", kid=chance.choice(["rsa-1", ...]))
    signed = f"{encoded(header)}.{encoded(forge.claims())}".encode()
    signature = hmac.new(secret, signed, hashlib.sha256).digest()
    return f"{signed.decode()}.{b64(signature)}", f"{len(secret)} bytes"


def _changed_sign(forge: Forge, chance: random.Random) -> Made:
    text = forge.good()
    at = chance.randrange(len(text))
    sign = chance.choice([each for each in "ABCabc019-_" if each != text[at]])
    # The last sign of a segment may hold bits that mean nothing: then it is another writing.
    return text[:at] + sign + text[at + 1 :], f"the {at}th of {len(text)}"


def _other_writing(forge: Forge, chance: random.Random) -> Made:
    text = forge.good()
    return _one(chance, {
        "=": text + "=",
        "==": text + "==",
        "= inside": text.replace(".", "=.", 1),
        "a space before": " " + text,
        "a space behind": text + " ",
        "a line break behind": text + "\n",
        "a space inside": text.replace(".", ". ", 1),
        "a line break inside": text.replace(".", ".\n", 1),
        "Bearer": f"Bearer {text}",
        "NUL": text + "\x00",
        "two dots": text.replace(".", "..", 1),
        "the other alphabet": text.translate(str.maketrans("-_", "+/")) + "+",
        "é": text + "é",
        "half of a pair": text.replace(".", ".\ud800", 1),
        "unused bits": _with_unused_bits(text),
        "a dot behind": f"{text}.",
        "longer than 8 KiB": forge.good(padding="x" * 6200),
        "noise longer than 8 KiB": "x" * 9000,
    })  # fmt: skip


def _with_unused_bits(text: str) -> str:
    """The last sign of 64 bytes holds two bits that mean something."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) + 1]


def _odd_json(forge: Forge, chance: random.Random) -> Made:
    good = json.dumps(forge.claims())
    if chance.random() < 0.3:
        header = chance.choice([
            '{"alg": "none", "alg": "ES256", "kid": "ec-1"}',
            '{"alg": "ES256", "kid": "evil", "kid": "ec-1"}',
            '{"alg": "ES256", "kid": "ec-1", "x": ' + "[" * 200 + "]" * 200 + "}",
        ])  # fmt: skip
        return forge.sign(b64(header.encode()), forge.claims()), f"header {header:.20}"
    payload, words = _one(chance, {
        "a key twice": good[:-1] + ', "sub": "root"}',
        "a key twice, first": '{"sub": "root", ' + good[1:],
        "a list": f"[{good}]",
        "a number": "7",
        "cut": good[:-1],
        "null": "null",
        "a text": '"text"',
        "NaN": good[:-1] + ', "x": NaN}',
        "1e999": good[:-1] + ', "x": 1e999}',
        "exp is Infinity": good.replace('"exp": ', '"exp": Infinity, "x": '),
        "deep": good[:-1] + ', "x": ' + "[" * 200 + "]" * 200 + "}",
        "deeper than Python goes": good[:-1] + ', "x": ' + "[" * 2500 + "]" * 2500 + "}",
        "a byte order mark": "\ufeff" + good,
        "quoted": "'" + good + "'",
        "5,000 digits": good[:-1] + ', "x": ' + "9" * 5000 + "}",
        "half of a pair": good[:-1] + ', "x": "\\ud800"}',
        "half of a pair, raw": good[:-1] + ', "x": "\ud800"}',
        "two": good + good,
    })  # fmt: skip
    return forge.sign(forge.header(), b64(payload.encode("utf-8", "surrogatepass"))), words


def _mixed(forge: Forge, chance: random.Random) -> Made:
    one, other = forge.good().split("."), forge.good(sub="root").split(".")
    if chance.random() < 0.5:
        one, other = other, one
    return ".".join([one[0], one[1], other[2]]), "the signature of another"


def _noise(forge: Forge, chance: random.Random) -> Made:
    del forge
    size = chance.randrange(200)
    alphabet = "abcXYZ019-_.=+/ {}\"':,é"
    return "".join(chance.choice(alphabet) for _ in range(size)), f"{size} signs"


FAMILIES: dict[str, tuple[Family, bool]] = {
    "good": (_good, True),
    "ignored names of keys": (_ignored, True),
    "another signature of the same": (_twin, True),
    "claims": (_claims, False),
    "header": (_header, False),
    "another key": (_other_key, False),
    "unsigned": (_unsigned, False),
    "an odd signature": (_odd_signature, False),
    "the public key as a secret": (_public_key_as_secret, False),
    "a changed sign": (_changed_sign, False),
    "another writing": (_other_writing, False),
    "odd JSON": (_odd_json, False),
    "parts of two": (_mixed, False),
    "noise": (_noise, False),
}


def forged(forge: Forge, chance: random.Random) -> Token:
    """One token."""
    family = chance.choice(list(FAMILIES))
    make, is_good = FAMILIES[family]
    text, words = make(forge, chance)
    return Token(text, is_good, family, words)
