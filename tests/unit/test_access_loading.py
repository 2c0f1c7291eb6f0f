"""A service of one user loads nothing that only access needs, so that it starts without it."""

import subprocess
import sys

ONLY_ACCESS = ("jwt", "cryptography", "aiohttp")


def test_the_server_is_loaded_without_what_only_access_needs():
    script = (
        "import sys\nimport model_training.api.server\n"
        f"print([name for name in {ONLY_ACCESS!r} if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines()[-1] == "[]"
