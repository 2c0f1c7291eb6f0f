"""Who we are to the API server: a fixed token, a token file, or what a credential plugin prints.

A token never stands in a message, a log line or a ``repr``.
"""

import time
from pathlib import Path
from typing import Final, Protocol

from msgspec import Struct

from model_training.errors import ExecutorUnavailable

TOKEN_FILE_S: Final = 60.0
"""a token file is read again after so long: the kubelet rotates a pod's token at 80 % of its life,
and client-go looks once a minute too"""


class Certificate(Struct, frozen=True):
    """A client certificate and its key, both PEM."""

    certificate: str
    key: str

    def __repr__(self) -> str:
        return "Certificate(...)"


class Grant(Struct, frozen=True):
    """What is shown to the API server: a bearer token, a client certificate, both or neither."""

    token: str | None = None
    certificate: Certificate | None = None

    def __repr__(self) -> str:
        return "Grant(...)"


class Credentials(Protocol):
    """Where grants come from."""

    async def grant(self) -> Grant:
        """What to show now.

        Raises:
            ExecutorUnavailable: there is nothing valid at the moment; the message says how to
                mend it.
        """
        ...

    async def renew(self, refused: Grant) -> Grant:
        """What to show after the API server answered 401 to ``refused``.

        Raises:
            ExecutorUnavailable: as above.
        """
        ...


class FixedCredentials:
    """The same for ever."""

    def __init__(self, grant: Grant) -> None:
        self._grant = grant

    async def grant(self) -> Grant:
        """The one there is."""
        return self._grant

    async def renew(self, refused: Grant) -> Grant:  # noqa: ARG002 - there is no other
        """The same: only another kubeconfig can help."""
        return self._grant


class TokenFile:
    """A file that somebody else replaces before its token ends, as the kubelet does in a pod."""

    def __init__(self, path: Path, certificate: Certificate | None = None) -> None:
        self._path = path
        self._certificate = certificate
        self._grant: Grant | None = None
        self._read_at = 0.0

    async def grant(self) -> Grant:
        """The token as it stood in the file at most a minute ago."""
        if self._grant is None or time.monotonic() - self._read_at > TOKEN_FILE_S:
            return self._read()
        return self._grant

    async def renew(self, refused: Grant) -> Grant:  # noqa: ARG002 - the file decides
        """The token that is in the file now."""
        return self._read()

    def _read(self) -> Grant:
        # A kilobyte, at most once a minute, mostly from memory: no thread is worth it.
        try:
            token = checked_token(self._path.read_text("ascii").strip())
        except OSError as error:
            raise ExecutorUnavailable(
                f"The token file {self._path} cannot be read: {error.strerror}."
            ) from None
        except ValueError:  # also what is no ASCII; the error itself would show what was read
            raise ExecutorUnavailable(
                f"The token file {self._path} holds no token: one line of printable ASCII."
            ) from None
        self._grant = Grant(token, self._certificate)
        self._read_at = time.monotonic()
        return self._grant


def checked_token(token: str) -> str:
    """The token, if it can stand in a header.

    Raises:
        ValueError: it is empty, or has spaces, control characters or anything beyond ASCII.
    """
    if not token or not all("!" <= character <= "~" for character in token):
        raise ValueError("not a token")
    return token
