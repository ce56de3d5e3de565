"""GPU jobs on Azure Kubernetes Service: create a cluster, run a job, plot its accuracy, delete everything.

    import aksgpu
    from aksgpu import capacity, cluster, jobs, plugin

    azure = aksgpu.connect()       # the laptop AKS; connect("azure") for a subscription

Each name is imported when it is first used (PEP 562), so ``import aksgpu`` is fast.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers know the name; importing typing is slow
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
        runs,
        sizes,
        storage,
        tutorial,
        views,
        waiting,
    )
    from aksgpu.azure.subscription import connect
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
    "runs",
    "sizes",
    "storage",
    "tutorial",
    "views",
    "waiting",
]


def __getattr__(name: str) -> object:
    # The imports are here so that each name is imported when it is first used.
    if name == "connect":
        from aksgpu.azure.subscription import connect

        return connect
    if name == "log":
        from aksgpu.training_log import log

        return log
    if name in __all__:
        import importlib

        return importlib.import_module(f"aksgpu.{name}")
    raise AttributeError(f"module 'aksgpu' has no attribute {name!r}")


def load_ipython_extension(shell: object) -> None:
    """Define the magics ``%gpu`` and ``%%gpu``. IPython calls this for ``%load_ext aksgpu``."""
    from aksgpu.magic import register

    register(shell)


def __dir__() -> list[str]:
    return sorted(__all__)
