"""Where a secret may be sent: over TLS, or to this machine.

There is no switch that lets it go elsewhere. Whoever is between could take a token out of plain
HTTP and run code in its owner's name; a tunnel to this machine costs one line.
"""

from urllib.parse import urlsplit

from model_training.errors import SettingsError
from model_training.proxies import is_loopback_name

_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_loopback(url: str) -> bool:
    """Whether this address is this machine by its name alone."""
    return is_loopback_name(urlsplit(url).hostname or "")


def require_private(url: str, secret: str) -> None:
    """Pass, or raise.

    Args:
        url: where it would be sent.
        secret: what it is, for the message.

    Raises:
        SettingsError: others could read it on the way.
    """
    if urlsplit(url).scheme != "https" and not is_loopback(url):
        raise SettingsError(
            f"{secret} is not sent to {url}: without TLS everybody on the way could read it. "
            "Use its https address, or a tunnel to this machine (ssh -L, kubectl port-forward)."
        )


def checked_url(url: str, example: str) -> str:
    """An address over HTTP, without the slash at its end.

    Raises:
        SettingsError: it is none, or has a login in it; the message is then without it.
    """
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise SettingsError("The address of a server has a login in it; leave that out.")
    if not _is_address(url):
        raise SettingsError(f"{url!r} is no address of a server; write it like {example}")
    return url.rstrip("/")


def checked_server(url: str, example: str) -> str:
    """The address of a server of ours: ``checked_url``, and nothing behind its path.

    Raises:
        SettingsError: it is none.
    """
    if "?" in url or "#" in url:
        raise SettingsError(f"The address {url!r} holds a query or a fragment; leave that out.")
    return checked_url(url, example)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in _DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return fits and url.isascii() and url.isprintable() and " " not in url


def server_key(url: str) -> str:
    """One form of all addresses that are the same: what belongs to a server is found by it."""
    parts = urlsplit(url)
    port = "" if parts.port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{parts.port}"
    host = parts.hostname or ""
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}{port}{parts.path.rstrip('/')}"
