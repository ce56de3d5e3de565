"""The few settings of the laptop AKS: how fast simulated time passes, and when an unused laptop stops.

Not for settings of the library, nor of one cluster. They are given when the background process starts; a process that
already runs keeps those it has.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self

from aksgpu.errors import InvalidInput


@dataclass(frozen=True)
class Settings:
    """Settings of a laptop AKS.

    Args:
        time_scale: multiplies every simulated duration (operations of Resource Manager, image pulls); 1 is the pace
            that a notebook shows well, 0.05 that of a test.
        idle_seconds: seconds without a request, an open watch or a running pod after which the process stops.
    """

    time_scale: float = 1.0
    idle_seconds: float = 3600.0

    def __post_init__(self) -> None:
        for name in ("time_scale", "idle_seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InvalidInput(f"{name} must be a positive number, not {getattr(self, name)!r}")

    @classmethod
    def from_environment(cls) -> Self:
        """The defaults, or what ``AKSGPU_TIME_SCALE`` and ``AKSGPU_IDLE_SECONDS`` say."""
        given: dict[str, float] = {}
        for field, variable in (("time_scale", "AKSGPU_TIME_SCALE"), ("idle_seconds", "AKSGPU_IDLE_SECONDS")):
            if text := os.environ.get(variable):
                try:
                    given[field] = float(text)
                except ValueError:
                    raise InvalidInput(f"{variable} must be a number, not {text!r}") from None
        return cls(**given)
