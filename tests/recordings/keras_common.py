"""A small classifier whose history gives the true values."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
from truth import Truth


def train(verbose: int, family: str) -> None:
    """Train for three epochs with validation, then evaluate."""
    truth = Truth(family, "keras", "torch", tolerance=5e-5)
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(512, 8)).astype("float32")
    labels = (features[:, 0] > 0).astype("int32")
    model = keras.Sequential([keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(features[:384], labels[:384], validation_split=0.25, epochs=3, verbose=verbose)
    for epoch in range(3):
        for metric, values in history.history.items():
            truth.add(metric, values[epoch], epoch=epoch + 1)
    tested = model.evaluate(features[384:], labels[384:], verbose=verbose, return_dict=True)
    for metric, value in tested.items():
        truth.add(f"eval_{metric}", value, printed=metric)
    truth.save()
