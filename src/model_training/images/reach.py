"""How hosts are reached: over TLS or plain HTTP, directly or through a proxy."""

from collections.abc import Iterable, Mapping

import httpx2

from model_training.errors import RegistryUnavailable
from model_training.images.reference import is_loopback, parse_host, split_host
from model_training.proxies import proxy_to


class Reach:
    """What settings and environment say of it.

    Args:
        insecure: hosts, with or without port, that are asked over plain HTTP; those of loopback
            are without being named.
        environ: where the variables are that name proxies; loopback goes without.

    Raises:
        ValueError: one of ``insecure`` is no host.
    """

    def __init__(
        self, insecure: Iterable[str] = (), environ: Mapping[str, str] | None = None
    ) -> None:
        self._insecure = frozenset(map(parse_host, insecure))
        self._environ = environ or {}

    def url(self, address: str, path: str) -> httpx2.URL:
        """The URL of a path at a registry's address (a host, with or without port)."""
        scheme = "http" if is_loopback(address) or self._is_insecure(address) else "https"
        return httpx2.URL(f"{scheme}://{address}{path}")

    def proxy(self, url: httpx2.URL) -> str | None:
        """The proxy that leads there; None for a host that is asked directly.

        Raises:
            RegistryUnavailable: it is none that is spoken here.
        """
        try:
            return proxy_to(str(url), self._environ)
        except ValueError as error:
            raise RegistryUnavailable(str(error)) from None

    def _is_insecure(self, address: str) -> bool:
        name, _ = split_host(address)
        return not self._insecure.isdisjoint((address, f"[{name}]" if ":" in name else name))
