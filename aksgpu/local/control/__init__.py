"""Controllers and scheduler of the laptop AKS: ordinary clients of one interface, :mod:`aksgpu.local.objects`.

They run against the laptop's own registry, or over HTTP against any API server (:mod:`aksgpu.local.control.remote`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from aksgpu.local.control.claims import ClaimController
from aksgpu.local.control.daemonset import DaemonSetController
from aksgpu.local.control.events import Recorder
from aksgpu.local.control.garbage import GarbageCollector
from aksgpu.local.control.job import JobController
from aksgpu.local.control.namespaces import NamespaceController
from aksgpu.local.control.nodes import NodeController, PodMover
from aksgpu.local.control.quota import QuotaController
from aksgpu.local.control.runtime import Cluster, Timing
from aksgpu.local.control.scheduler import Scheduler
from aksgpu.local.control.ttl import FinishedJobs
from aksgpu.local.objects import Objects


class _Part(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


Make = Callable[[Cluster, Recorder], _Part]

EVERYTHING: tuple[Make, ...] = (
    Scheduler,
    JobController,
    DaemonSetController,
    NodeController,
    PodMover,
    lambda cluster, _: GarbageCollector(cluster),
    lambda cluster, _: NamespaceController(cluster),
    lambda cluster, _: FinishedJobs(cluster),
    lambda cluster, _: QuotaController(cluster),
    lambda cluster, _: ClaimController(cluster),
)


class Controllers:
    """All controllers of one cluster, sharing one list and one watch a resource.

    Args:
        objects: the cluster.
        settings: ``time_scale`` multiplies the pauses between a failed pod and its replacement.
        parts: which of them; all by default.
    """

    def __init__(self, objects: Objects, settings: Timing, parts: tuple[Make, ...] = EVERYTHING) -> None:
        self._objects, self._settings, self._makers = objects, settings, parts
        self._cluster: Cluster | None = None
        self._parts: list[_Part] = []

    async def start(self) -> None:
        """Read how things are, and go to work."""
        self._cluster = Cluster(self._objects, self._settings)
        events = Recorder(self._objects)
        self._parts = [events, *(make(self._cluster, events) for make in self._makers)]
        await self._cluster.start()
        for part in self._parts:
            await part.start()

    async def stop(self) -> None:
        """Stop at once; the next start goes on from how things are."""
        for part in reversed(self._parts):
            await part.stop()
        if self._cluster:
            await self._cluster.stop()
        self._parts, self._cluster = [], None
