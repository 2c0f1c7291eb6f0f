"""An error as a person reads it: what could not be done, why, and what to do next."""

import json

from model_training import errors
from model_training.cli.talk import Talk
from model_training.errors import InvalidRequest, ModelTrainingError

_NEXT: tuple[tuple[type[ModelTrainingError], str], ...] = (
    (errors.PipelineNotFound, "model-training pipeline list shows the pipelines there are"),
    (errors.JobNotFound, "model-training list shows the jobs there are"),
    (errors.OutputNotFound, "model-training outputs NAME shows what the job kept"),
    (
        errors.Unauthenticated,
        "log in (model-training login), name a token (--token-file, MODEL_TRAINING_TOKEN), or "
        "the data folder of a server on this machine (MODEL_TRAINING_DATA)",
    ),
    (errors.Forbidden, "ask whoever runs the server for the right to do this"),
    (
        errors.ServerUnreachable,
        "model-training serve starts a server here; MODEL_TRAINING_URL names one elsewhere; "
        "model-training doctor checks what is wrong",
    ),
    (errors.Unavailable, "try again in a moment; nothing was changed"),
    (errors.DiskReserveReached, "make space: model-training list, then model-training delete NAME"),
    (errors.IdempotencyConflict, "use another --idempotency-key for another request"),
    (errors.PipelineExists, "model-training pipeline remove NAME frees the name"),
    (errors.InvalidDeclaration, "correct the file at the place named and try again"),
    (errors.InvalidRequest, "correct what is named and try again"),
    (errors.WaitTimedOut, "wait again, or stop it: model-training stop NAME"),
    (errors.DataFolderInUse, "use the running server: model-training list"),
    (errors.SettingsError, "correct what is named and try again; --help shows the options"),
)


def report(talk: Talk, error: ModelTrainingError) -> None:
    """Say an error on stderr; with ``--json``, as a problem document."""
    if talk.json:
        talk.say(json.dumps(_problem(error), ensure_ascii=False))
        return
    lines = [f"error: could not {talk.aim}" if talk.aim else "error:"]
    lines += [f"  why:  {reason}" for reason in _reasons(error)]
    lines.append(f"  next: {_next(error)}")
    if error.problem and (request_id := error.problem.get("request_id")):
        lines.append(f"  request: {request_id}")
    talk.say("\n".join(lines))


def _reasons(error: ModelTrainingError) -> list[str]:
    if isinstance(error, InvalidRequest) and error.faults:
        return [f"{fault.path}: {fault.message}" for fault in error.faults]
    return error.message.splitlines() or [type(error).__name__]


def _next(error: ModelTrainingError) -> str:
    if error.problem and error.problem.get("status") == 500:
        return "look for the request in the log of the server"
    fallback = "model-training doctor checks this installation"
    return next((text for kind, text in _NEXT if isinstance(error, kind)), fallback)


def _problem(error: ModelTrainingError) -> dict[str, object]:
    """The server's own document, or one of the same shape for what the command found itself."""
    if error.problem is not None:
        return dict(error.problem)
    problem: dict[str, object] = {
        "type": "about:blank",
        "title": type(error).__name__,
        "detail": error.message,
    }
    if isinstance(error, InvalidRequest):
        problem["errors"] = [{"path": f.path, "message": f.message} for f in error.faults]
    return problem
