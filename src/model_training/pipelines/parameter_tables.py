"""The declaration of a pipeline's parameters, read from plain values.

They come from the ``[parameters]`` tables of a ``pipeline.toml``, or from the label of an image;
so faults are named by dotted key, and whoever knows the file adds the line. TOML holds more than
JSON (dates, infinity, integers of any length): what could not reach training code as JSON is
refused here, with the rest, and not when the first job is made. JSON holds null, TOML does not.
"""

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, cast

from model_training.declarations import (
    KINDS,
    PARAMETERS_LIMIT,
    WITH_ARTICLE,
    Declaration,
    Parameter,
    holds_nul,
    is_a,
    listed,
    members_of,
    name_fault,
    size_of,
)
from model_training.errors import Fault
from model_training.names import nearest
from model_training.strict_json import DEPTH_LIMIT, shortened

if TYPE_CHECKING:
    from model_training.jobs import JSONObject

INTEGER_BITS: Final = 14_284  # 4,300 digits, as in strict_json

# The keys of a declared parameter, and the type of each.
_MEMBERS: Final = {
    "type": "string", "default": "any", "minimum": "number", "maximum": "number",
    "choices": "array", "pattern": "string", "required": "boolean", "description": "string",
}  # fmt: skip


def read_declaration(tables: object) -> tuple[Declaration, tuple[Fault, ...]]:
    """A declaration from plain values, such as the ``[parameters]`` of a ``pipeline.toml``.

    Returns:
        What could be read, and all faults, their paths dotted keys: ``parameters.epochs.type``.
    """
    if not isinstance(tables, dict):
        return Declaration({}), (Fault("parameters", "expects a table for each parameter"),)
    found: dict[str, Parameter] = {}
    faults: list[Fault] = []
    for name, table in cast("JSONObject", tables).items():
        path = f"parameters.{name}"
        if message := name_fault(name):
            faults.append(Fault(path, message))
            continue
        read = _read_parameter(table, path)
        if isinstance(read, Parameter):
            found[name] = read
        else:
            faults += read
    defaults = {name: declared.default for name, declared in found.items()}
    if size_of(defaults) > PARAMETERS_LIMIT:
        faults.append(Fault("parameters", f"the defaults take over {PARAMETERS_LIMIT} bytes"))
    return Declaration(found), tuple(faults)


def _read_parameter(table: object, path: str) -> Parameter | list[Fault]:
    if not isinstance(table, dict):
        return [Fault(path, 'expects a table with a type, such as { type = "integer" }')]
    members = cast("JSONObject", table)
    faults = [
        Fault(f"{path}.{key}", message)
        for key, value in members.items()
        if (message := _member_fault(key, value))
    ]
    if "type" not in members:
        faults.append(Fault(path, f"has no type; give one of {listed(WITH_ARTICLE)}"))
    if faults:
        return faults
    values = dict(members)
    if "choices" in values:
        values["choices"] = tuple(cast("list[object]", values["choices"]))
    parameter = Parameter(**values)  # pyright: ignore[reportArgumentType]
    faults += [Fault(f"{path}.{key}", message) for key, message in _contradictions(parameter)]
    # Only where the rest fits together can a default be held against it.
    if not faults and parameter.default is not None:
        message = parameter.fault(parameter.default)
        faults += [Fault(f"{path}.default", message)] if message else []
    return faults or parameter


def _member_fault(key: str, value: object) -> str | None:
    """What is wrong with one key of a parameter's table by itself."""
    if key not in _MEMBERS:
        hint = "".join(f"; did you mean {like}?" for like in nearest(key, _MEMBERS))
        return f"unknown key{hint or '; known are ' + listed(_MEMBERS)}"
    if message := _unfit(value):
        return message
    expected = _MEMBERS[key]
    if expected != "any" and not is_a(expected, value):
        return f"expects {WITH_ARTICLE[expected]}, got {shortened(value)}"
    if key == "type" and value not in WITH_ARTICLE:
        return f"expects one of {listed(WITH_ARTICLE)}, got {shortened(value)}"
    if key == "pattern":
        return _pattern_fault(cast("str", value))
    return None


def _contradictions(declared: Parameter) -> Iterator[tuple[str, str]]:
    """Keys that do not fit the others, each with what is wrong."""
    if declared.pattern is not None and declared.type != "string":
        yield "pattern", f"a pattern fits string, this is {declared.type}"
    if declared.choices is not None and (message := _choices_fault(declared)):
        yield "choices", message
    if declared.required and declared.default is not None:
        yield "required", "a parameter with a default is never missing; drop one of the two"
    yield from _bounds_faults(declared)


def _bounds_faults(declared: Parameter) -> Iterator[tuple[str, str]]:
    bounds = {"minimum": declared.minimum, "maximum": declared.maximum}
    given = {key: bound for key, bound in bounds.items() if bound is not None}
    if given and declared.type not in {"integer", "number"}:
        for key in given:
            yield key, f"bounds fit integer and number, this is {declared.type}"
        return
    for key, bound in given.items():
        if not is_a(declared.type, bound):
            yield key, f"expects {WITH_ARTICLE[declared.type]}, got {shortened(bound)}"
    if len(given) == 2 and given["minimum"] > given["maximum"]:
        yield "minimum", f"is above the maximum {given['maximum']}"


def _choices_fault(declared: Parameter) -> str | None:
    if declared.type not in {"string", "integer", "number"}:
        return f"choices fit string, integer and number, this is {declared.type}"
    if not declared.choices:
        return "expects at least one choice"
    for choice in declared.choices:
        if not is_a(declared.type, choice):
            return f"expects {WITH_ARTICLE[declared.type]}s, got {shortened(choice)}"
    return None


def _pattern_fault(pattern: str) -> str | None:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"is no regular expression: {error}"
    return None


def _unfit(value: object) -> str | None:
    """Why a declared value cannot be, or None: TOML holds more than JSON, and JSON null."""
    if value is None:
        return "is null; leave the key out"
    waiting = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if depth > DEPTH_LIMIT:
            return f"is nested deeper than {DEPTH_LIMIT} levels"
        if item is not None and type(item) not in KINDS:
            return "holds a date or time, which JSON cannot; write it as a string"
        if isinstance(item, float) and not math.isfinite(item):
            return "holds a number that is not finite, which JSON cannot"
        if isinstance(item, int) and item.bit_length() > INTEGER_BITS:
            return "holds an integer of more than 4,300 digits"
        waiting += [(member, depth + 1) for member in members_of(item)]
    return "holds U+0000, which no environment variable can" if holds_nul(value) else None
