"""The operations on pipelines and on the service itself."""

from typing import Final

from model_training.api.openapi import JSON, REF, STRING, TEXT, Answer, Operation, Option, array_of
from model_training.jobs import JSONObject

_PIPELINE: Final[JSONObject] = {"$ref": f"{REF}Pipeline"}

_PIPELINES: Final = Operation(
    method="GET",
    path="/pipelines",
    handler="list_pipelines",
    operation_id="listPipelines",
    summary="List training pipelines",
    description="All pipelines that you may see; a broken one tells what is wrong with it.",
    answers=(
        Answer(status=200, description="The pipelines.", content={JSON: array_of(_PIPELINE)}),
    ),
)
_ONE_PIPELINE: Final = Operation(
    method="GET",
    path="/pipelines/{pipeline}",
    handler="pipeline",
    operation_id="getPipeline",
    summary="Look at a training pipeline",
    description="What it does, and the parameters it takes.",
    options=(
        Option(
            name="pipeline",
            place="path",
            description="The pipeline's name.",
            schema=STRING,
            example="digits",
        ),
    ),
    answers=(Answer(status=200, description="The pipeline.", content={JSON: _PIPELINE}),),
    problems={404: "There is no such pipeline; tells where was looked, and the nearest names."},
)
_LIVEZ: Final = Operation(
    method="GET",
    path="/livez",
    handler="livez",
    operation_id="isAlive",
    summary="Whether the service answers",
    description="For a supervisor of processes. Always the same body.",
    answers=(Answer(status=200, description="It does.", content={TEXT: STRING}),),
    is_public=True,
)
_READYZ: Final = Operation(
    method="GET",
    path="/readyz",
    handler="readyz",
    operation_id="isReady",
    summary="Whether what the service answers is true",
    description=(
        "503 until it has seen every job once after its start, and while it lacks a right on the "
        "cluster; the service's log names each."
    ),
    answers=(
        Answer(status=200, description="It is.", content={TEXT: STRING}),
        Answer(status=503, description="Not yet.", content={TEXT: STRING}),
    ),
    is_public=True,
)
_METRICS: Final = Operation(
    method="GET",
    path="/metrics",
    handler="metrics",
    operation_id="getMetrics",
    summary="Counts for Prometheus",
    description="Requests by route, method and status; jobs by state; followers.",
    answers=(Answer(status=200, description="The counts.", content={TEXT: STRING}),),
)
_OPENAPI: Final = Operation(
    method="GET",
    path="/openapi.json",
    handler="openapi",
    operation_id="getOpenAPI",
    summary="This description",
    description="OpenAPI 3.1.",
    answers=(Answer(status=200, description="It.", content={JSON: {"type": "object"}}),),
)
_DOCS: Final = Operation(
    method="GET",
    path="/docs",
    handler="docs",
    operation_id="getDocs",
    summary="This description as a page",
    description="A page that loads nothing from elsewhere and runs no script.",
    answers=(Answer(status=200, description="The page.", content={"text/html": STRING}),),
)

SERVICE_OPERATIONS: Final = (
    _PIPELINES, _ONE_PIPELINE, _LIVEZ, _READYZ, _METRICS, _OPENAPI, _DOCS,
)  # fmt: skip
