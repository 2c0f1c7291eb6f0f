"""The format of kubeconfig files, as much of it as matters here.

https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from pathlib import Path

import msgspec
import yaml
from msgspec import Struct, field
from yaml.parser import ParserError
from yaml.scanner import ScannerError

from model_training.errors import SettingsError


class Cluster(Struct, rename="kebab"):
    """Where an API server is, and how to know it."""

    server: str
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None
    proxy_url: str | None = None


class _Variable(Struct):
    name: str
    value: str


class Exec(Struct, rename="camel"):
    """A program that prints credentials."""

    command: str
    api_version: str | None = None
    args: list[str] | None = None
    env: list[_Variable] | None = None
    install_hint: str = ""
    interactive_mode: str | None = None
    provide_cluster_info: bool = False


class User(Struct, rename="kebab"):
    """Who somebody is, in one of several ways."""

    token: str | None = None
    token_file: str | None = field(default=None, name="tokenFile")
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    username: str | None = None
    exec: Exec | None = None
    auth_provider: object = None


class Context(Struct):
    """A cluster, a user there, and a namespace."""

    cluster: str
    user: str = ""
    namespace: str | None = None


class _NamedCluster(Struct):
    name: str
    cluster: Cluster


class _NamedUser(Struct):
    name: str
    user: User


class _NamedContext(Struct):
    name: str
    context: Context


class KubeconfigFile(Struct, rename="kebab"):
    """One file; several may be used together."""

    current_context: str | None = None
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None


def read_kubeconfig(path: Path) -> KubeconfigFile:
    """The content of a file.

    Raises:
        SettingsError: it cannot be read, or is no kubeconfig; quotes nothing of it.
    """
    try:
        content: object = yaml.safe_load(path.read_bytes())
        return msgspec.convert({} if content is None else content, KubeconfigFile)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
    except yaml.MarkedYAMLError as error:  # its own text quotes the file, which holds secrets
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        # The grammar's words name signs only; those about an alias or a tag quote it.
        grammar = isinstance(error, ScannerError | ParserError)
        reason = f" ({error.problem})" if grammar else ""
        raise SettingsError(f"{path}{line}: this is not YAML{reason}.") from None
    except msgspec.ValidationError as error:
        raise SettingsError(f"{path} is no kubeconfig: {error}.") from None
    except (yaml.YAMLError, ValueError):
        raise SettingsError(f"{path}: this is not YAML.") from None
