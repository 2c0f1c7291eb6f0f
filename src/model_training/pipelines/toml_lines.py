"""Where each key stands in a TOML file.

``tomllib`` tells the place of a syntax error, but not of a key that it could read, and a fault
without its line is hard to find in a long file. A library that keeps positions would be one more
dependency of everybody who trains; this scanner needs only to be right for text that ``tomllib``
has accepted, so it looks for the marks that open a statement and lets ``tomllib`` itself read
the keys.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import cast

_TOKEN = re.compile(
    r"""
      (?P<string>
          \"{3}(?:[^\\]|\\.)*?\"{3,5} | '{3}.*?'{3,5}   # over several lines
        | "(?:[^"\\\n]|\\.)*" | '[^'\n]*')
    | (?P<comment>\#[^\n]*)
    | (?P<newline>\n)
    | (?P<open>[\[{]) | (?P<close>[\]}])
    | (?P<equals>=)
    | (?P<other>[^\s"'\#\[\]{}=]+|\s)
    """,
    re.VERBOSE | re.DOTALL,
)
_AT_THE_END = " (at end of document)"
_PLACE = re.compile(r"\(at line (\d+), column \d+\)")


def key_lines(text: str) -> dict[str, int]:
    """Dotted key to line, counted from 1, of every table and key in valid TOML.

    Keys within an inline table have no line of their own: ``line_of`` gives that of the table.
    """
    lines: dict[str, int] = {}
    table: list[str] = []
    for line, statement in _statements(text):
        if statement.startswith("["):
            table = _path(statement.strip("[] \t\r"))
            lines.setdefault(".".join(table), line)
        else:
            lines.setdefault(".".join(table + _path(statement)), line)
    return lines


def line_of(key: str, lines: dict[str, int]) -> int:
    """The line of a dotted key, or of the nearest table around it; 1 if there is none."""
    while key:
        found = [line for known, line in lines.items() if f"{known}.".startswith(f"{key}.")]
        if found:
            return min(found)
        key = key.rpartition(".")[0]
    return 1


def syntax_error(error: Exception, text: str) -> tuple[int, str]:
    """The line (1 if unknown) and the reason that the parser gave for refusing ``text``."""
    if isinstance(error, RecursionError):
        return 1, "is nested too deeply"
    reason = str(error)
    if reason.endswith(_AT_THE_END):
        return text.rstrip().count("\n") + 1, f"{reason.removesuffix(_AT_THE_END)} at the end"
    if match := _PLACE.search(reason):
        return int(match[1]), _PLACE.sub("", reason).strip()
    return 1, "holds a number that cannot be read"  # the one case without a place


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each header in its brackets, and each key before its equals sign, with its line."""
    line, depth, begun, in_value = 1, 0, "", False
    for match in _TOKEN.finditer(text):
        kind, token = match.lastgroup, match[0]
        if kind == "newline" and depth == 0:
            if begun.startswith("["):
                yield line, begun
            begun, in_value = "", False
        elif kind == "equals" and depth == 0 and not in_value:
            yield line, begun
            in_value = True
        elif kind in {"open", "close"} and (in_value or depth):
            depth += 1 if kind == "open" else -1
        if kind not in {"newline", "comment", "equals"} and not in_value:
            begun += token if begun or not token.isspace() else ""
        line += token.count("\n")
    if begun.startswith("["):
        yield line, begun


def _path(key: str) -> list[str]:
    """The parts of a dotted key, quotes and escapes read by ``tomllib``."""
    value: object = tomllib.loads(f"{key} = 0")
    path: list[str] = []
    while isinstance(value, dict):
        ((part, value),) = cast("dict[str, object]", value).items()
        path.append(part)
    return path
