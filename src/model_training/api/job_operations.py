"""The operations on training jobs, their logs and outputs.

The examples are literally true: the example of ``createTrainingJob`` names an Idempotency-Key,
from which the job's name follows, and the other examples speak of that very job.
"""

from typing import Final

from model_training.api.openapi import JSON, REF, STRING, TEXT, Answer, Operation, Option, array_of
from model_training.api.queries import ATTEMPT_LIMIT, PAGE_LIMIT, TAIL_LIMIT
from model_training.jobs import JSONObject
from model_training.names import job_name, repeatable_id

EXAMPLE_KEY: Final = "example-1"
EXAMPLE_JOB: Final = job_name("digits", repeatable_id("local:local", EXAMPLE_KEY))
EXAMPLE_OUTPUT: Final = "model.json"

_JOB: Final[JSONObject] = {"$ref": f"{REF}TrainingJob"}
_FLAG: Final[JSONObject] = {"type": "boolean"}
_TIME: Final[JSONObject] = {"type": "string", "format": "date-time"}
_BYTES: Final[JSONObject] = {"type": "string", "contentMediaType": "application/octet-stream"}


def _whole(low: int, high: int) -> JSONObject:
    return {"type": "integer", "minimum": low, "maximum": high}


def _pattern(pattern: str) -> JSONObject:
    return {"type": "string", "pattern": pattern}


_DURATION: Final = _pattern(r"^[0-9]{1,15}(\.[0-9]{1,9})?[smhd]?$")
_NO_JOB: Final = {404: "There is no such job here, or you may not read it."}
_PIPELINE_NAME: Final[JSONObject] = {
    **_pattern("^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$"),
    "maxLength": 31,
}
_NAME: Final = Option(
    name="name",
    place="path",
    description="The job's name.",
    schema=STRING,
    example=EXAMPLE_JOB,
)
_PIPELINE_OPTIONS: Final = (
    Option(
        name="pipeline",
        description="The pipeline; a CamelCase name is written with dashes "
        "(USGSTraining is usgs-training).",
        schema=_PIPELINE_NAME,
        example="digits",
    ),
    Option(
        name="pipeline_step",
        description="The older name of `pipeline`; give one of the two.",
        schema=_PIPELINE_NAME,
    ),
)
_RANGE: Final = Option(
    name="Range",
    place="header",
    description="One range of bytes; other forms are passed over.",
    schema=STRING,
)
_JOB_ANSWER: Final = Answer(status=200, description="The job.", content={JSON: _JOB})
_LOG_HEADERS: Final = (
    "Model-Training-State", "Model-Training-Position", "Model-Training-Exit-Code",
    "Model-Training-Gaps", "Accept-Ranges",
)  # fmt: skip

_SUBMIT: Final = Operation(
    method="POST",
    path="/training-jobs",
    handler="submit",
    operation_id="createTrainingJob",
    summary="Start a training job",
    description="Looks up the pipeline and starts a job with the parameters in the body, a JSON "
    "object; an empty body means none. 201 says that the job is durable. With an Idempotency-Key "
    "the request can be repeated: the same key and request answer the same job with 200. "
    "All faults of a request are named in one 422; nothing is created then.",
    options=(
        *_PIPELINE_OPTIONS,
        Option(
            name="timeout",
            description="How long the job may run: seconds, or such as 15m, 2h, 1d; at most 30d.",
            schema=_DURATION,
            example="15m",
        ),
        Option(
            name="grace",
            description="How long it has to end when asked: as timeout, from 0 to 1h.",
            schema=_DURATION,
        ),
        Option(
            name="cpu",
            description="CPUs: such as 2, 0.5 or 500m.",
            schema=_pattern(r"^[0-9]{1,15}(\.[0-9]{1,9})?m?$"),
        ),
        Option(
            name="memory",
            description="Bytes, or such as 512Mi, 4Gi, 2G.",
            schema=_pattern(r"^[0-9]{1,15}(\.[0-9]{1,9})?([KMGT]i|[kKMGT])?$"),
        ),
        Option(name="gpu", description="GPUs, none shared with another job.", schema=_whole(0, 64)),
        Option(
            name="dry_run",
            description="Answer what would be started, and start nothing.",
            schema=_FLAG,
        ),
        Option(
            name="Idempotency-Key",
            place="header",
            description="Makes the request repeatable; remembered as long as its job.",
            schema={**_pattern(r"^[\x20-\x7e]+$"), "minLength": 1, "maxLength": 255},
            example=EXAMPLE_KEY,
        ),
    ),
    body={
        "description": "The training parameters.",
        "required": False,
        "content": {JSON: {"schema": {"type": "object"}, "example": {"epochs": 1, "seed": 7}}},
    },
    answers=(
        Answer(status=201, description="The new job.", content={JSON: _JOB}, headers=("Location",)),
        Answer(
            status=200,
            description="The job of an earlier request with this Idempotency-Key; "
            "with dry_run, the plan.",
            content={JSON: {"anyOf": [_JOB, {"type": "object"}]}},
        ),
    ),
    problems={
        404: "There is no such pipeline; tells where was looked, and the nearest names.",
        409: "The Idempotency-Key was used for another request.",
        415: "The body is not application/json.",
        507: "The disk reserve is reached.",
    },
)
_LIST: Final = Operation(
    method="GET",
    path="/training-jobs",
    handler="list_jobs",
    operation_id="listTrainingJobs",
    summary="List training jobs",
    description="All jobs that you may read, newest first, in any state. With `limit` a page, "
    "and the next one in the Link header; without, all of them, streamed. "
    "`Accept: application/x-ndjson` gives a line a job.",
    options=(
        *_PIPELINE_OPTIONS,
        Option(
            name="state",
            description="A state or a group (`failed` includes `stopped`); may be repeated.",
            schema=array_of(
                {
                    "enum": [
                        "active", "completed", "failed", "pending", "running", "stopping",
                        "deleting", "succeeded", "stopped",
                    ]
                }
            ),
        ),
        Option(
            name="owner",
            description="Who started them.",
            schema={**_pattern(r"^[^\x00]+$"), "minLength": 1},
        ),
        Option(
            name="created_after", description="Accepted at this time or later.", schema=_TIME
        ),
        Option(name="created_before", description="Accepted earlier.", schema=_TIME),
        Option(
            name="limit",
            description="Jobs on a page.",
            schema=_whole(1, PAGE_LIMIT),
            example=10,
        ),
        Option(
            name="cursor",
            description="Where the page begins; from a Link header, with the same filters.",
            schema=_pattern("^[A-Za-z0-9_-]{22}$"),
        ),
    ),
    answers=(
        Answer(
            status=200,
            description="The jobs.",
            content={JSON: array_of(_JOB), "application/x-ndjson": STRING},
            headers=("Link",),
        ),
    ),
)  # fmt: skip
_LOG: Final = Operation(
    method="GET",
    path="/training-jobs/{name}",
    handler="log",
    operation_id="readTrainingJobLog",
    summary="Read or follow a job's log",
    description="The bytes that the job printed, as they are. Empty while it has not started. "
    "`follow=true` sends what comes until the job has ended; a cut connection means that it has "
    "not. `Accept: text/event-stream` follows as server-sent events `state`, `log`, `gap`, "
    "`reset`, `end`, `access_ended` and `bye`, whose ids are positions to resume from with "
    "Last-Event-ID. "
    "A range ends where bytes are missing; one that begins there is answered 416.",
    options=(
        _NAME,
        Option(
            name="tail",
            description="Only the last lines.",
            schema=_whole(0, TAIL_LIMIT),
            example=10,
        ),
        Option(
            name="since",
            description="Only what was printed since: a time, or one back from now such as 10m.",
            schema=STRING,
        ),
        Option(
            name="timestamps",
            description="Begin each line with the time at which it was printed.",
            schema=_FLAG,
        ),
        Option(name="follow", description="Go on until the job has ended.", schema=_FLAG),
        Option(
            name="attempt",
            description="Which attempt's log; the latest if left out.",
            schema=_whole(1, ATTEMPT_LIMIT),
        ),
        _RANGE,
        Option(
            name="Last-Event-ID",
            place="header",
            description="Where a follower left off; wins over tail and since.",
            schema=STRING,
        ),
    ),
    answers=(
        Answer(
            status=200,
            description="The log.",
            content={TEXT: STRING, "text/event-stream": STRING},
            headers=_LOG_HEADERS,
        ),
        Answer(
            status=206,
            description="The range of it.",
            content={TEXT: STRING},
            headers=(*_LOG_HEADERS, "Content-Range", "Content-Length"),
        ),
    ),
    problems={**_NO_JOB, 416: "The range begins beyond the end, or where bytes are missing."},
)
_DELETE: Final = Operation(
    method="DELETE",
    path="/training-jobs/{name}",
    handler="delete",
    operation_id="deleteTrainingJob",
    summary="Stop a job and remove it",
    description="Stops whatever of the job runs and removes the job, its log and its outputs. "
    "It is shown as `deleting` until nothing of it is left.",
    options=(
        _NAME,
        Option(
            name="wait",
            description="Seconds to wait for the end of it, at most 300.",
            schema=_DURATION,
            example="30",
        ),
    ),
    answers=(
        Answer(status=204, description="The job is gone."),
        Answer(status=202, description="The job, being deleted.", content={JSON: _JOB}),
    ),
    problems=_NO_JOB,
)
_STATUS: Final = Operation(
    method="GET",
    path="/training-jobs/{name}/status",
    handler="status",
    operation_id="getTrainingJob",
    summary="Look at a job",
    description="The job: its state and why, its parameters, times, exit code and warnings.",
    options=(_NAME,),
    answers=(_JOB_ANSWER,),
    problems=_NO_JOB,
)
_STOP: Final = Operation(
    method="POST",
    path="/training-jobs/{name}/stop",
    handler="stop",
    operation_id="stopTrainingJob",
    summary="Stop a job",
    description="Asks the job to end: SIGTERM, its grace, SIGKILL. Record, log and outputs stay. "
    "May be repeated.",
    options=(_NAME,),
    answers=(
        Answer(status=202, description="The job, being stopped.", content={JSON: _JOB}),
        Answer(status=200, description="The job, which had ended.", content={JSON: _JOB}),
    ),
    problems=_NO_JOB,
)
_OUTPUTS: Final = Operation(
    method="GET",
    path="/training-jobs/{name}/outputs",
    handler="list_outputs",
    operation_id="listOutputs",
    summary="List what a job kept",
    description="The files in the job's output folder, by path.",
    options=(_NAME,),
    answers=(
        Answer(
            status=200,
            description="The files.",
            content={JSON: array_of({"$ref": f"{REF}OutputFile"})},
        ),
    ),
    problems=_NO_JOB,
)
_OUTPUT: Final = Operation(
    method="GET",
    path="/training-jobs/{name}/outputs/{path:path}",
    handler="output",
    operation_id="readOutput",
    summary="Fetch a file that a job kept",
    description="The file, or a range of it.",
    options=(
        _NAME,
        Option(
            name="path",
            place="path",
            description="The file's path in the listing; may hold slashes.",
            schema=STRING,
            example=EXAMPLE_OUTPUT,
        ),
        _RANGE,
    ),
    answers=(
        Answer(
            status=200,
            description="The file.",
            content={"application/octet-stream": _BYTES},
            headers=("Content-Length", "Content-Disposition", "Repr-Digest", "Accept-Ranges"),
        ),
        Answer(
            status=206,
            description="The range of it.",
            content={"application/octet-stream": _BYTES},
            headers=("Content-Length", "Content-Range", "Repr-Digest"),
        ),
    ),
    problems={
        404: "There is no such job, or it kept no such file.",
        416: "The range begins beyond the end.",
    },
)

# In an order in which the examples can be tried one after the other.
JOB_OPERATIONS: Final = (
    _SUBMIT, _LIST, _STATUS, _LOG, _OUTPUTS, _OUTPUT, _STOP, _DELETE,
)  # fmt: skip
