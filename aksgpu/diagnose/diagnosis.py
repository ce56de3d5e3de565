"""The result of a diagnosis."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from textwrap import indent
from typing import TYPE_CHECKING

from aksgpu.common.frames import frame
from aksgpu.errors import AksGpuError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Diagnosis", "Rows"]

Rows = tuple[tuple[str, str], ...]
"""Evidence as pairs of what was observed and its text."""

_EVIDENCE_COLUMNS = {"what": "string", "says": "string"}


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong, the evidence for it, and what to do.

    A notebook shows it as a table; ``print`` shows the verdict, the fix and the code.

    Attributes:
        verdict: one sentence that says what is wrong, or that nothing is.
        fix: the action that helps, with calls that can be pasted; empty if there is nothing to do.
        rows: the evidence, as pairs of what was observed, such as ``node x`` or ``event FailedScheduling``, and its
            text. :attr:`evidence` has the same as a table.
        error: the exception that represents the problem, such as :class:`~aksgpu.errors.PodPending`, with its numbers
            as attributes. None if nothing is wrong, or if no exception class represents it.
        unknown: what could not be read, and why, such as ``the events of p: events is forbidden``. The verdict was made
            without it. Empty if everything could be read.
        python: code that carries out the fix, with ``aks`` as the cluster; empty if there is none.
        shell: the commands that do the same without this library; empty if there are none.
        cause: the name of the cause in the tables of failures, such as ``/dev/shm is too small``; empty if it is not
            one of them. ``docs/failures.md`` lists them.
    """

    verdict: str
    fix: str = ""
    rows: Rows = field(default=(), repr=False)
    error: AksGpuError | None = field(default=None, repr=False, compare=False)
    unknown: tuple[str, ...] = field(default=(), repr=False)
    python: str = field(default="", repr=False)
    shell: str = field(default="", repr=False)
    cause: str = field(default="", repr=False)

    @property
    def evidence(self) -> pd.DataFrame:
        """The evidence as a table.

        Columns, both string: ``what`` was observed, such as ``node x`` or ``event FailedScheduling``, and what it
        ``says``. What could not be read is a row whose ``what`` is ``not known``.
        """
        rows = [{"what": what, "says": says} for what, says in self._all_rows()]
        return frame(rows, _EVIDENCE_COLUMNS)

    @property
    def log_tail(self) -> str:
        """The last lines of the log that are part of the evidence; empty if there are none."""
        return dict(self.rows).get("log", "")

    def _all_rows(self) -> Rows:
        """Return the evidence, followed by what could not be read."""
        return (*self.rows, *(("not known", each) for each in self.unknown))

    def __str__(self) -> str:
        lines = [self.verdict]
        if self.fix:
            lines.append(f"Fix: {self.fix}")
        for label, code in (("Python", self.python), ("Shell", self.shell)):
            if code:
                lines.append(f"{label}:\n{indent(code, '    ')}")
        lines += [f"Not known: {each}" for each in self.unknown]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        html = f"<p><b>{escape(self.verdict)}</b></p>"
        if self.fix:
            html += f"<p><b>Fix:</b> {escape(self.fix)}</p>"
        for label, code in (("Python", self.python), ("Shell", self.shell)):
            if code:
                html += f"<p><b>{label}:</b></p><pre>{escape(code)}</pre>"
        rows = "".join(
            f"<tr><td style='text-align:left;vertical-align:top'>{escape(what)}</td>"
            f"<td style='text-align:left;white-space:pre-wrap'>{escape(says)}</td></tr>"
            for what, says in self._all_rows()
        )
        return f"{html}<table>{rows}</table>" if rows else html
