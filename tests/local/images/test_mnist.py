"""The MNIST program: it learns, logs in the tutorial's format, and gives the same results on every machine."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from extract_digits import extract

from aksgpu import metrics
from aksgpu.local.images import digits, mnist, network

T4 = {
    "index": 0,
    "uuid": "GPU-8c7a2c44-0000-0000-0000-000000000000",
    "model": "Tesla T4",
    "memory_mib": 16384,
    "simulated": True,
    "pci_bus_id": "0001:00:00.0",
    "compute_capability": "7.5",
}


def run(*args: str, gpus: list[dict[str, Any]] | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "aksgpu.local.images.mnist", *args]
    environment = {**os.environ, "AKSGPU_GPUS": json.dumps(gpus or []), **env}
    return subprocess.run(program, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def whole() -> str:
    """The log of the tutorial's run: 500 steps on one simulated GPU."""
    done = run("--max_steps", "500", gpus=[T4])
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_it_learns_like_the_tutorials_program(whole: str) -> None:
    curve = metrics.parse(whole)
    assert list(curve["step"]) == list(range(0, 500, 10))
    accuracy = list(curve["accuracy"])
    assert accuracy[0] < 0.2, "untrained"
    assert 0.4 < accuracy[1] < 0.9, "neither a jump nor a crawl"
    assert 0.93 < accuracy[-1] < 0.98
    assert any(b < a for a, b in itertools.pairwise(accuracy)), "real curves are not smooth"


def test_the_log_has_the_tutorials_format(whole: str) -> None:
    lines = [line for line in whole.splitlines() if not line.startswith("Accuracy")]
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}: I aksgpu/local/images/mnist.py\] "
    expected = [
        stamp + r"Found device 0 with properties: ",
        r"name: Tesla T4 \(simulated\) major: 7 minor: 5",
        r"pciBusID: 0001:00:00.0",
        r"totalMemory: 16.00GiB",
        stamp + r"Creating TensorFlow device \(/device:GPU:0\) -> \(device: 0, name: Tesla T4 \(simulated\), "
        r"pci bus id: 0001:00:00.0, compute capability: 7.5\)",
        r"This GPU is simulated: .*",
        r"Drawing 6000 digits .*",
        *[f"Adding run metadata for {step}" for step in (99, 199, 299, 399, 499)],
    ]
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line


def test_the_log_names_the_device(whole: str) -> None:
    assert metrics.facts(whole) == {
        "gpu_model": "Tesla T4",
        "device": "/device:GPU:0",
        "memory": "16.00GiB",
        "simulated": True,
        "error": None,
    }
    real = run("--max_steps", "1", gpus=[{**T4, "simulated": False}]).stdout
    assert "A real GPU is assigned, but this stand-in for the image computes with numpy on the CPU." in real
    assert "imulated" not in real


def test_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    mnist._log_devices([])
    assert "No GPU is assigned to this process: training on /device:CPU:0" in capsys.readouterr().out


@pytest.mark.parametrize(
    "machine",
    [
        {"OPENBLAS_NUM_THREADS": "2"},
        {"OPENBLAS_CORETYPE": "Prescott"},
        {"OPENBLAS_CORETYPE": "Haswell", "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512_SKX AVX512_ICL"},
    ],
    ids=["threads", "old", "without-avx512"],
)
def test_results_do_not_depend_on_the_machine(whole: str, machine: dict[str, str]) -> None:
    other = run("--max_steps", "151", **machine)
    assert other.returncode == 0
    assert metrics.parse(other.stdout).equals(metrics.parse(whole).iloc[:16])


def test_seed_and_arguments_matter(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = mnist._draw_data()
    monkeypatch.setattr(mnist, "_draw_data", lambda: drawn)

    def curve(*args: str) -> list[float]:
        assert mnist.main(["--max_steps", "11", *args]) == 0
        return list(metrics.parse(capsys.readouterr().out)["accuracy"])

    usual = curve()
    assert usual == curve("--seed", "0", "--learning_rate", "0.001", "--dropout", "0.9")
    for other in (["--seed", "1"], ["--learning_rate", "0.01"], ["--dropout", "0.5"]):
        assert curve(*other) != usual


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--max_steps", "many"], "invalid int value: 'many'"),
        (["--max_steps", "0"], "must be from 1 to 1000000000, got 0"),
        (["--learning_rate", "0"], "must be from 1e-09 to 1, got 0.0"),
        (["--learning_rate", "nan"], "must be from 1e-09 to 1, got nan"),
        (["--dropout", "1.1"], "must be from 1e-09 to 1, got 1.1"),
        (["--seed", "-1"], "must be from 0 to 4294967295, got -1"),
        (["--max_step", "1", "--bogus"], "unrecognized arguments: --bogus"),
    ],
)
def test_bad_arguments(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        mnist.main(args)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def write_idx(folder: Path, *, count: int = 200, pack: bool = False) -> None:
    """Write MNIST's four files, filled with drawn digits."""
    images, labels = digits.draw(digits.TRAIN_FONTS, count, seed=3)
    for name in mnist._FILES:
        values = images.reshape(-1, 28, 28) if "images" in name else labels
        content = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()
        (folder / (f"{name}.gz" if pack else name)).write_bytes(gzip.compress(content) if pack else content)


@pytest.mark.parametrize("pack", [False, True])
def test_mnist_files_are_used(tmp_path: Path, pack: bool) -> None:
    write_idx(tmp_path, pack=pack)
    done = run("--data_dir", str(tmp_path), "--max_steps", "50")
    assert done.returncode == 0
    assert done.stdout.count(f"Extracting {tmp_path}") == 4
    assert "Drawing" not in done.stdout
    assert metrics.parse(done.stdout)["accuracy"].iloc[-1] > 0.5


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.unlink(), "has some of MNIST's files, but not t10k-labels-idx1-ubyte"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "damaged"),
        (lambda file: file.write_bytes(b"<html>403 Forbidden</html>"), "damaged"),
        (lambda file: file.write_bytes(b""), "damaged"),
        (lambda file: file.write_bytes(struct.pack(">HBBI", 0, 8, 1, 1) + b"\1"), "200 images and 1 labels"),
    ],
)
def test_bad_files(tmp_path: Path, spoil: Any, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_idx(tmp_path)
    spoil(tmp_path / mnist._FILES[-1])
    assert mnist.main(["--data_dir", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


def test_training_and_test_fonts_differ() -> None:
    assert not set(digits.TRAIN_FONTS) & set(digits.TEST_FONTS)


def test_the_file_of_digits_matches_its_generator() -> None:
    for font in (*digits.TRAIN_FONTS, *digits.TEST_FONTS):
        assert (digits._load_glyphs((font,)) == extract(font) / digits.PARTS).all()


def test_drawn_digits() -> None:
    images, labels = digits.draw(digits.TEST_FONTS, 50, seed=7)
    assert images.shape == (50, 784)
    assert images.dtype == labels.dtype == np.uint8
    again, _ = digits.draw(digits.TEST_FONTS, 50, seed=7)
    assert (images == again).all()
    zero = digits._load_glyphs(("DejaVuSans",))[0]
    assert zero.shape == (28, 28)
    assert zero[14, 14] == 0, "a zero has a hole"
    assert zero[:4].sum() == zero[-4:].sum() == 0, "and a margin"
    assert zero.max() == 1


def test_exponential_without_the_c_library() -> None:
    values = -np.logspace(-8, 2.5, 500)
    assert np.allclose(network._exp(values), np.exp(values), rtol=1e-9, atol=0)


def test_matrix_products_are_exact() -> None:
    """The order of summation does not change the largest products that the network's bounds allow."""
    chance = np.random.RandomState(0)
    hidden = network._on_grid(chance.random_sample((8, network.MAX_HIDDEN)) * 128, 14, 6)
    weights = network._on_grid(chance.random_sample((network.MAX_HIDDEN, 10)) * 8 - 4, 22, 2)
    order = chance.permutation(network.MAX_HIDDEN)
    assert (hidden @ weights == hidden[:, order] @ weights[order]).all()
    assert (hidden @ weights == np.add.reduce(hidden[:, :, None] * weights[None], axis=1)).all()
