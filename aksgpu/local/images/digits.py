"""Images of digits in the format of MNIST, for machines that do not have the MNIST files.

``digits.npz`` contains digits of several fonts. ``tests/extract_digits.py`` creates the file. Each image is one of the
digits, randomly sheared, rotated, scaled and shifted, with noise. Training and test images come from different fonts,
so that the accuracy on the test images measures how well the shapes of digits were learned, and not how well fonts were
memorized.

The images are identical on every machine. The computation uses only additions, multiplications, divisions and square
roots. IEEE 754 defines their rounding, unlike that of ``sin`` and ``exp``. NumPy guarantees the numbers of
``RandomState``.
"""

from __future__ import annotations

from importlib import resources

import numpy as np
import numpy.typing as npt

SIZE = 28
"""Pixels per side."""
PARTS = 64
"""Parts of a pixel. The file contains the number of parts that are ink."""
CHUNK = 500
"""Number of images that are drawn at a time, to limit the memory of temporary arrays."""

TRAIN_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
    "cmr10",
    "cmb10",
)
TEST_FONTS = ("DejaVuSerif-Italic", "DejaVuSansMono-BoldOblique", "STIXGeneralItalic", "cmss10", "cmtt10")

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]


def draw(fonts: tuple[str, ...], count: int, seed: int) -> tuple[Bytes, Bytes]:
    """Draw images of digits.

    Args:
        fonts: names of fonts in ``digits.npz``.
        count: number of images.
        seed: the same seed draws the same images.

    Returns:
        The images, ``(count, 784)`` from 0 for background to 255 for ink, and their labels, ``(count,)`` from 0 to 9.
    """
    glyphs = _load_glyphs(fonts)
    random = np.random.RandomState(seed)
    chosen = random.randint(0, len(glyphs), count)
    images = np.empty((count, SIZE * SIZE), np.uint8)
    for start in range(0, count, CHUNK):
        part = slice(start, min(start + CHUNK, count))
        images[part] = _distort(glyphs, chosen[part], random)
    return images, (chosen % 10).astype(np.uint8)


def _load_glyphs(fonts: tuple[str, ...]) -> Floats:
    """Return the digits of fonts one after another, ``(10 * fonts, 28, 28)``, from 0 to 1."""
    with resources.files("aksgpu.local.images").joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        return np.concatenate([arrays[font] for font in fonts]) / PARTS


def _distort(glyphs: Floats, chosen: npt.NDArray[np.int64], random: np.random.RandomState) -> Bytes:
    """Return an affine image of each chosen glyph, with noise."""

    def uniform(low: float, high: float) -> Floats:
        return low + (high - low) * random.random_sample((len(chosen), 1, 1))

    half = uniform(-0.08, 0.08)  # sine and cosine follow from the tangent of half the angle
    cosine = (1 - half * half) / (1 + half * half)
    sine = 2 * half / (1 + half * half)
    shear = uniform(-0.25, 0.25)
    width = uniform(0.8, 1.2)
    height = uniform(0.85, 1.15)
    middle = (SIZE - 1) / 2
    x = np.arange(SIZE)[None, None, :] - middle - uniform(-1.5, 1.5)
    y = np.arange(SIZE)[None, :, None] - middle - uniform(-1.5, 1.5)
    u = (cosine * x + sine * y) / width
    v = (cosine * y - sine * x) / height
    ink = _sample(glyphs, chosen, u + shear * v + middle, v + middle) * uniform(0.6, 1.0)
    grain = random.random_sample(ink.shape) + random.random_sample(ink.shape) - 1
    noisy = ink + grain * uniform(0.1, 0.6)
    return np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8).reshape(len(chosen), -1)


def _sample(glyphs: Floats, chosen: npt.NDArray[np.int64], u: Floats, v: Floats) -> Floats:
    """Interpolate the glyphs at the points (u, v)."""
    u = np.clip(u, 0, SIZE - 1.001)
    v = np.clip(v, 0, SIZE - 1.001)
    column = np.floor(u)
    row = np.floor(v)
    right = u - column
    down = v - row
    flat = glyphs.reshape(-1)
    index = chosen[:, None, None] * (SIZE * SIZE) + row.astype(np.int64) * SIZE + column.astype(np.int64)
    top = flat[index] * (1 - right) + flat[index + 1] * right
    bottom = flat[index + SIZE] * (1 - right) + flat[index + SIZE + 1] * right
    return np.asarray(top * (1 - down) + bottom * down)
