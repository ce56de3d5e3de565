"""What would be sent for a call of an Executor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aksgpu.common.frames import frame
from aksgpu.jobs.executor_options import ExecutorOptions
from aksgpu.payload.packing import Payload

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Explanation", "explain_payload"]

_COLUMNS = {"name": "string", "how": "string"}
_SHOWN = 12
"""Names of each kind that the text lists."""


@dataclass(frozen=True)
class Explanation:
    """What would be sent for a call.

    Attributes:
        mode: ``pickle`` or ``source``.
        by_value: the functions, classes and modules that are sent by value.
        by_reference: the functions, classes and modules that the pod imports. The image or the packages must have them.
        size: bytes of the compressed payload.
        secrets: number of Secrets that hold it.
        largest: the largest captured variable or argument and the bytes of its pickle; None for a small payload.
        source_problem: why the call cannot run with another minor version of Python; empty if it can.
        image: the container image.
        packages: what is installed before the function runs.
    """

    mode: str
    by_value: tuple[str, ...]
    by_reference: tuple[str, ...]
    size: int
    secrets: int
    largest: tuple[str, int] | None
    source_problem: str
    image: str
    packages: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """Return the names.

        Returns:
            One row for each function, class or module:

            - name (string): its name with its module.
            - how (string): ``by value`` or ``by reference``.
        """
        rows = [{"name": name, "how": "by value"} for name in self.by_value]
        rows += [{"name": name, "how": "by reference"} for name in self.by_reference]
        return frame(rows, _COLUMNS)

    def __str__(self) -> str:
        noun = "Secret" if self.secrets == 1 else "Secrets"
        lines = [
            f"by value      {_listed(self.by_value)}",
            f"by reference  {_listed(self.by_reference)}",
            f"payload       {self.size:,} bytes in {self.secrets} {noun}, as {self.mode}",
            f"image         {self.image}",
            f"packages      {_listed(self.packages)}",
        ]
        if self.largest is not None:
            lines.append(f"largest part  {self.largest[0]}: {self.largest[1]:,} bytes")
        if self.source_problem:
            lines.append(f"only for the Python of this kernel, because: {self.source_problem}")
        return "\n".join(lines)

    __repr__ = __str__


def _listed(names: tuple[str, ...]) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def explain_payload(payload: Payload, options: ExecutorOptions) -> Explanation:
    """Return what a payload and the options mean."""
    return Explanation(
        mode=payload.header["mode"],
        by_value=payload.by_value,
        by_reference=payload.by_reference,
        size=len(payload.body),
        secrets=len(payload.secrets()),
        largest=payload.largest,
        source_problem=payload.header["source_problem"],
        image=options.image,
        packages=payload.packages.requirements,
    )
