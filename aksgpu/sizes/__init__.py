"""VM sizes with GPUs: what each has, where it is offered, its price, and the quota that is left.

sizes.gpu_sizes(azure, "westeurope")                                    # a DataFrame
sizes.preflight(azure, "westeurope", "Standard_NC4as_T4_v3", count=2)   # one verdict, with reasons
"""

from __future__ import annotations

from aksgpu.common.gpu_size_table import GpuSize, alternatives, lookup
from aksgpu.sizes.offered_sizes import gpu_sizes, preflight
from aksgpu.sizes.preflight_checks import Preflight

__all__ = ["GpuSize", "Preflight", "alternatives", "gpu_sizes", "lookup", "preflight"]
