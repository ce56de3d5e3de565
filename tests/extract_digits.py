"""Make the file of digits in ``aksgpu/local/images`` from the fonts that matplotlib ships.

    python tests/extract_digits.py aksgpu/local/images/digits.npz

The file has one array for each font, ``(10, 28, 28)``: the number of a pixel's 64 parts that are black. A glyph's
outline is read as vectors in font units and filled by the code below, so that the result does not depend on the version
of a font rasterizer.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from fontTools.pens.basePen import BasePen
from fontTools.ttLib import TTFont

from aksgpu.local.images.digits import PARTS, SIZE, TEST_FONTS, TRAIN_FONTS

GLYPH_SIZE = 20
"""Pixels of the longer side of a digit, as in MNIST."""
PARTS_PER_SIDE = 8
"""Parts of a pixel in each direction."""
CURVE_STEPS = 6
"""Straight lines that replace a curve."""

Point = tuple[float, float]
Polygon = list[Point]


class PolygonPen(BasePen):
    """Draws a glyph as closed polygons in font units."""

    def __init__(self, glyphs: Any) -> None:
        super().__init__(glyphs)
        self.polygons: list[Polygon] = []

    def _moveTo(self, pt: Point) -> None:  # noqa: N802 - the base class defines the name
        self.polygons.append([pt])

    def _lineTo(self, pt: Point) -> None:  # noqa: N802 - the base class defines the name
        self.polygons[-1].append(pt)

    def _qCurveToOne(self, pt1: Point, pt2: Point) -> None:  # noqa: N802 - the base class defines the name
        start = self.polygons[-1][-1]
        for step in range(1, CURVE_STEPS + 1):
            t = step / CURVE_STEPS
            a = (1 - t) * (1 - t)
            b = 2 * t * (1 - t)
            c = t * t
            x, y = (a * start[axis] + b * pt1[axis] + c * pt2[axis] for axis in (0, 1))
            self.polygons[-1].append((x, y))


def outlines(font: str) -> list[list[Polygon]]:
    """Return the ten digits of a font, each as a list of polygons."""
    logging.getLogger("fontTools").setLevel(logging.ERROR)  # it warns about dates in old fonts
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    with TTFont(path, lazy=True) as file:
        names = file.getBestCmap()
        glyphs = file.getGlyphSet()
        pens = [PolygonPen(glyphs) for _ in range(10)]
        for digit, pen in enumerate(pens):
            glyphs[names[ord("0") + digit]].draw(pen)
        return [pen.polygons for pen in pens]


def fill(polygons: list[Polygon]) -> npt.NDArray[np.uint8]:
    """Return a digit in the middle of an image."""
    corners = np.array([corner for polygon in polygons for corner in polygon])
    low = corners.min(axis=0)
    high = corners.max(axis=0)
    scale = GLYPH_SIZE * PARTS_PER_SIDE / (high - low).max()
    side = SIZE * PARTS_PER_SIDE
    winding = np.zeros((side, side + 1))
    centres = np.arange(side) + 0.5
    for polygon in polygons:
        points = (np.array(polygon) - (low + high) / 2) * scale * (1, -1) + side / 2  # the y axis of fonts points up
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            rows = np.nonzero((centres >= min(y0, y1)) & (centres < max(y0, y1)))[0]
            if len(rows):
                crossing = x0 + (centres[rows] - y0) * ((x1 - x0) / (y1 - y0))
                columns = np.clip(np.ceil(crossing - 0.5), 0, side).astype(np.int64)
                winding[rows, columns] += 1 if y1 > y0 else -1
    inside = np.cumsum(winding, axis=1)[:, :side] != 0  # the nonzero rule keeps overlapping contours filled
    return inside.reshape(SIZE, PARTS_PER_SIDE, SIZE, PARTS_PER_SIDE).sum(axis=(1, 3)).astype(np.uint8)


def extract(font: str) -> npt.NDArray[np.uint8]:
    """Return the ten digits of a font."""
    assert PARTS == PARTS_PER_SIDE**2
    return np.stack([fill(polygons) for polygons in outlines(font)])


if __name__ == "__main__":
    np.savez_compressed(sys.argv[1], **{font: extract(font) for font in (*TRAIN_FONTS, *TEST_FONTS)})
