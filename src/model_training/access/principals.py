"""Who is asking. The route authenticates; everything below is given a Principal.

Here stands the local answer, a token in a file that only its owner can read; other ways in
(JWT, API keys, TokenReview) become further authenticators.
"""

import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from model_training.errors import SettingsError, Unauthenticated

TOKEN_BYTES = 32  # 256 bits of randomness, in 43 characters


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody we know. ``id`` is unique among all kinds and is kept as a job's ``owner``."""

    kind: str
    id: str


class Authenticator(Protocol):
    """Tells who sent a request."""

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """The sender.

        Args:
            headers: names in lower case.

        Raises:
            Unauthenticated: nobody, or nobody we know.
        """
        ...


class LocalToken:
    """One token, and whoever can read its file is the one local user."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._principal = Principal("local", "local")

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """The local user, if the request carries the token as a bearer token."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated
        if not hmac.compare_digest(token.strip().encode(), self._token):
            raise Unauthenticated("The token is not the one of this service.")
        return self._principal


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
