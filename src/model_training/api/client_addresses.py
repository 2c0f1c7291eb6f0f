"""Which address a request came from: the connection's, unless a named proxy says another.

Whoever connects can write X-Forwarded-For, so it is read only where the connection comes from a
proxy that the settings name, and from its end: each proxy adds what it saw behind what it was
given.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
ADDRESSES_READ: Final = 20  # of the header, from its end: no chain of proxies is longer


def client_address(
    peer: str, headers: Sequence[tuple[bytes, bytes]], proxies: Sequence[Network]
) -> str:
    """The address of the client.

    Args:
        peer: of the connection; empty if it has none.
        headers: of the request, names in lower case.
        proxies: who is believed.
    """
    if not proxies or not _is_of(peer, proxies):
        return peer
    told = b",".join(value for name, value in headers if name == b"x-forwarded-for")
    address = peer
    for part in reversed(told.decode("latin-1").split(",")[-ADDRESSES_READ:]):
        candidate = part.strip()
        if not _is_address(candidate):
            return address
        address = candidate
        if not _is_of(address, proxies):
            return address
    return address


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_of(address: str, networks: Sequence[Network]) -> bool:
    if not _is_address(address):
        return False
    found = ipaddress.ip_address(address)
    # As a listener of both families is told of a peer: ::ffff:10.0.0.1.
    found = getattr(found, "ipv4_mapped", None) or found
    return any(found in network for network in networks)
