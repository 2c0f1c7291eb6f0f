"""Who is asking. The route authenticates; everything below is given a Principal.

Here stand what all ways in have in common, and the local one: a token in a file that only its
owner can read.
"""

import hmac
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from model_training.access.actions import Action
from model_training.errors import SettingsError, Unauthenticated

TOKEN_BYTES = 32  # 256 bits of randomness, in 43 characters
# Kept as they are in an id. The colon is not among them: two decision points refuse it, and one
# joins what it is asked with it.
_KEPT: Final = "-._~@+=,"


class PrincipalKind(StrEnum):
    """What vouches for somebody, and so what can be told about them to a decision point."""

    LOCAL = "local"
    USER = "user"  # by a JWT of an issuer
    SERVICE_ACCOUNT = "service_account"  # by a token that Kubernetes reviewed
    API_KEY = "api_key"


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most that a credential may be used for, whatever is decided about its holder.

    ``pipelines`` are patterns (``patterns.py``); a job is of its own pipeline.
    """

    actions: frozenset[Action]
    pipelines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClusterIdentity:
    """Who somebody is to Kubernetes, as a TokenReview tells and a SubjectAccessReview asks."""

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody we know."""

    kind: PrincipalKind
    id: str
    """unique among all kinds, without a colon; kept as a job's ``owner``"""
    name: str = ""
    """as the source calls them: a claim's value, a username, a key's id"""
    issuer: str = ""
    """the source's name in the settings"""
    groups: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    fingerprint: str = ""
    """tells one credential from another in the audit log, and nothing about it: 12 hexadecimal
    digits of a digest, or the id of an API key"""
    expires_at: float | None = None
    """seconds since 1970 at which the credential ends"""
    ceiling: Ceiling | None = None
    cluster: ClusterIdentity | None = field(default=None, repr=False)
    token: str = field(default="", repr=False)
    """the credential itself, for a decision point that reads it; only of a JWT"""


def principal_id(source: str, subject: str) -> str:
    """The id of a subject of a source, ``SOURCE/SUBJECT``; two never have the same.

    Args:
        source: its name in the settings, a label without a slash.
        subject: what the source calls them; every sign but letters, digits and a few harmless
            ones is percent-encoded, as in a URL.
    """
    return f"{source}/{quote(subject, safe=_KEPT)}"


class Authenticator(Protocol):
    """Tells who sent a request."""

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """The sender.

        Args:
            headers: names in lower case.

        Raises:
            Unauthenticated: nobody, or nobody we know.
            AccessUnavailable: who it is cannot be told now.
        """
        ...


_BEARER: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/=-]+)")


def bearer_token(headers: Mapping[str, str]) -> str:
    """The token of the Authorization header (RFC 6750, section 2.1).

    Raises:
        Unauthenticated: there is none.
    """
    value = headers.get("authorization")
    if value is None:
        raise Unauthenticated
    match = _BEARER.fullmatch(value)
    if match is None:
        raise Unauthenticated
    return match[1]


class LocalToken:
    """One token, and whoever can read its file is the one local user."""

    principal: Final = Principal(PrincipalKind.LOCAL, "local", name="local")

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def is_it(self, token: str) -> bool:
        """Whether this is the token; tells nothing else by the time it takes."""
        return hmac.compare_digest(token.encode(), self._token)

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """The local user, if the request carries the token as a bearer token."""
        if not self.is_it(bearer_token(headers)):
            raise Unauthenticated("The token is not the one of this service.")
        return self.principal


def read_or_create_token(path: Path) -> str:
    """The token in ``path``, made on first use, readable by its owner alone.

    Raises:
        SettingsError: the file is readable by others, or empty.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_token(path)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    with os.fdopen(fd, "w") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(fd)
    return token


def _read_token(path: Path) -> str:
    if path.stat().st_mode & 0o077:
        msg = f"The token file {path} can be read by others; run: chmod 600 {path}"
        raise SettingsError(msg)
    token = path.read_text().strip()
    if not token:
        msg = f"The token file {path} is empty; delete it and a new one is made."
        raise SettingsError(msg)
    return token
