"""The controllers and the scheduler of the laptop AKS.

They read and write only through :mod:`aksgpu.local.objects`, so they also work with another API server. The tests run
them over HTTP.
"""

from __future__ import annotations

from aksgpu.local.control.controller_runtime import Cluster, Controller
from aksgpu.local.control.daemonset_controller import DaemonSetController
from aksgpu.local.control.endpoints_controller import EndpointsController
from aksgpu.local.control.garbage_collector import GarbageCollector
from aksgpu.local.control.job_controller import JobController
from aksgpu.local.control.namespace_controller import NamespaceController
from aksgpu.local.control.node_lifecycle import NodeController, TaintEvictionController
from aksgpu.local.control.resource_quota import QuotaController
from aksgpu.local.control.scheduler import Scheduler
from aksgpu.local.control.volume_claims import ClaimController
from aksgpu.local.objects import Objects
from aksgpu.local.settings import Settings

ControllerType = type[Controller] | type[Scheduler]

ALL_CONTROLLERS: tuple[ControllerType, ...] = (
    Scheduler,
    JobController,
    DaemonSetController,
    NodeController,
    TaintEvictionController,
    GarbageCollector,
    NamespaceController,
    QuotaController,
    ClaimController,
    EndpointsController,
)


class ControllerManager:
    """All controllers of one cluster, with one list and one watch per resource.

    Args:
        objects: The cluster's objects.
        settings: ``time_scale`` multiplies the pause before a failed pod is replaced.
        parts: The controllers to run.
    """

    def __init__(
        self, objects: Objects, settings: Settings, parts: tuple[ControllerType, ...] = ALL_CONTROLLERS
    ) -> None:
        self._objects = objects
        self._settings = settings
        self._types = parts
        self._running: list[Cluster | Controller | Scheduler] = []

    async def start(self) -> None:
        """Fill the informers' caches and start the controllers."""
        cluster = Cluster(self._objects, self._settings)
        controllers = [controller_type(cluster) for controller_type in self._types]
        for part in (cluster, *controllers):
            self._running.append(part)
            await part.start()

    async def stop(self) -> None:
        """Stop at once. A later start continues from the state of the cluster."""
        while self._running:
            await self._running.pop().stop()
