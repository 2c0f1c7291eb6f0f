"""The fields that every pipeline has, read from plain values.

They come from a ``pipeline.toml`` or from the labels of an image, and what is right in one is
right in the other. Every fault is collected, by dotted key; whoever knows the file or the image
says where that key stands.
"""

from collections.abc import Collection
from typing import cast

from model_training.declarations import Declaration
from model_training.errors import Fault
from model_training.jobs import JSONObject
from model_training.names import nearest
from model_training.options import OPTION_NAMES, JobOptions, parse_options
from model_training.pipelines.parameter_tables import read_declaration
from model_training.strict_json import shortened


class FieldReader:
    """Reads one value after the other; ``faults`` holds what is wrong with any of them."""

    def __init__(self, values: JSONObject) -> None:
        self.values = values
        self.faults: list[Fault] = []

    def refuse(self, key: str, message: str) -> None:
        """Note a fault."""
        self.faults.append(Fault(key, message))

    def refuse_unknown(self, known: Collection[str]) -> None:
        """Note every key that is none of the known."""
        for key in self.values:
            if key not in known:
                hint = "".join(f"; did you mean {like}?" for like in nearest(key, known))
                self.refuse(key, f"unknown key{hint or '; known are ' + ', '.join(known)}")

    def arguments(self) -> str | None:
        """``flags``, or None."""
        arguments = self.string("arguments")
        if arguments not in {None, "flags"}:
            self.refuse("arguments", f'expects "flags", got {shortened(arguments)}')
        return arguments

    def job(self) -> JobOptions:
        """The defaults for job options."""
        table = self.values.get("job", {})
        if not isinstance(table, dict):
            self.refuse("job", f"expects a table of job options, got {shortened(table)}")
            return JobOptions()
        texts: dict[str, str] = {}
        for name, value in cast("JSONObject", table).items():
            if name not in OPTION_NAMES:
                self.refuse(f"job.{name}", "unknown option; known are " + ", ".join(OPTION_NAMES))
            elif isinstance(value, str | int | float) and not isinstance(value, bool):
                texts[name] = str(value)
            else:
                self.refuse(f"job.{name}", f"expects a string or number, got {shortened(value)}")
        options, faults = parse_options(texts, path="job")
        self.faults += faults
        return options

    def declaration(self) -> Declaration | None:
        """What parameters it takes; None where it declares none, so that any is accepted."""
        if "parameters" not in self.values:
            return None
        declaration, faults = read_declaration(self.values["parameters"])
        self.faults += faults
        return declaration

    def string(self, key: str) -> str | None:
        """A string; None where there is none."""
        value = self.values.get(key)
        return None if value is None else self.checked_string(key, value)

    def checked_string(self, key: str, value: object) -> str | None:
        """A value that must be a string which a variable or argument can hold."""
        if not isinstance(value, str):
            self.refuse(key, f"expects a string, got {shortened(value)}")
        elif "\0" in value:
            self.refuse(key, "holds U+0000, which no argument or variable can")
        else:
            return value
        return None

    def strings(self, key: str, expectation: str) -> tuple[str, ...]:
        """A list of strings; empty where there is none."""
        value = self.values.get(key, [])
        if not isinstance(value, list):
            self.refuse(key, f"{expectation}, got {shortened(value)}")
            return ()
        items = cast("list[object]", value)
        texts = [self.checked_string(key, item) for item in items]
        return tuple(text for text in texts if text is not None)
