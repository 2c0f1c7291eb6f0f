"""Which cluster, and how its API server is to be trusted."""

import ssl
import tempfile
from pathlib import Path

from msgspec import Struct

from model_training.executors.kubernetes.credentials import Certificate, Credentials


class Trust(Struct, frozen=True, kw_only=True):
    """How to know the API server."""

    authorities: str | None = None
    """PEM of the certificate authorities; None for those of this machine"""
    verified: bool = True
    server_name: str | None = None
    """the name in its certificate, where that is not the host of its address"""


class ClusterConfig(Struct, frozen=True, kw_only=True):
    """One cluster, complete: where, who we are there, in which namespace."""

    server: str
    """URL without a slash at its end; may have a path, as behind some gateways"""
    namespace: str
    credentials: Credentials
    trust: Trust = Trust()
    proxy: str | None = None
    """URL of an HTTP proxy"""
    context: str | None = None
    """name of the kubeconfig's context; None in a pod"""
    origin: str
    """where all this was read, for messages"""

    def __repr__(self) -> str:  # the proxy's address may hold a password
        return f"ClusterConfig({self.server!r}, origin={self.origin!r})"


def tls_of(trust: Trust, certificate: Certificate | None) -> ssl.SSLContext:
    """The TLS settings for one client certificate, or none.

    Raises:
        ValueError: a certificate or key is not PEM, or they do not belong together.
    """
    try:
        context = ssl.create_default_context(cadata=trust.authorities)
        if certificate is not None:
            _show(context, certificate)
    except (ssl.SSLError, OSError) as error:
        raise ValueError(getattr(error, "reason", None) or str(error)) from None
    # Newer Pythons refuse authorities without a key identifier, which clusters of some years have
    # and which Go, so kubectl, accepts; an intermediate authority as the anchor is usual too.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not trust.verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _show(context: ssl.SSLContext, certificate: Certificate) -> None:
    # ssl reads keys from files only: one that nobody else can open, for as long as that takes.
    with tempfile.TemporaryDirectory(prefix="model-training-") as folder:
        path = Path(folder) / "client.pem"
        path.touch(mode=0o600)
        path.write_text(f"{certificate.certificate}\n{certificate.key}\n", "ascii")
        context.load_cert_chain(path, password=_no_password)


def _no_password() -> str:
    # Otherwise OpenSSL asks at the terminal.
    raise ValueError("the client key is encrypted; a kubeconfig holds it in the clear")
