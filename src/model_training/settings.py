"""Every setting of the service: its unit, its default, and the reason for it.

A value comes from the first of: the command's options, ``MODEL_TRAINING_NAME`` in the
environment, the TOML file (``--config FILE``, ``MODEL_TRAINING_CONFIG``, or
``~/.config/model-training/config.toml`` if it is there), the default. A mistake is answered with
the setting, where it was set and the way out, because a service that starts with something else
than what was meant is worse than one that does not start. Only the serve path imports this
module: pydantic costs more to load than the whole command.
"""

import difflib
import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal, cast

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from model_training.errors import SettingsError
from model_training.folders import default_data_folder
from model_training.names import nearest
from model_training.options import parse_duration, parse_size
from model_training.strict_json import shortened

PREFIX: Final = "MODEL_TRAINING_"
# Variables of this product that are no settings of the service: for the command and the client,
# for jobs (a server may be started inside one), for fault tests.
_OTHER_VARIABLES: Final = frozenset({
    "url", "token", "config", "job", "pipeline", "parameters", "parameters_file", "output",
    "crash_at",
})  # fmt: skip
# Settings that name a file or folder, relative to the TOML file that they stand in.
_PATHS: Final = (
    "data", "access", "tls_certificate", "tls_key", "kubeconfig", "registry_config",
)  # fmt: skip
_CENTURY_S: Final = 36_500 * 86_400.0


def _seconds(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _bytes(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def _by_comma(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _by_path_separator(value: object) -> object:
    return value.split(os.pathsep) if isinstance(value, str) else value


def _path(value: object) -> object:
    if not isinstance(value, str | Path):
        return value
    if not str(value):
        raise ValueError("the path is empty")
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:  # ~ of a user who is not there
        raise ValueError(str(error)) from None


def _network(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        raise ValueError("expects addresses or networks, such as 10.0.0.0/8") from None


_ORIGIN: Final = re.compile(
    r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?"
)

_Network = Annotated[ipaddress.IPv4Network | ipaddress.IPv6Network, BeforeValidator(_network)]
_Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=_CENTURY_S)]
_Deadline = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=3600)]
_Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=0, le=2**60)]
_Folder = Annotated[Path, BeforeValidator(_path)]
_Folders = Annotated[tuple[_Folder, ...], NoDecode, BeforeValidator(_by_path_separator)]
_Label = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
_Index = Annotated[int, Field(ge=0)]


class Settings(BaseSettings):
    """The settings of one service, complete and unchangeable."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,  # as shells and container files leave a variable out
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
    )

    host: str = "127.0.0.1"
    """Address to listen at. Beyond loopback only with ``access``, and with TLS or a proxy named in
    ``trusted_proxies``, or tokens would cross the network for everybody to read."""

    port: int = Field(default=8642, ge=0, le=65_535)
    """TCP port; 0 takes a free one. The default needs no privileges."""

    data: _Folder = Field(default_factory=default_data_folder)
    """Folder of everything the service keeps; by default in the user's XDG state folder."""

    pipelines: _Folders = ()
    """Folders that hold pipeline folders, separated by ``:`` in the environment. The first that
    has a name wins; registered and bundled pipelines are always found."""

    executor: Literal["local", "kubernetes"] = "local"
    """What runs the jobs: processes on this machine, which needs nothing else, or the Jobs of a
    Kubernetes cluster."""

    slots: int | None = Field(default=None, ge=1, le=10_000)
    """Jobs that run at once. By default the GPUs, or half the CPUs: training uses several."""

    gpus: Annotated[tuple[_Index, ...] | None, NoDecode, BeforeValidator(_by_comma)] = None
    """Indices of the GPUs that may be handed out, separated by commas in the environment. By
    default those that are found; some may be kept for other work."""

    namespace: _Label | None = None
    """Kubernetes namespace of the jobs. By default that of the kubeconfig's context, or the one
    that the service's own pod is in."""

    all_namespaces: bool = False
    """Also list and follow the jobs under the reserved prefix of all other namespaces. Off, as it
    needs rights in the whole cluster."""

    kubeconfig: _Folder | None = None
    """File that says where the cluster is and who we are there. By default the pod's own
    credentials, else ``KUBECONFIG``, else ``~/.kube/config``."""

    registry: str | None = None
    """Where the images of pipelines are, as ``HOST[:PORT][/PREFIX]``: pipeline P is
    ``HOST/PREFIX/model-training-P``. Needed for Kubernetes."""

    image_tag: str = Field(default="latest", pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")
    """Tag of the images of pipelines. Jobs are pinned to the digest that it stands for when they
    are accepted."""

    image_check: Literal["registry", "nodes", "off"] = "registry"
    """How it is known that a pipeline has an image: by asking the registry; by what the nodes tell
    of theirs, for images that are loaded there; or not at all, for registries that the nodes reach
    and this service does not."""

    image_unknown: Literal["refuse", "submit"] = "refuse"
    """What a registry that cannot tell means for a job: 503, or accepted with a warning. Refused,
    as nothing is lost by asking again."""

    insecure_registry: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_by_comma)] = ()
    """Hosts of registries that are asked over plain HTTP, separated by commas in the environment.
    Loopback addresses always are."""

    registry_config: _Folder | None = None
    """A docker ``config.json`` with the logins of registries, mounted or written by a person. By
    default that of the folder ``DOCKER_CONFIG``, if it is set."""

    outputs_claim: _Label | None = None
    """PersistentVolumeClaim in which each job gets a folder for what it makes. Without one it
    goes with the job's pod."""

    outputs_folder: _Folder | None = None
    """Where that claim is mounted for this service, so that it can list and send outputs."""

    retention: _Seconds | None = None
    """Time to keep a finished job, its log and its outputs, such as ``30d``. By default until
    they are deleted: what somebody trained is not ours to throw away."""

    log_limit: _Bytes = Field(default=4 * 2**30, ge=2**20)
    """Bytes kept of one job's log, such as ``4Gi``; beyond it the middle goes. Large enough for
    any log a person reads, small enough that one job in a loop does not fill a disk."""

    disk_reserve: _Bytes = 512 * 2**20
    """Bytes left free: below it no job is accepted, so that those that run can end well. A fixed
    size, as what the ledger and the logs still need does not grow with the disk."""

    body_limit: _Bytes = Field(default=256 * 2**10, ge=1024)
    """Bytes of a request's body: parameters take up to 100,000 and may be written with spaces."""

    header_timeout: _Deadline = 10.0
    """Seconds from the first byte of a request to the end of its headers: slower is an attack."""

    body_timeout: _Deadline = 30.0
    """Seconds to read a body: 256 KiB in it is 9 kB/s, a bad mobile line."""

    keep_alive: _Deadline = 5.0
    """Seconds that an idle connection is kept: a page's next request comes sooner."""

    max_followers: int = Field(default=10_000, ge=1, le=1_000_000)
    """Log followers at once: 400 MB at 40 kB each is what a small machine can spare."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_by_comma)] = ()
    """Names accepted in Host beyond those of loopback, separated by commas in the environment;
    for a reverse proxy. Others are refused, as a web page may give its own name to 127.0.0.1."""

    access: _Folder | None = None
    """TOML file that says who may do what: issuers, API keys, the decision point, the audit log.
    Without one, whoever can read the token file in the data folder may do everything."""

    tls_certificate: _Folder | None = None
    """PEM file of the certificate and those that it was signed by; HTTPS is spoken then. Read
    again when it changes."""

    tls_key: _Folder | None = None
    """PEM file of its private key; by default it is in the file of the certificate."""

    trusted_proxies: Annotated[tuple[_Network, ...], NoDecode, BeforeValidator(_by_comma)] = ()
    """Addresses or networks of reverse proxies, separated by commas in the environment. From them
    alone X-Forwarded-For is taken for the client's address, in the logs."""

    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_by_comma)] = ()
    """Origins, such as ``https://dash.example.org``, whose pages may ask this service, separated by
    commas in the environment. None, as a page needs no help of other origins."""

    principal_rate: int = Field(default=100, ge=1, le=100_000)
    """Requests a second of one caller beyond this machine, after ten seconds' worth at once: no
    person comes near it, and a loop gone wild takes half of a small server."""

    principal_followers: int = Field(default=200, ge=1, le=1_000_000)
    """Logs that one caller beyond this machine follows at once: some dashboards' worth, and far
    from what all may follow together."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, bool) and info.field_name != "all_namespaces":
            msg = "true and false are no values of this setting"
            raise ValueError(msg)
        return value

    @field_validator("host")
    @classmethod
    def _address(cls, host: str) -> str:
        if host != "localhost":
            try:
                ipaddress.ip_address(host)
            except ValueError:
                raise ValueError("expects an address of this machine, such as 127.0.0.1") from None
        return host

    @field_validator("gpus")
    @classmethod
    def _distinct(cls, gpus: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if gpus is not None and len(set(gpus)) < len(gpus):
            raise ValueError("names a GPU twice")
        return gpus

    @field_validator("allowed_hosts")
    @classmethod
    def _host_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not host or not host.isascii() or any(sign in host for sign in "/:@* "):
                raise ValueError("expects names of hosts, without scheme, port or wildcard")
        return tuple(host.lower() for host in hosts)

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError("expects origins, such as https://dash.example.org, without path")
        return origins

    @property
    def is_beyond_loopback(self) -> bool:
        """Whether other machines can reach the address."""
        return self.host != "localhost" and not ipaddress.ip_address(self.host).is_loopback

    def slots_with(self, gpus: int) -> int:
        """Jobs that run at once on this machine, which has ``gpus`` GPUs to hand out."""
        if self.slots is not None:
            return self.slots
        return gpus or max(1, _cpus() // 2)


def load_settings(*, config: Path | None = None, **explicit: object) -> Settings:
    """The settings from all sources.

    Args:
        config: the TOML file; None looks for it.
        explicit: what the command was given; None and () stand for "not given".

    Raises:
        SettingsError: a setting is unknown or wrong, or the file cannot be read.
    """
    given = {name: value for name, value in explicit.items() if value is not None and value != ()}
    file = config or _config_file()
    from_file = _read_file(file) if file else {}
    _refuse_mistyped_variables()
    for name in given:
        _refuse_unknown(name, _option(name))
    for name in from_file:
        _refuse_unknown(name, str(file))
    below = {name: value for name, value in from_file.items() if not _variable(name)}
    try:
        settings = Settings(**{**below, **given})  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        problems = [
            _problem(
                str(fault["loc"][0]), fault["msg"], cast("object", fault["input"]), given, file
            )
            for fault in error.errors(include_url=False)
        ]
        raise SettingsError("\n".join(problems)) from None
    _refuse_open(settings)
    return settings


def _refuse_open(settings: Settings) -> None:
    """Refuse to serve other machines without asking who they are, or so that others can listen."""
    if settings.tls_key and not settings.tls_certificate:
        raise SettingsError("The setting tls_key is of no use without tls_certificate; give both.")
    if not settings.is_beyond_loopback:
        return
    if settings.access is None:
        raise SettingsError(
            f"The setting host: {settings.host} would serve other machines, and no access control "
            "is configured. Name a file with --access, or use 127.0.0.1, from elsewhere through "
            "an SSH tunnel."
        )
    if not settings.tls_certificate and not settings.trusted_proxies:
        raise SettingsError(
            f"The setting host: {settings.host} would serve other machines without TLS. Give "
            "tls_certificate, or name in trusted_proxies the proxy that speaks TLS in front."
        )


def _problem(
    name: str, message: str, value: object, given: dict[str, object], file: Path | None
) -> str:
    """One wrong setting: which, from where, why, and what to do."""
    if name in given:
        source, way_out = f"option {_option(name)}", f"Give {_option(name)} another value."
    elif _variable(name):
        variable = PREFIX + name.upper()
        source, way_out = f"variable {variable}", f"Correct or unset {variable}."
    else:
        source, way_out = f"file {file}", f"Correct {name} there."
    reason = message.removeprefix("Value error, ").partition(", got ")[0]
    return f"The setting {name} (from the {source}): {reason}, got {shortened(value)}. {way_out}"


def _config_file() -> Path | None:
    if named := os.environ.get(PREFIX + "CONFIG"):
        return Path(named).expanduser()
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    file = Path(home) / "model-training" / "config.toml"
    return file if file.is_file() else None


def _read_file(file: Path) -> dict[str, object]:
    """The values in a TOML file; relative paths in it are relative to it."""
    try:
        values = cast("dict[str, object]", tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        msg = f"The settings file {file} cannot be read: {error.strerror}. Name another: --config."
        raise SettingsError(msg) from None
    except (ValueError, RecursionError) as error:
        msg = f"The settings file {file} is not valid TOML: {error}. Correct it there."
        raise SettingsError(msg) from None
    for name in _PATHS:
        if isinstance(path := values.get(name), str) and path:
            values[name] = file.parent / Path(path).expanduser()
    if isinstance(folders := values.get("pipelines"), list):
        values["pipelines"] = [
            file.parent / Path(folder).expanduser() if isinstance(folder, str) else folder
            for folder in cast("list[object]", folders)
        ]
    return values


def _refuse_unknown(name: str, source: str) -> None:
    if name in Settings.model_fields:
        return
    like = nearest(name, Settings.model_fields)
    hint = f"did you mean {like[0]}?" if like else f"known are {', '.join(Settings.model_fields)}."
    raise SettingsError(f"Unknown setting {shortened(name)} in {source}: {hint}")


def _refuse_mistyped_variables() -> None:
    """Refuse what looks like one of our settings; other names may be a cluster's own.

    Kubernetes gives each pod variables such as ``MODEL_TRAINING_API_SERVICE_HOST``.
    """
    for variable in os.environ:
        name = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or name in _OTHER_VARIABLES:
            continue
        if name in Settings.model_fields:
            continue
        if like := difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.8):
            meant = PREFIX + like[0].upper()
            raise SettingsError(f"Unknown setting {variable}: did you mean {meant}? Unset it.")


def _variable(name: str) -> str | None:
    return os.environ.get(PREFIX + name.upper()) or None


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: those that this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
