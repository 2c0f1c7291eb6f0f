"""In what a cluster may differ from one machine: all of it, ten at most.

The page ``docs/reference/differences.md`` tells people the same; ``test_docs.py`` compares the
two. A difference that is told and not seen fails as one that is seen and not told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Difference:
    """One difference. ``seen`` is what a cluster shows: scenario to path in its trace to value."""

    name: str
    reason: str
    seen: Mapping[str, Mapping[str, Any]]


DIFFERENCES: tuple[Difference, ...] = ()


def told_of(scenario: str) -> dict[str, Any]:
    """What a cluster is told to show otherwise in a scenario: path in its trace to value."""
    return {
        path: value
        for difference in DIFFERENCES
        for path, value in difference.seen.get(scenario, {}).items()
    }
