"""A small neural network that learns the same, to the last bit, on every machine.

One hidden layer of rectified units, softmax, cross-entropy, dropout, Adam: the network of the tutorial's TensorFlow
program, smaller. It is no framework; :mod:`aksgpu.local.images.mnist` is its only user.

Why the same bits matter: an accuracy that is printed in a notebook is compared with the one stored there, on another
CPU, with another BLAS, on more threads. Each of those adds up a matrix product in another order, floating point
addition is not associative, and training amplifies the last bit into a visible digit within a few hundred steps. So
every factor of a matrix product is kept on a fixed grid, a multiple of a power of two, and within bounds, such that
all partial sums fit into the 53 bits of a double: products are then *exact*, whatever the order. The table gives
(bits behind the point, bits before it); a product's bits are those of its factors and of its number of terms.

    images     (8, 0)     first weights   (26, 3)     784 terms, 10 bits: 47
    hidden    (14, 6)     second weights  (22, 2)     512 terms,  9 bits: 53
    error     (18, 0)     times hidden, 4096 terms:   12 bits: 50; times second weights, 10 terms: 4 bits: 46
    back      (18, 4)     times images, 4096 terms:   12 bits: 42

What is left is elementwise and uses only +, -, *, / and square roots, which IEEE 754 rounds in one way. ``exp`` it
does not, so :func:`_exp` makes it from those.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

MAX_HIDDEN = 512


def scale(images: Bytes) -> Floats:
    """Pixels of 0 to 255 as numbers of 0 to just below 1, on the grid."""
    return np.asarray(images / np.float64(256))


class Network:
    """Images in, labels out.

    Args:
        pixels: of an image.
        hidden: units of the hidden layer, at most MAX_HIDDEN.
        classes: labels there are.
        learning_rate: Adam's step size.
        chance: where the initial weights and the dropout come from.
    """

    def __init__(
        self, pixels: int, hidden: int, classes: int, *, learning_rate: float, chance: np.random.RandomState
    ) -> None:
        def weights(*shape: int) -> Floats:  # Glorot and Bengio 2010
            return (2 * chance.random_sample(shape) - 1) * math.sqrt(6 / sum(shape))

        self._chance = chance
        self._weights_1 = _Parameter(weights(pixels, hidden), 26, 3, learning_rate)
        self._bias_1 = _Parameter(np.zeros(hidden), 26, 3, learning_rate)
        self._weights_2 = _Parameter(weights(hidden, classes), 22, 2, learning_rate)
        self._bias_2 = _Parameter(np.zeros(classes), 22, 2, learning_rate)

    def accuracy(self, images: Floats, labels: Bytes) -> float:
        """The share of images whose label is found. Nothing is dropped, nothing is learnt."""
        right = np.count_nonzero(self._scores(self._hidden(images)).argmax(axis=1) == labels)
        return float(right / len(labels))

    def train(self, images: Floats, labels: Bytes, *, keep: float) -> None:
        """Learn from one batch of at most 4096 images.

        Args:
            images: ``(batch, pixels)`` from :func:`scale`.
            labels: ``(batch,)``.
            keep: the probability that dropout keeps a hidden unit; 1 keeps all.
        """
        hidden = self._hidden(images)
        if keep < 1:
            kept = self._chance.random_sample(hidden.shape) < keep
            hidden = _on_grid(hidden * kept / keep, 14, 6)
        error = _softmax(self._scores(hidden))
        error[np.arange(len(labels)), labels] -= 1
        error = _on_grid(error, 18, 0)
        back = error @ self._weights_2.value.T
        back = _on_grid(np.where(hidden > 0, back / keep, 0), 18, 4)
        self._weights_2.learn(hidden.T @ error / len(labels))
        self._bias_2.learn(error.sum(axis=0) / len(labels))
        self._weights_1.learn(images.T @ back / len(labels))
        self._bias_1.learn(back.sum(axis=0) / len(labels))

    def _hidden(self, images: Floats) -> Floats:
        return _on_grid(np.maximum(images @ self._weights_1.value + self._bias_1.value, 0), 14, 6)

    def _scores(self, hidden: Floats) -> Floats:
        return np.asarray(hidden @ self._weights_2.value + self._bias_2.value)


class _Parameter:
    """Weights or biases on their grid, with Adam's two moments."""

    def __init__(self, value: Floats, behind: int, before: int, rate: float) -> None:
        self._behind = behind
        self._before = before
        self._rate = rate
        self._mean, self._square = np.zeros(value.shape), np.zeros(value.shape)
        self._fade_1 = self._fade_2 = 1.0
        self.value = _on_grid(value, behind, before)

    def learn(self, gradient: Floats) -> None:
        """One step of Adam (Kingma and Ba 2015) with its usual constants."""
        self._fade_1 *= 0.9  # not 0.9**step: pow is the C library's
        self._fade_2 *= 0.999
        self._mean += 0.1 * (gradient - self._mean)
        self._square += 0.001 * (gradient * gradient - self._square)
        rate = self._rate * math.sqrt(1 - self._fade_2) / (1 - self._fade_1)
        value = self.value - rate * self._mean / (np.sqrt(self._square) + 1e-8)
        self.value = _on_grid(value, self._behind, self._before)


def _on_grid(values: Floats, behind: int, before: int) -> Floats:
    """Round to multiples of 2**-behind, and keep between -2**before and 2**before."""
    scaled = np.rint(values * 2.0**behind)
    return np.clip(scaled, -(2.0 ** (before + behind)), 2.0 ** (before + behind)) * 2.0**-behind


def _softmax(scores: Floats) -> Floats:
    powers = _exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / _on_grid(powers, 40, 0).sum(axis=1, keepdims=True))


def _exp(values: Floats) -> Floats:
    """The exponential of values up to 0, by a power of two and Taylor's polynomial (to 1e-10)."""
    values = np.maximum(values, -600.0)
    twos = np.rint(values * 1.4426950408889634)
    rest = values - twos * 0.6931471805599453
    total = np.ones_like(rest)
    for term in range(9, 0, -1):
        total = 1 + rest * total / term
    return np.asarray(np.ldexp(total, twos.astype(np.int32)))
