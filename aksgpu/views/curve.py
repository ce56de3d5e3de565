"""The accuracy curve as a small SVG."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from html import escape

__all__ = ["drawable", "image", "summary", "svg"]

_WIDTH = 520
"""Pixels."""
_HEIGHT = 168
"""Pixels."""
_LEFT = 44
"""Pixels left of the axis, for its labels."""
_RIGHT = 508
"""Pixels from the left edge to the last step."""
_TOP = 10
"""Pixels above 100 %."""
_BOTTOM = 142
"""Pixels from the upper edge to 0 %."""
_MAX_POINTS = 400
"""Maximum number of points that are drawn. More cannot be distinguished in this width."""
_LINE = "#2F8FCC"
"""Colour of the curve, readable on white and on black."""
_INK = "#7A7A7A"
"""Colour of text and grid, readable on white and on black, because an image cannot use the page's colours."""


def drawable(points: Mapping[int, float]) -> list[tuple[int, float]]:
    """Return the points with an accuracy from 0 to 1, by step."""
    return [(step, value) for step, value in sorted(points.items()) if 0 <= value <= 1]


def summary(points: Mapping[int, float]) -> str:
    """Return the last accuracy as text; empty if there is none."""
    found = drawable(points)
    if not found:
        return ""
    step, value = found[-1]
    return f"{100 * value:.2f} % at step {step:,}"


def svg(points: Mapping[int, float]) -> str:
    """Return the accuracy over the steps as SVG; empty if there is no point to draw."""
    found = drawable(points)
    if not found:
        return ""
    last_step, last = found[-1]
    end = max(last_step, 10)
    thinned = found[:: len(found) // _MAX_POINTS + 1]
    if thinned[-1] != found[-1]:
        thinned.append(found[-1])

    def x(step: int) -> float:
        return _LEFT + (_RIGHT - _LEFT) * step / end

    def y(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * value

    path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in thinned)
    grid = [_grid_line(y(value), f"{100 * value:.0f} %") for value in (0.0, 0.5, 1.0)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{_label(points)}" '
        f'font-family="system-ui, sans-serif" font-size="11" fill="{_INK}">',
        *grid,
        f'<text x="{_LEFT}" y="{_BOTTOM + 18}">step 0</text>',
        f'<text x="{_RIGHT}" y="{_BOTTOM + 18}" text-anchor="end">{end:,}</text>',
        f'<polyline points="{path}" fill="none" stroke="{_LINE}" stroke-width="2" stroke-linejoin="round"/>',
        f'<circle cx="{x(last_step):.1f}" cy="{y(last):.1f}" r="3.5" fill="{_LINE}"/>',
        "</svg>",
    ]
    return "".join(parts)


def image(points: Mapping[int, float]) -> str:
    """Return the same as an HTML image.

    Jupyter removes SVG elements from the outputs of notebooks that it does not trust, and keeps images.
    """
    drawn = svg(points)
    if not drawn:
        return ""
    data = b64encode(drawn.encode()).decode()
    return (
        f'<img alt="{_label(points)}" width="{_WIDTH}" height="{_HEIGHT}" src="data:image/svg+xml;base64,{data}" '
        'style="display:block;max-width:100%"/>'
    )


def _label(points: Mapping[int, float]) -> str:
    return escape(f"accuracy {summary(points)}")


def _grid_line(y: float, label: str) -> str:
    return (
        f'<path d="M{_LEFT} {y:g}H{_RIGHT}" stroke="{_INK}" stroke-opacity=".35"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4:g}" text-anchor="end">{label}</text>'
    )
