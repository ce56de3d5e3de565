"""GPU jobs on Azure Kubernetes Service, from nothing to an accuracy curve and back to zero cost.

    import aksgpu
    from aksgpu import capacity, cluster, jobs, plugin

    azure = aksgpu.connect()       # the laptop AKS; connect("azure") for a subscription

Every name is imported when it is first used (PEP 562), so that ``import aksgpu`` costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers know the name; importing typing would cost more than all the rest
if TYPE_CHECKING:
    from aksgpu import (
        azure,
        capacity,
        cluster,
        diagnose,
        errors,
        jobs,
        kube,
        local,
        logs,
        manifests,
        metrics,
        plots,
        plugin,
        sizes,
        views,
    )
    from aksgpu.azure import connect
    from aksgpu.training_log import log

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "azure",
    "capacity",
    "cluster",
    "connect",
    "diagnose",
    "errors",
    "jobs",
    "kube",
    "local",
    "log",
    "logs",
    "manifests",
    "metrics",
    "plots",
    "plugin",
    "sizes",
    "views",
]


def __getattr__(name: str) -> object:
    if name == "connect":
        from aksgpu.azure import connect

        return connect
    if name == "log":
        from aksgpu.training_log import log

        return log
    if name in __all__:
        import importlib

        return importlib.import_module(f"aksgpu.{name}")
    raise AttributeError(f"module 'aksgpu' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
