"""What we show to a decision point, and by what we believe it: read again when it changed.

Tokens and certificates are renewed under a running service. While a file cannot be used, what was
last made of it counts: it is half written, or it is wrong, and then the decision point refuses us.
"""

import logging
import re
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from model_training.access.engines.stamps import AGAIN_S, Stamp, stamp
from model_training.errors import SettingsError

logger = logging.getLogger(__name__)

T = TypeVar("T")
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750, section 2.1


class MadeOfFiles(Generic[T]):
    """What is made of some files.

    Args:
        make: makes it; raises SettingsError if it cannot.
        paths: the files.
    """

    def __init__(self, make: Callable[[], T], paths: tuple[Path | None, ...]) -> None:
        self._make = make
        self._paths = tuple(path for path in paths if path is not None)
        self._seen = self._stamps()
        self._fault = ""
        self._again_at = float("inf")
        self._value = make()

    def value(self) -> T:
        """It, of the files as they are now."""
        seen = self._stamps()
        if seen != self._seen or time.monotonic() >= self._again_at:
            try:
                self._value = self._make()
                self._seen, self._fault, self._again_at = seen, "", float("inf")
            except SettingsError as error:
                # What failed may have been the moment, so it is made again soon.
                self._seen, self._again_at = seen, time.monotonic() + AGAIN_S
                if error.message != self._fault:
                    self._fault = error.message
                    logger.warning("%s What it was before counts until then.", error.message)
        return self._value

    def _stamps(self) -> list[Stamp]:
        return [stamp(path) for path in self._paths]


def read_token(path: Path) -> str:
    """The token in a file, without the spaces around it.

    Raises:
        SettingsError: there is none.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise SettingsError(
            f"The setting decisions.token: {path} cannot be read: {reason}. Correct it there."
        ) from None
    if not _TOKEN.fullmatch(token):
        raise SettingsError(
            f"The setting decisions.token: {path} holds no token: one line of letters, digits and "
            "._~+/=- is needed. Correct it there."
        )
    return token


def read_tls(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """TLS that verifies by these certificates, or else by the system's, and shows ours.

    Raises:
        SettingsError: one of the files is not what it must be.
    """
    try:
        tls = ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:
        raise _unusable("ca", ca, error) from None
    if certificate is not None:
        try:
            # No question for a password on a terminal: a key that has one cannot be used.
            tls.load_cert_chain(certificate, key, password=lambda: "")
        except (OSError, ValueError) as error:
            raise _unusable("certificate", certificate, error) from None
    return tls


def _unusable(setting: str, path: Path | None, error: OSError | ValueError) -> SettingsError:
    reason = "it holds none in PEM, or its key is of another"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        reason = str(error.strerror)
    return SettingsError(
        f"The setting decisions.{setting}: {path} cannot be used: {reason}. Correct it there."
    )
