"""Where a registry may send us: to nothing that is nearer to us than the registry itself.

A registry names other hosts: the one that gives tokens, the one that holds blobs. Whoever has
a hand in those answers could name the metadata service of the machine, or a service that only
this machine reaches, and have it asked from here. So the addresses behind a foreign name are
looked at, all of them, and the one that was looked at is the one that is asked: a name that
resolves to something else a moment later changes nothing.
"""

import asyncio
import ipaddress
import re
import socket
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

import httpx2

from model_training.errors import RegistryUnavailable

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class Zone(IntEnum):
    """How near an address is; what is nearer may hold more that is not for others."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    NEVER = 3
    """of the link, of no single host, or the metadata service of a cloud"""


# Metadata services that do not stand at a link-local address: AWS, Alibaba, Azure, Oracle.
_METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]{1,253}")  # RFC 1035, and IPv6 addresses
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # IPv4 within IPv6, RFC 6052


@dataclass(frozen=True, slots=True)
class Destination:
    """A foreign URL whose address was looked at."""

    url: httpx2.URL
    """with the address in place of the name; with the name where a proxy asks"""
    host: str
    """for the header Host, with its port if it has one of its own"""
    name: str
    """that the certificate must bear"""


def zone_of(address: _Address) -> Zone:
    """How near an address is."""
    address = _within(address)
    if address in _METADATA or address.is_link_local or address.is_multicast:
        return Zone.NEVER
    if address.is_loopback or address.is_unspecified:  # 0.0.0.0 reaches this machine
        return Zone.LOOPBACK
    return Zone.PUBLIC if address.is_global else Zone.PRIVATE


def foreign_url(text: str, *, base: httpx2.URL) -> httpx2.URL:
    """The URL in an answer from ``base``.

    Raises:
        RegistryUnavailable: it is none of the web, or holds a login.
    """
    try:
        url = base.join(text)
    except httpx2.InvalidURL:
        url = httpx2.URL("")
    if url.scheme not in {"http", "https"} or not _HOST.fullmatch(url.host):
        raise RegistryUnavailable(f"{host_of(base)} points to something that is no web address")
    if url.userinfo:
        raise RegistryUnavailable(f"{host_of(base)} points to an address with a login in it")
    return url


def host_of(url: httpx2.URL) -> str:
    """The host, with its port if it has one of its own."""
    return url.netloc.decode()


async def destination(
    url: httpx2.URL, *, registry: httpx2.URL, proxied: bool = False
) -> Destination:
    """Where a URL that a registry named leads.

    Args:
        url: from ``foreign_url``.
        registry: the URL of the registry itself.
        proxied: it is asked through a proxy. That may know names which are not known here, and
            may allow by name, so it is given the name; one that is known here is looked at.

    Raises:
        RegistryUnavailable: it may not be asked, or its name cannot be resolved.
    """
    if url.scheme == "http" and registry.scheme == "https":
        raise RegistryUnavailable(f"{host_of(registry)} points from TLS to plain HTTP")
    addresses = await _resolve(url)
    if not addresses and not proxied:
        raise RegistryUnavailable(f"the name {url.host} cannot be resolved")
    nearest = max(map(zone_of, addresses), default=Zone.PUBLIC)
    if nearest is not Zone.PUBLIC and url.host != registry.host:
        own = max(map(zone_of, await _resolve(registry)), default=Zone.PUBLIC)
        if nearest > own or nearest is Zone.NEVER:
            raise RegistryUnavailable(
                f"{host_of(registry)} points to {host_of(url)}, "
                "an address that no registry may send this service to from where it is"
            )
    asked = url if proxied else url.copy_with(host=str(addresses[0]))
    return Destination(asked, host_of(url), url.host)


async def _resolve(url: httpx2.URL) -> list[_Address]:
    """The addresses behind a name; none where it is not known here."""
    port = url.port or (443 if url.scheme == "https" else 80)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    # An IPv6 address may carry the interface it is reached by, which ipaddress reads, too.
    return [ipaddress.ip_address(str(each[4][0])) for each in found]


def _within(address: _Address) -> _Address:
    """The IPv4 address that an IPv6 address only wraps."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address
