"""The laptop AKS: Azure Resource Manager and Kubernetes, served by one background process of this machine.

    >>> endpoint = local.start()      # starts it, or finds it running
    >>> local.status()["clusters"]
    >>> local.stop()

:func:`laptop` gives a private one for a block of code. Nothing here is imported before it is used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aksgpu.local import images as images
    from aksgpu.local.private import laptop as laptop
    from aksgpu.local.process import Endpoint as Endpoint
    from aksgpu.local.process import inject as inject
    from aksgpu.local.process import start as start
    from aksgpu.local.process import status as status
    from aksgpu.local.process import stop as stop
    from aksgpu.local.settings import Settings as Settings

__all__ = ["Endpoint", "Settings", "images", "inject", "laptop", "start", "status", "stop"]

_MODULES = {"Settings": "settings", "laptop": "private"}
_MODULES |= dict.fromkeys(("Endpoint", "inject", "start", "stop"), "process")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"aksgpu.local.{_MODULES[name]}"), name)
    if name == "images":
        return import_module("aksgpu.local.images")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps ``local.status`` the function, also after the module of the same name was imported."""

    @property
    def status(self) -> Any:
        """See :func:`aksgpu.local.process.status`."""
        return import_module("aksgpu.local.process").status

    @status.setter
    def status(self, module: ModuleType) -> None:
        """The import system sets this; ``from aksgpu.local.status import ...`` finds the module without it."""


sys.modules[__name__].__class__ = _Package
