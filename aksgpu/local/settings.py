"""Settings of the laptop AKS: the speed of simulated time, the size of logs, and when an unused laptop stops.

They apply when the background process starts. A process that is already running keeps its own settings.
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
        time_scale: factor for every simulated duration, such as long-running operations and image pulls. The default
            1 is a good pace for notebooks. Tests use 0.05.
        idle_seconds: the process stops after this many seconds without a request, an open watch or a running pod.
        container_log_max_mb: size in megabytes at which a container's log is rotated. Older output can no longer be
            read after that. The default is AKS' 50 MB.
    """

    time_scale: float = 1.0
    idle_seconds: float = 3600.0
    container_log_max_mb: float = 50.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < float("inf"):
                raise InvalidInput(f"`{name}` must be a positive number, got {value!r}")

    @classmethod
    def from_environment(cls) -> Self:
        """Return the settings in environment variables such as ``AKSGPU_TIME_SCALE``, or their defaults."""
        values = {}
        for name in asdict(cls()):
            text = os.environ.get(_variable(name))
            if not text:
                continue
            try:
                values[name] = float(text)
            except ValueError:
                raise InvalidInput(f"`{_variable(name)}` must be a number, got {text!r}") from None
        return cls(**values)

    def environment(self) -> dict[str, str]:
        """Return the environment variables that :meth:`from_environment` reads."""
        return {_variable(name): repr(value) for name, value in asdict(self).items()}


def _variable(name: str) -> str:
    return f"AKSGPU_{name.upper()}"
