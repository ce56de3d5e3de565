"""The result of a diagnosis."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from aksgpu.common.frames import frame
from aksgpu.errors import AksGpuError

if TYPE_CHECKING:
    import pandas as pd

Rows = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong, how that is known, and what to do.

    Attributes:
        verdict: one sentence.
        fix: what to do, as an action; empty if nothing needs doing.
        rows: the evidence as (what, says) pairs.
        error: the exception that represents it, such as :class:`~aksgpu.errors.PodPending`; None if nothing is wrong or
            no class of its own represents it.
        unknown: what could not be read, and why, such as ``the pod's events: ...``. The verdict is made without it.
    """

    verdict: str
    fix: str = ""
    rows: Rows = field(default=(), repr=False)
    error: AksGpuError | None = field(default=None, repr=False, compare=False)
    unknown: tuple[str, ...] = field(default=(), repr=False)

    @property
    def evidence(self) -> pd.DataFrame:
        """The evidence: ``what`` (string), such as ``node x`` or ``event FailedScheduling``, ``says`` (string).

        What could not be read is a row whose ``what`` is ``not known``.
        """
        pairs = [*self.rows, *(("not known", each) for each in self.unknown)]
        return frame([{"what": what, "says": says} for what, says in pairs], {"what": "string", "says": "string"})

    @property
    def log_tail(self) -> str:
        """The last lines of the log that are part of the evidence; empty if there are none."""
        return dict(self.rows).get("log", "")

    def __str__(self) -> str:
        lines = [self.verdict]
        if self.fix:
            lines.append(f"Fix: {self.fix}")
        lines += [f"Not known: {each}" for each in self.unknown]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        fix = f"<p><b>Fix:</b> {escape(self.fix)}</p>" if self.fix else ""
        pairs = [*self.rows, *(("not known", each) for each in self.unknown)]
        table = "".join(
            f"<tr><td style='text-align:left;vertical-align:top'>{escape(what)}</td>"
            f"<td style='text-align:left;white-space:pre-wrap'>{escape(says)}</td></tr>"
            for what, says in pairs
        )
        return f"<p><b>{escape(self.verdict)}</b></p>{fix}" + (f"<table>{table}</table>" if table else "")
