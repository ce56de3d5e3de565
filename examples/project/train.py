"""Train a classifier of points in two rings: ``python train.py --epochs 20``."""

import argparse
import json
from pathlib import Path

import numpy as np
from rings import make_rings


def main() -> None:
    """Read the settings, train, and print the metrics of each epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--config", type=Path, default=Path("configs/base.json"))
    options = parser.parse_args()
    config = json.loads(options.config.read_text())

    inputs, labels = make_rings(config["points"], seed=0)
    val_inputs, val_labels = make_rings(config["points"], seed=1)
    weights = np.zeros(inputs.shape[1])
    for epoch in range(1, options.epochs + 1):
        error = sigmoid(inputs @ weights) - labels
        weights -= config["rate"] * inputs.T @ error / len(labels)
        chance = sigmoid(val_inputs @ weights)
        print(
            f"epoch {epoch}: loss={cross_entropy(sigmoid(inputs @ weights), labels):.4f}"
            f" val_loss={cross_entropy(chance, val_labels):.4f}"
            f" val_accuracy={np.mean((chance > 0.5) == val_labels):.3f}"
        )


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Return the logistic function of values."""
    return 1 / (1 + np.exp(-values))


def cross_entropy(chance: np.ndarray, labels: np.ndarray) -> float:
    """Return the loss of predicted chances."""
    return float(-np.mean(np.log(np.where(labels == 1, chance, 1 - chance))))


if __name__ == "__main__":
    main()
