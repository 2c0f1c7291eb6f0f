"""The pipelines of the scenarios as images: the same program, the same declaration."""

import json
import tomllib
from pathlib import Path

from testbed import images
from tests.parity.server import PIPELINES


def image(folder: Path) -> images.Image:
    """The image of a pipeline's folder, with the program beside it, as on this machine."""
    told = tomllib.loads((folder / "pipeline.toml").read_text())
    labels = {"model-training.job": json.dumps(told["job"])} if "job" in told else {}
    built = images.pipeline(folder, labels)
    name, program = "play.py", (PIPELINES / "play.py").read_bytes()
    layer = images.Layer.of(dict([images._file(name, program, 0o644)]))
    return images.Image((*built.layers, layer), built.config)


def push_all(registry: str) -> list[str]:
    """Push all, each as ``model-training-PIPELINE``; the names of the pipelines."""
    names = [file.parent.name for file in sorted(PIPELINES.glob("*/pipeline.toml"))]
    for name in names:
        images.push(image(PIPELINES / name), f"model-training-{name}", registry)
    return names
