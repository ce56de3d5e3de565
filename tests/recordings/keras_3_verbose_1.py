"""Keras 3 with its progress bars."""

from keras_common import train

train(1, "Keras 3, progress bars")
