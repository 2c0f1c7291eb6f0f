"""Training parameters: read strictly, held against a declaration, handed to training code.

A parameter becomes an environment variable of its own name, so names that steer the loader, an
interpreter, a credential or this product are refused, each by name, and values are kept to what
an environment can hold. A pipeline may declare its parameters; then a wrong one is answered
before anything starts, instead of by a job that fails an hour later. The same declaration comes
from a ``pipeline.toml`` or from the label of an image; ``pipelines/parameter_tables.py`` reads it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, cast

from model_training.errors import Fault, InvalidRequest
from model_training.jobs import JSONObject, canonical_json
from model_training.names import nearest
from model_training.strict_json import parse_json, shortened

PARAMETERS_LIMIT: Final = 100_000  # bytes of canonical JSON; Linux takes 131,072 a variable
NAME_LIMIT: Final = 128  # characters
MATCHED_LIMIT: Final = 10_000  # characters that a pattern is tried on, a bound on bad patterns
FAULTS_LIMIT: Final = 100  # faults in one answer; a body may hold tens of thousands

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What steers loaders, shells, interpreters, tools that fetch code, credentials, the cluster, the
# devices handed out, and this product. PIP_ and UV_ because an environment is built once and
# shared: one job's parameter must not choose the index for all.
_RESERVED_NAMES: Final = frozenset({
    "PATH", "HOME", "SHELL", "TMPDIR", "HOSTNAME", "IFS", "ENV", "BASH_ENV", "SHELLOPTS",
    "BASHOPTS", "GLIBC_TUNABLES", "NODE_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS",
    "JDK_JAVA_OPTIONS", "REQUESTS_CA_BUNDLE", "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES",
})  # fmt: skip
_RESERVED_STARTS: Final = (
    "LD_", "DYLD_", "MALLOC_", "PYTHON", "PERL5", "RUBY", "GIT_", "SSL_CERT_", "CURL_", "PIP_",
    "UV_", "KUBERNETES_", "NVIDIA_", "AWS_", "GOOGLE_", "AZURE_", "MODEL_TRAINING_",
)  # fmt: skip
_RESERVED_ENDS: Final = ("_SERVICE_HOST", "_SERVICE_PORT")

WITH_ARTICLE: Final = {
    "string": "a string", "integer": "an integer", "number": "a number",
    "boolean": "a boolean", "object": "an object", "array": "an array",
}  # fmt: skip
KINDS: Final[Mapping[type, str]] = {
    str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array",
}  # fmt: skip


def parse_parameters(body: bytes) -> JSONObject:
    """The training parameters in the body of a request; an empty body holds none.

    Raises:
        MalformedRequest: the body is not strict JSON.
        InvalidRequest: it is JSON, but no object.
    """
    if not body.strip(b" \t\r\n"):
        return {}
    value = parse_json(body)
    if not isinstance(value, dict):
        message = f"expects a JSON object of training parameters, got {_kind(value)}"
        raise InvalidRequest(Fault("body", message))
    return cast("JSONObject", value)


def parameter_faults(parameters: JSONObject) -> tuple[Fault, ...]:
    """What no pipeline accepts: bad and reserved names, U+0000, more than 100,000 bytes."""
    return _capped(_any_pipeline_faults(parameters))


def _any_pipeline_faults(parameters: JSONObject) -> Iterator[Fault]:
    size = size_of(parameters)
    if size > PARAMETERS_LIMIT:
        yield Fault(
            "body",
            f"the parameters take {size} bytes of JSON, at most {PARAMETERS_LIMIT} fit; "
            "put large data in a file and send its path",
        )
    for name, value in parameters.items():
        if message := name_fault(name):
            yield Fault(body_path(name), message)
        elif holds_nul(value):
            yield Fault(body_path(name), "holds U+0000, which no environment variable can")


def name_fault(name: str) -> str | None:
    """What is wrong with the name of a parameter, or None."""
    if message := spelling_fault(name):
        return message
    if is_reserved(name):
        return f"the name {name} is reserved, because it is read by the system; choose another"
    return None


def spelling_fault(name: str) -> str | None:
    """Why a name cannot be a variable's, or None."""
    if not name:
        return "the name is empty"
    if len(name) > NAME_LIMIT:
        return f"the name has {len(name)} characters, at most {NAME_LIMIT} are allowed"
    if not _NAME.fullmatch(name):
        return "the name must be made of A-Z, a-z, 0-9 and _, and not begin with a digit"
    return None


def is_reserved(name: str) -> bool:
    """Whether an environment variable of this name is read by something else than the training."""
    return (
        name in _RESERVED_NAMES
        or name.startswith(_RESERVED_STARTS)
        or name.endswith(_RESERVED_ENDS)
        or name.upper().endswith("_PROXY")  # libraries read http_proxy in either case
    )


def body_path(name: str) -> str:
    """Where a parameter stands in a request; a name too long to repeat is cut."""
    return "body." + (name if len(name) <= NAME_LIMIT else name[:NAME_LIMIT] + "...")


def environment_of(parameters: JSONObject) -> dict[str, str]:
    """Each parameter as an environment variable of its own name."""
    return {name: text_of(value) for name, value in parameters.items()}


def flags_of(parameters: JSONObject) -> tuple[str, ...]:
    """Each parameter as ``--name value``, for programs that use argparse.

    A value that begins with a dash is joined, ``--name=value``: argparse would take it for the
    next option.
    """
    flags: list[str] = []
    for name, value in parameters.items():
        text = text_of(value)
        flags += [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]
    return tuple(flags)


def text_of(value: object) -> str:
    """A parameter as text: a string as it is, null empty, anything else as canonical JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else canonical_json(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One declared parameter. A default of None is none: TOML has no null."""

    type: str
    """``string``, ``integer``, ``number``, ``boolean``, ``object`` or ``array``"""
    default: object = None
    minimum: float | None = None
    """inclusive; for integer and number, as ``maximum``"""
    maximum: float | None = None
    choices: tuple[object, ...] | None = None
    """the only values allowed; for string, integer and number"""
    pattern: str | None = None
    """a Python regular expression that the whole string matches"""
    required: bool = False
    description: str | None = None

    def fault(self, value: object) -> str | None:
        """What is wrong with a value, or None; it may be a secret, and is not told."""
        if not self._admits(value):
            return f"expects {self.expectation}, got {self._described(value)}"
        if self.pattern is None or not isinstance(value, str):
            return None
        if len(value) > MATCHED_LIMIT:
            return f"expects at most {MATCHED_LIMIT} characters, got {len(value)}"
        if re.fullmatch(self.pattern, value) is None:
            return f"expects {self.expectation}, got {self._described(value)}"
        return None

    def _described(self, value: object) -> str:
        kind = _kind(value)
        return f"another {kind}" if is_a(self.type, value) else WITH_ARTICLE.get(kind, kind)

    @property
    def expectation(self) -> str:
        """What is accepted, in words."""
        if self.choices is not None:
            return "one of " + listed(shortened(choice) for choice in self.choices)
        words = WITH_ARTICLE[self.type]
        if self.minimum is not None and self.maximum is not None:
            words += f" from {self.minimum} to {self.maximum}"
        elif self.minimum is not None:
            words += f" of at least {self.minimum}"
        elif self.maximum is not None:
            words += f" of at most {self.maximum}"
        return words + (f" that matches {self.pattern}" if self.pattern is not None else "")

    def to_json(self) -> JSONObject:
        """As ``GET /pipelines`` answers it: what was not declared is left out."""
        plain: JSONObject = {"type": self.type, "required": self.required}
        for name in ("default", "minimum", "maximum", "pattern", "description"):
            if (value := getattr(self, name)) is not None:
                plain[name] = value
        if self.choices is not None:
            plain["choices"] = list(self.choices)
        return plain

    def _admits(self, value: object) -> bool:
        if not is_a(self.type, value):
            return False
        if self.minimum is not None and cast("float", value) < self.minimum:
            return False
        if self.maximum is not None and cast("float", value) > self.maximum:
            return False
        return self.choices is None or value in self.choices


@dataclass(frozen=True, slots=True)
class Declaration:
    """All parameters that a pipeline takes."""

    parameters: Mapping[str, Parameter]

    def validate(self, parameters: JSONObject) -> tuple[JSONObject, tuple[Fault, ...]]:
        """The parameters with defaults filled in, in the declared order, and all faults."""
        filled: JSONObject = {}
        for name, declared in self.parameters.items():
            value = parameters.get(name, declared.default)
            if name in parameters or value is not None:
                filled[name] = value
        return filled, _capped(self._faults(parameters, filled))

    def to_json(self) -> JSONObject:
        """Parameter name to its declaration."""
        return {name: declared.to_json() for name, declared in self.parameters.items()}

    def _faults(self, given: JSONObject, filled: JSONObject) -> Iterator[Fault]:
        for name, declared in self.parameters.items():
            if name in given:
                if message := declared.fault(given[name]):
                    yield Fault(body_path(name), message)
            elif declared.required:
                yield Fault(body_path(name), f"is required: expects {declared.expectation}")
        for name in given:
            if name not in self.parameters:
                yield Fault(body_path(name), "is no parameter of this pipeline" + self._hint(name))
        if size_of(given) <= PARAMETERS_LIMIT < size_of(filled):
            yield Fault("body", f"with the defaults, more than {PARAMETERS_LIMIT} bytes of JSON")

    def _hint(self, name: str) -> str:
        if like := nearest(name, self.parameters):
            return f"; did you mean {like[0]}?"
        return f"; it takes {listed(self.parameters)}" if self.parameters else ", which takes none"


def is_a(kind: str, value: object) -> bool:
    """Whether a value is of a declared type: true is no integer, and neither is 20.0."""
    return _kind(value) in (("integer", "number") if kind == "number" else (kind,))


def _kind(value: object) -> str:
    """The JSON type of a value."""
    return "null" if value is None else KINDS.get(type(value), "date or time")


def holds_nul(value: object) -> bool:
    """Whether U+0000 stands in any string of a JSON value, keys included."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str) and "\0" in item:
            return True
        waiting += members_of(item)
    return False


def members_of(value: object) -> list[object]:
    """What a JSON object or array holds, keys included."""
    if isinstance(value, dict):
        members = cast("JSONObject", value)
        return [*members, *members.values()]
    return cast("list[object]", value) if isinstance(value, list) else []


def size_of(parameters: JSONObject) -> int:
    """Bytes of canonical JSON."""
    return len(canonical_json(parameters).encode())


def listed(words: Iterable[str]) -> str:
    """A list for people, of at most twelve."""
    chosen = list(words)
    return ", ".join(chosen[:12]) + (", ..." if len(chosen) > 12 else "")


def _capped(faults: Iterator[Fault]) -> tuple[Fault, ...]:
    first = list(islice(faults, FAULTS_LIMIT + 1))
    if len(first) > FAULTS_LIMIT:
        first[FAULTS_LIMIT:] = [Fault("body", f"more faults follow these {FAULTS_LIMIT}")]
    return tuple(first)
