"""Keys and certificates of a cluster, made by openssl, and the kubeconfigs that carry them."""

import base64
import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import ClusterError

CONTEXT = "model-training-testbed"
DAYS = "3650"
CONFIG = b"[req]\ndistinguished_name=dn\n[dn]\n"  # the system's would add extensions of its own

# File name of a client's key: the name it shows to the API server, and its group.
CLIENTS = {
    "admin": ("kubernetes-admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", ""),
    "kubelet": ("system:node:127.0.0.1", "system:nodes"),
    "kubelet-client": ("kube-apiserver-kubelet-client", "system:masters"),
}


@dataclass(frozen=True)
class Keys:
    """The folder of a cluster's keys: ca, apiserver, a pair a client, and those of tokens."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, addresses: tuple[str, ...]) -> "Keys":
        """The keys in a folder, made if they are not there; never half of them.

        Args:
            folder: made as a whole, readable by its owner alone.
            addresses: at which the API server is reached, besides the names of its service.
        """
        if not folder.exists():
            new = folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True, mode=0o700)
            _make_all(new, addresses)
            new.rename(folder)
        return cls(folder)

    def certificate(self, name: str) -> Path:
        """The certificate of a name."""
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        """The private key of a name."""
        return self.folder / f"{name}.key"

    def kubeconfig(self, client: str, server: str, file: Path) -> Path:
        """Write the kubeconfig of a client, which holds its keys and needs no other file."""
        user = {
            "client-certificate-data": _encoded(self.certificate(client)),
            "client-key-data": _encoded(self.key(client)),
        }
        return write_kubeconfig(file, server, self.certificate("ca"), client, user)

    def token(self, claims: dict[str, object], seconds: int) -> str:
        """A token of the cluster's issuer; unlike a TokenRequest's it may end at once."""
        now = int(time.time())
        claims = {"iat": now - 3600, "nbf": now - 3600, "exp": now + seconds, **claims}
        parts = ({"alg": "RS256", "typ": "JWT"}, claims)
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in parts)
        signature = _openssl(
            "dgst", "-sha256", "-sign", str(self.key("tokens")), given=signed.encode()
        )
        return f"{signed}.{_base64url(signature)}"


def write_kubeconfig(
    file: Path, server: str, authority: Path, name: str, user: dict[str, str]
) -> Path:
    """Write a kubeconfig (JSON is YAML, too) for one user of one cluster."""
    cluster = {"server": server, "certificate-authority-data": _encoded(authority)}
    context = {"cluster": CONTEXT, "user": name, "namespace": "default"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": CONTEXT, "context": context}],
        "current-context": CONTEXT,
    }
    new = file.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(json.dumps(config, indent=2) + "\n")
    return new.rename(file)  # somebody may be reading the old one


def _make_all(folder: Path, addresses: tuple[str, ...]) -> None:
    _pair(folder, "ca", "/CN=model-training-testbed", "basicConstraints=critical,CA:TRUE")
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    names = [f"DNS:{name}" for name in names] + [f"IP:{address}" for address in addresses]
    _pair(folder, "apiserver", "/CN=kube-apiserver", f"subjectAltName={','.join(names)}")
    for client, (name, group) in CLIENTS.items():
        subject = (f"/O={group}" if group else "") + f"/CN={name}"
        _pair(folder, client, subject, "extendedKeyUsage=clientAuth")
    tokens = str(folder / "tokens.key")
    _openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", tokens)
    _openssl("pkey", "-in", tokens, "-pubout", "-out", str(folder / "tokens.pub"))


def _pair(folder: Path, name: str, subject: str, extension: str) -> None:
    issuer: list[str] = []
    if name != "ca":
        issuer = ["-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key")]
    _openssl(
        "req", "-config", "/dev/stdin", "-x509", "-newkey", "ec",
        "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-subj", subject, "-addext", extension, "-days", DAYS, *issuer,
        "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt"),
        given=CONFIG,
    )  # fmt: skip


def _openssl(*arguments: str, given: bytes | None = None) -> bytes:
    try:
        done = subprocess.run(
            ["openssl", *arguments], input=given, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise ClusterError("keys are made by openssl, which is not on PATH: install it") from None
    if done.returncode:
        raise ClusterError(f"openssl {arguments[0]} failed: {done.stderr.decode()}")
    return done.stdout


def _encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
