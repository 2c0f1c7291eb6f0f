"""Train pipeline P with these parameters: what users import.

Names are loaded when they are first used, so that training code that asks for its
``parameters()`` pulls in nothing but the standard library.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model_training.client.clients import AsyncClient as AsyncClient
    from model_training.client.clients import Client as Client
    from model_training.job_parameters import parameters as parameters

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "parameters"]

_HOMES = {
    "AsyncClient": "model_training.client.clients",
    "Client": "model_training.client.clients",
    "parameters": "model_training.job_parameters",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    msg = f"module 'model_training' has no attribute {name!r}"
    raise AttributeError(msg)
