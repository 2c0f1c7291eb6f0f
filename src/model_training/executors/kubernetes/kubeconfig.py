"""The cluster that kubectl would talk to: from kubeconfig files, or from the pod we run in.

As with kubectl, ``KUBECONFIG`` may list several files; for each cluster, user and context the
first file that has the name wins, and paths inside a file are relative to it.
"""

import base64
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct

from model_training.errors import SettingsError
from model_training.executors.kubernetes.cluster import ClusterConfig, Trust, tls_of
from model_training.executors.kubernetes.credential_plugin import (
    API_VERSIONS,
    Plugin,
    PluginCredentials,
)
from model_training.executors.kubernetes.credentials import (
    Certificate,
    Credentials,
    FixedCredentials,
    Grant,
    TokenFile,
    checked_token,
)
from model_training.executors.kubernetes.kubeconfig_format import (
    Cluster,
    Exec,
    User,
    read_kubeconfig,
)
from model_training.proxies import checked_proxy, proxy_to

POD_FOLDER: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""where the kubelet puts a pod's token, authority and namespace"""


def load_cluster(
    kubeconfig: Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    pod_folder: Path = POD_FOLDER,
) -> ClusterConfig:
    """The cluster to work on; nothing is asked over the network.

    Looks at ``kubeconfig``; without one at the files of ``KUBECONFIG``, at ``~/.kube/config``, and
    at what the kubelet gives to a pod.

    Raises:
        SettingsError: there is none, or a file is wrong; names file, context and the way out.
    """
    if kubeconfig is not None:
        if not kubeconfig.is_file():
            raise SettingsError(f"There is no kubeconfig file {kubeconfig}.")
        return _from_files([kubeconfig], environ)
    listed = [Path(part) for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    if listed:
        files = [path for path in listed if path.is_file()]
        if not files:
            raise SettingsError(
                f"KUBECONFIG names {' and '.join(map(str, listed))}, and there is no such file."
            )
        return _from_files(files, environ)
    usual = Path(environ.get("HOME") or "~").expanduser() / ".kube" / "config"
    if usual.is_file():
        return _from_files([usual], environ)
    if environ.get("KUBERNETES_SERVICE_HOST") and (pod_folder / "token").exists():
        return _from_pod(environ, pod_folder)
    raise SettingsError(
        f"No cluster is configured: --kubeconfig and KUBECONFIG are not set, there is no {usual}, "
        "and this is no pod with a service-account token. Name a kubeconfig with --kubeconfig "
        "FILE."
    )


def _from_pod(environ: Mapping[str, str], folder: Path) -> ClusterConfig:
    host = environ["KUBERNETES_SERVICE_HOST"]
    port = environ.get("KUBERNETES_SERVICE_PORT") or "443"
    try:
        authorities = (folder / "ca.crt").read_text("ascii")
        namespace = (folder / "namespace").read_text("ascii").strip()
        trust = Trust(authorities=authorities)
        tls_of(trust, None)
    except (OSError, ValueError) as error:
        raise SettingsError(f"The service account of this pod ({folder}): {error}") from None
    return ClusterConfig(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=namespace or "default",
        credentials=TokenFile(folder / "token"),
        trust=trust,
        origin=f"the service account of this pod ({folder})",
    )


def _from_files(paths: Sequence[Path], environ: Mapping[str, str]) -> ClusterConfig:
    files = [(path, read_kubeconfig(path)) for path in paths]
    shown = os.pathsep.join(map(str, paths))
    contexts = _by_name((p, c.name, c.context) for p, file in files for c in file.contexts or ())
    name = next((file.current_context for _, file in files if file.current_context), None)
    if name is None:
        raise SettingsError(
            f"{shown} has no current-context. Choose one of {', '.join(contexts) or 'none'} with: "
            "kubectl config use-context NAME."
        )
    place = f"context {name!r} of {shown}"
    _, context = _named("context", name, contexts, shown)
    clusters = _by_name((p, c.name, c.cluster) for p, file in files for c in file.clusters or ())
    users = _by_name((p, u.name, u.user) for p, file in files for u in file.users or ())
    cluster_path, cluster = _named("cluster", context.cluster, clusters, place)
    user_path, user = (
        _named("user", context.user, users, place) if context.user else (cluster_path, User())
    )
    trust = _trust(cluster, _Place(place, f"cluster {context.cluster!r}", cluster_path.parent))
    return ClusterConfig(
        server=_server(cluster.server, place),
        namespace=context.namespace or "default",
        credentials=_credentials(
            user, cluster, trust, _Place(place, f"user {context.user!r}", user_path.parent)
        ),
        trust=trust,
        proxy=_proxy(cluster, environ, place),
        context=name,
        origin=place,
    )


_Named = TypeVar("_Named")


def _by_name(entries: Iterable[tuple[Path, str, _Named]]) -> dict[str, tuple[Path, _Named]]:
    found: dict[str, tuple[Path, _Named]] = {}
    for path, name, entry in entries:
        found.setdefault(name, (path, entry))
    return found


def _named(
    kind: str, name: str, known: Mapping[str, tuple[Path, _Named]], place: str
) -> tuple[Path, _Named]:
    if name in known:
        return known[name]
    raise SettingsError(
        f"{place} names the {kind} {name!r}, which is not there. "
        f"There are: {', '.join(known) or 'none'}."
    )


class _Place(Struct, frozen=True):
    """Where we are, for messages and for paths."""

    context: str
    entry: str
    folder: Path

    def fault(self, reason: str) -> SettingsError:
        return SettingsError(f"{self.entry} in {self.context}: {reason}")

    def text(self, data: str | None, path: str | None, what: str) -> str | None:
        """What is given in place (base64), which wins, or in a file."""
        if data:
            try:
                return base64.b64decode(data, validate=True).decode("ascii")
            except ValueError:
                raise self.fault(f"{what}-data is not PEM in base64.") from None
        if not path:
            return None
        try:
            return (self.folder / path).read_text("ascii")
        except OSError as error:
            reason = f"{what} {self.folder / path} cannot be read: {error.strerror}."
            raise self.fault(reason) from None
        except ValueError:
            raise self.fault(f"{what} {self.folder / path} is not PEM.") from None


def _server(server: str, place: str) -> str:
    address = urlsplit(server)
    if address.scheme not in {"http", "https"} or not address.hostname or address.username:
        raise SettingsError(f"{place}: the server must be a URL like https://HOST:6443.")
    return server.rstrip("/")


def _trust(cluster: Cluster, place: _Place) -> Trust:
    if cluster.insecure_skip_tls_verify:
        return Trust(verified=False, server_name=cluster.tls_server_name)
    data, path = cluster.certificate_authority_data, cluster.certificate_authority
    authorities = place.text(data, path, "certificate-authority")
    trust = Trust(authorities=authorities, server_name=cluster.tls_server_name)
    try:
        tls_of(trust, None)
    except ValueError as error:
        raise place.fault(f"its certificate authority cannot be used: {error}.") from None
    return trust


def _proxy(cluster: Cluster, environ: Mapping[str, str], place: str) -> str | None:
    """The proxy to go through; as with kubectl, that of the environment if none is named."""
    try:
        if cluster.proxy_url:
            return checked_proxy(cluster.proxy_url, "proxy-url")
        return proxy_to(cluster.server, environ)
    except ValueError as error:
        raise SettingsError(f"{place}: {error}.") from None


def _credentials(user: User, cluster: Cluster, trust: Trust, place: _Place) -> Credentials:
    """The credentials of a kubeconfig's user, where they are of a kind that still exists."""
    if user.auth_provider is not None:
        raise place.fault(
            "auth-provider is no longer part of Kubernetes (since 1.26). Log in with your "
            "provider's credential plugin instead, which writes an exec entry."
        )
    if user.username is not None and not (user.token or user.token_file or user.exec):
        raise place.fault(
            "username and password are no longer part of Kubernetes (since 1.19). Use a token, "
            "a client certificate or a credential plugin."
        )
    if user.exec is not None:
        return PluginCredentials(_plugin(user.exec, cluster, trust, place))
    certificate = _certificate(user, trust, place)
    if user.token_file:  # wins over token, as in client-go
        return TokenFile(place.folder / user.token_file, certificate)
    try:
        token = checked_token(user.token.strip()) if user.token else None
    except ValueError:
        raise place.fault("its token is not one line of printable ASCII.") from None
    return FixedCredentials(Grant(token, certificate))


def _certificate(user: User, trust: Trust, place: _Place) -> Certificate | None:
    shown = place.text(user.client_certificate_data, user.client_certificate, "client-certificate")
    key = place.text(user.client_key_data, user.client_key, "client-key")
    if shown is None and key is None:
        return None
    if shown is None or key is None:
        raise place.fault("client-certificate and client-key belong together; one is missing.")
    certificate = Certificate(shown, key)
    try:
        tls_of(trust, certificate)
    except ValueError as error:
        raise place.fault(f"its client certificate cannot be used: {error}.") from None
    return certificate


def _plugin(wanted: Exec, cluster: Cluster, trust: Trust, place: _Place) -> Plugin:
    if wanted.api_version not in API_VERSIONS:
        raise place.fault(f"exec.apiVersion must be {' or '.join(API_VERSIONS)}.")
    if wanted.interactive_mode == "Always":
        raise place.fault(
            "exec.interactiveMode is Always, and a service cannot answer questions. Log in another "
            "way, for example with a service account."
        )
    command = wanted.command
    if os.sep in command:  # otherwise it is looked for on PATH
        command = str(place.folder / command)
    if shutil.which(command) is None:
        hint = f" {wanted.install_hint.strip()}" if wanted.install_hint else ""
        raise place.fault(f"its credential plugin {command!r} is not there.{hint}")
    return Plugin(
        command=command,
        args=tuple(wanted.args or ()),
        env={variable.name: variable.value for variable in wanted.env or ()},
        api_version=wanted.api_version,
        cluster=_told(cluster, trust) if wanted.provide_cluster_info else None,
        install_hint=wanted.install_hint,
    )


def _told(cluster: Cluster, trust: Trust) -> Mapping[str, object]:
    told: dict[str, object] = {"server": cluster.server}
    if trust.authorities is not None:
        told["certificate-authority-data"] = base64.b64encode(trust.authorities.encode()).decode()
    if trust.server_name is not None:
        told["tls-server-name"] = trust.server_name
    if not trust.verified:
        told["insecure-skip-tls-verify"] = True
    if cluster.proxy_url:
        told["proxy-url"] = cluster.proxy_url
    return told
