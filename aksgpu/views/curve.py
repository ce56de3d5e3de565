"""The curves of the metrics as a small SVG. :mod:`aksgpu.plots` draws the same curves for publications."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from aksgpu.curves import Curve, hundred_percent

__all__ = ["drawable", "image", "position", "summaries", "summary", "svg"]

_WIDTH = 520
"""Pixels."""
_HEIGHT = 168
"""Pixels."""
_LEFT = 44
"""Pixels left of the axis, for its labels."""
_RIGHT = 508
"""Pixels from the left edge to the last step."""
_TOP = 10
"""Pixels above the highest value."""
_BOTTOM = 142
"""Pixels from the upper edge to the lowest value."""
_MAX_POINTS = 400
"""Points of a curve that are drawn. More cannot be distinguished at this width."""
_LINES = ("#2F8FCC", "#D55E00", "#009E73", "#CC79A7", "#8A8A8A", "#B8860B")
"""Readable on white and on black."""
_INK = "#7A7A7A"
"""Readable on white and on black: an image cannot take the page's colours."""
_MAX_CURVES = 6
"""Curves that are drawn and summarised."""
_UNITS = {"step": "step", "epoch": "epoch", "row": "value", "time": "second"}

Points = list[tuple[float, float]]


def drawable(curve: Curve) -> Points:
    """Return the points of a curve with a finite value."""
    return [(float(x), float(y)) for x, y in zip(curve.x, curve.y, strict=True) if np.isfinite(y)]


def summaries(curves: Sequence[Curve]) -> list[tuple[str, str]]:
    """Return the name of each curve with its last value in words; those without a value are left out."""
    found = []
    for curve in curves[:_MAX_CURVES]:
        points = drawable(curve)
        if points:
            at, value = points[-1]
            position = f"{_position(curve.axis, at)}"
            found.append((curve.label or curve.metric, f"{_text(curve, value)} at {position}"))
    return found


def summary(curves: Sequence[Curve]) -> str:
    """Return the last values in words; empty when there are none."""
    return "; ".join(f"{name} {text}" for name, text in summaries(curves))


def position(curves: Sequence[Curve]) -> tuple[str, float] | None:
    """Return the axis and the last position of the curves; None if there are none, or if they only have a number."""
    ends = [(curve.axis, float(curve.x.max())) for curve in curves if len(curve.x)]
    for axis in ("step", "epoch"):
        found = [at for name, at in ends if name == axis]
        if found:
            return axis, max(found)
    return None


def _position(axis: str, at: float) -> str:
    return f"{_UNITS[axis]} {at:,.10g}"


def _text(curve: Curve, value: float) -> str:
    whole = hundred_percent([curve], curve.y[np.isfinite(curve.y)])
    return f"{value:.4g}" if whole is None else f"{100 * value / whole:.2f} %"


def svg(curves: Sequence[Curve]) -> str:
    """Return the curves as SVG; empty when there is no point to draw."""
    drawn = [(curve, drawable(curve)) for curve in curves[:_MAX_CURVES]]
    drawn = [(curve, points) for curve, points in drawn if points]
    if not drawn:
        return ""
    frame = _Frame([curve for curve, _ in drawn], [points for _, points in drawn])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{_label(curves)}" '
        f'font-family="system-ui, sans-serif" font-size="11" fill="{_INK}">',
        *frame.grid(),
        f'<text x="{_LEFT}" y="{_BOTTOM + 18}">{frame.unit} 0</text>',
        f'<text x="{_RIGHT}" y="{_BOTTOM + 18}" text-anchor="end">{frame.end:,.10g}</text>',
    ]
    for number, (curve, _) in enumerate(drawn):
        parts += _line(curve, frame, _LINES[number % len(_LINES)])
    if len(drawn) > 1:
        parts += _legend([curve.label or curve.metric for curve, _ in drawn])
    parts.append("</svg>")
    return "".join(parts)


class _Frame:
    """Turns positions and values into pixels."""

    def __init__(self, curves: list[Curve], points: list[Points]) -> None:
        values = np.array([value for each in points for _, value in each])
        last = max(at for each in points for at, _ in each)
        self.unit = _UNITS[curves[0].axis]
        self.end = max(last, 10 if self.unit == "step" else 1)
        self._whole = hundred_percent(curves, values)
        if self._whole is not None:
            self._low = 0.0
            self._high = self._whole
        else:
            self._low = float(values.min())
            self._high = float(values.max())
            if self._high == self._low:
                margin = abs(self._high) * 0.1 or 1.0
                self._low -= margin
                self._high += margin

    def x(self, at: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * at / self.end

    def y(self, value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * (value - self._low) / (self._high - self._low)

    def grid(self) -> list[str]:
        """Return three lines with their labels."""
        lines = []
        for share in (0.0, 0.5, 1.0):
            value = self._low + (self._high - self._low) * share
            label = f"{value:.3g}" if self._whole is None else f"{100 * share:.0f} %"
            lines.append(_grid_line(self.y(value), label))
        return lines


def _line(curve: Curve, frame: _Frame, colour: str) -> list[str]:
    """Return a curve: a line that is interrupted where it has no value or begins again, and its last point."""
    parts = []
    for points in _pieces(curve):
        path = " ".join(f"{frame.x(at):.1f},{frame.y(value):.1f}" for at, value in _thinned(points))
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>'
        )
        if len(points) == 1:
            parts.append(_dot(frame, points[0], colour, 2))
    parts.append(_dot(frame, drawable(curve)[-1], colour, 3.5))
    return parts


def _dot(frame: _Frame, point: tuple[float, float], colour: str, radius: float) -> str:
    at, value = point
    return f'<circle cx="{frame.x(at):.1f}" cy="{frame.y(value):.1f}" r="{radius:g}" fill="{colour}"/>'


def _pieces(curve: Curve) -> list[Points]:
    pieces: list[Points] = [[]]
    before = -np.inf
    for at, value in zip(curve.x, curve.y, strict=True):
        if not np.isfinite(value) or at < before:
            pieces.append([])
        if np.isfinite(value):
            pieces[-1].append((float(at), float(value)))
        before = at
    return [piece for piece in pieces if piece]


def _thinned(points: Points) -> Points:
    thinned = points[:: len(points) // _MAX_POINTS + 1]
    if thinned[-1] != points[-1]:
        thinned.append(points[-1])
    return thinned


def _legend(names: list[str]) -> list[str]:
    """Return the names of the curves in their colours, at the upper right."""
    return [
        f'<text x="{_RIGHT}" y="{_TOP + 12 + 14 * number}" text-anchor="end" fill="{_LINES[number]}">'
        f"{escape(name[:40])}</text>"
        for number, name in enumerate(names)
    ]


def image(curves: Sequence[Curve]) -> str:
    """Return the same as an HTML image.

    Jupyter removes SVG elements from the outputs of notebooks that it does not trust, and keeps images.
    """
    drawn = svg(curves)
    if not drawn:
        return ""
    data = b64encode(drawn.encode()).decode()
    return (
        f'<img alt="{_label(curves)}" width="{_WIDTH}" height="{_HEIGHT}" src="data:image/svg+xml;base64,{data}" '
        'style="display:block;max-width:100%"/>'
    )


def _label(curves: Sequence[Curve]) -> str:
    return escape(summary(curves))


def _grid_line(y: float, label: Any) -> str:
    return (
        f'<path d="M{_LEFT} {y:g}H{_RIGHT}" stroke="{_INK}" stroke-opacity=".35"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4:g}" text-anchor="end">{label}</text>'
    )
