"""Live views in notebooks: a Job's state, the end of its log, the curves of its metrics and the use of its GPUs.

While a Job is watched, a widget shows it. The view ends when the Job ends, when the view is closed, or when a wait for
the Job is interrupted. Plain HTML with the same content then replaces the widget, so a saved notebook shows how the Job
ended, even without a kernel or as an HTML page.

The curve here is a small SVG. :mod:`aksgpu.plots` draws figures for publication.
"""

from __future__ import annotations

from aksgpu.views.live_view import JobView, job_view

__all__ = ["JobView", "job_view"]


def __dir__() -> list[str]:
    return __all__
