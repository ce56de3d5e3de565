"""VM sizes with GPUs: their properties, availability, prices and the quota that is left.

sizes.gpu_sizes(azure, "westeurope")                                    # a DataFrame
sizes.preflight(azure, "westeurope", "Standard_NC4as_T4_v3", count=2)   # a verdict with reasons
"""

from __future__ import annotations

from aksgpu.common.gpu_size_table import GpuSize, alternatives, lookup
from aksgpu.sizes.offered_sizes import gpu_sizes, preflight
from aksgpu.sizes.preflight_checks import Preflight

__all__ = ["GpuSize", "Preflight", "alternatives", "gpu_sizes", "lookup", "preflight"]


def __dir__() -> list[str]:
    return __all__
