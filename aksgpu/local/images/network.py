"""A small neural network whose training gives identical results on every machine.

It has one hidden layer of rectified units, softmax, cross-entropy, dropout and Adam, like the network of the tutorial's
TensorFlow program. Only :mod:`aksgpu.local.images.mnist` uses it.

Notebooks store accuracies, which are compared with those of other machines. The order in which a matrix product is
added up depends on the CPU, BLAS and the number of threads. Floating-point addition is not associative, and training
amplifies the last bit into a visible digit within a few hundred steps. Therefore every factor of a matrix product is
bounded and a multiple of a power of two, so that all partial sums fit into the 53 bits of a double. Products are then
*exact* in any order. The table shows (fraction bits, integer bits). The bits of a product are the sum of the bits of
its factors and of its number of terms.

    images     (8, 0)     first weights   (26, 3)     784 terms, 10 bits: 47
    hidden    (14, 6)     second weights  (22, 2)     512 terms,  9 bits: 53
    error     (18, 0)     times hidden, 4096 terms:   12 bits: 50; times second weights, 10 terms: 4 bits: 46
    back      (18, 4)     times images, 4096 terms:   12 bits: 42

Everything else is elementwise and uses only +, -, *, / and square roots, whose rounding IEEE 754 defines. IEEE 754 does
not define ``exp``, so :func:`_exp` computes it from these operations.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

MAX_HIDDEN = 512


def scale(images: Bytes) -> Floats:
    """Scale pixels from 0..255 to 0..1 (exclusive), as multiples of a power of two."""
    return np.asarray(images / np.float64(256))


class Network:
    """A classifier of images.

    Args:
        pixels: number of pixels of an image.
        hidden: units of the hidden layer, at most MAX_HIDDEN.
        classes: number of labels.
        learning_rate: Adam's step size.
        random: the source of the initial weights and of dropout.
    """

    def __init__(
        self, pixels: int, hidden: int, classes: int, *, learning_rate: float, random: np.random.RandomState
    ) -> None:
        def weights(*shape: int) -> Floats:  # Glorot and Bengio 2010
            return (2 * random.random_sample(shape) - 1) * math.sqrt(6 / sum(shape))

        self._random = random
        self._weights_1 = _Parameter(weights(pixels, hidden), 26, 3, learning_rate)
        self._bias_1 = _Parameter(np.zeros(hidden), 26, 3, learning_rate)
        self._weights_2 = _Parameter(weights(hidden, classes), 22, 2, learning_rate)
        self._bias_2 = _Parameter(np.zeros(classes), 22, 2, learning_rate)

    def accuracy(self, images: Floats, labels: Bytes) -> float:
        """Return the share of images whose label is predicted correctly."""
        right = np.count_nonzero(self._scores(self._hidden(images)).argmax(axis=1) == labels)
        return float(right / len(labels))

    def train(self, images: Floats, labels: Bytes, *, keep: float) -> None:
        """Learn from one batch of at most 4096 images.

        Args:
            images: ``(batch, pixels)`` from :func:`scale`.
            labels: ``(batch,)``.
            keep: the probability that dropout keeps a hidden unit; 1 disables dropout.
        """
        hidden = self._hidden(images)
        if keep < 1:
            kept = self._random.random_sample(hidden.shape) < keep
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
    """Weights or biases, with Adam's two moments."""

    def __init__(self, value: Floats, fraction_bits: int, integer_bits: int, rate: float) -> None:
        self._fraction_bits = fraction_bits
        self._integer_bits = integer_bits
        self._rate = rate
        self._mean = np.zeros(value.shape)
        self._square = np.zeros(value.shape)
        self._beta_1_power = 1.0
        self._beta_2_power = 1.0
        self.value = _on_grid(value, fraction_bits, integer_bits)

    def learn(self, gradient: Floats) -> None:
        """Do one step of Adam (Kingma and Ba 2015) with its usual constants."""
        self._beta_1_power *= 0.9  # 0.9**step would call the C library's pow
        self._beta_2_power *= 0.999
        self._mean += 0.1 * (gradient - self._mean)
        self._square += 0.001 * (gradient * gradient - self._square)
        rate = self._rate * math.sqrt(1 - self._beta_2_power) / (1 - self._beta_1_power)
        value = self.value - rate * self._mean / (np.sqrt(self._square) + 1e-8)
        self.value = _on_grid(value, self._fraction_bits, self._integer_bits)


def _on_grid(values: Floats, fraction_bits: int, integer_bits: int) -> Floats:
    """Round to multiples of 2**-fraction_bits, and clip to -2**integer_bits..2**integer_bits."""
    scaled = np.rint(values * 2.0**fraction_bits)
    limit = 2.0 ** (integer_bits + fraction_bits)
    return np.clip(scaled, -limit, limit) * 2.0**-fraction_bits


def _softmax(scores: Floats) -> Floats:
    powers = _exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / _on_grid(powers, 40, 0).sum(axis=1, keepdims=True))


def _exp(values: Floats) -> Floats:
    """Return the exponential of values up to 0, from a power of two and a Taylor polynomial (error below 1e-10)."""
    values = np.maximum(values, -600.0)
    twos = np.rint(values * 1.4426950408889634)
    rest = values - twos * 0.6931471805599453
    total = np.ones_like(rest)
    for term in range(9, 0, -1):
        total = 1 + rest * total / term
    return np.asarray(np.ldexp(total, twos.astype(np.int32)))
