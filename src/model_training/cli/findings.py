"""What ``doctor`` finds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ``level`` is ``ok``, ``warn`` or ``fail``."""

    level: str
    what: str
    found: str
    way_out: str = ""
