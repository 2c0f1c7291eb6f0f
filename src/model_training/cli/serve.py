"""``serve``."""

from pathlib import Path
from typing import Any

import click

from model_training.cli.talk import Talk

_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command
@click.option("--host", metavar="ADDRESS", help="Listen here.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="0 takes a free one.  [default: 8642]")
@click.option("--data", type=_FOLDER, metavar="DIR", help="Jobs, logs, ledger and token live here.")
@click.option(
    "--pipelines",
    type=_FOLDER,
    multiple=True,
    metavar="DIR",
    help="A folder that holds pipelines; may be repeated.",
)
@click.option("--executor", type=click.Choice(["local", "kubernetes"]), help="Where training runs.")
@click.option("--slots", type=click.IntRange(min=1), metavar="N", help="Jobs at the same time.")
@click.option("--namespace", metavar="N", help="Kubernetes: where jobs run.")
@click.option("--all-namespaces", is_flag=True, default=None, help="Kubernetes: follow all jobs.")
@click.option("--kubeconfig", type=_FILE, metavar="F", help="Kubernetes: which cluster.")
@click.option("--registry", metavar="HOST[/PREFIX]", help="Kubernetes: where images are.")
@click.option("--image-tag", metavar="T", help="Kubernetes: tag of the images.")
@click.option(
    "--insecure-registry",
    multiple=True,
    metavar="HOST",
    help="Kubernetes: a registry without TLS; may be repeated.",
)
@click.option("--outputs-claim", metavar="C", help="Kubernetes: claim for what jobs make.")
@click.option("--access", type=_FILE, metavar="FILE", help="Who may do what, in TOML.")
@click.option("--tls-certificate", type=_FILE, metavar="FILE", help="PEM; HTTPS is spoken then.")
@click.option("--tls-key", type=_FILE, metavar="FILE", help="PEM; by default in the certificate's.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings in TOML.")
@click.pass_obj
def serve_command(talk: Talk, **chosen: Any) -> int:  # noqa: ANN401 Click's values
    """Run the service until Ctrl+C; jobs go on without it.

    Every setting can also be given as MODEL_TRAINING_NAME or in the TOML file; an option goes
    over both.
    """
    talk.aim = "serve"
    try:
        from model_training.api.server import run
    except ModuleNotFoundError as error:
        msg = f"{error.name} is missing; install: pip install 'model-training-api[server]'"
        raise click.ClickException(msg) from error
    explicit = {name: value for name, value in chosen.items() if value not in (None, ())}
    return run(**explicit)
