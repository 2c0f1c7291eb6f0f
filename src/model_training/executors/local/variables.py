"""The environment of a job, made from scratch: what the server happens to run with is not in it.

The server's own variables that make a program run at all come through, then the pipeline's fixed
ones, those it asked to take over, the job's parameters, and ours on top. The values taken over
travel only in the supervisor's own environment; on disk stand their names.
"""

from collections.abc import Collection, Mapping

from model_training.executors.local import processes

BASE = frozenset({"PATH", "HOME", "LANG", "TZ", "USER", "LOGNAME", "TMPDIR", "SHELL"})
BASE_PREFIX = "LC_"
# What uv and pip need to reach an index through a proxy or a mirror: for building a job's
# environment, never for the job.
_INSTALLER_PREFIXES = ("PIP_", "UV_", "XDG_", "SSL_CERT_")
_INSTALLER = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle"})


def for_supervisor(
    own: Mapping[str, str], pass_env: Collection[str], *, installs: bool
) -> dict[str, str]:
    """What of the server's environment the supervisor is given.

    Args:
        own: the server's.
        pass_env: names that the pipeline asked for.
        installs: whether the supervisor may have to build an environment.
    """
    return {
        name: value
        for name, value in own.items()
        if _is_base(name) or name in pass_env or (installs and _is_installers(name))
    }


def for_installer(own: Mapping[str, str], job: str) -> dict[str, str]:
    """The environment of uv and pip, given the supervisor's."""
    kept = {name: own[name] for name in own if _is_base(name) or _is_installers(name)}
    return kept | {processes.MARK: job}


def for_job(
    own: Mapping[str, str],
    pass_env: Collection[str],
    fixed: Mapping[str, str],
    given: Mapping[str, str],
) -> dict[str, str]:
    """The environment of the command.

    Args:
        own: the supervisor's.
        pass_env: names that the pipeline asked for; one that is not set falls back to ``fixed``.
        fixed: the pipeline's.
        given: the parameters and ours.
    """
    base = {name: own[name] for name in own if _is_base(name)}
    passed = {name: own[name] for name in pass_env if name in own}
    return base | {"PYTHONUNBUFFERED": "1"} | dict(fixed) | passed | dict(given)


def _is_base(name: str) -> bool:
    return name in BASE or name.startswith(BASE_PREFIX)


def _is_installers(name: str) -> bool:
    return name.startswith(_INSTALLER_PREFIXES) or name.lower() in _INSTALLER
