"""The OpenAPI 3.1 document, from the table of operations and the domain's own types.

Written by us and not derived from signatures, because the routes read queries and headers
themselves: what they accept and every status they answer stands in the table, and the tests send
each example and thousands of generated requests to prove that it does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, cast

from pydantic import TypeAdapter

from model_training.jobs import JSONObject, TrainingJob
from model_training.outputs import OutputFile

REF: Final = "#/components/schemas/"
PROBLEM: Final = "application/problem+json"
JSON: Final = "application/json"
TEXT: Final = "text/plain"
STRING: Final[JSONObject] = {"type": "string"}


def array_of(items: JSONObject) -> JSONObject:
    """The schema of an array."""
    return {"type": "array", "items": items}


# What any operation may answer, and why.
_ALWAYS: Final[Mapping[int, str]] = {
    400: "The request cannot be read.",
    421: "It was asked under a Host that is not this service's.",
    413: "The body is larger than this service reads.",
    403: "You may not do this, or the request comes from a page of another origin.",
    408: "The request did not arrive in time.",
    431: "The headers are larger than 64 KiB.",
    500: "A fault of the service; its log knows the request_id.",
}
_GUARDED: Final[Mapping[int, str]] = {
    401: "Nobody we know is asking.",
    422: "Every option or field that breaks a rule, each with its path.",
    429: "You ask for more than your share; wait a moment.",
    503: "Something this service depends on cannot be asked now; try again.",
}
_PROBLEM_HEADERS: Final[Mapping[int, str]] = {
    401: "WWW-Authenticate",
    416: "Content-Range",
    429: "Retry-After",
    503: "Retry-After",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One parameter in query, header or path."""

    name: str
    description: str
    schema: JSONObject
    place: str = "query"
    example: object = None
    """also sent by the test that tries the operation's example"""
    required: bool = False

    def to_json(self) -> JSONObject:
        """As OpenAPI writes it."""
        plain: JSONObject = {
            "name": self.name,
            "in": self.place,
            "description": self.description,
            "required": self.required or self.place == "path",
            "schema": self.schema,
        }
        if self.example is not None:
            plain["example"] = self.example
        return plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer that is no problem."""

    status: int
    description: str
    content: Mapping[str, JSONObject] = field(default_factory=dict[str, JSONObject])
    """media type to schema"""
    headers: tuple[str, ...] = ()
    example: object = None
    """of the first media type"""

    def to_json(self) -> JSONObject:
        """As OpenAPI writes it."""
        content: dict[str, JSONObject] = {
            media_type: {"schema": schema} for media_type, schema in self.content.items()
        }
        if self.example is not None:
            next(iter(content.values()))["example"] = self.example
        plain: JSONObject = {
            "description": self.description,
            "headers": _headers("X-Request-ID", *self.headers),
        }
        return plain | ({"content": content} if content else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    handler: str
    """name of the method that answers it"""
    operation_id: str
    summary: str
    description: str
    options: tuple[Option, ...] = ()
    body: JSONObject | None = None
    answers: tuple[Answer, ...]
    problems: Mapping[int, str] = field(default_factory=dict[int, str])
    """further ones, by status"""
    is_public: bool = False
    """needs no credentials"""


def describe(operations: Sequence[Operation], version: str) -> JSONObject:
    """The whole document."""
    paths: dict[str, JSONObject] = {}
    for operation in operations:
        item = paths.setdefault(operation.path.replace(":path}", "}"), {})
        item[operation.method.lower()] = _operation(operation)
        if operation.method == "GET":
            item["head"] = _head(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Model Training API",
            "version": version,
            "summary": "Train pipeline P with these parameters: one training job, its state, "
            "its log, its outputs.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "headers": dict(_HEADERS),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A JSON Web Token of an issuer, an API key or a token of the "
                    "cluster, as the service's access file says; without one, the token in the "
                    "file `token` of the data folder.",
                }
            },
        },
    }


def _operation(operation: Operation) -> JSONObject:
    plain: JSONObject = {
        "operationId": operation.operation_id,
        "summary": operation.summary,
        "description": operation.description,
        "parameters": [option.to_json() for option in operation.options],
        "responses": _responses(operation),
    }
    if operation.body is not None:
        plain["requestBody"] = operation.body
    if operation.is_public:
        plain["security"] = []
    return plain


def _head(operation: Operation) -> JSONObject:
    """The same without a body, as every GET has it."""
    plain = _operation(operation)
    responses = cast("dict[str, JSONObject]", plain["responses"])
    bare = {
        status: {name: value for name, value in response.items() if name != "content"}
        for status, response in responses.items()
    }
    return plain | {
        "operationId": f"{operation.operation_id}Head",
        "summary": f"{operation.summary} (headers only)",
        "responses": bare,
    }


def _responses(operation: Operation) -> JSONObject:
    problems = dict(_ALWAYS)
    if not operation.is_public:
        problems |= _GUARDED
    problems |= operation.problems
    # Of two answers with one status, the first is described: a repeated POST answers 200.
    described = {str(answer.status): answer.to_json() for answer in reversed(operation.answers)}
    for status in sorted(problems.keys() - {answer.status for answer in operation.answers}):
        described[str(status)] = _problem(status, problems[status])
    return dict(sorted(described.items()))


def _problem(status: int, description: str) -> JSONObject:
    names = [_PROBLEM_HEADERS[status]] if status in _PROBLEM_HEADERS else []
    return {
        "description": f"{HTTPStatus(status).phrase}. {description}",
        "headers": _headers("X-Request-ID", *names),
        "content": {PROBLEM: {"schema": {"$ref": f"{REF}Problem"}}},
    }


def _headers(*names: str) -> JSONObject:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _header(description: str, example: str | int) -> JSONObject:
    kind = "integer" if isinstance(example, int) else "string"
    return {"description": description, "schema": {"type": kind}, "example": example}


_HEADERS: Final[Mapping[str, JSONObject]] = {
    "X-Request-ID": _header("The id of this request in the service's log.", "5f0c8a5e9d1b4c3a"),
    "Location": _header("Where the job's status is.", "/training-jobs/NAME/status"),
    "Link": _header("The next page, with rel=next; none on the last.", "</training-jobs?cursor=C>"),
    "Retry-After": _header("Seconds after which to ask again.", 5),
    "WWW-Authenticate": _header("How to say who you are.", "Bearer"),
    "Content-Range": _header("Which bytes these are, of how many.", "bytes 0-99/1234"),
    "Content-Length": _header("Bytes in the body.", 1234),
    "Accept-Ranges": _header("Ranges can be asked for in bytes.", "bytes"),
    "Content-Disposition": _header("The file's name.", "attachment; filename*=UTF-8''model.json"),
    "Repr-Digest": _header(
        "SHA-256 of the whole file (RFC 9530); of one above 16 MiB once it was sent whole.",
        "sha-256=:BASE64:",
    ),
    "Model-Training-State": _header("The job's state at this moment.", "running"),
    "Model-Training-Position": _header(
        "The position after the last byte of this answer, or where it begins when following.",
        "1.1234",
    ),
    "Model-Training-Exit-Code": _header("The exit code of a job that ended with one.", 0),
    "Model-Training-Gaps": _header(
        "Bytes of the log that are missing, FROM-TO with TO not included; at most 100 of them.",
        "1048576-2097152",
    ),
}  # fmt: skip


def _schemas() -> JSONObject:
    _, common = TypeAdapter.json_schemas(
        [
            ("TrainingJob", "serialization", TypeAdapter(TrainingJob)),
            ("OutputFile", "serialization", TypeAdapter(OutputFile)),
        ],
        ref_template=REF + "{model}",
    )
    schemas = cast("JSONObject", common["$defs"])
    return schemas | {"Problem": _PROBLEM_SCHEMA, "Pipeline": _PIPELINE_SCHEMA}


def _text_schema(description: str = "") -> JSONObject:
    plain: JSONObject = {"type": "string"}
    return plain | {"description": description} if description else plain


_FAULTS: Final[JSONObject] = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["path", "message"],
        "properties": {
            "path": _text_schema("where, such as body.epochs, query.timeout or header.Range"),
            "message": _text_schema(),
        },
    },
}
_PROBLEM_SCHEMA: Final[JSONObject] = {
    "type": "object",
    "description": "An error (RFC 9457).",
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": _text_schema("/problems/KIND; stable"),
        "title": _text_schema(),
        "status": {"type": "integer"},
        "detail": _text_schema("what is wrong and what to do, for people"),
        "request_id": _text_schema(),
        "errors": _FAULTS | {"description": "every fault; with 422 only"},
        "looked": {"type": "array", "items": {"type": "string"}},
        "nearest": {"type": "array", "items": {"type": "string"}},
    },
}
_PIPELINE_SCHEMA: Final[JSONObject] = {
    "type": "object",
    "description": "A training pipeline; one that cannot be used has problems and little else.",
    "required": [
        "name", "description", "command", "arguments", "requirements", "parameters", "job",
        "folder", "image", "problems",
    ],
    "properties": {
        "name": {"type": ["string", "null"]},
        "description": _text_schema(),
        "command": {"type": "array", "items": {"type": "string"}},
        "arguments": {"enum": ["flags", None]},
        "requirements": {"type": ["string", "null"]},
        "parameters": {
            "type": ["object", "null"],
            "description": "null: any parameter is accepted",
            "additionalProperties": {
                "type": "object",
                "required": ["type", "required"],
                "properties": {
                    "type": {
                        "enum": ["string", "integer", "number", "boolean", "object", "array"]
                    },
                    "required": {"type": "boolean"},
                    "default": {},
                    "minimum": {"type": "number"},
                    "maximum": {"type": "number"},
                    "choices": {"type": "array"},
                    "pattern": _text_schema(),
                    "description": _text_schema(),
                },
            },
        },
        "job": {"type": "object", "description": "defaults for job options"},
        "folder": {"type": ["string", "null"], "description": "null for an image"},
        "image": {"type": ["string", "null"], "description": "null for a folder"},
        "problems": _FAULTS | {"description": "path is FILE:LINE: KEY or IMAGE: LABEL"},
    },
}  # fmt: skip
