"""Which cluster the tests run on: that of testbed/up, or one that was named and is for tests.

``python tests/cluster/target.py`` says before a long run whether the named one is refused.
"""

import os
import sys
from pathlib import Path

import yaml

VARIABLE = "MODEL_TRAINING_TEST_KUBECONFIG"
# Not left in the environment: to a service that a test starts it would be an unknown setting.
NAMED = os.environ.pop(VARIABLE, "")


def kubeconfig() -> Path:
    """The kubeconfig of the cluster to run on.

    Raises:
        ValueError: none is named, or its current context is not named for tests.
    """
    if not NAMED:
        raise ValueError(f"{VARIABLE} names no cluster: run scripts/test --cluster")
    file = Path(NAMED)
    try:
        context = (yaml.safe_load(file.read_text()) or {}).get("current-context") or ""
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise ValueError(f"{VARIABLE}: {file} is no kubeconfig: {error}") from error
    if "test" not in context:
        raise ValueError(
            f"{VARIABLE}: the current context of {file} is named {context!r}; the tests create and "
            "delete things, so they run only where that name contains 'test'"
        )
    return file


if __name__ == "__main__":
    try:
        kubeconfig()
    except ValueError as error:
        sys.exit(str(error))
