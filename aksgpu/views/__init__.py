"""Live views in notebooks: a Job's state, the end of its log, the curves of its metrics and the use of its GPUs.

While a Job is watched, a widget shows it. When the view ends, because the Job is done, the view was closed or a wait
for the Job was interrupted, the widget is replaced by plain HTML that says the same. So a saved notebook, a notebook
without a kernel and a page made of it show how the Job ended.

The curve here is a small SVG. A figure for a publication comes from :mod:`aksgpu.plots`.
"""

from aksgpu.views.live_view import JobView, job_view

__all__ = ["JobView", "job_view"]
