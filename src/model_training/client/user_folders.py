"""The folders of whoever uses the client: XDG's base directories, with our name in them.

Not the data folder of a service (``folders.py``), though by default that is the same state folder:
``MODEL_TRAINING_DATA`` moves a service's files and not a person's.
"""

import os
from pathlib import Path


def config_folder() -> Path:
    """What the user has written."""
    return _folder("XDG_CONFIG_HOME", ".config")


def state_folder() -> Path:
    """What is kept for the user."""
    return _folder("XDG_STATE_HOME", ".local/state")


def _folder(variable: str, default: str) -> Path:
    base = os.environ.get(variable, "")
    # A relative one is ignored, as the specification says: else the current folder would choose.
    return (Path(base) if Path(base).is_absolute() else _home() / default) / "model-training"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a user without an entry, as containers have them
        return Path("/nonexistent")  # where Debian says that such users live
