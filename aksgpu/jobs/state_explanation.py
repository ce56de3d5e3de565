"""Ask from time to time why a Job waits or has failed, while something watches it: a wait or a live view."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from aksgpu.diagnose.diagnosis import Diagnosis
from aksgpu.errors import AksGpuError
from aksgpu.jobs.job_status import JobStatus
from aksgpu.waiting import deadline

__all__ = ["EXPLAINED_PHASES", "StateExplanation"]

EXPLAINED_PHASES = ("Pending", "Suspended", "Failed")
"""Phases of Jobs that are explained."""
_AFTER = 3.0
"""Seconds for which a Job may wait before that is explained. A failure is explained at once."""
_EVERY = 15.0
"""Seconds between two explanations of the same state."""
_TIMEOUT = 5.0
"""Seconds that one explanation may take."""


class StateExplanation:
    """The newest explanation of a Job's state. It sends no request for a Job that runs or is complete.

    Args:
        why: explains the Job's present state, as ``job.why()`` does.
    """

    def __init__(self, why: Callable[[], Diagnosis]) -> None:
        self._why = why
        self._state: tuple[str, str] | None = None
        self._since = 0.0
        self._asked_at = -math.inf
        self._found: Diagnosis | None = None

    def read(self, phase: str, reason: str = "") -> Diagnosis | None:
        """Return the explanation of a state. Asks for it if that is due, for at most five seconds.

        API errors are ignored: the next call that is due tries again.

        Args:
            phase: the Job's phase, as in :class:`JobStatus`.
            reason: the Job's reason. An explanation is dropped when the phase or the reason changes.

        Returns:
            The explanation; None if there is none for this state yet.
        """
        now = time.monotonic()
        if (phase, reason) != self._state:
            self._state = (phase, reason)
            self._since = now
            self._asked_at = -math.inf
            self._found = None
        if self._is_due(phase, now):
            self._asked_at = now
            self._ask()
        return self._found

    def describe(self, status: JobStatus) -> str:
        """Return the verdict about a Job's state if there is one, or else its status as text."""
        found = self.read(status.phase, status.reason)
        return str(status) if found is None else found.verdict

    def _is_due(self, phase: str, now: float) -> bool:
        if phase not in EXPLAINED_PHASES or now - self._asked_at < _EVERY:
            return False
        return phase == "Failed" or now - self._since >= _AFTER

    def _ask(self) -> None:
        try:
            with deadline(_TIMEOUT):
                self._found = self._why()
        except AksGpuError:
            return  # the state was read; only its explanation is missing
