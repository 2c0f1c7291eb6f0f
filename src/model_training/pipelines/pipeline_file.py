"""A pipeline in a folder: its ``pipeline.toml``, which says how to train.

Everything wrong with the file is told at once, each fault with file, line and key, because its
author has an editor open and not a debugger. What could only fail in a job (a command that is no
list, a requirements file that is not there, a variable that the executor would overwrite) is
refused when the file is read.
"""

import os
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from model_training.declarations import spelling_fault
from model_training.errors import Fault, InvalidDeclaration
from model_training.jobs import JSONObject
from model_training.names import pipeline_fault
from model_training.pipelines.fields import FieldReader
from model_training.pipelines.pipeline import Pipeline
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
class FolderPipeline(Pipeline):
    """A pipeline that is a folder."""

    folder: Path
    """absolute; jobs run in it"""


def displayable(path: Path) -> Path:
    """The path as text can hold it: bytes that are no UTF-8 are replaced."""
    return Path(os.fsencode(path).decode(errors="replace"))


def read_pipeline(folder: Path) -> FolderPipeline:
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


class _Reader(FieldReader):
    """Reads the values of one file and collects every fault, by dotted key."""

    def __init__(self, folder: Path, values: JSONObject) -> None:
        super().__init__(values)
        self._folder = folder

    def pipeline(self) -> FolderPipeline | None:
        """The pipeline; None, or a half-read one, where there are faults."""
        self.refuse_unknown(_KEYS)
        declaration = self.declaration()
        tables = self.values.get("parameters")
        parameters = cast("JSONObject", tables) if isinstance(tables, dict) else {}
        name = self._name()
        command = self.strings("command", "expects the program and its arguments as a list")
        self._check_command(command)
        environment = self._environment(parameters)
        pass_env = self._pass_env(parameters, environment)
        description = self.string("description") or ""
        arguments = self.arguments()
        requirements = self._requirements()
        job = self.job()
        if name is None:
            return None
        return FolderPipeline(
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

    def _name(self) -> str | None:
        if "name" not in self.values:
            self.refuse("name", 'is missing; give the pipeline a name, such as name = "digits"')
        name = self.string("name")
        if name is not None and (fault := pipeline_fault(name, path="name")):
            self.faults.append(fault)
        return name

    def _check_command(self, command: tuple[str, ...]) -> None:
        if "command" not in self.values:
            self.refuse("command", 'is missing; such as command = ["python3", "train.py"]')
        elif command and not command[0]:
            self.refuse("command", "names no program: its first word is empty")
        elif self.values["command"] == []:
            self.refuse("command", "is empty; name a program and its arguments")

    def _requirements(self) -> Path | None:
        given = self.string("requirements")
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
            self.refuse("requirements", f"{given} lies outside the pipeline's folder")
        elif not there:
            self.refuse("requirements", f"there is no file {given} in the pipeline's folder")
        return file

    def _environment(self, parameters: Collection[str]) -> dict[str, str]:
        table = self.values.get("env", {})
        if not isinstance(table, dict):
            self.refuse("env", f"expects a table of variables, got {shortened(table)}")
            return {}
        found: dict[str, str] = {}
        for name, value in cast("JSONObject", table).items():
            key = f"env.{name}"
            if message := _variable_fault(name, parameters):
                self.refuse(key, message)
            elif name in _EXECUTOR_SETS:
                self.refuse(key, f"{name} is set for each job and cannot be fixed here")
            elif (text := self.checked_string(key, value)) is not None:
                found[name] = text
        return found

    def _pass_env(
        self, parameters: Collection[str], environment: Mapping[str, str]
    ) -> tuple[str, ...]:
        names = self.strings("pass_env", "expects a list of names of variables")
        for name in names:
            if message := _variable_fault(name, parameters):
                self.refuse("pass_env", message)
            elif name in environment:
                self.refuse("pass_env", f"{name} stands in [env], too; keep one of the two")
        return names


def _variable_fault(name: str, parameters: Collection[str]) -> str | None:
    """Why a pipeline may not set or pass on a variable; its author may steer his interpreter."""
    if message := spelling_fault(name):
        return f"{shortened(name)} cannot be a variable: {message}"
    if name.startswith("MODEL_TRAINING_"):
        return f"{name} is reserved: MODEL_TRAINING_ is how the service speaks to the job"
    if name in parameters:
        return f"{name} is a parameter, too, which sets the variable of its name"
    return None
