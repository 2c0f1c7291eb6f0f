"""Who makes the JSON Web Tokens that are believed, and what is believed of them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from model_training.errors import SettingsError
from model_training.proxies import is_loopback_name

# Asymmetric alone: who can check a symmetric signature can also make one, and a public key must
# never serve as such a secret.
ALGORITHMS: Final = frozenset({
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
})  # fmt: skip
TYPES: Final = ("at+jwt", "jwt")
NO_TYPE: Final = "none"  # among types: of a token that does not say of which it is
LEEWAY_LIMIT_S: Final = 60.0  # seconds; clocks that differ by more are broken
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """One of them; see ``access_file.IssuerTable``, whose fields these are."""

    name: str
    issuer: str
    audience: str
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    jwks: str | None = None
    """where its keys are; None: where its discovery document says"""
    key: Path | None = None
    """a public key in PEM instead"""
    types: tuple[str, ...] = (*TYPES, NO_TYPE)
    """values of ``typ``, in any case"""
    subject: str = "sub"
    groups: str = "groups"
    roles: str = "roles"
    ca: Path | None = None
    leeway_s: float = 30.0

    def require_sound(self) -> None:
        """Pass, or raise.

        Raises:
            SettingsError: no token of it could be believed safely.
        """
        place = f"The setting issuers[{self.name}]"
        if not _NAME.fullmatch(self.name):
            raise SettingsError(f"{place}.name: expects a-z, 0-9 and dashes, at most 32 of them.")
        if not self.audience.strip():
            raise SettingsError(f"{place}.audience: it is empty; tokens for others would be taken.")
        if not self.algorithms:
            raise SettingsError(f"{place}.algorithms: it is empty; no token would be good.")
        if strangers := sorted(set(self.algorithms) - ALGORITHMS):
            known = ", ".join(sorted(ALGORITHMS))
            raise SettingsError(
                f"{place}.algorithms: {strangers[0]} is none that a public key checks; {known} are."
            )
        if not 0 <= self.leeway_s <= LEEWAY_LIMIT_S:
            raise SettingsError(f"{place}.leeway: expects 0 to {LEEWAY_LIMIT_S:.0f} seconds.")
        self._require_safe_keys(place)

    def _require_safe_keys(self, place: str) -> None:
        if self.jwks is not None and self.key is not None:
            raise SettingsError(f"{place}.key: there is jwks, too; remove one of the two.")
        for name, url in (("jwks", self.jwks), ("issuer", self._discovered)):
            if url is not None and (reason := unsafe(url)):
                raise SettingsError(f"{place}.{name}: {reason}.")

    @property
    def _discovered(self) -> str | None:
        return self.issuer if self.jwks is None and self.key is None else None

    @property
    def discovery_url(self) -> str:
        """Of its OpenID configuration (OpenID Connect Discovery 1.0, section 4)."""
        return f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"


def unsafe(url: str) -> str | None:
    """Why keys are not to be asked for there; None if what comes from there is from there."""
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.port != 0  # which is parsed only now
    except ValueError:
        return f"{url!a} is no address"
    if not is_whole or not url.isascii() or not url.isprintable() or " " in url:
        return f"{url!a} is no address"
    if parts.username is not None or parts.password is not None:
        return f"the address of {parts.hostname} has a login in it, which would stand in logs"
    if not is_safe_url(url):
        return f"{url} is not https, and whoever is between could put other keys in its place"
    return None


def is_safe_url(url: str) -> bool:
    """Whether what comes from there is from there: TLS, or this machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(parts.hostname)
    return parts.scheme == "http" and is_loopback_name(parts.hostname or "")
