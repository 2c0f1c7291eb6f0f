"""The shipped example with packages of its own: from ``pipeline add`` to a model, as a user does.

Its environment is built by the real installer from a real package index. Where no index answers,
nothing can be said and the test is skipped with that reason; where ``CI=true`` it must not be.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_training import Client

EXAMPLE = Path(__file__).parents[2] / "examples" / "sklearn-digits"
PIP_DOWNLOAD = [
    sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
    "--no-deps", "--retries", "0", "--timeout", "5",
]  # fmt: skip


@pytest.fixture(scope="module")
def package_index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Ask the index for the smallest package of the example."""
    lines = (EXAMPLE / "requirements.txt").read_text().splitlines()
    wanted = next(line for line in lines if line.startswith("threadpoolctl"))
    folder = str(tmp_path_factory.mktemp("index"))
    asked = subprocess.run(
        [*PIP_DOWNLOAD, "--dest", folder, wanted],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if asked.returncode == 0:
        return
    why = f"no package index answers here: {asked.stderr.strip()[-300:]}"
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


def environment(root: Path) -> dict[str, str]:
    """The user's, because it says where the packages come from; but with data of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MODEL_TRAINING")}
    return {**kept, "MODEL_TRAINING_DATA": str(root / "data")}


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "model_training", *arguments],
        capture_output=True, text=True, timeout=110, check=False, cwd=root, env=environment(root),
    )  # fmt: skip


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    """A server on a data folder of its own; gives the folder around it."""
    with (tmp_path / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "model_training", "serve", "--port", "0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd=tmp_path,
            env=environment(tmp_path),
        )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert b"ready at" in process.stdout.readline(), (tmp_path / "server.log").read_text()
        yield tmp_path
        with Client(data=tmp_path / "data") as client:
            for job in client.list(state="active"):
                client.delete(job.name, wait=20)
        process.send_signal(signal.SIGTERM)
    shutil.rmtree(tmp_path / "data")  # scikit-learn is large, and pytest keeps its folders


@pytest.mark.timeout(300)  # an index may be slow; with one nearby it takes 10 seconds
@pytest.mark.usefixtures("package_index")
def test_the_example_with_requirements_trains_and_its_environment_is_built_once(served: Path):
    assert run(served, "pipeline", "add", str(EXAMPLE)).stdout == "sklearn-digits\n"

    first = run(served, "run", "sklearn-digits", "-p", "epochs=8")
    assert first.returncode == 0, first.stdout + first.stderr
    accuracy = re.search(r"^test accuracy: (\d+\.\d) %$", first.stdout, re.MULTILINE)
    assert accuracy
    assert float(accuracy[1]) >= 95
    with Client(data=served / "data") as client:
        newest = next(client.list())
        assert [output.path for output in client.outputs(newest.name)] == ["model.joblib"]
    assert "scikit-learn==1.9.1" in first.stdout  # what the installer says

    second = run(served, "run", "sklearn-digits", "-p", "epochs=1")
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.startswith("epoch 1/1 ")
    assert "scikit-learn" not in second.stdout
