"""Train a small neural network (64 pixels, a hidden layer, 10 digits) to read handwritten digits.

Plain Python, standard library only, so that it runs wherever Python 3.11 does; copy it as a start
for training code of your own. What makes it a good training job is in four places:

- ``read_parameters``: values come from MODEL_TRAINING_PARAMETERS, a JSON object; what is missing
  there has the default that pipeline.toml declares, so a plain ``python3 train.py`` works too.
- ``fit``: prints as it goes. The bar of an epoch grows along its line, which reads well while it
  is followed and in the finished log. On SIGTERM it saves a checkpoint and ends.
- ``resume_or_begin``: started again with the same output folder, it goes on from that checkpoint
  and ends with the very same model. All randomness comes from (seed, purpose), so a place in the
  training is just a count of epochs and batches.
- ``write_json``: what is kept goes to the folder named by MODEL_TRAINING_OUTPUT, whole or not
  at all.
"""

import gzip
import json
import math
import os
import random
import signal
import sys
import threading
import tomllib
from operator import mul
from pathlib import Path

HERE = Path(__file__).resolve().parent
BATCH = 16  # examples a step
BAR = 20  # characters of an epoch's progress bar
STOPPED = 128 + signal.SIGTERM  # the exit code that a shell gives a program ended by SIGTERM

Example = tuple[list[float], int]  # 64 pixels from 0 to 1 and a constant 1 for the bias; the digit
Layer = list[list[float]]  # a row of weights a unit, the last of each being its bias

stop_asked = threading.Event()


def read_parameters() -> dict:
    """The parameters asked for, over the defaults; ends the program if one is wrong."""
    declared = tomllib.loads((HERE / "pipeline.toml").read_text())["parameters"]
    text = os.environ.get("MODEL_TRAINING_PARAMETERS") or "{}"
    try:
        given = json.loads(text)
    except ValueError as error:
        sys.exit(f"MODEL_TRAINING_PARAMETERS is not JSON: {error}")
    if not isinstance(given, dict):
        sys.exit(f"MODEL_TRAINING_PARAMETERS must be a JSON object, not {text}")
    for name, value in given.items():
        if name not in declared:
            sys.exit(f"there is no parameter {name!r}; there are {', '.join(declared)}")
        check_parameter(name, value, declared[name])
    return {name: given.get(name, rule["default"]) for name, rule in declared.items()}


def check_parameter(name: str, value: object, rule: dict) -> None:
    """End the program, saying why, if a value does not fit its declaration."""
    kinds = {"integer": int, "number": int | float}
    fits = isinstance(value, kinds[rule["type"]]) and not isinstance(value, bool)
    if not fits or not rule["minimum"] <= value <= rule["maximum"]:
        bounds = f"from {rule['minimum']} to {rule['maximum']}"
        sys.exit(f"{name} must be of type {rule['type']}, {bounds}, not {json.dumps(value)}")


def load_examples() -> list[Example]:
    """All 1,797 examples. A line of the file is 64 pixels, 0 to 16, and the digit."""
    with gzip.open(HERE / "digits.csv.gz", "rt") as lines:
        rows = [[int(value) for value in line.split(",")] for line in lines]
    return [([pixel / 16 for pixel in row[:64]] + [1.0], row[64]) for row in rows]


def split(examples: list, seed: int) -> tuple[list, list, list]:
    """70 % for training, 10 % for validation, 20 % for the test, by position and seed alone."""
    shuffled = random.Random(f"{seed} split").sample(examples, len(examples))
    first, second = len(examples) * 7 // 10, len(examples) * 8 // 10
    return shuffled[:first], shuffled[first:second], shuffled[second:]


def new_model(hidden: int, seed: int) -> dict[str, Layer]:
    """Small random weights, scaled by the number of inputs of a unit (Glorot)."""
    source = random.Random(f"{seed} weights")

    def layer(units: int, inputs: int) -> Layer:
        limit = math.sqrt(6 / (inputs + units))
        return [[source.uniform(-limit, limit) for _ in range(inputs + 1)] for _ in range(units)]

    return {"hidden": layer(hidden, 64), "output": layer(10, hidden)}


def forward(model: dict[str, Layer], inputs: list[float]) -> tuple[list[float], list[float]]:
    """What the hidden units say (and a constant 1), and the probability of each digit."""
    hidden = [math.tanh(sum(map(mul, row, inputs))) for row in model["hidden"]] + [1.0]
    scores = [sum(map(mul, row, hidden)) for row in model["output"]]
    highest = max(scores)
    powers = [math.exp(score - highest) for score in scores]
    total = sum(powers)
    return hidden, [power / total for power in powers]


def predict(model: dict[str, Layer], inputs: list[float]) -> int:
    """The most probable digit."""
    probabilities = forward(model, inputs)[1]
    return probabilities.index(max(probabilities))


def loss_of(probability: float) -> float:
    """Cross-entropy in nats; a probability that was rounded to 0 counts as the smallest float."""
    return -math.log(max(probability, sys.float_info.min))


def learn(model: dict[str, Layer], batch: list[Example], learning_rate: float) -> float:
    """One step down the gradient of a batch; returns the sum of its losses before the step."""
    gradient = {name: [[0.0] * len(row) for row in layer] for name, layer in model.items()}
    loss = 0.0
    for inputs, digit in batch:
        hidden, errors = forward(model, inputs)
        loss += loss_of(errors[digit])
        errors[digit] -= 1  # now the derivative of the loss by each score
        for unit, value in enumerate(hidden[:-1]):
            back = sum(
                error * row[unit] for error, row in zip(errors, model["output"], strict=True)
            )
            add(gradient["hidden"][unit], back * (1 - value * value), inputs)
        for row, error in zip(gradient["output"], errors, strict=True):
            add(row, error, hidden)
    for name, layer in model.items():
        for row, slope in zip(layer, gradient[name], strict=True):
            add(row, -learning_rate / len(batch), slope)
    return loss


def add(row: list[float], factor: float, other: list[float]) -> None:
    """Row += factor * other, in place."""
    row[:] = [value + factor * addend for value, addend in zip(row, other, strict=True)]


def fit(state: dict, training: list, validation: list, output: Path) -> None:
    """Train until all epochs are done; on SIGTERM finish the batch, save and exit."""
    parameters, model = state["parameters"], state["model"]
    epochs, batches = parameters["epochs"], math.ceil(len(training) / BATCH)
    for epoch in range(state["epoch"], epochs + 1):
        order = random.Random(f"{parameters['seed']} epoch {epoch}").sample(training, len(training))
        bar = "=" * (state["batch"] * BAR // batches)
        print(f"epoch {epoch:{len(str(epochs))}}/{epochs} [{bar}", end="", flush=True)
        for batch in range(state["batch"], batches):
            left = 1 - ((epoch - 1) * batches + batch) / (epochs * batches)
            chosen = order[batch * BATCH : (batch + 1) * BATCH]
            state["loss"] += learn(model, chosen, parameters["learning_rate"] * left)
            state |= {"epoch": epoch, "batch": batch + 1}
            if (batch + 1) * BAR // batches > batch * BAR // batches:
                print("=", end="", flush=True)
            if stop_asked.is_set():
                save_and_exit(state, output)
        report(model, state["loss"] / len(training), validation)
        state |= {"batch": 0, "loss": 0.0}


def report(model: dict[str, Layer], training_loss: float, validation: list[Example]) -> None:
    """End an epoch's line with its mean losses, in nats an example."""
    probabilities = [forward(model, inputs)[1][digit] for inputs, digit in validation]
    validation_loss = sum(map(loss_of, probabilities)) / len(validation)
    print(f"] train loss {training_loss:.4f}, validation loss {validation_loss:.4f}", flush=True)


def save_and_exit(state: dict, output: Path) -> None:
    """Write the checkpoint and end as a program that was stopped."""
    write_json(output / "checkpoint.json", state)
    print(f"\nstopped; saved {output / 'checkpoint.json'}", flush=True)
    sys.exit(STOPPED)


def resume_or_begin(parameters: dict, checkpoint: Path) -> dict:
    """Where to go on: all that the rest of the training depends on. It is the checkpoint, too."""
    if not checkpoint.exists():
        model = new_model(parameters["hidden"], parameters["seed"])
        return {"parameters": parameters, "model": model, "epoch": 1, "batch": 0, "loss": 0.0}
    state = json.loads(checkpoint.read_text())
    if state["parameters"] != parameters:
        sys.exit(f"{checkpoint} is of a training with {state['parameters']}; move it away first")
    print(f"going on from {checkpoint}: epoch {state['epoch']}, batch {state['batch']}")
    return state


def write_json(path: Path, value: dict) -> None:
    """Replace a file as a whole: a crash leaves the old one or the new one, never half of it."""
    new = path.with_suffix(".new")
    with new.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def main() -> None:
    """Train, save the model, and measure it on examples that it has never seen."""
    signal.signal(signal.SIGTERM, lambda *_: stop_asked.set())
    parameters = read_parameters()
    output = Path(os.environ.get("MODEL_TRAINING_OUTPUT") or "output")
    output.mkdir(parents=True, exist_ok=True)
    training, validation, test = split(load_examples(), parameters["seed"])
    print(f"{len(training)} examples to train, {len(validation)} to validate, {len(test)} to test")
    print(", ".join(f"{name} {value}" for name, value in parameters.items()), flush=True)

    state = resume_or_begin(parameters, output / "checkpoint.json")
    fit(state, training, validation, output)
    model = state["model"]
    accuracy = sum(predict(model, inputs) == digit for inputs, digit in test) / len(test)

    write_json(output / "model.json", {"parameters": parameters, "accuracy": accuracy} | model)
    (output / "checkpoint.json").unlink(missing_ok=True)
    print(f"model: {output / 'model.json'}")
    print(f"test accuracy: {accuracy:.1%}".replace("%", " %"), flush=True)


if __name__ == "__main__":
    main()
