"""The access file: who is believed, who decides, and where that is written down.

One TOML file beside the settings, because it has tables and is kept by other people than those
who start the service. It is read once, at the start, and a mistake in it ends the start: a
service that asks somebody else than was meant is worse than none. What it names (keys, roles,
tokens) is read again by its users when it changes.

An older deployment may name its ``auth.properties`` instead (``properties.py``).
"""

import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)

from model_training.access.issuers import NO_TYPE, TYPES
from model_training.access.principals import PrincipalKind
from model_training.access.properties import read_properties
from model_training.errors import SettingsError
from model_training.strict_json import shortened

Engine = Literal["roles", "authzen", "aissemble", "opa", "kubernetes", "permit"]

# Whom each decision point can be asked about. aiSSEMBLE's takes the caller's own JWT and nothing
# else; a SubjectAccessReview speaks of users of the cluster.
ASKED_ABOUT: Final[dict[str, frozenset[PrincipalKind]]] = {
    "roles": frozenset(PrincipalKind),
    "authzen": frozenset(PrincipalKind),
    "opa": frozenset(PrincipalKind),
    "aissemble": frozenset({PrincipalKind.USER}),
    "kubernetes": frozenset({PrincipalKind.SERVICE_ACCOUNT}),
    "permit": frozenset(PrincipalKind),
}


def _beside(value: object, info: ValidationInfo) -> object:
    """A path in the file is relative to it."""
    if not isinstance(value, str):
        return value
    if not value:
        raise ValueError("the path is empty")
    folder = cast("Path", info.context)
    return folder / Path(value).expanduser()


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _with_scheme(url: str) -> str:
    if not _is_url(url):
        raise ValueError("expects an address with its scheme, such as https://pdp.example.org")
    return url


_File = Annotated[Path, BeforeValidator(_beside)]
_Url = Annotated[str, Field(max_length=2000), AfterValidator(_with_scheme)]
_Text = Annotated[str, Field(min_length=1, max_length=256)]
_Label = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
_Claim = Annotated[str, Field(pattern=r"^[A-Za-z0-9_:/.-]{1,200}$")]


class _Table(BaseModel):
    """Unknown keys are mistakes."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class IssuerTable(_Table):
    """``[[issuers]]``: whose JSON Web Tokens are believed."""

    name: _Label
    """short name, the first part of the ids of its users"""
    issuer: _Text
    """exactly as its tokens have it in ``iss``; an address, unless ``jwks`` or ``key`` is given"""
    audience: _Text
    """that its tokens must be for, in ``aud``"""
    algorithms: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = (
        "RS256", "ES256",
    )  # fmt: skip
    """by which its tokens are signed"""
    jwks: _Url | None = None
    """where its keys are; by default where its OpenID discovery document says"""
    key: _File | None = None
    """a public key in PEM instead"""
    types: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] | None = None
    """values of ``typ`` that are taken, ``none`` for a token without; by default at+jwt and JWT,
    and none as well where a key is given, as older deployments have it"""
    subject: _Claim = "sub"
    """claim that tells one user from another, for ever"""
    groups: _Claim = "groups"
    """claim with the user's groups, with dots where it is inside of others"""
    roles: _Claim = "roles"
    """the same of roles"""
    ca: _File | None = None
    """certificates, in PEM, by which its server is believed; by default the system's"""
    leeway: Annotated[float, Field(ge=0, le=60)] = 30
    """seconds that its clock and ours may differ"""

    @property
    def asks_by_tls(self) -> bool:
        """Whether its keys are fetched from a server that shows a certificate."""
        return self.key is None and (self.jwks or self.issuer).startswith("https:")

    @property
    def accepted_types(self) -> tuple[str, ...]:
        """``types`` in lower case, or what stands for it.

        Kinds of tokens of one issuer are told apart by their type. One without a type is taken only
        where somebody has looked at the issuer's: providers give types, old deployments do not.
        """
        if self.types is not None:
            return tuple(each.lower() for each in self.types)
        return TYPES if self.key is None else (*TYPES, NO_TYPE)


class ApiKeysTable(_Table):
    """``[api_keys]``: keys that ``model-training access key create`` makes."""

    file: _File


class KubernetesTable(_Table):
    """``[kubernetes]``: tokens of the cluster that jobs run in, by TokenReview."""

    audience: _Text


class DecisionsTable(_Table):
    """``[decisions]``: who decides what somebody may do."""

    engine: Engine
    file: _File | None = None
    """roles: the file with them"""
    url: _Url | None = None
    """authzen, aissemble, opa: where it is"""
    plain_http: bool = False
    """authzen, aissemble, opa: whether it may be asked without TLS beyond this machine, where
    whoever is between can say yes in its place"""
    token: _File | None = None
    """file with the token that we show it"""
    ca: _File | None = None
    """certificates, in PEM, by which its server is believed; by default the system's"""
    certificate: _File | None = None
    """ours, in PEM, where it wants one"""
    certificate_key: _File | None = None
    discover: bool = False
    """authzen: ask it where its endpoints are"""
    jobs_by: Literal["job", "pipeline"] = "job"
    """authzen: ask about jobs themselves, or about their pipelines"""
    path: Annotated[str, Field(pattern=r"^[A-Za-z0-9_/]{1,200}$")] = "model_training/allow"
    """opa: of the rule"""
    resource: _Text = "model-training/{pipeline}"
    """aissemble: what it is asked about"""
    action: _Text = "training-job-{action}"
    """aissemble: what would be done"""
    group: _Text = "model-training.alt"
    """kubernetes: API group of the resources that its roles name; nobody can own one in ``alt``"""
    cache: Annotated[float, Field(ge=0, le=10)] = 0
    """seconds for which a yes is kept, but for stop and delete; a no for at most 2"""


class AuditTable(_Table):
    """``[audit]``: where decisions are written down."""

    file: Annotated[Literal["-"] | _File, Field(union_mode="left_to_right")]
    """a file, or ``-`` for the standard output"""


class AccessFile(_Table):
    """The whole file."""

    issuers: Annotated[tuple[IssuerTable, ...], Field(strict=False)] = ()
    api_keys: ApiKeysTable | None = None
    kubernetes: KubernetesTable | None = None
    local_token: bool = False
    """whether the token in the data folder is still good"""
    decisions: DecisionsTable
    audit: AuditTable | None = None
    """by default ``audit.jsonl`` in the data folder"""

    @property
    def kinds(self) -> frozenset[PrincipalKind]:
        """Who can come in."""
        ways = {
            PrincipalKind.USER: bool(self.issuers),
            PrincipalKind.API_KEY: self.api_keys is not None,
            PrincipalKind.SERVICE_ACCOUNT: self.kubernetes is not None,
            PrincipalKind.LOCAL: self.local_token,
        }
        return frozenset(kind for kind, is_open in ways.items() if is_open)


def read_access_file(path: Path) -> AccessFile:
    """The file, parsed and found consistent.

    Raises:
        SettingsError: a line a mistake, each with the setting it is in.
    """
    plain = read_properties(path) if path.suffix == ".properties" else _read_toml(path)
    try:
        access = AccessFile.model_validate(plain, context=path.parent)
    except ValidationError as error:
        lines = [
            f"The setting {_place(fault['loc'])} in {path}: {_reason(fault['type'], fault['msg'])}"
            f"{_given(cast('object', fault['input']))}."
            for fault in error.errors(include_url=False)
        ]
        raise SettingsError("\n".join(lines)) from None
    _refuse_inconsistent(access, path)
    return access


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return cast("dict[str, object]", tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        msg = f"The access file {path} cannot be read: {error.strerror}. Name another: --access."
        raise SettingsError(msg) from None
    except (ValueError, RecursionError) as error:
        msg = f"The access file {path} is not valid TOML: {error}. Correct it there."
        raise SettingsError(msg) from None


def _place(location: tuple[int | str, ...]) -> str:
    """``issuers[0].audience``."""
    place = ""
    for part in location:
        if isinstance(part, int):
            place += f"[{part}]"
        elif not part.startswith(("function-", "literal[", "lax-or")):
            place += f".{part}" if place else part
    return place or "access"


def _reason(kind: str, message: str) -> str:
    if kind == "missing":
        return "it is missing, and there is no safe default"
    if kind == "extra_forbidden":
        return "there is no such setting"
    return message.removeprefix("Value error, ")


def _given(value: object) -> str:
    return "" if isinstance(value, dict) else f", got {shortened(value)}"


_TAKEN: Final = frozenset({"kubernetes", "key", "local"})
_NEEDED: Final = {"roles": "file", "authzen": "url", "aissemble": "url", "opa": "url"}
_ONLY_OF: Final = {
    "file": {"roles"},
    "url": {"authzen", "aissemble", "opa"},
    "plain_http": {"authzen", "aissemble", "opa"},
    "token": {"authzen", "aissemble", "opa"},
    "ca": {"authzen", "aissemble", "opa"},
    "certificate": {"authzen", "aissemble", "opa"},
    "certificate_key": {"authzen", "aissemble", "opa"},
    "discover": {"authzen"},
    "jobs_by": {"authzen"},
    "path": {"opa"},
    "resource": {"aissemble"},
    "action": {"aissemble"},
    "group": {"kubernetes"},
    "cache": {"authzen", "aissemble", "opa", "kubernetes"},
}


def _refuse_inconsistent(access: AccessFile, path: Path) -> None:
    _refuse_decisions(access.decisions, path)
    _refuse_issuers(access, path)
    if not access.kinds:
        raise SettingsError(
            f"The access file {path} lets nobody in: name issuers, api_keys or kubernetes, or set "
            "local_token to true."
        )
    engine = access.decisions.engine
    if strangers := access.kinds - ASKED_ABOUT[engine]:
        kinds = ", ".join(sorted(_WAY[kind] for kind in strangers))
        raise SettingsError(
            f"The setting decisions.engine in {path}: {engine} cannot be asked about those who "
            f"come in by {kinds}. Remove that way in, or choose another engine."
        )


def _refuse_decisions(decisions: DecisionsTable, path: Path) -> None:
    engine = decisions.engine
    needed = _NEEDED.get(engine)
    if needed is not None and getattr(decisions, needed) is None:
        raise SettingsError(f"The setting decisions.{needed} in {path}: {engine} needs it.")
    for name in sorted(decisions.model_fields_set & _ONLY_OF.keys()):
        if engine not in _ONLY_OF[name]:
            known = " or ".join(sorted(_ONLY_OF[name]))
            raise SettingsError(
                f"The setting decisions.{name} in {path}: it is for {known}, and the engine is "
                f"{engine}. Remove it."
            )
    if decisions.url is not None and decisions.url.startswith("http:"):
        for name in ("ca", "certificate", "certificate_key"):
            if name in decisions.model_fields_set:
                raise SettingsError(
                    f"The setting decisions.{name} in {path}: certificates are shown by TLS alone, "
                    "and url is http. Remove it, or use https."
                )


def _refuse_issuers(access: AccessFile, path: Path) -> None:
    for issuer in access.issuers:
        if issuer.name in _TAKEN:
            raise SettingsError(
                f"The setting name of {issuer.name} in {path}: ids that begin with it are those of "
                "another way in. Choose another name."
            )
        if issuer.jwks is None and issuer.key is None and not _is_url(issuer.issuer):
            raise SettingsError(
                f"The setting issuer of {issuer.name} in {path}: it is no address at which keys "
                "could be looked for. Give jwks or key."
            )
        if issuer.ca is not None and not issuer.asks_by_tls:
            raise SettingsError(
                f"The setting ca of {issuer.name} in {path}: its keys are not asked for by TLS, so "
                "no certificate is looked at. Remove it, or use https."
            )


_WAY: Final = {
    PrincipalKind.USER: "issuers",
    PrincipalKind.API_KEY: "api_keys",
    PrincipalKind.SERVICE_ACCOUNT: "kubernetes",
    PrincipalKind.LOCAL: "local_token",
}
