"""Every error of the product, one tree.

ModelTrainingError
├── InvalidRequest            what was asked for breaks a rule (422); carries every fault found
├── FilterTooWide             a list of more than can be decided about at once (422)
│   └── InvalidDeclaration    a pipeline.toml, an image or its labels break a rule; each fault
│                             names file, line and key, or image and label
├── MalformedRequest          the request cannot be read at all (400)
├── RequestTooLarge           413
├── UnsupportedMediaType      415
├── Unauthenticated           nobody, or nobody we know, is asking (401)
├── Forbidden                 somebody we know may not do this (403)
├── TooManyRequests           one caller asks for more than their share (429)
├── NotFound                  404
│   ├── PipelineNotFound      says where was looked and the nearest names
│   ├── JobNotFound
│   └── OutputNotFound
├── Conflict                  409
│   ├── IdempotencyConflict   same key, other request
│   └── PipelineExists        registered already, from another folder
├── RangeNotSatisfiable       416
├── Unavailable               something we depend on cannot be asked now; try again (503)
│   ├── ExecutorUnavailable
│   ├── LedgerUnavailable
│   ├── AccessUnavailable     cannot ask the decision point, or who it is
│   ├── AuditUnavailable      what would be done cannot be written down
│   └── RegistryUnavailable   cannot tell whether there is such an image
├── DiskReserveReached        507
├── JobRejected               the executor will refuse this spec again, however often it is asked
├── SettingsError             the service cannot start with these settings
├── DataFolderInUse           another server holds the data folder
└── raised by the client alone
    ├── JobFailed             the job that was waited for did not succeed
    ├── WaitTimedOut          the job that was waited for has not ended yet
    └── ServerUnreachable     no server, no connection, or no whole answer

The class docstring is the message when none is given. What a handler must know is an
attribute, never parsed out of the text. The HTTP status of each class stands in one table,
``api/problems.py``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request: where, and what.

    ``path`` is written as the caller wrote it: ``body.epochs``, ``query.timeout``,
    ``header.Range``; in a declaration, the dotted key.
    """

    path: str
    message: str


class ModelTrainingError(Exception):
    """Something went wrong."""

    problem: Mapping[str, object] | None = None
    """The problem document (RFC 9457) that the server answered, where the client raises this."""

    def __init__(self, message: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        super().__init__(self.message)

    @classmethod
    def kind(cls) -> str:
        """The name of the class with dashes: ``JobNotFound`` is ``job-not-found``.

        The stable end of a problem's ``type``, from which the client finds the class again.
        """
        return _WORD_STARTS.sub("-", cls.__name__).lower()


class InvalidRequest(ModelTrainingError):
    """The request breaks a rule."""

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults
        super().__init__("; ".join(f"{fault.path}: {fault.message}" for fault in faults) or None)


class InvalidDeclaration(InvalidRequest):
    """The pipeline's declaration breaks a rule."""


class MalformedRequest(ModelTrainingError):
    """The request cannot be read."""


class RequestTooLarge(ModelTrainingError):
    """The request is larger than this service reads."""


class UnsupportedMediaType(ModelTrainingError):
    """The body must be JSON: send it with Content-Type: application/json."""


class FilterTooWide(ModelTrainingError):
    """The list would hold jobs of more pipelines and owners than can be decided about at once.

    ``found`` is how many (pipeline, owner) there are, ``limit`` how many there may be.
    """

    def __init__(self, found: int, limit: int) -> None:
        self.found = found
        self.limit = limit
        super().__init__(
            f"The list would hold jobs of more than {limit} pipelines and owners, each of which "
            "must be decided about; name a pipeline, a state or an owner."
        )


class Unauthenticated(ModelTrainingError):
    """Say who you are: send the token as Authorization: Bearer TOKEN."""

    @property
    def was_given(self) -> bool:
        """Whether there was a credential, which is refused (RFC 6750, section 3.1)."""
        return self.message != (type(self).__doc__ or "")


class Forbidden(ModelTrainingError):
    """You may not do this."""


class TooManyRequests(ModelTrainingError):
    """You ask for more than your share; wait a moment.

    ``retry_after`` is in seconds.
    """

    def __init__(self, message: str | None = None, *, retry_after: int = 1) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class NotFound(ModelTrainingError):
    """There is no such thing here."""


class PipelineNotFound(NotFound):
    """There is no such pipeline.

    ``looked`` names the places that were searched, ``nearest`` the known names most like it.
    """

    def __init__(
        self, name: str, *, looked: tuple[str, ...] = (), nearest: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.looked = looked
        self.nearest = nearest
        message = f"There is no pipeline named {name!r}."
        if looked:
            message += f" Looked in: {', '.join(looked)}."
        if nearest:
            message += f" Did you mean {' or '.join(nearest)}?"
        super().__init__(message)


class JobNotFound(NotFound):
    """There is no training job of this name."""


class OutputNotFound(NotFound):
    """The job kept no such output."""


class Conflict(ModelTrainingError):
    """The request does not fit what is there."""


class IdempotencyConflict(Conflict):
    """This Idempotency-Key was used for another request; use a new key for a new request."""


class PipelineExists(Conflict):
    """A pipeline of this name is registered from another folder."""


class RangeNotSatisfiable(ModelTrainingError):
    """The range begins beyond the end.

    ``size`` is the number of bytes there are.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(f"The range begins beyond the end; there are {size} bytes.")


class Unavailable(ModelTrainingError):
    """Something this service depends on cannot be asked now; try again.

    ``retry_after`` is in seconds.
    """

    def __init__(self, message: str | None = None, *, retry_after: int = 5) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class ExecutorUnavailable(Unavailable):
    """The executor cannot be asked now; try again."""


class LedgerUnavailable(Unavailable):
    """The ledger cannot be written now; try again."""


class AccessUnavailable(Unavailable):
    """Whether you may do this cannot be asked now; try again."""


class AuditUnavailable(Unavailable):
    """The audit log cannot be written now, so nothing is changed; try again."""


class RegistryUnavailable(Unavailable):
    """Whether there is such an image cannot be told now; try again."""


class DiskReserveReached(ModelTrainingError):
    """The disk is nearly full; delete jobs that are no longer needed."""


class JobRejected(ModelTrainingError):
    """The executor will not run this job."""


class SettingsError(ModelTrainingError):
    """The service cannot start with these settings."""


class DataFolderInUse(ModelTrainingError):
    """Another server works on this data folder."""


class JobFailed(ModelTrainingError):
    """The training job did not succeed.

    ``name``, ``state``, ``reason`` and ``exit_code`` are the job's; ``tail`` its last log lines.
    """

    def __init__(
        self, name: str, *, state: str, reason: str | None, exit_code: int | None, tail: str = ""
    ) -> None:
        self.name = name
        self.state = state
        self.reason = reason
        self.exit_code = exit_code
        self.tail = tail
        message = f"{name} {state}"
        if reason:
            message += f" ({reason})"
        if exit_code is not None:
            message += f", exit code {exit_code}"
        super().__init__(message + (f"\n{tail}" if tail else ""))


class WaitTimedOut(ModelTrainingError):
    """The training job has not ended in the time given; it goes on."""


class ServerUnreachable(ModelTrainingError):
    """The server cannot be reached."""
