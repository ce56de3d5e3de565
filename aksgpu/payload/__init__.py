"""What is sent to a pod so that it runs the user's code, and how the outcome comes back.

The package does not use clusters. :mod:`aksgpu.payload.packing` makes a payload, :mod:`aksgpu.payload.runner` runs
it in the pod, and :mod:`aksgpu.payload.records` is the format in which the outcome comes back.
"""

from __future__ import annotations

__all__: list[str] = []


def __dir__() -> list[str]:
    return sorted(__all__)
