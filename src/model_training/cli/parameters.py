"""Training parameters from the command line: ``-p key=value`` and ``--params FILE``.

A value is text until somebody says what it means. The pipeline's declaration does where there is
one; otherwise what reads as JSON is JSON (``3``, ``0.1``, ``true``, ``[1,2]``) and the rest is a
string. So ``-p name=3`` is the string "3" for a pipeline that declares a string.
"""

import json
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import click

from model_training.errors import Fault, InvalidRequest, MalformedRequest
from model_training.jobs import JSONObject
from model_training.strict_json import parse_json

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def split_assignments(texts: tuple[str, ...]) -> dict[str, str]:
    """``("a=1", "b=x")`` as a mapping; the last of two with one name holds.

    Raises:
        UsageError: one has no name or no ``=``.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            msg = f"-p {text!r}: write it as name=value, for example -p epochs=20"
            raise click.UsageError(msg)
        found[name] = value
    return found


def typed(assignments: Mapping[str, str], declared: Mapping[str, JSONObject] | None) -> JSONObject:
    """Each value as its declaration says, or as it reads where none does.

    Raises:
        InvalidRequest: values that are not of their declared type, all of them.
    """
    values: JSONObject = {}
    faults: list[Fault] = []
    for name, text in assignments.items():
        kind = str((declared or {}).get(name, {}).get("type", ""))
        try:
            values[name] = _of_kind(kind, text)
        except ValueError:
            faults.append(Fault(f"-p {name}", f"{text!r} is no {kind}, which it is declared to be"))
    if faults:
        raise InvalidRequest(*faults)
    return values


def _of_kind(kind: str, text: str) -> object:
    match kind:
        case "string":
            return text
        case "integer":
            return int(_whole(_INTEGER, text))
        case "number":
            whole = _INTEGER.fullmatch(text)
            return int(text) if whole else float(_whole(_NUMBER, text))
        case "boolean":
            return {"true": True, "false": False}[_whole(re.compile("true|false"), text)]
        case "object" | "array":
            return _json_of(kind, text)
        case _:
            return _as_it_reads(text)


def _json_of(kind: str, text: str) -> object:
    value: object = json.loads(text)
    if isinstance(value, dict if kind == "object" else list):
        return cast("object", value)
    raise ValueError(text)


def _whole(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError(text)
    return text


def _as_it_reads(text: str) -> object:
    try:
        return parse_json(text.encode("utf-8", "surrogateescape"))
    except MalformedRequest:
        return text


def read_file(name: str) -> JSONObject:
    """The parameters in a file, read by its suffix; ``-`` is JSON on stdin.

    Raises:
        UsageError: it cannot be read, or holds no mapping of names.
    """
    where = "stdin" if name == "-" else name
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        value = _parsed(content, ".json" if name == "-" else Path(name).suffix.lower())
    except OSError as error:
        raise click.UsageError(f"--params {where}: {error.strerror}") from error
    except (ValueError, MalformedRequest) as error:
        raise click.UsageError(f"--params {where} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise click.UsageError(f"--params {where}: it must hold names and values at its top")
    return cast("JSONObject", value)


def _parsed(content: bytes, suffix: str) -> object:
    match suffix:
        case ".json":
            return parse_json(content)
        case ".toml":
            return tomllib.loads(content.decode())
        case ".yaml" | ".yml":
            return _yaml(content)
        case _:
            msg = f"its suffix {suffix!r} is none of .json, .toml, .yaml, .yml"
            raise ValueError(msg)


def _yaml(content: bytes) -> object:
    import yaml

    try:
        return yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
