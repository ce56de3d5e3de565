"""Handwriting for the poor: 28x28 images of digits, drawn from the fonts that matplotlib ships.

They stand in for the MNIST files where nobody has them. A glyph's outline is read as vectors in whole font units and
filled by a scan line filler below, so that no font rasteriser's version or hinting shows. Each image is then sheared,
turned, scaled and shifted by chance, and made noisy. Training and test images come from different *fonts*, so that the
accuracy on the test images says how well the digits' shapes were learnt, not how well some fonts were memorised.

The images are the same to the last bit wherever they are drawn: only additions, multiplications, divisions and square
roots are used, which IEEE 754 rounds in one way (``sin`` and ``exp`` it leaves to each library), and NumPy's
``RandomState``, whose numbers are frozen.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from fontTools.pens.basePen import BasePen
from fontTools.ttLib import TTFont

SIZE = 28  # pixels a side, as MNIST has them
_GLYPH = 20  # pixels of the longer side of a glyph before it is distorted, as in MNIST
_FINE = 8  # subsamples a pixel and axis
_CURVE = 6  # straight pieces that a curve is cut into

TRAIN_FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold"),
    *("DejaVuSerif-Bold", "DejaVuSerif-BoldItalic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralBolIta"),
    *("cmr10", "cmb10"),
)
TEST_FONTS = ("DejaVuSerif-Italic", "DejaVuSansMono-BoldOblique", "STIXGeneralItalic", "cmss10", "cmtt10")

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]


def draw(fonts: tuple[str, ...], count: int, seed: int) -> tuple[Bytes, Bytes]:
    """Draw digits.

    Args:
        fonts: names of font files that matplotlib ships, without ``.ttf``.
        count: how many images.
        seed: the same seed draws the same images.

    Returns:
        Images, ``(count, 784)``, 0 is background and 255 ink; and their labels, 0 to 9.
    """
    masters = np.stack([_master(outline) for font in fonts for outline in _outlines(font)])
    chance = np.random.RandomState(seed)
    which = chance.randint(0, len(masters), count)
    images = np.empty((count, SIZE * SIZE), np.uint8)
    for start in range(0, count, 500):  # bounds the memory that the temporary arrays take
        part = slice(start, min(start + 500, count))
        images[part] = _distort(masters, which[part], chance)
    return images, (which % 10).astype(np.uint8)


def _font_file(font: str) -> Path:
    package = importlib.util.find_spec("matplotlib")  # found, not imported: that would take longer than the drawing
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / f"{font}.ttf"


class _Pen(BasePen):  # type: ignore[misc]
    """Draws a glyph as closed polygons, in font units."""

    def __init__(self, glyphs: Any) -> None:
        super().__init__(glyphs)
        self.polygons: list[list[tuple[float, float]]] = []

    def _moveTo(self, pt: tuple[float, float]) -> None:  # noqa: N802
        self.polygons.append([pt])

    def _lineTo(self, pt: tuple[float, float]) -> None:  # noqa: N802
        self.polygons[-1].append(pt)

    def _qCurveToOne(self, pt1: tuple[float, float], pt2: tuple[float, float]) -> None:  # noqa: N802
        start = self.polygons[-1][-1]
        for step in range(1, _CURVE + 1):
            t = step / _CURVE
            a = (1 - t) * (1 - t)
            b = 2 * t * (1 - t)
            c = t * t
            x, y = (a * start[axis] + b * pt1[axis] + c * pt2[axis] for axis in (0, 1))
            self.polygons[-1].append((x, y))


def _outlines(font: str) -> list[list[list[tuple[float, float]]]]:
    """The ten digits of a font, each a list of polygons."""
    logging.getLogger("fontTools").setLevel(logging.ERROR)  # old fonts have odd dates, which matter to nobody
    with TTFont(_font_file(font), lazy=True) as file:
        names = file.getBestCmap()
        glyphs = file.getGlyphSet()
        pens = [_Pen(glyphs) for _ in range(10)]
        for digit, pen in enumerate(pens):
            glyphs[names[ord("0") + digit]].draw(pen)
        return [pen.polygons for pen in pens]


def _master(polygons: list[list[tuple[float, float]]]) -> Floats:
    """A digit, filled: SIZE x SIZE, 0 to 1, its middle in the middle; the longer side is _GLYPH pixels."""
    corners = np.array([corner for polygon in polygons for corner in polygon])
    low = corners.min(axis=0)
    high = corners.max(axis=0)
    scale = _GLYPH * _FINE / (high - low).max()
    fine = SIZE * _FINE
    winding = np.zeros((fine, fine + 1))
    centres = np.arange(fine) + 0.5
    for polygon in polygons:
        points = (np.array(polygon) - (low + high) / 2) * scale * (1, -1) + fine / 2  # fonts' y points up
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            rows = np.nonzero((centres >= min(y0, y1)) & (centres < max(y0, y1)))[0]
            if len(rows):
                crossing = x0 + (centres[rows] - y0) * ((x1 - x0) / (y1 - y0))
                columns = np.clip(np.ceil(crossing - 0.5), 0, fine).astype(np.int64)
                winding[rows, columns] += 1 if y1 > y0 else -1
    inside = np.cumsum(winding, axis=1)[:, :fine] != 0  # the non-zero rule: overlapping contours stay filled
    return np.asarray(inside.reshape(SIZE, _FINE, SIZE, _FINE).mean(axis=(1, 3)))


def _distort(masters: Floats, which: npt.NDArray[np.int64], chance: np.random.RandomState) -> Bytes:
    """An affine image of each master, with noise."""

    def between(low: float, high: float) -> Floats:
        return low + (high - low) * chance.random_sample((len(which), 1, 1))

    half = between(-0.08, 0.08)  # the tangent of half the angle: cosine and sine without calling them
    cosine = (1 - half * half) / (1 + half * half)
    sine = 2 * half / (1 + half * half)
    shear = between(-0.25, 0.25)
    width = between(0.8, 1.2)
    height = between(0.85, 1.15)
    middle = (SIZE - 1) / 2
    x = np.arange(SIZE)[None, None, :] - middle - between(-1.5, 1.5)
    y = np.arange(SIZE)[None, :, None] - middle - between(-1.5, 1.5)
    u = (cosine * x + sine * y) / width
    v = (cosine * y - sine * x) / height
    ink = _sample(masters, which, u + shear * v + middle, v + middle) * between(0.6, 1.0)
    grain = chance.random_sample(ink.shape) + chance.random_sample(ink.shape) - 1
    noisy = ink + grain * between(0.1, 0.6)
    return np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8).reshape(len(which), -1)


def _sample(masters: Floats, which: npt.NDArray[np.int64], u: Floats, v: Floats) -> Floats:
    """The masters' values at the points (u, v), bilinear; outside is background."""
    u = np.clip(u, 0, SIZE - 1.001)
    v = np.clip(v, 0, SIZE - 1.001)
    column = np.floor(u)
    row = np.floor(v)
    right = u - column
    down = v - row
    flat = masters.reshape(-1)
    at = which[:, None, None] * (SIZE * SIZE) + row.astype(np.int64) * SIZE + column.astype(np.int64)
    top = flat[at] * (1 - right) + flat[at + 1] * right
    bottom = flat[at + SIZE] * (1 - right) + flat[at + SIZE + 1] * right
    return np.asarray(top * (1 - down) + bottom * down)
