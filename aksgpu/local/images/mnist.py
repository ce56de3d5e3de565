"""The program for the tutorial's image ``samples-tf-mnist-demo:gpu`` on the laptop AKS.

It accepts the arguments of TensorFlow's ``mnist_with_summaries.py``, logs in its format, and trains a network. Every
accuracy is measured on held-out images. It does not use a GPU: NumPy computes on the CPU, and the log says so. It reads
the MNIST files in ``--data_dir``. Without them, it draws digits (see :mod:`aksgpu.local.images.digits`). With the same
seed, a run has the same results on every machine (see :mod:`aksgpu.local.images.network`).

    python -m aksgpu.local.images.mnist --max_steps 500
"""

from __future__ import annotations

import argparse
import gzip
import struct
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aksgpu.local.images import digits, given_gpus
from aksgpu.local.images.network import Bytes, Network, scale

_HIDDEN = 256
"""Units of the hidden layer. The original has 500."""
_BATCH = 100
"""Images per step."""
_TRAIN_IMAGES = 6000
_TEST_IMAGES = 2000
"""Numbers of images to draw if the MNIST files do not exist."""
_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

_NUMBERS: dict[str, tuple[type, float, float, float, str]] = {
    "max_steps": (int, 1, 10**9, 500, "training steps"),
    "learning_rate": (float, 1e-9, 1, 0.001, "step size of Adam"),
    "dropout": (float, 1e-9, 1, 0.9, "probability of keeping a unit in training"),
    "seed": (int, 0, 2**32 - 1, 0, "seed of all random numbers"),
}
"""Numeric arguments: type, minimum, maximum, default, help."""


class BadData(Exception):
    """The MNIST files cannot be used."""


class Data(NamedTuple):
    """Images, ``(count, pixels)``, and their labels, ``(count,)``, for training and for testing."""

    train_images: Bytes
    train_labels: Bytes
    test_images: Bytes
    test_labels: Bytes


def main(argv: Sequence[str] | None = None) -> int:
    """Train and log. The exit code is 0, 1 for unusable data, or 2 for invalid arguments."""
    options = _parse_arguments(argv)
    try:
        _log_devices(given_gpus())
        data = load(options.data_dir) or _draw_data()
    except BadData as error:
        print(f"mnist: {error}", file=sys.stderr)
        return 1
    for line in train(data, options):
        print(line, flush=True)
    return 0


def train(data: Data, options: argparse.Namespace) -> Iterator[str]:
    """Train, and yield the lines to log. As in the original, every tenth step only measures the accuracy."""
    random = np.random.RandomState(options.seed)  # unlike default_rng, its numbers never change
    network = Network(data.train_images.shape[1], _HIDDEN, 10, learning_rate=options.learning_rate, random=random)
    test_images = scale(data.test_images)
    batches = _batches(len(data.train_images), random)
    for step in range(options.max_steps):
        if step % 10 == 0:
            yield f"Accuracy at step {step}: {round(network.accuracy(test_images, data.test_labels), 4)}"
        else:
            batch = next(batches)
            network.train(scale(data.train_images[batch]), data.train_labels[batch], keep=options.dropout)
        if step % 100 == 99:
            yield f"Adding run metadata for {step}"


def _batches(count: int, random: np.random.RandomState) -> Iterator[npt.NDArray[np.int64]]:
    size = min(_BATCH, count)
    while True:
        order = random.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mnist", description="Train a small network on images of digits.")
    for name, (kind, _, _, default, what) in _NUMBERS.items():
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{what} (%(default)s)")
    parser.add_argument(
        "--data_dir",
        type=Path,
        default="/tmp/tensorflow/mnist/input_data",
        help="directory of MNIST's four IDX files, gzipped or not; without them, digits are drawn (%(default)s)",
    )
    options = parser.parse_args(argv)
    for name, (_, low, high, _, _) in _NUMBERS.items():
        if not low <= getattr(options, name) <= high:
            parser.error(f"argument --{name}: must be from {low} to {high}, got {getattr(options, name)}")
    return options


def _log_devices(gpus: list[dict[str, Any]]) -> None:
    """Log the GPUs as TensorFlow does, and the device that computes.

    Args:
        gpus: the value of AKSGPU_GPUS, see :mod:`aksgpu.local.images`.
    """
    if not gpus:
        _log("No GPU is assigned to this process: training on /device:CPU:0")
    for number, gpu in enumerate(gpus):
        capability = gpu["compute_capability"]
        bus = gpu["pci_bus_id"]
        major, minor = capability.split(".")
        name = gpu["model"] + (" (simulated)" if gpu["simulated"] else "")
        _log(f"Found device {number} with properties: ")
        print(f"name: {name} major: {major} minor: {minor}")
        print(f"pciBusID: {bus}")
        print(f"totalMemory: {gpu['memory_mib'] / 1024:.2f}GiB")
        about = f"device: {number}, name: {name}, pci bus id: {bus}, compute capability: {capability}"
        _log(f"Creating TensorFlow device (/device:GPU:{number}) -> ({about})")
    if any(gpu["simulated"] for gpu in gpus):
        print("This GPU is simulated: there is none in this machine. numpy on the CPU does the work.", flush=True)
    elif gpus:
        print("A real GPU is assigned, but this stand-in for the image computes with numpy on the CPU.", flush=True)


def _log(text: str) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    print(f"{now}: I aksgpu/local/images/mnist.py] {text}", flush=True)


def _draw_data() -> Data:
    sizes = f"{_TRAIN_IMAGES} digits to train with and {_TEST_IMAGES}, in other fonts, to test with"
    print(f"Drawing {sizes} (not MNIST)", flush=True)
    train_images, train_labels = digits.draw(digits.TRAIN_FONTS, _TRAIN_IMAGES, seed=0)
    test_images, test_labels = digits.draw(digits.TEST_FONTS, _TEST_IMAGES, seed=1)
    return Data(train_images, train_labels, test_images, test_labels)


def load(folder: Path) -> Data | None:
    """Read MNIST from its files.

    Args:
        folder: the directory of the four IDX files, gzipped (``.gz``) or not.

    Returns:
        None if none of the files exists.

    Raises:
        BadData: some of the files are missing, or one is damaged or does not match the others.
    """
    found = {name: file for name in _FILES for file in (folder / f"{name}.gz", folder / name) if file.is_file()}
    if not found:
        return None
    missing = [name for name in _FILES if name not in found]
    if missing:
        raise BadData(f"{folder} has some of MNIST's files, but not {', '.join(missing)}")
    data = Data(*(_read_idx(found[name]) for name in _FILES))
    for images, labels in (data[:2], data[2:]):
        if len(images) != len(labels) or len(labels) == 0 or labels.max() > 9 or images[0].size != 784:
            both = f"{len(images)} images and {len(labels)} labels"
            raise BadData(f"{folder}: {both} do not match, or the images do not have 28x28 pixels")
    return data


def _read_idx(file: Path) -> Bytes:
    """Read a file in IDX format: two zeros, the type, the number of dimensions, the dimensions, the values."""
    print(f"Extracting {file}", flush=True)
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        magic, dimensions = struct.unpack_from(">3sB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        if magic != b"\0\0\x08":  # unsigned bytes
            raise ValueError("wrong magic number")
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
        return values.reshape(shape if dimensions == 1 else (shape[0], -1))
    except (OSError, EOFError, IndexError, ValueError, struct.error) as error:
        raise BadData(f"{file} is damaged, or is not an IDX file of unsigned bytes: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
