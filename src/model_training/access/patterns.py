"""Patterns of pipeline names: names in which ``*`` stands for any signs.

Nothing else is special. Regular expressions were rejected, because whoever writes one of these is
not to learn what a dot means, and because of two it must be possible to say whether some name is
of both.
"""

import re
from functools import lru_cache
from typing import Final

from model_training.names import PIPELINE_NAME_LIMIT

_PATTERN: Final = re.compile(r"[a-z0-9*]([a-z0-9*-]*[a-z0-9*])?")


def parse_pattern(text: str) -> str:
    """The pattern, if it can be one.

    Raises:
        ValueError: no pipeline can be meant; with the reason.
    """
    if len(text) > PIPELINE_NAME_LIMIT + text.count("*"):
        raise ValueError(f"is longer than a pipeline's name, {PIPELINE_NAME_LIMIT} signs")
    if "**" in text:
        raise ValueError("has two * beside each other, which say no more than one")
    if not _PATTERN.fullmatch(text):
        raise ValueError("is no name of a pipeline, in which * may stand for any signs")
    return text


def matches(pattern: str, name: str) -> bool:
    """Whether the name is of the pattern; linear in both for each ``*``."""
    if "*" not in pattern:
        return pattern == name
    first, *middle, last = pattern.split("*")
    if len(name) < len(first) + len(last) or not (name.startswith(first) and name.endswith(last)):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:  # the leftmost place is never worse than another
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def overlap(one: str, other: str) -> bool:
    """Whether some name is of both patterns.

    Between its first and its last ``*`` a pattern asks for nothing that could not stand beside what
    another asks for there, so of two with stars only the beginnings and the ends are in the way.
    """
    if "*" not in one:
        return matches(other, one)
    if "*" not in other:
        return matches(one, other)
    begin, end = _around_stars(one)
    begins, ends = _around_stars(other)
    return (begin.startswith(begins) or begins.startswith(begin)) and (
        end.endswith(ends) or ends.endswith(end)
    )


@lru_cache(maxsize=1024)
def _around_stars(pattern: str) -> tuple[str, str]:
    """What stands before the first and behind the last of them."""
    return pattern.partition("*")[0], pattern.rpartition("*")[2]
