"""HTML of a view. Everything that comes from the cluster is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from html import escape

from aksgpu.views import curve
from aksgpu.views.observation import Observation

__all__ = [
    "code",
    "date",
    "duration",
    "heading",
    "log",
    "moment",
    "numbers",
    "plain",
    "problems",
    "stamp",
    "static",
]

_FONT = "font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px"
_SMALL_FONT = "font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:11px"
_CODE_FONT = "font-family:var(--jp-code-font-family,monospace)"
_QUIET = "color:var(--jp-ui-font-color2,#767676)"
_COLOURS = {
    "Complete": "#009E73",
    "Failed": "#D55E00",
    "Running": "#2F8FCC",
}
_OTHER_COLOUR = "#8A8A8A"
_PROBLEM_COLOUR = "#D55E00"
_LABEL_WIDTH = "6.5em"
_LONGEST_VERDICT = 600
"""Characters of a verdict that a view shows. job.why() has all of it."""
_LONGEST_LABEL = 10
"""Characters that fit into :data:`_LABEL_WIDTH`."""


def moment(when: datetime) -> str:
    """Return the time of day, for an open page."""
    return f"{when:%H:%M:%S} UTC"


def date(when: datetime) -> str:
    """Return the time with its date, for a saved page."""
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"


def duration(seconds: float) -> str:
    """Return a duration in its two largest units."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {left} s"
    return f"{left} s"


def heading(seen: Observation) -> str:
    """Return the name and the state of the Job."""
    colour = _COLOURS.get(seen.phase, _OTHER_COLOUR)
    state = f'<span style="color:{colour}">&#9679;</span> <b>{escape(seen.phase)}</b>'
    detail = _state_detail(seen)
    suffix = f" &nbsp;{escape(detail)}" if detail else ""
    return f'<div style="{_FONT};line-height:1.7"><b>{escape(seen.name)}</b> &nbsp;{state}{suffix}</div>'


def problems(seen: Observation) -> str:
    """Return what could not be read, and since when, and what wastes money. The text is empty if there is nothing."""
    parts = []
    found = [("State", seen.problem), ("Log", seen.log_problem), *(("GPU", text) for text in seen.warnings)]
    for title, text in found:
        if text:
            label = f'<b style="color:{_PROBLEM_COLOUR}">{title}</b>'
            parts.append(f'<div style="{_FONT};line-height:1.7">{label} {escape(text)}</div>')
    return "".join(parts)


def numbers(seen: Observation) -> str:
    """Return the Job's numbers, one per line."""
    rows = [("namespace", seen.namespace)]
    if seen.verdict:
        rows.append(("why", _shortened(seen.verdict)))
    if seen.fix:
        rows.append(("fix", _shortened(seen.fix)))
    rows += curve.summaries(seen.curves)
    hidden = sum(len(each.y) - len(curve.drawable(each)) for each in seen.curves)
    if hidden:
        rows.append(("not drawn", f"{hidden} not finite"))
    if seen.gpu:
        rows.append(("now", seen.gpu))
    if seen.started and seen.finished:
        rows.append(("ran for", duration((seen.finished - seen.started).total_seconds())))
    if seen.finished:
        rows.append(("ended", date(seen.finished)))
    return "".join(_row(label, value) for label, value in rows)


def log(lines: Iterable[str]) -> str:
    """Return lines of a log as HTML; empty if there are none."""
    text = "\n".join(escape(line) or " " for line in lines)
    if not text:
        return ""
    style = f"margin:0;padding:0;{_CODE_FONT};font-size:12px;line-height:1.4;white-space:pre;background:none"
    return f'<pre style="{style}">{text}</pre>'


def stamp(when: datetime, stale_after: float) -> str:
    """Return the time of the last poll, and a notice that the page shows if the view is stale.

    The notice appears when JupyterLab marks the widgets as disconnected, after a restart of the kernel. It also appears
    when an animation ends. The animation starts again each time a new poll replaces the text.

    Args:
        when: time of the poll.
        stale_after: length of the animation in seconds.
    """
    time = moment(when)
    notice = f"Not updated since {time}: the kernel has stopped, or the cluster does not respond."
    style = (
        "@keyframes aksgpu-stale{to{visibility:visible}}"
        f".aksgpu-stale{{visibility:hidden;color:{_PROBLEM_COLOUR}}}"
        f".aksgpu-stale{{animation:aksgpu-stale 0s {stale_after:g}s forwards}}"
        ".jupyter-widgets-disconnected .aksgpu-stale{visibility:visible}"
        # JupyterLab draws a broken link before each of the view's widgets.
        ".aksgpu-view .jupyter-widgets-disconnected::before,"
        ".aksgpu-view.jupyter-widgets-disconnected::before{content:none}"
    )
    return (
        f'<style>{style}</style><div style="{_SMALL_FONT};line-height:1.7">'
        f'<span style="{_QUIET}">checked {time}</span> &nbsp;<b class="aksgpu-stale">{notice}</b></div>'
    )


def code(text: str) -> str:
    """Return program text as HTML within a sentence."""
    return f'<code style="{_CODE_FONT};background:none">{escape(text, quote=False)}</code>'


def static(seen: Observation, note: str = "") -> str:
    """Return everything that is known about the Job as HTML that is readable without a kernel.

    Args:
        seen: the known state.
        note: how the view ended, if it ended before the Job.
    """
    parts = [heading(seen), problems(seen), numbers(seen)]
    if not seen.ended and seen.observed_at is not None:
        parts.append(_row("as of", date(seen.observed_at)))
    parts.append(curve.image(seen.curves))
    if seen.lines:
        parts.append(f'<div style="margin-top:4px;overflow-x:auto">{log(seen.lines)}</div>')
    if note:
        parts.append(f'<div style="{_SMALL_FONT};line-height:1.7;margin-top:4px">{note}</div>')
    return f'<div style="margin:2px 0">{"".join(parts)}</div>'


def plain(seen: Observation) -> str:
    """Return the state as a line of text."""
    parts = [f"Job {seen.name} in {seen.namespace}: {seen.phase}"]
    detail = _state_detail(seen)
    if detail:
        parts.append(detail)
    parts += [f"{name} {text}" for name, text in curve.summaries(seen.curves)]
    if seen.gpu:
        parts.append(seen.gpu)
    parts += seen.warnings
    if not seen.ended and seen.observed_at is not None:
        parts.append(f"as of {date(seen.observed_at)}")
    return ", ".join(parts)


def _row(label: str, value: str) -> str:
    width = "width" if len(label) <= _LONGEST_LABEL else "padding-right:1em;min-width"
    name = f'<span style="display:inline-block;{width}:{_LABEL_WIDTH};{_QUIET}">{escape(label)}</span>'
    return f'<div style="{_FONT};line-height:1.5">{name}{escape(value)}</div>'


def _shortened(text: str) -> str:
    one_line = " ".join(text.split())
    if len(one_line) <= _LONGEST_VERDICT:
        return one_line
    return f"{one_line[:_LONGEST_VERDICT]}... (job.why() has all of it)"


def _state_detail(seen: Observation) -> str:
    reached = curve.position(seen.curves) if seen.phase == "Running" else None
    if reached is None:
        return seen.detail
    axis, at = reached
    total = f" of {seen.max_steps:,}" if axis == "step" and seen.max_steps else ""
    return f"{axis} {at:,.10g}{total}"
