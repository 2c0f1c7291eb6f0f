"""Where a reader of a job's log is: said to people and clients, and understood again."""

import re
from typing import NamedTuple, Self

# No leading zeros and no ".0", so that a position has one spelling; 18 digits fit 64 bits.
_POSITION = re.compile(r"([1-9]\d{0,8})\.(0|[1-9]\d{0,17})(?:\.([1-9]\d{0,8}))?", re.ASCII)


class Position(NamedTuple):
    """An offset in bytes, in the log of an attempt, counted from 1.

    ``generation`` tells a log that was collected anew from the one before.
    """

    attempt: int
    offset: int
    generation: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` wrote, ``1.1234`` or ``1.1234.2``.

        Raises:
            ValueError: it is something else.
        """
        match = _POSITION.fullmatch(text)
        if match is None:
            msg = f"{text[:60]!r} is not a position; one looks like 1.1234 (ATTEMPT.OFFSET)"
            raise ValueError(msg)
        attempt, offset, generation = match.groups(default="0")
        return cls(int(attempt), int(offset), int(generation))

    def __str__(self) -> str:
        plain = f"{self.attempt}.{self.offset}"
        return f"{plain}.{self.generation}" if self.generation else plain
