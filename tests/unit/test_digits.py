"""The bundled pipeline learns, from real labels, alone, and keeps its promises when stopped."""

import gzip
import itertools
import json
import os
import random
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import model_training

DIGITS = Path(model_training.__file__).parent / "pipelines" / "bundled" / "digits"
REFUSE_SOCKETS = """
import runpy, sys
def refuse(event, _):
    if event.startswith("socket."):
        raise PermissionError("the network is cut off")
sys.addaudithook(refuse)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(folder: Path, output: Path, prefix: tuple[str, ...] = (), **parameters):
    environment = {
        "PATH": os.environ["PATH"],
        "MODEL_TRAINING_OUTPUT": str(output),
        "MODEL_TRAINING_PARAMETERS": json.dumps(parameters),
    }
    return subprocess.Popen(
        [*(prefix or (sys.executable, "-W", "error")), "train.py"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(folder: Path, output: Path, prefix: tuple[str, ...] = (), **parameters):
    """Run to the end; returns the exit code, what it printed, and what it complained of."""
    with start(folder, output, prefix, **parameters) as process:
        printed, complaint = process.communicate()
    return process.returncode, printed, complaint


def accuracy_in(printed: str) -> float:
    found = re.fullmatch(r"test accuracy: (\d+\.\d) %", printed.splitlines()[-1])
    assert found, printed
    return float(found[1])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with every default, and its output folder."""
    output = tmp_path_factory.mktemp("digits")
    return *train(DIGITS, output), output


def test_digits_are_read_with_95_percent_or_better_by_default(finished):
    code, printed, complaint, output = finished
    assert (code, complaint) == (0, "")
    assert accuracy_in(printed) >= 95
    assert f"model: {output / 'model.json'}\n" in printed


def test_each_epoch_prints_one_clean_line_with_both_losses(finished):
    lines = [line for line in finished[1].splitlines() if line.startswith("epoch")][1:]
    assert len(lines) == 20
    loss = r"\d+\.\d{4}"
    for number, line in enumerate(lines, 1):
        pattern = rf"epoch {number:2}/20 \[={{20}}\] train loss {loss}, validation loss {loss}"
        assert re.fullmatch(pattern, line)


def test_saved_model_reloads_and_reads_the_test_digits_as_well_as_printed(finished):
    _, printed, _, output = finished
    code = runpy.run_path(str(DIGITS / "train.py"))
    model = json.loads((output / "model.json").read_text())
    test = code["split"](code["load_examples"](), model["parameters"]["seed"])[2]
    right = sum(code["predict"](model, pixels) == digit for pixels, digit in test)
    assert round(100 * right / len(test), 1) == accuracy_in(printed)
    assert [path.name for path in output.iterdir()] == ["model.json"]


@pytest.mark.parametrize("seed", [1, 2, 4294967295])
def test_no_test_example_is_trained_on(seed):
    parts = runpy.run_path(str(DIGITS / "train.py"))["split"](list(range(1797)), seed)
    assert [len(part) for part in parts] == [1257, 180, 360]
    assert sorted(itertools.chain(*parts)) == list(range(1797))


def shuffle_training_labels(folder: Path, seed: int) -> None:
    """Shuffle the labels of the training lines in a copy of the pipeline; the others stay true.

    Which lines are for training depends on their number and the seed alone, never on a label, so
    the changed file is split at the very same places as the true one.
    """
    lines = gzip.decompress((folder / "digits.csv.gz").read_bytes()).decode().split()
    split = runpy.run_path(str(folder / "train.py"))["split"]
    training = split(list(range(len(lines))), seed)[0]
    labels = [lines[number].rpartition(",")[2] for number in training]
    random.Random(seed).shuffle(labels)
    for number, label in zip(training, labels, strict=True):
        lines[number] = f"{lines[number].rpartition(',')[0]},{label}"
    (folder / "digits.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


def test_nothing_is_learnt_from_shuffled_training_labels(tmp_path):
    folder = Path(shutil.copytree(DIGITS, tmp_path / "shuffled"))
    seed = 1
    true_parts = runpy.run_path(str(DIGITS / "train.py"))
    shuffle_training_labels(folder, seed)
    examples = runpy.run_path(str(folder / "train.py"))["load_examples"]()
    was, now = (
        true_parts["split"](all_, seed) for all_ in (true_parts["load_examples"](), examples)
    )
    assert [pixels for pixels, _ in now[0]] == [pixels for pixels, _ in was[0]]
    assert now[0] != was[0]
    assert now[1:] == was[1:]

    code, printed, complaint = train(folder, tmp_path / "output", seed=seed)

    assert (code, complaint) == (0, "")
    assert accuracy_in(printed) < 20


def without_network() -> tuple[str, ...]:
    """A network namespace with nothing in it where that is allowed, else an audit hook."""
    for unshare in (("unshare", "--net"), ("unshare", "--user", "--map-root-user", "--net")):
        if (
            shutil.which("unshare")
            and subprocess.run([*unshare, "true"], check=False).returncode == 0
        ):
            return *unshare, sys.executable
    return sys.executable, "-c", REFUSE_SOCKETS


def test_training_needs_no_network(tmp_path):
    prefix = without_network()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        probe = tmp_path / "train.py"
        address = listener.getsockname()
        probe.write_text(f"import socket; socket.create_connection({address!r}, 5).close()")
        assert train(tmp_path, tmp_path)[0] == 0
        assert train(tmp_path, tmp_path, prefix)[0] != 0

    code, printed, complaint = train(DIGITS, tmp_path / "output", prefix, epochs=2)

    assert (code, complaint) == (0, "")
    assert accuracy_in(printed) > 80


def test_stopped_training_goes_on_from_its_checkpoint_to_the_same_model(tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    _, uninterrupted, _ = train(DIGITS, whole, epochs=3)

    with start(DIGITS, halves, epochs=3) as process:
        seen = ""
        while not seen.endswith("epoch 2/3 [==="):
            character = process.stdout.read(1)
            assert character, seen
            seen += character
        process.send_signal(signal.SIGTERM)
        rest, complaint = process.communicate()
    assert (process.returncode, complaint) == (143, "")
    assert rest.endswith(f"\nstopped; saved {halves / 'checkpoint.json'}\n")
    assert [path.name for path in halves.iterdir()] == ["checkpoint.json"]

    code, printed, complaint = train(DIGITS, halves, epochs=3)

    assert (code, complaint) == (0, "")
    assert f"going on from {halves / 'checkpoint.json'}: epoch 2, batch " in printed
    assert printed.splitlines()[3:5] == uninterrupted.splitlines()[3:5]
    assert accuracy_in(printed) == accuracy_in(uninterrupted)
    assert (halves / "model.json").read_bytes() == (whole / "model.json").read_bytes()
    assert [path.name for path in halves.iterdir()] == ["model.json"]


def test_checkpoint_of_other_parameters_is_refused_and_kept(tmp_path):
    checkpoint = tmp_path / "checkpoint.json"
    checkpoint.write_text(json.dumps({"parameters": {"epochs": 3}}))
    code, _, complaint = train(DIGITS, tmp_path, epochs=2)
    assert code == 1
    assert complaint == f"{checkpoint} is of a training with {{'epochs': 3}}; move it away first\n"
    assert checkpoint.exists()


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"epochs": 0}, "epochs must be of type integer, from 1 to 1000, not 0\n"),
        ({"epochs": "many"}, 'epochs must be of type integer, from 1 to 1000, not "many"\n'),
        ({"hidden": True}, "hidden must be of type integer, from 1 to 512, not true\n"),
        ({"hidden": 1.5}, "hidden must be of type integer, from 1 to 512, not 1.5\n"),
        (
            {"learning_rate": float("nan")},
            "learning_rate must be of type number, from 0.0001 to 1, not NaN\n",
        ),
        (
            {"epoch": 3},
            "there is no parameter 'epoch'; there are epochs, hidden, learning_rate, seed\n",
        ),
    ],
)
def test_wrong_parameter_ends_the_training_before_it_begins(tmp_path, parameters, complaint):
    output = tmp_path / "output"
    assert train(DIGITS, output, **parameters) == (1, "", complaint)
    assert not output.exists()
