"""A training pipeline: a folder with a ``pipeline.toml`` that says how to train.

Everything wrong with the file is told at once, each fault with file, line and key, because its
author has an editor open and not a debugger. What could only fail in a job (a command that is no
list, a requirements file that is not there, a variable that the executor would overwrite) is
refused when the file is read.
"""

import os
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final, cast

from model_training.declarations import (
    Declaration,
    body_path,
    parameter_faults,
    spelling_fault,
)
from model_training.errors import Fault, InvalidDeclaration
from model_training.jobs import JSONObject
from model_training.names import nearest, pipeline_fault
from model_training.options import OPTION_NAMES, JobOptions, parse_options
from model_training.pipelines.parameter_tables import read_declaration
from model_training.pipelines.toml_lines import key_lines, line_of, syntax_error
from model_training.strict_json import shortened

PIPELINE_FILE: Final = "pipeline.toml"
FILE_LIMIT: Final = 1024 * 1024  # bytes; a pipeline.toml is read on each request

_KEYS: Final = (
    "name", "description", "command", "arguments", "requirements", "pass_env", "env", "job",
    "parameters",
)  # fmt: skip
# The executor sets these for each job: a fixed value would break the pipeline's own environment,
# or take a device that was handed to another job.
_EXECUTOR_SETS: Final = frozenset({"PATH", "CUDA_VISIBLE_DEVICES"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """How to train. ``digest`` is None until a source resolves the pipeline for a job."""

    name: str
    folder: Path
    """absolute; jobs run in it"""
    command: tuple[str, ...]
    """argv"""
    description: str = ""
    arguments: str | None = None
    """``flags``: parameters are also appended to the argv"""
    requirements: Path | None = None
    """absolute, within the folder"""
    pass_env: tuple[str, ...] = ()
    """names of variables taken over from the server"""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """fixed variables"""
    job: JobOptions = field(default_factory=JobOptions)
    """defaults for job options"""
    declaration: Declaration | None = None
    """None: any parameter is accepted"""
    digest: str | None = None
    """SHA-256 of the folder's files"""
    warnings: tuple[str, ...] = ()
    """what a job of this pipeline must tell"""
    problems: tuple[Fault, ...] = ()
    """what its author must know; the pipeline can be used nevertheless"""

    def validate(self, parameters: JSONObject) -> tuple[JSONObject, tuple[Fault, ...]]:
        """The parameters with defaults filled in, and all faults."""
        faults = list(parameter_faults(parameters))
        taken = {*self.environment, *self.pass_env}
        faults += [
            Fault(body_path(name), "is a variable that the pipeline sets itself; choose another")
            for name in parameters
            if name in taken
        ]
        if self.declaration is not None:
            parameters, found = self.declaration.validate(parameters)
            faults += found
        return parameters, tuple(faults)

    def to_json(self) -> JSONObject:
        """The wire form."""
        job = {item.name: getattr(self.job, item.name) for item in fields(self.job)}
        file = self.requirements.relative_to(self.folder) if self.requirements else None
        return {
            "name": self.name,
            "description": self.description,
            "command": list(self.command),
            "arguments": self.arguments,
            "requirements": str(file) if file else None,
            "parameters": self.declaration.to_json() if self.declaration else None,
            "job": {name: value for name, value in job.items() if value is not None},
            "folder": str(self.folder),
            "problems": faults_to_json(self.problems),
        }


def faults_to_json(faults: tuple[Fault, ...]) -> list[JSONObject]:
    """As plain JSON values."""
    return [{"path": fault.path, "message": fault.message} for fault in faults]


def displayable(path: Path) -> Path:
    """The path as text can hold it: bytes that are no UTF-8 are replaced."""
    return Path(os.fsencode(path).decode(errors="replace"))


def read_pipeline(folder: Path) -> Pipeline:
    """The pipeline in ``folder``.

    Raises:
        InvalidDeclaration: with every fault of its ``pipeline.toml``; paths are
            ``FILE:LINE: KEY``.
    """
    folder = folder.absolute()
    file = folder / PIPELINE_FILE
    if displayable(folder) != folder:
        reason = "the folder's path is not UTF-8; rename it"
        raise InvalidDeclaration(Fault(f"{displayable(file)}:1", reason))
    text = _text(file)
    try:
        values = cast("JSONObject", tomllib.loads(text))
    except (ValueError, RecursionError) as error:  # ValueError: also integers too long for int()
        line, reason = syntax_error(error, text)
        raise InvalidDeclaration(Fault(f"{file}:{line}", reason)) from None
    reader = _Reader(folder, values)
    pipeline = reader.pipeline()
    if pipeline is None or reader.faults:
        raise InvalidDeclaration(*_placed(reader.faults, file, text))
    return pipeline


def _placed(faults: Sequence[Fault], file: Path, text: str) -> list[Fault]:
    """The faults by line, each with its file and line before the key."""
    lines = key_lines(text)
    by_line = sorted((line_of(fault.path, lines), fault.path, fault.message) for fault in faults)
    return [Fault(f"{file}:{line}: {key}", message) for line, key, message in by_line]


def _text(file: Path) -> str:
    if file.exists() and not file.is_file():  # opening a named pipe would wait for ever
        raise InvalidDeclaration(Fault(f"{file}:1", "is no file"))
    try:
        with file.open("rb") as stream:
            content = stream.read(FILE_LIMIT + 1)
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise InvalidDeclaration(Fault(f"{file}:1", reason)) from None
    if len(content) > FILE_LIMIT:
        reason = f"is larger than {FILE_LIMIT} bytes; keep data in files beside it"
        raise InvalidDeclaration(Fault(f"{file}:1", reason))
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidDeclaration(Fault(f"{file}:{line}", "is not UTF-8")) from None


class _Reader:
    """Reads the values of one file and collects every fault, by dotted key."""

    def __init__(self, folder: Path, values: JSONObject) -> None:
        self.faults: list[Fault] = []
        self._folder = folder
        self._values = values

    def pipeline(self) -> Pipeline | None:
        """The pipeline; None, or a half-read one, where there are faults."""
        self._refuse_unknown_keys()
        declaration = self._declaration()
        tables = self._values.get("parameters")
        parameters = cast("JSONObject", tables) if isinstance(tables, dict) else {}
        name = self._name()
        command = self._strings("command", "expects the program and its arguments as a list")
        self._check_command(command)
        environment = self._environment(parameters)
        pass_env = self._pass_env(parameters, environment)
        description = self._string("description") or ""
        arguments = self._arguments()
        requirements = self._requirements()
        job = self._job()
        if name is None:
            return None
        return Pipeline(
            name=name,
            folder=self._folder,
            command=command,
            description=description,
            arguments=arguments,
            requirements=requirements,
            pass_env=pass_env,
            environment=environment,
            job=job,
            declaration=declaration,
        )

    def _refuse(self, key: str, message: str) -> None:
        self.faults.append(Fault(key, message))

    def _refuse_unknown_keys(self) -> None:
        for key in self._values:
            if key not in _KEYS:
                hint = "".join(f"; did you mean {like}?" for like in nearest(key, _KEYS))
                self._refuse(key, f"unknown key{hint or '; known are ' + ', '.join(_KEYS)}")

    def _name(self) -> str | None:
        if "name" not in self._values:
            self._refuse("name", 'is missing; give the pipeline a name, such as name = "digits"')
        name = self._string("name")
        if name is not None and (fault := pipeline_fault(name, path="name")):
            self.faults.append(fault)
        return name

    def _check_command(self, command: tuple[str, ...]) -> None:
        if "command" not in self._values:
            self._refuse("command", 'is missing; such as command = ["python3", "train.py"]')
        elif command and not command[0]:
            self._refuse("command", "names no program: its first word is empty")
        elif self._values["command"] == []:
            self._refuse("command", "is empty; name a program and its arguments")

    def _arguments(self) -> str | None:
        arguments = self._string("arguments")
        if arguments not in {None, "flags"}:
            self._refuse("arguments", f'expects "flags", got {shortened(arguments)}')
        return arguments

    def _requirements(self) -> Path | None:
        given = self._string("requirements")
        if given is None:
            return None
        file = self._folder / given
        try:
            # Resolved only to judge: the job names the file as its author wrote it.
            inside = file.resolve().is_relative_to(self._folder.resolve())
            there = file.is_file()
        except (OSError, RuntimeError):  # a name too long, a loop of links
            inside, there = True, False
        if not inside:
            self._refuse("requirements", f"{given} lies outside the pipeline's folder")
        elif not there:
            self._refuse("requirements", f"there is no file {given} in the pipeline's folder")
        return file

    def _environment(self, parameters: Collection[str]) -> dict[str, str]:
        table = self._values.get("env", {})
        if not isinstance(table, dict):
            self._refuse("env", f"expects a table of variables, got {shortened(table)}")
            return {}
        found: dict[str, str] = {}
        for name, value in cast("JSONObject", table).items():
            key = f"env.{name}"
            if message := _variable_fault(name, parameters):
                self._refuse(key, message)
            elif name in _EXECUTOR_SETS:
                self._refuse(key, f"{name} is set for each job and cannot be fixed here")
            elif (text := self._checked_string(key, value)) is not None:
                found[name] = text
        return found

    def _pass_env(
        self, parameters: Collection[str], environment: Mapping[str, str]
    ) -> tuple[str, ...]:
        names = self._strings("pass_env", "expects a list of names of variables")
        for name in names:
            if message := _variable_fault(name, parameters):
                self._refuse("pass_env", message)
            elif name in environment:
                self._refuse("pass_env", f"{name} stands in [env], too; keep one of the two")
        return names

    def _job(self) -> JobOptions:
        table = self._values.get("job", {})
        if not isinstance(table, dict):
            self._refuse("job", f"expects a table of job options, got {shortened(table)}")
            return JobOptions()
        texts: dict[str, str] = {}
        for name, value in cast("JSONObject", table).items():
            if name not in OPTION_NAMES:
                self._refuse(f"job.{name}", "unknown option; known are " + ", ".join(OPTION_NAMES))
            elif isinstance(value, str | int | float) and not isinstance(value, bool):
                texts[name] = str(value)
            else:
                self._refuse(f"job.{name}", f"expects a string or number, got {shortened(value)}")
        options, faults = parse_options(texts, path="job")
        self.faults += faults
        return options

    def _declaration(self) -> Declaration | None:
        if "parameters" not in self._values:
            return None
        declaration, faults = read_declaration(self._values["parameters"])
        self.faults += faults
        return declaration

    def _string(self, key: str) -> str | None:
        value = self._values.get(key)
        return None if value is None else self._checked_string(key, value)

    def _checked_string(self, key: str, value: object) -> str | None:
        if not isinstance(value, str):
            self._refuse(key, f"expects a string, got {shortened(value)}")
        elif "\0" in value:
            self._refuse(key, "holds U+0000, which no argument or variable can")
        else:
            return value
        return None

    def _strings(self, key: str, expectation: str) -> tuple[str, ...]:
        value = self._values.get(key, [])
        if not isinstance(value, list):
            self._refuse(key, f"{expectation}, got {shortened(value)}")
            return ()
        items = cast("list[object]", value)
        texts = [self._checked_string(key, item) for item in items]
        return tuple(text for text in texts if text is not None)


def _variable_fault(name: str, parameters: Collection[str]) -> str | None:
    """Why a pipeline may not set or pass on a variable; its author may steer his interpreter."""
    if message := spelling_fault(name):
        return f"{shortened(name)} cannot be a variable: {message}"
    if name.startswith("MODEL_TRAINING_"):
        return f"{name} is reserved: MODEL_TRAINING_ is how the service speaks to the job"
    if name in parameters:
        return f"{name} is a parameter, too, which sets the variable of its name"
    return None
