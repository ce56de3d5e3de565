"""Controllers and scheduler of the laptop AKS: ordinary clients of one interface, :mod:`aksgpu.local.objects`.

They run against the laptop's own registry, and would against any API server: the tests have them do so over HTTP.
"""

from __future__ import annotations

from aksgpu.local.control.controller_runtime import Cluster, Controller
from aksgpu.local.control.daemonset_controller import DaemonSetController
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
)


class ControllerManager:
    """All controllers of one cluster, sharing one list and one watch a resource.

    Args:
        objects: the cluster.
        settings: ``time_scale`` multiplies the pauses between a failed pod and its replacement.
        parts: which of them; all by default.
    """

    def __init__(
        self, objects: Objects, settings: Settings, parts: tuple[ControllerType, ...] = ALL_CONTROLLERS
    ) -> None:
        self._objects = objects
        self._settings = settings
        self._makers = parts
        self._running: list[Cluster | Controller | Scheduler] = []

    async def start(self) -> None:
        """Read how things are, and go to work."""
        cluster = Cluster(self._objects, self._settings)
        parts = [make(cluster) for make in self._makers]
        for part in (cluster, *parts):
            self._running.append(part)
            await part.start()

    async def stop(self) -> None:
        """Stop at once; the next start goes on from how things are."""
        while self._running:
            await self._running.pop().stop()
