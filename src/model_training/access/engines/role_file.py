"""The file of roles: what a role allows, and who has it.

Everything is allowed by some rule, and nothing takes back what another gives: what somebody may
do is the union of their roles, and reading one role tells all of it. So two rules of one role
that say the same about some pipeline are refused: one of them is a mistake.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Final, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from model_training.access.actions import Action
from model_training.access.patterns import overlap, parse_pattern
from model_training.errors import SettingsError
from model_training.strict_json import shortened

SERVICE_ACTIONS: Final = frozenset({Action.LIST, Action.READ})
# Some thousand bindings. It is read again when it changes, while somebody waits: the worst of this
# size takes half a second.
ROLE_FILE_BYTES: Final = 128 * 1024
PATTERNS_LIMIT: Final = 1000  # in all rules; each is held against the others of its role


def _actions(value: object) -> object:
    if isinstance(value, list) and "*" in value:
        if len(cast("list[object]", value)) > 1:
            raise ValueError("has other actions beside *, which means all of them")
        return frozenset(Action)
    if not isinstance(value, list) or not value:
        raise ValueError("expects a list of at least one action")
    found: set[Action] = set()
    for word in cast("list[object]", value):
        try:
            found.add(Action(str(word)))
        except ValueError:
            known = ", ".join(Action)
            raise ValueError(f"{shortened(word)} is no action; they are {known}, or *") from None
    return frozenset(found)


def _patterns(value: object) -> object:
    if not isinstance(value, list) or not value:
        raise ValueError('expects a list of at least one pattern, such as ["fraud-*"]')
    for text in cast("list[object]", value):
        try:
            parse_pattern(str(text))
        except ValueError as error:
            raise ValueError(f"{shortened(text)} {error}") from None
    return tuple(str(text) for text in cast("list[object]", value))


_Actions = Annotated[frozenset[Action], BeforeValidator(_actions)]
_Patterns = Annotated[tuple[str, ...], BeforeValidator(_patterns)]
_Names = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=400)], ...], Field(strict=False)
]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Rule(_Table):
    """These actions on these pipelines and their jobs."""

    actions: _Actions
    pipelines: _Patterns
    owner: Literal["self", "anybody"] = "anybody"
    """whose jobs: only those that the asking one started, or all"""


class Role(_Table):
    """What somebody who has it may do."""

    allow: Annotated[tuple[Rule, ...], Field(strict=False)] = ()
    service: Annotated[frozenset[Action], BeforeValidator(_actions)] = frozenset()
    """actions on the service as a whole: list all jobs that may be read, read metrics and docs"""


class Binding(_Table):
    """Who has a role: principals by id, groups and roles as SOURCE/NAME."""

    role: str
    principals: _Names = ()
    groups: _Names = ()
    roles: _Names = ()


class _File(_Table):
    roles: dict[str, Role] = {}
    bindings: Annotated[tuple[Binding, ...], Field(strict=False)] = ()


@dataclass(frozen=True, slots=True)
class RoleFile:
    """The file, whole and consistent."""

    roles: Mapping[str, Role]
    bindings: tuple[Binding, ...]


def read_role_file(path: Path) -> RoleFile:
    """The file.

    Raises:
        SettingsError: with every mistake, a line each, or the first that it does not fit together.
    """
    try:
        if path.stat().st_mode & 0o022:
            raise SettingsError(f"{path} can be written by others; run: chmod go-w {path}")
        with path.open("rb") as file:
            body = file.read(ROLE_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    if len(body) > ROLE_FILE_BYTES:
        raise SettingsError(f"{path} is larger than {ROLE_FILE_BYTES} bytes")
    try:
        plain = tomllib.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
    try:
        file = _File.model_validate(plain)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        lines = [f"{path}: {_place(fault['loc'])}: {_reason(fault['msg'])}" for fault in faults]
        raise SettingsError("\n".join(lines)) from None
    for reason in _contradictions(file):
        raise SettingsError(f"{path}: {reason}")
    return RoleFile(file.roles, file.bindings)


def _place(location: tuple[int | str, ...]) -> str:
    place = ""
    for part in location:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
    return place


def _reason(message: str) -> str:
    if message.startswith("Extra inputs"):
        return "there is no such key"
    return message.removeprefix("Value error, ")


def _contradictions(file: _File) -> Iterator[str]:
    number = sum(len(rule.pipelines) for role in file.roles.values() for rule in role.allow)
    if number > PATTERNS_LIMIT:
        yield (
            f"roles: there are {number} names of pipelines in the rules, and {PATTERNS_LIMIT} are "
            "the most; say several by one with *"
        )
    for name, role in file.roles.items():
        yield from _faults_of_role(f"roles.{name}", role)
    for at, binding in enumerate(file.bindings):
        if binding.role not in file.roles:
            yield f"bindings[{at}]: there is no role {shortened(binding.role)}"
        yield from _faults_of_binding(f"bindings[{at}]", binding)
    yield from _repeats(file.bindings)


def _faults_of_role(place: str, role: Role) -> Iterator[str]:
    if not role.allow and not role.service:
        yield f"{place} allows nothing; give it a rule in allow, or service, or remove it"
    if extra := role.service - SERVICE_ACTIONS:
        yield f"{place}.service: {min(extra)} is no action on the service; list and read are"
    yield from _overlaps(place, role)


def _faults_of_binding(place: str, binding: Binding) -> Iterator[str]:
    words = (*binding.principals, *binding.groups, *binding.roles)
    if not words:
        yield f"{place} gives {binding.role} to nobody"
    for word in words:
        if "/" not in word and word != "local":
            told = shortened(word)
            yield f"{place}: {told} does not say whose it is; write SOURCE/NAME, as in corp/alice"


def _overlaps(place: str, role: Role) -> Iterator[str]:
    said = [(pattern, at) for at, rule in enumerate(role.allow) for pattern in rule.pipelines]
    for (left, i), (right, j) in combinations(said, 2):
        if i == j or not overlap(left, right):
            continue
        one, other = role.allow[i], role.allow[j]
        shared = one.actions & other.actions
        if shared and one.owner == other.owner:
            yield (
                f"{place}.allow[{i}] and [{j}] overlap: both give {min(shared)} on "
                f"{left!r} and {right!r}; say it once"
            )


def _repeats(bindings: tuple[Binding, ...]) -> Iterator[str]:
    seen: dict[tuple[str, str, str], int] = {}
    for at, binding in enumerate(bindings):
        for kind in ("principals", "groups", "roles"):
            for word in getattr(binding, kind):
                before = seen.setdefault((binding.role, kind, word), at)
                if before != at:
                    both = f"bindings[{before}] and [{at}]"
                    yield f"{both} both give {binding.role} to {word}; once is enough"
