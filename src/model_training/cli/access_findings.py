"""Who may use the service that these settings would start: its posture, a line a matter.

Read from the settings and the files that they name. Of what is elsewhere the decision point alone
is asked, a question about nobody: whoever wrote its address and path wants to know that they are
right.
"""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from model_training.cli.findings import Finding
from model_training.errors import AccessUnavailable, SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from model_training.access.access_file import AccessFile, DecisionsTable
    from model_training.settings import Settings


def access_findings(settings: "Settings") -> Iterator[Finding]:
    """The posture."""
    yield _reach(settings)
    yield _encryption(settings)
    if settings.access is None:
        yield Finding("ok", "who comes in", "whoever can read the token file of the data folder")
        yield Finding("ok", "who decides", "nobody: the one user may do everything")
    else:
        yield from _of_file(settings)
    proxies = ", ".join(str(network) for network in settings.trusted_proxies)
    yield Finding("ok", "trusted proxies", proxies or "none; a client is where it connects from")
    origins = ", ".join(settings.cors_origins)
    yield Finding("ok", "pages of other origins", origins or "none may ask")
    share = f"{settings.principal_rate} requests a second, {settings.principal_followers} logs"
    yield Finding("ok", "share of one caller", f"{share} followed at once; the local user has none")


def _reach(settings: "Settings") -> Finding:
    if not settings.is_beyond_loopback:
        return Finding("ok", "reach", f"{settings.host}: this machine alone")
    return Finding("ok", "reach", f"{settings.host}: other machines too")


def _encryption(settings: "Settings") -> Finding:
    if settings.tls_certificate is not None:
        return Finding("ok", "encryption", f"TLS by {settings.tls_certificate}")
    if settings.is_beyond_loopback:
        found = "none here; the proxies in front speak TLS, or tokens can be read on the way"
        return Finding("warn", "encryption", found, "make sure of it, or give tls_certificate")
    return Finding("ok", "encryption", "none, and nothing leaves this machine")


def _of_file(settings: "Settings") -> Iterator[Finding]:
    from model_training.access.access_file import read_access_file

    assert settings.access is not None  # noqa: S101 - the caller has looked
    try:
        file = read_access_file(settings.access)
    except SettingsError as error:
        yield Finding("fail", "access file", error.message, "serve does not start with it")
        return
    yield Finding("ok", "who comes in", "; ".join(_ways(file)))
    yield from _decisions(file)
    log = file.audit.file if file.audit is not None else "audit.jsonl in the data folder"
    yield Finding("ok", "audit log", "the standard output" if log == "-" else str(log))


def _ways(file: "AccessFile") -> Iterator[str]:
    for issuer in file.issuers:
        yield f"tokens of {issuer.issuer} for {issuer.audience} (as {issuer.name}/...)"
    if file.api_keys is not None:
        yield f"API keys in {file.api_keys.file}"
    if file.kubernetes is not None:
        yield f"tokens of the cluster for {file.kubernetes.audience}"
    if file.local_token:
        yield "whoever can read the token file"


def _decisions(file: "AccessFile") -> Iterator[Finding]:
    table = file.decisions
    if table.engine == "permit":
        found = "nobody: authorization is switched off, whoever comes in may do everything"
        yield Finding("warn", "who decides", found, "choose an engine in [decisions]")
        return
    if table.file is not None:
        yield _roles(table.file)
    elif table.url is not None:
        yield _decision_point(table, table.url)
    else:
        yield Finding("ok", "who decides", f"{table.engine}: the cluster's own roles")
    if table.plain_http:
        found = "decisions cross the network without TLS; whoever is between can say yes"
        yield Finding("warn", "decision point", found, "use https, and remove plain_http")
    if table.cache:
        kept = f"a yes for {table.cache:g} s, never to stop or delete"
        yield Finding("ok", "kept decisions", kept)


def _roles(path: "Path") -> Finding:
    from model_training.access.engines.role_file import read_role_file

    try:
        read_role_file(path)
    except SettingsError as error:
        way_out = "serve does not start with it; one that runs goes on with the roles before"
        return Finding("fail", "who decides", f"roles: {error.message}", way_out)
    return Finding("ok", "who decides", f"roles: {path}")


def _decision_point(table: "DecisionsTable", url: str) -> Finding:
    from model_training.access.opening import try_out

    found = f"{table.engine}: {url}"
    try:
        doubt = asyncio.run(try_out(table))
    except ModuleNotFoundError as error:
        way_out = "pip install 'model-training-api[server,access]'"
        return Finding("fail", "who decides", f"{error.name} is missing", way_out)
    except SettingsError as error:
        return Finding("fail", "who decides", error.message, "serve does not start with it")
    except AccessUnavailable as error:
        way_out = "mend what is named; the service starts meanwhile, and permits nothing"
        return Finding("fail", "who decides", f"{found}: {error.message}", way_out)
    if doubt:
        return Finding("warn", "who decides", f"{found} answers, but {doubt}")
    return Finding("ok", "who decides", f"{found}, which answers")
