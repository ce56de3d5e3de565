"""Explain a container that the kubelet ends because a probe of the manifest fails."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from aksgpu.diagnose.cures import EDIT_JOB_SHELL, RUN_AGAIN, Cure, edit_job
from aksgpu.diagnose.events import Event

__all__ = ["PROBE", "PROBE_CURE", "FailedProbe", "failed_probe"]

PROBE = "a probe fails"
"""The cause of a container that is ended because of a probe."""
PROBE_CURE = Cure(
    "Give the program enough time to start: set a startupProbe with a large failureThreshold times periodSeconds, such "
    "as 60 times 10 s, because a model takes minutes to load. Check the port and the path of the probe. A training "
    f"program needs no probe: leave livenessProbe out; {RUN_AGAIN}",
    edit_job('pod["containers"][0].pop("livenessProbe", None)', 'pod["containers"][0].pop("startupProbe", None)'),
    EDIT_JOB_SHELL,
)
"""What helps against a probe that fails."""

_ENDED = re.compile(
    r"Container (?P<container>[\w.-]{1,253}) failed (?P<probe>liveness|startup) probe, will be restarted"
)


class FailedProbe(NamedTuple):
    """A probe because of which the kubelet ended a container.

    Attributes:
        container: the container's name.
        kind: ``liveness`` or ``startup``.
        message: what the probe reported; empty if no event says it.
    """

    container: str
    kind: str
    message: str

    @property
    def text(self) -> str:
        """The failure, as a clause."""
        reported = self.message.rstrip(". ").partition("probe failed: ")[2]
        return f"its {self.kind} probe failed" + (f" ({reported})" if reported else "")


def failed_probe(events: Iterable[Event]) -> FailedProbe | None:
    """Return the probe because of which the kubelet last ended a container; None if it ended none.

    Args:
        events: the pod's events, newest last.
    """
    ended: re.Match[str] | None = None
    reported: dict[str, str] = {}
    for event in events:
        if event.reason == "Killing":
            ended = _ENDED.search(event.message) or ended
        elif event.reason == "Unhealthy":
            reported[event.message.partition(" ")[0].lower()] = event.message
    if ended is None:
        return None
    return FailedProbe(ended["container"], ended["probe"], reported.get(ended["probe"], ""))
