"""The node agent: one for all nodes of a cluster. It keeps the nodes, runs their pods, and shows what is in them.

It talks to Kubernetes through :class:`~aksgpu.local.objects.Objects` alone. Stopping it, or killing the laptop, leaves
the pods running; the next agent on the same directory takes them up again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from aksgpu.local.api.pod_exec import PodExec
from aksgpu.local.api.pod_logs import PodLogs
from aksgpu.local.control.controller_runtime import Tasks
from aksgpu.local.control.event_recorder import EventRecorder
from aksgpu.local.control.informer import Informer
from aksgpu.local.images.image_registry import install_tools
from aksgpu.local.node import container_logs, gpus
from aksgpu.local.node.container import ContainerRunner
from aksgpu.local.node.container_run import KEEPER, Attempt, attempts
from aksgpu.local.node.exec_command import ExecError, Execution
from aksgpu.local.node.kubelets import Node
from aksgpu.local.node.pod import PodRunner, Surroundings
from aksgpu.local.node.volumes import claim_directory, plain
from aksgpu.local.objects import Object, Objects
from aksgpu.local.settings import Settings
from aksgpu.local.status_error import StatusError, bad_request, not_found

log = logging.getLogger(__name__)

STOP_GRACE_SECONDS = 2.0
"""How long pods have to end by themselves when their cluster is stopped or deleted."""

LINGER_SECONDS = 1.0
"""How long a deleted pod's files stay, so that those who follow its log see the end."""


_OCI = (
    "failed to exec in container: failed to start exec: OCI runtime exec failed: exec failed: unable to start "
    "container process: {}: unknown"
)


class NodeAgent(PodLogs, PodExec):
    """Runs pods as processes of this machine.

    Args:
        objects: the cluster.
        root: the cluster's directory; node and pod directories are made below it.
        settings: the laptop's settings, of which ``time_scale`` is read.
    """

    def __init__(self, objects: Objects, root: Path, settings: Settings) -> None:
        self._objects = objects
        self._root = root
        self._settings = settings
        self._events = EventRecorder(objects)
        self._nodes: dict[str, Node] = {}
        self._runners: dict[str, PodRunner] = {}
        self._tasks = Tasks()
        self._watches = Tasks()
        self._node_informer = Informer(objects, "nodes")
        self._pod_informer = Informer(objects, "pods")
        self._claim_informer = Informer(objects, "persistentvolumeclaims")
        self._pods_of = self._pod_informer.index(lambda pod: pod["spec"].get("nodeName") or "")
        self._machine: list[gpus.Gpu] = []
        self._around: Surroundings

    async def start(self) -> None:
        """Begin: nodes report, pods from before are found again, new ones are run."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        tools, gpu_tools = install_tools(self._root / "tools")
        self._machine = await asyncio.to_thread(gpus.real)
        view = await asyncio.to_thread(_grants_view, self._root / "tools")
        if not view:
            log.info("no mount namespaces here: volumes are reached by rewritten paths")
        root = self._root if view else plain(self._root)
        self._around = Surroundings(self._objects, self._events, self._settings, root, tools, gpu_tools, view)
        await self._events.start()
        for informer in (self._node_informer, self._pod_informer, self._claim_informer):
            self._watches.spawn(informer.run())
            await informer.synced.wait()
        self._node_informer.on_change(self._node_changed)
        self._pod_informer.on_change(self._pod_changed)
        self._claim_informer.on_change(self._claim_changed)
        self._clear_orphans()

    async def stop(self, *, end_pods: bool) -> None:
        """Stop looking after nodes and pods.

        Args:
            end_pods: whether the pods' processes end, which the API is not told; else they go on running.
        """
        await self._watches.cancel()
        await self._tasks.cancel()
        grace = STOP_GRACE_SECONDS if end_pods else None
        await asyncio.gather(*(runner.leave(grace) for runner in self._runners.values()))
        for node in self._nodes.values():
            await node.stop()
        await self._events.stop()
        if end_pods and self._around.root != self._root:
            shutil.rmtree(self._around.root.parent, ignore_errors=True)  # others clean up below /tmp as well

    async def open(
        self, namespace: str, pod: str, container: str, *, previous: bool, follow: bool, **options: Any
    ) -> AsyncIterator[bytes]:
        """A container's log; see :class:`~aksgpu.local.api.pod_logs.PodLogs`.

        Raises:
            StatusError: no such pod on these nodes, no such container, or no such run of it.
        """
        found = self._container(namespace, pod, container)
        path = found.log(previous=previous)
        if path is None:
            what = "previous terminated container" if previous else "container"
            raise bad_request(f'{what} "{container}" in pod "{pod}" not found')
        return container_logs.read(path, lambda: not found.may_write(path), follow=follow and not previous, **options)

    async def execute(self, namespace: str, pod: str, container: str, argv: Sequence[str], *, tty: bool) -> Execution:
        """Run a command in a container; see :class:`~aksgpu.local.api.pod_exec.PodExec`.

        Raises:
            StatusError: no such pod on these nodes, no such container, or the command did not start.
        """
        try:
            return await self._container(namespace, pod, container).execute(argv, tty=tty)
        except ExecError as error:
            head = "Internal error occurred: Internal error occurred: error executing command in container: "
            raise StatusError(500, "InternalError", head + _OCI.format(error)) from error

    def _container(self, namespace: str, pod: str, name: str) -> ContainerRunner:
        runners = reversed(self._runners.values())  # one of that name that was deleted may still be ending
        runner = next((one for one in runners if (one.namespace, one.name) == (namespace, pod)), None)
        if runner is None:
            raise not_found("pods", pod)
        for found in runner.all:
            if found.name == name:
                return found
        raise bad_request(f"container {name} is not valid for pod {pod}")

    # Following the cluster. These are called by informers and must not block.

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            if old is not None:
                self._tasks.spawn(self._drop(self._nodes.pop(old["metadata"]["name"])))
            return
        name = new["metadata"]["name"]
        if old is not None:
            self._nodes[name].see(new)
            return
        node = self._nodes[name] = Node(self._objects, self._events, new, self._root)
        node.gpus = gpus.of_node(new, self._machine, self._root / "nodes")
        node.start()
        for pod in self._pods_of[name]:
            self._pod_changed(None, pod)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        uid = (new or old or {})["metadata"]["uid"]
        runner = self._runners.get(uid)
        if runner is not None and new is not None:
            runner.see(new)
        elif runner is not None:
            self._tasks.spawn(self._bury(runner))
        elif new is not None and (node := self._nodes.get(new["spec"].get("nodeName", ""))):
            self._runners[uid] = runner = PodRunner(self._around, node, new)
            runner.start()

    def _claim_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is None:
            path = claim_directory(self._root / "claims", old)
            self._tasks.spawn(asyncio.to_thread(shutil.rmtree, path, ignore_errors=True))

    async def _drop(self, node: Node) -> None:
        """The node is gone, and its pods with it."""
        await asyncio.gather(*(runner.gone() for runner in self._runners.values() if runner.node is node))
        await node.stop()
        if node.name not in self._nodes:
            shutil.rmtree(node.kubelet.parent, ignore_errors=True)

    async def _bury(self, runner: PodRunner) -> None:
        """The pod is gone from the API: nothing of it stays."""
        await runner.gone()
        del self._runners[runner.uid]
        await asyncio.sleep(LINGER_SECONDS)
        shutil.rmtree(runner.directory, ignore_errors=True)

    def _clear_orphans(self) -> None:
        """Remove what belongs to pods and claims that were deleted while nobody looked; no start waits for pods."""
        claims = {claim_directory(self._root / "claims", claim) for claim in self._claim_informer}
        for path in set((self._root / "claims").glob("*")) - claims:
            shutil.rmtree(path, ignore_errors=True)
        for pod in (self._root / "pods").glob("*"):
            if pod.name not in self._runners:
                self._tasks.spawn(self._clear_orphan(pod))

    async def _clear_orphan(self, pod: Path) -> None:
        containers = (pod / "containers").glob("*")
        runs = [Attempt(container, number) for container in containers for number in attempts(container)]
        for run in runs:
            await run.resume()
            run.kill()
        for run in runs:
            await run.ended()
        if pod.name not in self._runners:  # its node may have come back meanwhile
            await asyncio.to_thread(shutil.rmtree, pod, ignore_errors=True)


def _grants_view(directory: Path) -> bool:
    """Whether this system lets us mount volumes in a namespace of our own; asked in a process that may fail."""
    probe = [*KEEPER, "--probe", str(directory)]
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(probe, capture_output=True, timeout=10, check=False).returncode == 0
    return False
