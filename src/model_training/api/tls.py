"""TLS for those who do not come through a proxy: one certificate, read again when it is renewed.

A certificate lives for weeks and the service for longer, so whatever renews it writes the files,
and connections made from then on are given the new one. Files that do not fit together, as in
the middle of a renewal, leave the old one in use: what is in use is never loaded into, as it would
keep what it took of two files that do not fit.
"""

import asyncio
import logging
import ssl
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from model_training.errors import SettingsError

logger = logging.getLogger(__name__)

LOOK_S: Final = 10.0  # seconds between two looks at the files; renewal leaves days


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """What connections are encrypted by.

    Raises:
        SettingsError: the files cannot be read, or do not fit together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        _load(context, certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"The setting tls_certificate: {certificate} and its key cannot be used: "
            f"{_reason(error)}. Name PEM files that belong together."
        ) from None
    return context


def _load(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    # Without a password it would ask for one at the terminal.
    context.load_cert_chain(certificate, key, password=b"")


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "they are no certificate and key of each other"
    return error.strerror or "they cannot be read"


async def renew(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """Take what the files hold whenever they change, for ever."""
    seen = _stamps(certificate, key)
    while True:
        await asyncio.sleep(LOOK_S)
        now = _stamps(certificate, key)
        if now == seen:
            continue
        try:
            fresh = await asyncio.to_thread(tls_context, certificate, key)
        except SettingsError as error:
            logger.warning("the renewed certificate is not used: %s", error.message)
        else:
            context.sni_callback = partial(_hand_over, fresh)
            seen = now
            logger.info("the certificate %s was renewed", certificate)


def _hand_over(
    fresh: ssl.SSLContext, connection: ssl.SSLObject, _name: str, _first: ssl.SSLContext
) -> None:
    """Called for each new connection, also for one that names no host."""
    connection.context = fresh


def _stamps(*files: Path | None) -> list[tuple[int, int]]:
    stamps: list[tuple[int, int]] = []
    for file in files:
        with suppress(OSError):
            if file is not None:
                status = file.stat()
                stamps.append((status.st_ino, status.st_mtime_ns))
    return stamps
