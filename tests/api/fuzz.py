"""Thousands of generated requests against a real server: ``scripts/fuzz``, and a test.

schemathesis reads our own OpenAPI document and tries to find an answer that it does not
describe. Its jobs are real ones of a pipeline that only writes a file. It judges by all of its
checks but four: that every request which fits the schema is accepted (a pipeline's own
declaration refuses more, and so do made-up cursors); that what a POST tells of is there (a dry run
tells of a job that it does not make; ``tests/contract`` looks for each that is made); that nothing
is there after a DELETE (a job is shown until nothing of it is left); and the separation of users
(there is one).
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemathesis import __version__ as schemathesis_version

PIPELINE = """
name = "digits"
command = ["sh", "-c", "echo printed; echo kept > $MODEL_TRAINING_OUTPUT/model.json"]
"""
OPERATIONS = 26  # about; turns a number of cases into schemathesis' number of examples
ROUNDS = 20
LEFT_OUT = (
    "positive_data_acceptance,ensure_resource_availability,"
    "use_after_free,object_level_authorization"
)


@contextmanager
def fuzzed_server(root: Path) -> Iterator[tuple[str, str]]:
    """A server process and its token; ended, and its jobs deleted, on leaving."""
    folder = root / "pipelines" / "digits"
    folder.mkdir(parents=True)
    (folder / "pipeline.toml").write_text(PIPELINE)
    argv = [
        sys.executable, "-m", "model_training", "serve", "--port", "0", "--slots", "4",
        "--data", str(root / "data"), "--pipelines", str(root / "pipelines"),
    ]  # fmt: skip
    with (
        (root / "server.log").open("w") as log,
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            yield url, (root / "data" / "token").read_text().strip()
        finally:
            server.terminate()
            server.wait(timeout=30)


def fuzz(root: Path, cases: int) -> int:
    """Send at least ``cases`` requests; how many it were.

    Raises:
        AssertionError: an answer was not as described; with schemathesis' report.
    """
    sent = 0
    with fuzzed_server(root) as (url, token):
        for _ in range(ROUNDS):
            sent += _one_round(root, url, token, cases - sent)
            if sent >= cases:
                break
    log = (root / "server.log").read_text()
    assert "Traceback" not in log, log[log.index("Traceback") :][:5000]
    return sent


def _one_round(root: Path, url: str, token: str, cases: int) -> int:
    argv = [
        str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}/openapi.json",
        "--header", f"Authorization: Bearer {token}",
        "--phases", "examples,coverage,fuzzing,stateful",
        "--checks", "all", "--exclude-checks", LEFT_OUT,
        "--max-examples", str(max(10, cases // OPERATIONS)),
        "--generation-database", "none", "--request-timeout", "20", "--no-color",
        "--continue-on-failure",
    ]  # fmt: skip
    done = subprocess.run(
        argv,
        check=False,
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert found, done.stdout[-2000:]
    return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000)
    cases = parser.parse_args().cases
    with tempfile.TemporaryDirectory() as root:
        try:
            sent = fuzz(Path(root), cases)
        except AssertionError as error:
            sys.exit(str(error))
    words = f"{sent} cases by schemathesis {schemathesis_version}: every answer as described\n"
    sys.stdout.write(words)


if __name__ == "__main__":
    main()
