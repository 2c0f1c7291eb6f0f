"""Train scikit-learn's MLPClassifier to read handwritten digits; a plain argparse program."""

import argparse
import os
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=0.003)
    parser.add_argument("--seed", type=int, default=1)
    default_output = os.environ.get("MODEL_TRAINING_OUTPUT", "output")
    parser.add_argument("--output", type=Path, default=Path(default_output))
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    images, digits = load_digits(return_X_y=True)
    learning, test, learning_digits, test_digits = train_test_split(
        images / 16, digits, test_size=0.2, stratify=digits, random_state=chosen.seed
    )
    training, validation, training_digits, validation_digits = train_test_split(
        learning,
        learning_digits,
        test_size=0.125,
        stratify=learning_digits,
        random_state=chosen.seed,
    )
    model = MLPClassifier(
        (chosen.hidden,),
        batch_size=32,
        learning_rate_init=chosen.learning_rate,
        random_state=chosen.seed,
    )
    for epoch in range(1, chosen.epochs + 1):
        model.partial_fit(training, training_digits, classes=np.arange(10))
        train_loss = log_loss(training_digits, model.predict_proba(training))
        validation_loss = log_loss(validation_digits, model.predict_proba(validation))
        print(
            f"epoch {epoch}/{chosen.epochs} "
            f"train loss {train_loss:.4f}, validation loss {validation_loss:.4f}",
            flush=True,
        )

    chosen.output.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, chosen.output / "model.joblib")
    print(f"model: {chosen.output / 'model.joblib'}")
    print(f"test accuracy: {100 * model.score(test, test_digits):.1f} %")


if __name__ == "__main__":
    main()
