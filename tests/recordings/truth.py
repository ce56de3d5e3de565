"""Code that the recording scripts share: it writes the values that the framework itself reports."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any


class Truth:
    """Values from a framework's own callbacks, written beside the log that it prints.

    Args:
        family: the framework's name on the page of scores.
        packages: distributions whose versions are recorded; the first is the framework.
        tolerance: half a unit of the last digit that the framework prints.
    """

    def __init__(self, family: str, *packages: str, tolerance: float) -> None:
        self.family = family
        self.versions = {name: version(name) for name in packages}
        self.tolerance = tolerance
        self.values: list[dict[str, Any]] = []

    def add(
        self,
        metric: str,
        value: Any,
        *,
        epoch: float | None = None,
        step: int | None = None,
        printed: str | None = None,
    ) -> None:
        """Add one value that the log must show, with the position that the log prints for it.

        ``printed`` is the name in the log if ``metric`` is more specific.
        """
        entry: dict[str, Any] = {"metric": metric, "value": float(value)}
        if epoch is not None:
            entry["epoch"] = float(epoch)
        if printed is not None:
            entry["printed"] = printed
        if step is not None:
            entry["step"] = int(step)
        self.values.append(entry)

    def save(self) -> None:
        """Write the values to the path that the command line names."""
        content = {
            "family": self.family,
            "versions": self.versions,
            "tolerance": self.tolerance,
            "values": self.values,
        }
        Path(sys.argv[1]).write_text(json.dumps(content, indent=1) + "\n")
