"""A pipeline in an image: its labels, which say what a ``pipeline.toml`` says of a folder.

``model-training.parameters`` and ``model-training.job`` hold the tables of the same names as
JSON; what may stand in them, and what is said about a mistake, is the same code.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from model_training.errors import Fault, InvalidDeclaration, MalformedRequest
from model_training.images.reference import ImageReference
from model_training.pipelines.fields import FieldReader
from model_training.pipelines.pipeline import Pipeline
from model_training.strict_json import parse_json

if TYPE_CHECKING:
    from model_training.jobs import JSONObject

LABEL_PREFIX: Final = "model-training."
LABEL_LIMIT: Final = 256 * 1024  # bytes of one label; a declaration has some kilobytes

_KEYS: Final = ("description", "arguments", "job", "parameters")
_JSON_KEYS: Final = frozenset({"job", "parameters"})


def read_labels(
    name: str, image: ImageReference, *, digest: str, labels: Mapping[str, str]
) -> Pipeline:
    """The pipeline that an image is.

    Args:
        name: of the pipeline.
        image: as it was looked for.
        digest: of the image, by which a job runs it.
        labels: its labels; those of others are passed over.

    Raises:
        InvalidDeclaration: with every fault; paths are ``IMAGE: LABEL``, with the key within.
    """
    values: JSONObject = {}
    faults: list[Fault] = []
    for label, text in labels.items():
        key = label.removeprefix(LABEL_PREFIX)
        if key == label:
            continue
        try:
            values[key] = _value(key, text)
        except ValueError as error:
            faults.append(Fault(key, str(error)))
    reader = FieldReader(values)
    reader.refuse_unknown(_KEYS)
    pipeline = Pipeline(
        name=name,
        folder=None,
        image=str(image.pinned(digest)),
        digest=digest,
        description=reader.string("description") or "",
        arguments=reader.arguments(),
        job=reader.job(),
        declaration=reader.declaration(),
    )
    if faults := [*faults, *reader.faults]:
        told = (Fault(f"{image}: {LABEL_PREFIX}{f.path}", f.message) for f in faults)
        raise InvalidDeclaration(*told)
    return pipeline


def _value(key: str, text: str) -> object:
    """What a label holds.

    Raises:
        ValueError: it cannot be read; the message says why.
    """
    content = text.encode(errors="surrogatepass")
    if len(content) > LABEL_LIMIT:
        raise ValueError(f"has {len(content)} bytes, at most {LABEL_LIMIT} are read")
    if key not in _JSON_KEYS:
        return text
    try:
        return parse_json(content)
    except MalformedRequest as error:
        # Written for the body of a request; a label is read by the same rules.
        raise ValueError(error.message.removeprefix("The body ").removesuffix(".")) from None
