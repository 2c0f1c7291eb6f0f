"""Names of jobs, pipelines and images, and every limit on them with its source.

A job's name is ``model-training-PIPELINE-UUID``. Kubernetes copies it into the label
``job-name`` of the pod, so it has at most 63 characters (RFC 1123 label). The pipeline stays
whole, so that a person can read it; what gives way is the UUID, written as 16 characters of
base32 where its canonical 36 do not fit. Which job belongs to which pipeline is never read from
the name, with one exception: ``pipeline_of_foreign_job``.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from uuid import UUID

from model_training.errors import Fault

JOB_PREFIX = "model-training-"
JOB_NAME_LIMIT = 63  # characters; RFC 1123 label, which Kubernetes demands of a label's value
SHORT_ID_LENGTH = 16  # characters of base32 = 80 bits: no collision in 10**9 jobs (p < 1e-6)
PIPELINE_NAME_LIMIT = JOB_NAME_LIMIT - len(JOB_PREFIX) - 1 - SHORT_ID_LENGTH  # 31 characters
CANONICAL_ID_LENGTH = 36  # characters of a UUID as RFC 9562 writes it
RESERVED_PIPELINE_NAMES = frozenset({"api"})  # model-training-api is this service's own image

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_FOREIGN_JOB = re.compile(
    r"model-training-(?P<pipeline>[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)"
    r"-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
)
_ID_OF_JOB = re.compile(
    r"-(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[a-z2-7]{16})$"
)
_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def canonical_pipeline(name: str) -> str:
    """Write a CamelCase name with dashes (``USGSTraining`` -> ``usgs-training``).

    A dash goes before each capital that follows a small letter or digit, and before the last
    capital of a run when a small letter follows it. A name without capitals stays as it is.
    """
    return _WORD_STARTS.sub("-", name).lower() if not name.islower() and name.isascii() else name


def pipeline_fault(name: str, *, path: str) -> Fault | None:
    """What is wrong with a (canonical) pipeline name, or None."""
    if not name:
        return Fault(path, "name a pipeline")
    if len(name) > PIPELINE_NAME_LIMIT:
        return Fault(
            path,
            f"a pipeline's name has at most {PIPELINE_NAME_LIMIT} characters, this one {len(name)}",
        )
    if not _LABEL.fullmatch(name):
        return Fault(
            path,
            "a pipeline's name is made of a-z, 0-9 and dashes, "
            "and begins and ends with a letter or digit",
        )
    if name in RESERVED_PIPELINE_NAMES:
        return Fault(path, f"the name {name!r} is reserved")
    return None


def parse_pipeline(name: str) -> str:
    """The canonical pipeline name.

    Raises:
        ValueError: the name breaks a rule; the message says which.
    """
    canonical = canonical_pipeline(name)
    if fault := pipeline_fault(canonical, path=""):
        raise ValueError(fault.message)
    return canonical


def image_name(pipeline: str) -> str:
    """The last part of the name of the image that is this pipeline."""
    return JOB_PREFIX + pipeline


def job_name(pipeline: str, job_id: UUID) -> str:
    """``model-training-PIPELINE-UUID`` in at most 63 characters."""
    canonical = f"{JOB_PREFIX}{pipeline}-{job_id}"
    if len(canonical) <= JOB_NAME_LIMIT:
        return canonical
    return f"{JOB_PREFIX}{pipeline}-{short_id(job_id)}"


def short_id(job_id: UUID) -> str:
    """80 bits of a UUID as 16 characters of lower-case base32.

    Bytes 6 to 11 are left out: they hold the version and variant, which are the same in all.
    """
    chosen = job_id.bytes[:6] + job_id.bytes[12:]
    return base64.b32encode(chosen).decode().lower()


def is_job_name(name: str) -> bool:
    """Whether a name lies under the reserved prefix and could be a Kubernetes object's."""
    return (
        len(name) <= JOB_NAME_LIMIT
        and name.startswith(JOB_PREFIX)
        and _LABEL.fullmatch(name) is not None
    )


def pipeline_in_job_name(name: str) -> str:
    """The pipeline that a job of this name would be of, if it is one of ours."""
    return _ID_OF_JOB.sub("", name.removeprefix(JOB_PREFIX))


def pipeline_of_foreign_job(name: str) -> str | None:
    """The pipeline of a Job made by somebody else, told only by a canonical UUID at its end."""
    match = _FOREIGN_JOB.fullmatch(name)
    return match["pipeline"] if match else None


def repeatable_id(principal: str, key: str) -> UUID:
    """The id of the job that this principal's Idempotency-Key stands for (UUID version 8).

    The same on every machine and after every loss, so that a repeated request meets the same
    name without a table of keys (RFC 9562, section 5.8, leaves the 122 bits to us).
    """
    digest = hashlib.sha256(f"{len(principal)}:{principal}:{key}".encode()).digest()[:16]
    value = int.from_bytes(digest)
    value = value & ~(0xF << 76) | (0x8 << 76)  # version 8
    value = value & ~(0x3 << 62) | (0x2 << 62)  # the variant of RFC 9562
    return UUID(int=value)


def nearest(name: str, known: Iterable[str], *, limit: int = 1) -> tuple[str, ...]:
    """The known names most like a mistyped one, best first; none where nothing is like it.

    A name of absurd length is like none: comparing it would cost more than the hint is worth.
    """
    import difflib  # only a mistake needs it

    if len(name) > 256:
        return ()
    return tuple(difflib.get_close_matches(name, sorted(set(known)), n=limit))
