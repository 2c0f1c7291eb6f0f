"""The promised traces, as a file, and what of played ones differs from them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.parity.stage import Trace

PROMISED = Path(__file__).parent / "promised.json"


def promised() -> dict[str, Trace]:
    """The traces that every executor gives, but for the differences that are told."""
    return json.loads(PROMISED.read_text())


def promise(traces: Mapping[str, Trace]) -> None:
    """Write the promised traces anew: run by hand, and read what changed before it is kept."""
    PROMISED.write_text(json.dumps(traces, indent=1, ensure_ascii=False) + "\n")


def plain(trace: Trace) -> Trace:
    """As it would be read from the file: tuples are lists there."""
    return json.loads(json.dumps(trace))


Pair = tuple[Any, Any]


def differing(promised: Any, seen: Any, path: str = "") -> dict[str, Pair]:
    """Where two traces differ: a path of keys, and what stands there in each."""
    if isinstance(promised, dict) and isinstance(seen, dict):
        found: dict[str, Pair] = {}
        for key in {**promised, **seen}:
            inner = f"{path}/{key}" if path else str(key)
            found |= differing(promised.get(key, ...), seen.get(key, ...), inner)
        return found
    return {} if promised == seen else {path: (promised, seen)}
