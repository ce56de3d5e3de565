"""The laptop AKS: Azure Resource Manager and Kubernetes, served by one background process on this machine.

    >>> endpoint = local.start()      # starts the process unless it is running
    >>> local.status()["clusters"]
    >>> local.stop()

:func:`laptop` provides a private laptop AKS for a block of code. Submodules are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aksgpu.local import images as images
    from aksgpu.local.process import Endpoint as Endpoint
    from aksgpu.local.process import inject as inject
    from aksgpu.local.process import laptop as laptop
    from aksgpu.local.process import start as start
    from aksgpu.local.process import status as status
    from aksgpu.local.process import stop as stop
    from aksgpu.local.settings import Settings as Settings

__all__ = ["Endpoint", "Settings", "images", "inject", "laptop", "start", "status", "stop"]


def __getattr__(name: str) -> Any:
    if name == "images":
        return import_module("aksgpu.local.images")
    if name in __all__:
        return getattr(import_module("aksgpu.local.process"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
