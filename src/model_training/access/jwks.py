"""The public keys of an issuer: which there are, and which of them a token is signed by."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from jwt.algorithms import (
    Algorithm,
    ECAlgorithm,
    OKPAlgorithm,
    RSAAlgorithm,
    get_default_algorithms,
)
from jwt.exceptions import InvalidKeyError

from model_training.access.issuers import ALGORITHMS
from model_training.access.signed_text import SignedText
from model_training.strict_json import parse_json

KEYS_READ: Final = 100  # of one set; an issuer has two to four
RSA_BITS: Final = 2048  # the least that NIST SP 800-131A takes
_CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """One key, and what it may be used with."""

    id: str | None
    algorithm: str | None
    """the only one, if the issuer says so"""
    key: PublicKey

    def fits(self, algorithm: str) -> bool:
        """Whether a token may be signed by this key with the algorithm."""
        if self.algorithm is not None and self.algorithm != algorithm:
            return False
        match self.key:
            case RSAPublicKey():
                return algorithm[:2] in {"RS", "PS"} and self.key.key_size >= RSA_BITS
            case EllipticCurvePublicKey():
                return _CURVES.get(algorithm) == self.key.curve.name
            case Ed25519PublicKey():
                return algorithm == "EdDSA"


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one issuer at one time."""

    keys: tuple[IssuerKey, ...]

    def key_of(self, token: SignedText) -> IssuerKey | None:
        """The one key that the token can be signed by; None if there is none, or it is unclear.

        Raises:
            Unreadable: what it says of its key is no id.
        """
        fitting = [key for key in self.keys if key.fits(token.algorithm)]
        if (named := token.key_id) is not None:
            fitting = [key for key in fitting if key.id == named]
        return fitting[0] if len(fitting) == 1 else None


def is_signed_by(token: SignedText, key: IssuerKey) -> bool:
    """Whether the signature is of this key; the caller has seen that the algorithm fits."""
    algorithm = _ALGORITHMS[token.algorithm]
    return algorithm.verify(token.signed, algorithm.prepare_key(key.key), token.signature)


# Not all that the library knows: among those are "none" and the symmetric ones.
_ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    name: algorithm for name, algorithm in get_default_algorithms().items() if name in ALGORITHMS
}


def read_key_set(body: bytes) -> KeySet:
    """The keys of a JSON Web Key Set that are public ones for signatures (RFC 7517).

    Others are passed over, as an issuer may publish what it encrypts with beside them; of two
    keys with one id neither is taken.

    Raises:
        ValueError: it is no such set, or has none that can be used.
    """
    plain = parse_json(body)
    entries = cast("dict[str, object]", plain).get("keys") if isinstance(plain, dict) else None
    if not isinstance(entries, list):
        raise ValueError("it is no set of keys")  # noqa: TRY004 - what is wrong is a document
    some = cast("Sequence[object]", entries)
    if len(some) > KEYS_READ:
        raise ValueError(f"it has more than {KEYS_READ} keys")
    jwks = [cast("dict[str, object]", entry) for entry in some if isinstance(entry, dict)]
    keys = [key for jwk in jwks if _is_for_signatures(jwk) and (key := _key_of(jwk)) is not None]
    doubled = {name for name, count in Counter(_ids(keys)).items() if count > 1}
    usable = tuple(key for key in keys if key.id not in doubled)
    if not usable:
        raise ValueError("it has no key that signatures can be checked with")
    return KeySet(usable)


def _ids(keys: Iterable[IssuerKey]) -> list[str]:
    return [key.id for key in keys if key.id is not None]


def _is_for_signatures(jwk: dict[str, object]) -> bool:
    """Whether it is public, and not kept for something else."""
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return False
    return jwk.get("use", "sig") == "sig" and "d" not in jwk


def _key_of(jwk: dict[str, object]) -> IssuerKey | None:
    """What one entry describes, if that is known here.

    An id or an algorithm that is no text is not taken for none, which would allow more.
    """
    if not all(isinstance(jwk.get(name, ""), str) for name in ("kid", "alg")):
        return None
    make = _MAKERS.get(str(jwk.get("kty")))
    try:
        key = make(jwk) if make else None
    except (InvalidKeyError, ValueError, TypeError, KeyError):
        return None
    if not isinstance(key, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey):
        return None
    texts = cast("dict[str, str]", jwk)
    return IssuerKey(texts.get("kid"), texts.get("alg"), key)


_MAKERS: Final[Mapping[str, Callable[[Any], object]]] = {
    "RSA": RSAAlgorithm.from_jwk,
    "EC": ECAlgorithm.from_jwk,
    "OKP": OKPAlgorithm.from_jwk,
}


def read_pem(path: Path) -> KeySet:
    """The one public key in a PEM file, as it is or in a certificate.

    Raises:
        OSError: it cannot be read.
        ValueError: there is none in it.
    """
    data = path.read_bytes()
    try:
        if b"BEGIN CERTIFICATE" in data:
            key = load_pem_x509_certificate(data).public_key()
        else:
            key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):  # in OpenSSL's words, which help nobody
        private = "it is a private one" if b"PRIVATE KEY" in data else "there is none in PEM in it"
        raise ValueError(private) from None
    if not isinstance(key, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey):
        raise ValueError("it is no key that signatures are checked with here")  # noqa: TRY004 - what is wrong is a file
    if isinstance(key, RSAPublicKey) and key.key_size < RSA_BITS:
        raise ValueError(f"it has {key.key_size} bits, and {RSA_BITS} are the least")
    return KeySet((IssuerKey(None, None, key),))


def key_of_pem(keys: KeySet, token: SignedText) -> IssuerKey | None:
    """The one key, whatever the token calls it."""
    [key] = keys.keys
    return key if key.fits(token.algorithm) else None
