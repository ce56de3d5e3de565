"""The few settings of the laptop AKS: how fast simulated time passes, and when an unused laptop stops.

Not for settings of the library, nor of one cluster. They are given when the background process starts; a process that
already runs keeps those it has.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
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
        for name, value in asdict(self).items():
            if not 0 < value < float("inf"):
                raise InvalidInput(f"{name} must be a positive number, not {value!r}")

    @classmethod
    def from_environment(cls) -> Self:
        """The defaults, or what ``AKSGPU_TIME_SCALE`` and ``AKSGPU_IDLE_SECONDS`` say."""
        given = {name: os.environ.get(_variable(name)) for name in asdict(cls())}
        try:
            return cls(**{name: float(text) for name, text in given.items() if text})
        except ValueError as error:
            raise InvalidInput(f"AKSGPU_TIME_SCALE and AKSGPU_IDLE_SECONDS are to be numbers: {error}") from None

    def environment(self) -> dict[str, str]:
        """What :meth:`from_environment` reads."""
        return {_variable(name): repr(value) for name, value in asdict(self).items()}


def _variable(name: str) -> str:
    return f"AKSGPU_{name.upper()}"
