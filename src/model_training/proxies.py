"""The HTTP proxy that leads to a host: that of the environment, as command-line tools read it.

``HTTPS_PROXY`` and ``HTTP_PROXY`` by the scheme that is asked, ``NO_PROXY`` for what goes without,
each in capitals or not. A loopback address is never asked through a proxy, which would be
another machine's. A proxy's address may hold a password: no message shows it.
"""

import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

_PORTS: Final = {"http": 80, "https": 443}


def proxy_to(url: str, environ: Mapping[str, str]) -> str | None:
    """The proxy that the environment names for a URL; None: none.

    Raises:
        ValueError: it is none that is spoken here; the message says which variable names it.
    """
    asked = urlsplit(url)
    host = asked.hostname or ""
    if is_loopback_name(host) or _goes_without(
        host, asked.port or _PORTS.get(asked.scheme), environ
    ):
        return None
    for variable in (f"{asked.scheme}_proxy", f"{asked.scheme}_proxy".upper()):
        if proxy := environ.get(variable):
            return checked_proxy(proxy, f"the variable {variable}")
    return None


def checked_proxy(proxy: str, source: str) -> str:
    """The address of a proxy, if it is one over HTTP.

    Raises:
        ValueError: it is another, or none; the message names ``source``.
    """
    try:
        parts = urlsplit(proxy)
        fits = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        msg = f"{source} names no HTTP proxy (http://HOST:PORT); others are not spoken"
        raise ValueError(msg)
    return proxy


def through(host: str, proxy: str | None) -> str:
    """A host for a sentence, with the proxy that it is asked through: of that no login."""
    if proxy is None:
        return host
    return f"{host} (through the proxy {urlsplit(proxy).netloc.rpartition('@')[2]})"


def is_loopback_name(host: str) -> bool:
    """Whether a host, without port and brackets, says by itself that it is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _goes_without(host: str, port: int | None, environ: Mapping[str, str]) -> bool:
    listed = (environ.get("no_proxy") or environ.get("NO_PROXY") or "").split(",")
    entries = (entry.strip().lower() for entry in listed)
    return any(_covers(entry, host, port) for entry in entries if entry)


def _covers(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry is the address, a range of addresses, or the name or its end."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        name, colon, own = entry.partition(":")
        if colon and own != str(port):
            return False
        end = name.removeprefix("*").removeprefix(".")  # *.a, .a and a are one, * is all
        return not end or f".{host}".endswith("." + end)
