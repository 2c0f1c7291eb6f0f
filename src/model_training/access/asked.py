"""Which request a decision is for, as the audit log names it.

A context variable, because every layer between the route and the audit log would else hand on
what none of them uses. The route sets it once, before it authenticates.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    request_id: str
    method: str = ""
    route: str = ""
    """the path as it is declared, so that no name in it is told before it is decided about"""
    client: str = ""
    """address of the client"""


NOTHING_ASKED: Final = Asked("")
ASKED: Final[ContextVar[Asked]] = ContextVar("asked", default=NOTHING_ASKED)
