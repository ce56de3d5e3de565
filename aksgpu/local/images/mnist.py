"""The program behind the tutorial's image ``samples-tf-mnist-demo:gpu`` on the laptop AKS.

It stands in for TensorFlow's ``mnist_with_summaries.py``: it takes its arguments, logs in its format, and really
trains; every accuracy is measured on held-out images. It does not use a GPU: numpy does the work on the CPU, and the
log says so. MNIST itself is read where its files are (``--data_dir``); elsewhere digits are drawn, see
:mod:`aksgpu.local.images.digits`. A seed makes a run repeatable on any machine, see
:mod:`aksgpu.local.images.network`.

    python -m aksgpu.local.images.mnist --max_steps 500
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]

_HIDDEN = 256  # units; the original has 500
_TRAIN_IMAGES, _TEST_IMAGES = 6000, 2000  # drawn
_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class BadData(Exception):
    """MNIST files that cannot be used."""


class Data(NamedTuple):
    """Images (count, pixels) and their labels (count,), for training and for testing."""

    train_images: Bytes
    train_labels: Bytes
    test_images: Bytes
    test_labels: Bytes


def main(argv: Sequence[str] | None = None) -> int:
    """Train, and log; the exit code is 0, 1 for unusable data, 2 for arguments that cannot be right."""
    options = _arguments().parse_args(argv)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is loaded: more only get in each other's way
    try:
        _log_devices(json.loads(os.environ.get("AKSGPU_GPUS") or "[]"))
        data = load(Path(options.data_dir)) or _drawn()
    except BadData as error:
        print(f"mnist: {error}", file=sys.stderr)
        return 1
    for line in train(data, options):
        print(line, flush=True)
    return 0


def train(data: Data, options: argparse.Namespace) -> Iterator[str]:
    """The original's loop: every tenth step measures instead of learning. Gives the lines to log."""
    import numpy as np

    from aksgpu.local.images.network import Network, scale

    chance = np.random.RandomState(options.seed)  # not default_rng: only RandomState's numbers are promised to stay
    network = Network(data.train_images.shape[1], _HIDDEN, 10, learning_rate=options.learning_rate, chance=chance)
    test_images = scale(data.test_images)
    batches = _batches(len(data.train_images), options.batch_size, chance)
    for step in range(options.max_steps):
        if step % 10 == 0:
            yield f"Accuracy at step {step}: {round(network.accuracy(test_images, data.test_labels), 4)}"
        else:
            batch = next(batches)
            network.train(scale(data.train_images[batch]), data.train_labels[batch], keep=options.dropout)
        if step % 100 == 99:
            yield f"Adding run metadata for {step}"


def _batches(count: int, size: int, chance: np.random.RandomState) -> Iterator[npt.NDArray[np.int64]]:
    size = min(size, count)
    while True:
        order = chance.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mnist", description="Train a small network on images of digits.")
    parser.add_argument("--max_steps", type=_number(int, 1, 10**9), default=500, help="training steps (%(default)s)")
    parser.add_argument("--learning_rate", type=_number(float, 0, 1), default=0.001, help="of Adam (%(default)s)")
    parser.add_argument(
        "--dropout", type=_number(float, 0, 1), default=0.9, help="probability to keep a unit in training (%(default)s)"
    )
    parser.add_argument("--batch_size", type=_number(int, 1, 4096), default=100, help="images a step (%(default)s)")
    parser.add_argument("--seed", type=_number(int, 0, 2**32 - 1), default=0, help="of all chance (%(default)s)")
    parser.add_argument(
        "--data_dir",
        default="/tmp/tensorflow/mnist/input_data",
        help="where MNIST's four IDX files are, gzipped or not; without them, digits are drawn (%(default)s)",
    )
    return parser


def _number(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], float]:
    """A type for argparse: whole numbers from low to high, or others above low, up to high."""

    def number(text: str) -> float:
        value = kind(text)
        if kind is int and not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not from {low} to {high}")
        if kind is float and not low < value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not above {low} and up to {high}")
        return value

    number.__name__ = "whole number" if kind is int else "number"  # argparse's message names it
    return number


def _log_devices(gpus: list[dict[str, Any]]) -> None:
    """What TensorFlow logs about the GPUs that it finds, and who really computes.

    Args:
        gpus: as :mod:`aksgpu.local.images` describes AKSGPU_GPUS.
    """
    if not gpus:
        _log("No GPU is assigned to this process: training on /device:CPU:0")
    for number, gpu in enumerate(gpus):
        major, _, minor = str(gpu["compute_capability"]).partition(".")
        name = gpu["model"] + (" (simulated)" if gpu["simulated"] else "")
        _log(f"Found device {number} with properties: ")
        print(f"name: {name} major: {major} minor: {minor or 0}")
        print(f"pciBusID: {gpu['pci_bus_id']}")
        print(f"totalMemory: {gpu['memory_mib'] / 1024:.2f}GiB")
        _log(
            f"Creating TensorFlow device (/device:GPU:{number}) -> (device: {number}, name: {name}, "
            f"pci bus id: {gpu['pci_bus_id']}, compute capability: {major}.{minor or 0})"
        )
    if any(gpu["simulated"] for gpu in gpus):
        print("This GPU is simulated: there is none in this machine. numpy on the CPU does the work.", flush=True)
    elif gpus:
        print("A real GPU is assigned, but this stand-in for the image computes with numpy on the CPU.", flush=True)


def _log(text: str) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    print(f"{now}: I aksgpu/local/images/mnist.py] {text}", flush=True)


def _drawn() -> Data:
    from aksgpu.local.images import digits

    print(
        f"Drawing {_TRAIN_IMAGES} digits to train with and {_TEST_IMAGES}, in other fonts, to test with (not MNIST)",
        flush=True,
    )
    train_images, train_labels = digits.draw(digits.TRAIN_FONTS, _TRAIN_IMAGES, seed=0)
    test_images, test_labels = digits.draw(digits.TEST_FONTS, _TEST_IMAGES, seed=1)
    return Data(train_images, train_labels, test_images, test_labels)


def load(folder: Path) -> Data | None:
    """MNIST from its files.

    Args:
        folder: where the four IDX files are, gzipped (``.gz``) or not.

    Returns:
        None when none of the files is there.

    Raises:
        BadData: some are missing, or one is damaged or does not fit the others.
    """
    found = [_find(folder, name) for name in _FILES]
    if not any(found):
        return None
    if missing := [name for name, file in zip(_FILES, found, strict=True) if file is None]:
        raise BadData(f"{folder} has some of MNIST's files, but not {', '.join(missing)}")
    data = Data(*(_read_idx(file) for file in found if file is not None))
    for images, labels in (data[:2], data[2:]):
        if len(images) != len(labels) or len(labels) == 0 or labels.max() > 9:
            raise BadData(f"{folder}: {len(images)} images and {len(labels)} labels do not go together")
    if data.train_images.shape[1] != 784 or data.test_images.shape[1] != 784:
        raise BadData(f"{folder}: images are not 28x28 pixels")
    return data


def _find(folder: Path, name: str) -> Path | None:
    return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)


def _read_idx(file: Path) -> Bytes:
    """A file of the IDX format: two zeros, the type, the number of dimensions, the dimensions, the values."""
    import numpy as np

    print(f"Extracting {file}", flush=True)
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        zeros, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
        if zeros != 0 or kind != 8 or not shape:  # 8: unsigned bytes
            raise ValueError("wrong magic number")
        return values.reshape(shape if dimensions == 1 else (shape[0], -1))
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise BadData(f"{file} is no IDX file of unsigned bytes, or damaged: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
