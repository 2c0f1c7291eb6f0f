"""Tokens good and bad, made with nothing but base64, JSON and the primitives of ``cryptography``.

Imports nothing of the code that it is to deceive. ``Forge`` has the keys of an issuer;
``forged`` gives one token of a family chosen by chance, and whether it is to be believed.
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
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER = "https://login.example.org/realms/ml"
AUDIENCE = "model-training"
Json = dict[str, Any]


class Token(NamedTuple):
    """One token."""

    text: str
    is_good: bool
    family: str


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
            "iss": ISSUER, "aud": AUDIENCE, "sub": "lea", "iat": now - 5, "exp": now + 300,
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


Family = Callable[[Forge, random.Random], str]


def _good(forge: Forge, chance: random.Random) -> str:
    algorithm, kid = chance.choice([("ES256", "ec-1"), ("RS256", "rsa-1"), ("EdDSA", "ed-1")])
    typ = chance.choice(["at+jwt", "JWT", "jwt", "application/at+jwt", ...])
    audience = chance.choice([AUDIENCE, [AUDIENCE], ["other", AUDIENCE]])
    header = forge.header(alg=algorithm, kid=chance.choice([kid, ...]), typ=typ)
    subject = chance.choice(["lea", "1", "auth0|5f", "ä/b", "x" * 256])
    return forge.sign(header, forge.claims(aud=audience, sub=subject), algorithm)


def _claims(forge: Forge, chance: random.Random) -> str:
    now = forge.now()
    name, value = chance.choice([
        ("iss", ISSUER + "/"), ("iss", ISSUER[:-1]), ("iss", "https://evil.example"), ("iss", ...),
        ("iss", [ISSUER]), ("iss", None), ("iss", ISSUER.upper()),
        ("aud", "other"), ("aud", ["other"]), ("aud", ...), ("aud", None), ("aud", []),
        ("aud", {"a": AUDIENCE}), ("aud", [AUDIENCE, 7]), ("aud", AUDIENCE + " "), ("aud", ""),
        ("exp", now - 31), ("exp", ...),
        ("exp", None), ("exp", str(now + 300)), ("exp", True),
        ("exp", now + 90_000), ("exp", 10**20), ("exp", -1), ("exp", [now + 300]),
        ("nbf", now + 60), ("nbf", "0"), ("nbf", False), ("nbf", [0]), ("nbf", -5),
        ("iat", now + 60),
        ("iat", "yesterday"), ("iat", {}), ("iat", now - 90_000),
        ("sub", ...), ("sub", ""), ("sub", None), ("sub", 7), ("sub", "x" * 257), ("sub", ["lea"]),
        ("sub", "lea\n"), ("sub", "\x00"), ("sub", "lea\u202e"), ("sub", {"a": 1}),
    ])  # fmt: skip
    return forge.sign(forge.header(), forge.claims(**{name: value}))


def _header(forge: Forge, chance: random.Random) -> str:
    evil = forge.ec_jwk(forge.other_ec, "ec-1")
    name, value = chance.choice([
        ("alg", "none"), ("alg", "None"), ("alg", ""), ("alg", ...), ("alg", None), ("alg", 7),
        ("alg", ["ES256"]), ("alg", "es256"), ("alg", "RS256"), ("alg", "ES384"), ("alg", "HS256"),
        ("alg", "EdDSA"), ("alg", "PS256"), ("alg", "RSA-OAEP"),
        ("crit", ["exp"]), ("crit", []),
        ("crit", ["b64"]), ("b64", False),
        ("b64", True), ("typ", "secevent+jwt"), ("typ", "JWE"),
        ("typ", 7), ("typ", None), ("typ", ""), ("kid", "rsa-1"), ("kid", "enc-1"),
        ("kid", "unknown"),
        ("kid", ""), ("kid", 7), ("kid", ["ec-1"]), ("kid", "../ec-1"), ("kid", "x" * 300),
    ])  # fmt: skip
    header = forge.header(**{name: value})
    if chance.random() < 0.2:
        header |= {"jwk": evil, "jku": "https://evil.example/keys", "x5u": "https://evil.example"}
    return forge.sign(header, forge.claims())


def _embedded_key(forge: Forge, chance: random.Random) -> str:
    evil = forge.ec_jwk(forge.other_ec, chance.choice(["ec-1", "evil"]))
    header = forge.header(jwk=evil, kid=evil["kid"])
    signed = f"{encoded(header)}.{encoded(forge.claims())}".encode()
    return f"{signed.decode()}.{b64(raw_ecdsa(forge.other_ec, signed))}"


def _unsigned(forge: Forge, chance: random.Random) -> str:
    text = forge.good()
    head, payload, signature = text.split(".")
    return chance.choice([
        f"{head}.{payload}.", f"{head}.{payload}", f"{head}.{payload}.{signature}.x",
        f"..{signature}",
        f"{head}..{signature}", f".{payload}.{signature}",
        f"{encoded({'alg': 'none'})}.{payload}.",
        f"{head}.{payload}.{b64(bytes(64))}", f"{head}.{payload}.{b64(b'x' * 63)}", "", ".", "..",
        f"{head}.{payload}.{signature}.{signature}.{signature}",
    ])  # fmt: skip


def _public_key_as_secret(forge: Forge, chance: random.Random) -> str:
    secret = chance.choice([forge.pem(), forge.pem().strip(), json.dumps(forge.jwks()).encode()])
    header = forge.header(alg="HS256", kid=chance.choice(["rsa-1", ...]))
    signed = f"{encoded(header)}.{encoded(forge.claims())}".encode()
    return f"{signed.decode()}.{b64(hmac.new(secret, signed, hashlib.sha256).digest())}"


def _changed_bit(forge: Forge, chance: random.Random) -> str:
    text = forge.good()
    at = chance.randrange(len(text))
    sign = chance.choice("ABCabc019-_")
    changed = text[:at] + sign + text[at + 1 :]
    # The same signs decode to the same token; the last of a segment may hold unused bits.
    return changed if changed != text else text[:-2]


def _other_writing(forge: Forge, chance: random.Random) -> str:
    text = forge.good()
    return chance.choice([
        text + "=", text + "==", text.replace(".", "=.", 1), " " + text, text + " ", text + "\n",
        text.replace(".", ". ", 1), f"Bearer {text}", text + "\x00", text.replace(".", "..", 1),
        text.translate(str.maketrans("-_", "+/")) + "+", text + "é", "x" * 9000, f"{text}.",
    ])  # fmt: skip


def _odd_json(forge: Forge, chance: random.Random) -> str:
    good = json.dumps(forge.claims())
    payload = chance.choice([
        good[:-1] + ', "sub": "root"}', '{"sub": "root", ' + good[1:], f"[{good}]", "7",
        good[:-1], "null", '"text"', good[:-1] + ', "x": NaN}', good[:-1] + ', "x": 1e999}',
        good[:-1] + ', "x": ' + "[" * 200 + "]" * 200 + "}", "\ufeff" + good, "'" + good + "'",
        good[:-1] + ', "x": ' + "9" * 5000 + "}", good[:-1] + ', "x": "\\ud800"}',
    ])  # fmt: skip
    if chance.random() < 0.3:
        header = '{"alg": "none", "alg": "ES256", "kid": "ec-1"}'
        return forge.sign(b64(header.encode()), forge.claims())
    return forge.sign(forge.header(), b64(payload.encode("utf-8", "surrogatepass")))


def _mixed(forge: Forge, chance: random.Random) -> str:
    one, other = forge.good().split("."), forge.good(sub="root").split(".")
    mixed = [chance.choice(pair) for pair in zip(one, other, strict=True)]
    if mixed[1:] == one[1:] or mixed[1:] == other[1:]:
        mixed[2] = b64(bytes(64))
    return ".".join(mixed)


def _noise(forge: Forge, chance: random.Random) -> str:
    del forge
    size = chance.randrange(200)
    alphabet = "abcXYZ019-_.=+/ {}\"':,é"
    return "".join(chance.choice(alphabet) for _ in range(size))


FAMILIES: dict[str, tuple[Family, bool]] = {
    "good": (_good, True),
    "claims": (_claims, False),
    "header": (_header, False),
    "a key of its own": (_embedded_key, False),
    "unsigned": (_unsigned, False),
    "the public key as a secret": (_public_key_as_secret, False),
    "a changed sign": (_changed_bit, False),
    "another writing": (_other_writing, False),
    "odd JSON": (_odd_json, False),
    "parts of two": (_mixed, False),
    "noise": (_noise, False),
}


def forged(forge: Forge, chance: random.Random) -> Token:
    """One token."""
    family = chance.choice(list(FAMILIES))
    make, is_good = FAMILIES[family]
    return Token(make(forge, chance), is_good, family)
