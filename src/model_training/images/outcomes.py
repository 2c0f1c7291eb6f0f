"""What is known of an image: it is there, it is not, or that cannot be told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Present:
    """It is there."""

    digest: str
    """``sha256:...`` of its manifest, or of the index of its platforms"""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Unread:
    """It is there, and who says so knows nothing of its labels."""

    digest: str | None
    """None where it has none there"""


@dataclass(frozen=True, slots=True)
class Absent:
    """The registry says that there is no such image."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """Something is there that no job can run, however often it is asked for."""

    reason: str
    """goes on after the name of the image; no secret, no foreign words"""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Cannot be told."""

    reason: str
    """a sentence without its full stop, for people: no secret, no foreign words"""
    retry_after: int = 5
    """seconds"""


Outcome: TypeAlias = Present | Unread | Absent | Unusable | Unknown
