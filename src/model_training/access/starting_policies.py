"""The policies to start from that come with this package, a folder a language."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from model_training.access.access_file import Engine

# AuthZEN says how is asked, and not in which language a policy is written.
FOLDERS: Final[Mapping[Engine, tuple[str, ...]]] = {
    "roles": ("roles",),
    "authzen": ("cerbos", "openfga"),
    "opa": ("opa",),
    "aissemble": ("aissemble",),
    "kubernetes": ("kubernetes",),
    "permit": (),
}


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """One file; the others of its folder belong to it."""

    name: str
    """with its folder, as in ``opa/policy.rego``"""
    text: str


def starting_policies(engine: Engine) -> list[PolicyFile]:
    """Those for this engine: rules first, and then the data by which they decide."""
    folders = [files("model_training.access") / "policies" / name for name in FOLDERS[engine]]
    return [
        PolicyFile(f"{folder.name}/{file.name}", file.read_text(encoding="utf-8"))
        for folder in folders
        for file in sorted(folder.iterdir(), key=lambda file: (file.name == "data.json", file.name))
    ]
