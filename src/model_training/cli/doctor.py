"""``doctor``: what this machine can and cannot do, each with the way out.

A failure is something without which nothing works here. A warning is a limit to know of: the
service refuses what it cannot enforce, so nothing goes wrong silently.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from model_training import __version__
from model_training.cli import exits
from model_training.cli.findings import Finding
from model_training.cli.talk import Talk, json_option
from model_training.errors import ModelTrainingError, SettingsError
from model_training.folders import DataFolder, default_data_folder

if TYPE_CHECKING:
    from model_training.executors.kubernetes.rights import Right
    from model_training.settings import Settings

LOW_SPACE = 2 * 1024**3  # bytes; a model and its log easily take one of them
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PATIENCE_S = 1.0


@click.command
@click.option("--executor", type=click.Choice(["local", "kubernetes"]), help="Where training runs.")
@click.option("--namespace", metavar="N", help="Kubernetes: where jobs run.")
@click.option("--all-namespaces", is_flag=True, default=None, help="Kubernetes: follow all jobs.")
@click.option(
    "--kubeconfig",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="F",
    help="Kubernetes: which cluster.",
)
@click.option(
    "--access",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Who may do what, in TOML.",
)
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings in TOML.")
@json_option
@click.pass_obj
def doctor_command(talk: Talk, **chosen: Any) -> int:  # noqa: ANN401 Click's values
    """Check this installation, the server and the cluster; 1 if something is broken.

    The options are those of serve, and settings are found as by it.
    """
    findings = [*_installation(), *_data_folder(), _server(talk.token_file), *_executor(chosen)]
    if talk.json:
        talk.give_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            talk.data(f"{finding.level:<5} {finding.what}: {finding.found}")
            if finding.way_out:
                talk.data(f"      -> {finding.way_out}")
    return exits.ERROR if any(each.level == "fail" for each in findings) else exits.OK


def _installation() -> Iterator[Finding]:
    version = sys.version.split(maxsplit=1)[0]
    yield Finding("ok", "command", f"model-training {__version__}, Python {version}")
    try:
        import fastapi
    except ModuleNotFoundError:
        way_out = "to serve here: pip install 'model-training-api[server]'"
        yield Finding("warn", "server libraries", "not installed", way_out)
    else:
        yield Finding("ok", "server libraries", f"FastAPI {fastapi.__version__}")
    beside = Path(sys.executable).with_name("uv")
    uv = shutil.which("uv") or (str(beside) if beside.exists() else None)
    if uv:
        yield Finding("ok", "uv", uv)
    else:
        way_out = "environments are built by venv and pip, slower; pip install uv"
        yield Finding("warn", "uv", "not found", way_out)


def _data_folder() -> Iterator[Finding]:
    data = DataFolder(default_data_folder())
    try:
        data.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=data.root):
            pass
        free = shutil.disk_usage(data.root).free
    except OSError as error:
        way_out = "choose another by MODEL_TRAINING_DATA or --data"
        yield Finding("fail", "data folder", f"{data.root}: {error.strerror}", way_out)
        return
    found = f"{data.root}, {free / 1024**3:.1f} GiB free"
    if free < LOW_SPACE:
        yield Finding("warn", "data folder", found, "delete jobs: model-training delete NAME")
    else:
        yield Finding("ok", "data folder", found)
    yield _token(data)


def _token(data: DataFolder) -> Finding:
    for name in ("MODEL_TRAINING_TOKEN", "MODEL_TRAINING_TOKEN_FILE"):
        if os.environ.get(name):
            return Finding("ok", "token", f"from {name}")
    try:
        mode = data.token.stat().st_mode & 0o777
    except OSError:
        return Finding("ok", "token", "none yet; the server makes one at its first start")
    if mode & 0o077:
        found = f"{data.token} can be read by others (mode {mode:o})"
        return Finding("fail", "token", found, f"chmod 600 {data.token}")
    return Finding("ok", "token", f"{data.token}, mode {mode:o}")


def _executor(chosen: dict[str, Any]) -> Iterator[Finding]:
    """What jobs would run on, as the settings say."""
    try:
        settings = _settings(chosen)
    except SettingsError as error:
        yield Finding("fail", "settings", error.message, "serve does not start with them")
        return
    if settings is not None:
        from model_training.cli.access_findings import access_findings

        yield from access_findings(settings)
    if settings is None or settings.executor == "local":
        yield from _machine()
        return
    from model_training.cli.cluster_findings import cluster_findings

    yield from cluster_findings(
        settings.kubeconfig,
        settings.namespace,
        all_namespaces=settings.all_namespaces,
        reviews=_reviews(settings),
    )


def _reviews(settings: "Settings") -> "tuple[Right, ...]":
    """Rights that the access file asks for; none where it is broken, as another finding says."""
    if settings.access is None:
        return ()
    from model_training.access.access_file import read_access_file
    from model_training.api.access import review_rights

    try:
        return review_rights(read_access_file(settings.access))
    except (SettingsError, ModuleNotFoundError):
        return ()


def _settings(chosen: dict[str, Any]) -> "Settings | None":
    """None where the libraries of the server are not installed; another finding says so."""
    try:
        from model_training.settings import load_settings
    except ModuleNotFoundError:
        return None
    return load_settings(**chosen)


def _server(token_file: str | None) -> Finding:
    from model_training.client.clients import Client

    try:
        with Client(token_file=token_file, patience=PATIENCE_S) as client:
            number = len(client.pipelines())
            address = client.address
    except SettingsError as error:
        return Finding("fail", "server", error.message, "correct MODEL_TRAINING_URL")
    except ModelTrainingError as error:
        named = bool(os.environ.get("MODEL_TRAINING_URL"))
        way_out = "correct MODEL_TRAINING_URL or the token" if named else "model-training serve"
        return Finding("fail" if named else "warn", "server", error.message, way_out)
    return Finding("ok", "server", f"{address}, {number} pipeline(s)")


def _cgroup(delegated: Path | None) -> Finding:
    """What a server started from here could do; one under a service manager has a cgroup too."""
    way_out = "run the server in: systemd-run --user --scope -p Delegate=yes"
    if delegated is None:
        found = "not delegated to this user: memory limits are refused"
        return Finding("warn", "cgroup v2", found, way_out)
    if "memory" not in (delegated / "cgroup.controllers").read_text().split():
        found = f"delegated at {delegated}, without memory: memory limits are refused"
        return Finding("warn", "cgroup v2", found, way_out)
    return Finding("ok", "cgroup v2", f"delegated at {delegated}")


def _machine() -> Iterator[Finding]:
    from model_training.executors.local import cgroups
    from model_training.executors.local.devices import usable_cpus

    cpus = len(usable_cpus()) or os.cpu_count() or 1
    yield Finding("ok", "CPUs", f"{cpus}; without GPUs, {max(1, cpus // 2)} slot(s) by default")
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    yield Finding("ok", "GPUs", str(gpus) if gpus else "none; jobs that ask for one are refused")
    yield _cgroup(cgroups.delegated())
    if BOOT_ID.exists():
        yield Finding("ok", "boot id", "readable; a restart of this machine is told from a crash")
    else:
        found = f"{BOOT_ID} is missing"
        way_out = "jobs lost by a restart of the machine are reported as SupervisorLost"
        yield Finding("warn", "boot id", found, way_out)
