"""Keras 3 with one line per epoch."""

from keras_common import train

train(2, "Keras 3, one line an epoch")
