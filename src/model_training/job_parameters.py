"""What training code calls to get its parameters.

It runs in the pipeline's own environment, where perhaps nothing else of this product can be
imported: standard library only, and as little of it as possible.
"""

import json
import os


def parameters(**defaults: object) -> dict[str, object]:
    """The parameters of this training job, laid over ``defaults``.

    Outside a job, for example while a script is tried by hand, the defaults alone:

        options = parameters(epochs=20, learning_rate=0.1)

    Raises:
        OSError: the file that the job's environment names cannot be read.
        ValueError: it holds no JSON.
        TypeError: it holds something else than an object.
    """
    text = os.environ.get("MODEL_TRAINING_PARAMETERS") or "{}"
    if file := os.environ.get("MODEL_TRAINING_PARAMETERS_FILE"):
        with open(file, encoding="utf-8") as stream:  # noqa: PTH123 pathlib would load more
            text = stream.read()
    given: object = json.loads(text)
    if not isinstance(given, dict):
        msg = "MODEL_TRAINING_PARAMETERS must hold a JSON object"
        raise TypeError(msg)
    return {**defaults, **given}
