"""The node agent: one for all nodes of a cluster. It maintains the nodes and runs their pods.

It uses Kubernetes only through :class:`~aksgpu.local.objects.Objects`. Pods keep running when it stops, or when the
laptop is killed. The next agent on the same directory resumes them.
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
from urllib.parse import urlencode

from aksgpu.local.api.pod_exec import PodExec
from aksgpu.local.api.pod_logs import PodLogs
from aksgpu.local.api.port_forward_channels import PodPorts, Streams
from aksgpu.local.control.controller_runtime import Tasks
from aksgpu.local.control.event_recorder import EventRecorder
from aksgpu.local.control.informer import Informer
from aksgpu.local.images.image_registry import install_tools
from aksgpu.local.node import container_logs, gpus, pod_ports
from aksgpu.local.node.attachments import Attachments
from aksgpu.local.node.container import ContainerRunner
from aksgpu.local.node.container_run import SHIM_COMMAND, ContainerRun, list_runs
from aksgpu.local.node.exec_command import ExecError, Execution
from aksgpu.local.node.kubelets import Node
from aksgpu.local.node.pod import PodRunner
from aksgpu.local.node.pod_context import ClusterContext
from aksgpu.local.node.pod_network import AddressPool, HostsFiles, pod_uids
from aksgpu.local.node.start_limiter import StartLimiter
from aksgpu.local.node.volumes import claim_directory, quotable_path
from aksgpu.local.objects import Object, Objects
from aksgpu.local.settings import Settings
from aksgpu.local.status_error import StatusError, bad_request, not_found

log = logging.getLogger(__name__)

STOP_GRACE_SECONDS = 2.0
"""Grace period of pods when their cluster is stopped or deleted."""
KEEP_FILES_SECONDS = 1.0
"""Time for which the files of a deleted pod are kept, so that clients can read its log to the end."""
PROBE_SECONDS = 60.0
"""Time for the process that finds out whether the system allows mount namespaces. It usually takes 0.1 s."""

NO_SERVICE_NAMES = (
    "Pods cannot look up the name of the Service {}: this system does not allow mount namespaces, so a pod's "
    "/etc/hosts cannot differ from this machine's. Use the pods' addresses"
)

_OCI_EXEC_ERROR = (
    "failed to exec in container: failed to start exec: OCI runtime exec failed: exec failed: unable to start "
    "container process: {}: unknown"
)


class NodeAgent(PodLogs, PodExec, PodPorts):
    """Runs pods as processes of this machine.

    Args:
        objects: the cluster's objects.
        root: the cluster's directory.
        settings: the laptop's settings.
        addresses: the addresses of the pods of all clusters.
    """

    def __init__(self, objects: Objects, root: Path, settings: Settings, addresses: AddressPool) -> None:
        self._objects = objects
        self._root = root
        self._settings = settings
        self._addresses = addresses
        self._events = EventRecorder(objects)
        self._nodes: dict[str, Node] = {}
        self._runners: dict[str, PodRunner] = {}
        self._tasks = Tasks()
        self._watches = Tasks()
        self._node_informer = Informer(objects, "nodes")
        self._pod_informer = Informer(objects, "pods")
        self._claim_informer = Informer(objects, "persistentvolumeclaims")
        self._endpoints_informer = Informer(objects, "endpoints")
        self._hosts = HostsFiles(self._endpoints_informer)
        self._pods_by_node = self._pod_informer.index(lambda pod: pod["spec"].get("nodeName") or "")
        self._machine_gpus: list[gpus.Gpu] = []
        self._starts = StartLimiter()
        self._cluster: ClusterContext

    async def start(self) -> None:
        """Start the nodes, resume the pods from before a restart, and run new pods."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        tools, gpu_tools = install_tools(self._root / "tools")
        self._machine_gpus = await asyncio.to_thread(gpus.find_machine_gpus)
        namespaces = await asyncio.to_thread(_has_mount_namespaces, self._root / "tools")
        if not namespaces:
            log.info("the system does not allow mount namespaces: mount paths in commands are rewritten")
        root = self._root if namespaces else quotable_path(self._root)
        self._cluster = ClusterContext(
            self._objects,
            self._events,
            self._settings,
            root,
            tools,
            gpu_tools,
            mount_namespaces=namespaces,
            addresses=self._addresses,
            hosts=self._hosts,
            attachments=Attachments(),
            claims=self._claim_informer,
            starts=self._starts,
        )
        await self._events.start()
        informers = (self._node_informer, self._pod_informer, self._claim_informer, self._endpoints_informer)
        for informer in informers:
            self._watches.spawn(informer.run())
            await informer.synced.wait()
        if namespaces:
            self._hosts.start()
            self._watches.spawn(self._hosts.run())
        self._node_informer.on_change(self._node_changed)
        self._pod_informer.on_change(self._pod_changed)
        self._claim_informer.on_change(self._claim_changed)
        if not namespaces:
            self._endpoints_informer.on_change(self._warn_about_names)
        self._delete_orphans()

    async def stop(self, *, end_pods: bool) -> None:
        """Stop maintaining nodes and pods.

        Args:
            end_pods: whether to end the pods' processes, without a change in the API. Otherwise they keep running.
        """
        await self._watches.cancel()
        await self._tasks.cancel()
        grace = STOP_GRACE_SECONDS if end_pods else None
        await asyncio.gather(*(runner.detach(grace) for runner in self._runners.values()))
        for node in self._nodes.values():
            await node.stop()
        await self._events.stop()
        if end_pods and self._cluster.root != self._root:
            shutil.rmtree(self._cluster.root.parent, ignore_errors=True)  # a link below /tmp

    async def open(
        self, namespace: str, pod: str, container: str, *, previous: bool, follow: bool, **options: Any
    ) -> AsyncIterator[bytes]:
        """Return a container's log; see :class:`~aksgpu.local.api.pod_logs.PodLogs`.

        Raises:
            StatusError: the kubelet cannot be reached, or the pod, the container or the previous run does not exist.
        """
        node = self._find_pod(namespace, pod).context.node
        if node.connection_error:
            query = _log_query(follow=follow, previous=previous, **options)
            raise _kubelet_error("Get", node, f"containerLogs/{namespace}/{pod}/{container}", query)
        found = self._find_container(namespace, pod, container)
        path = found.find_log(previous=previous)
        if path is None:
            what = "previous terminated container" if previous else "container"
            raise bad_request(f'{what} "{container}" in pod "{pod}" not found')
        if not follow:
            await found.wait_for_output(path)

        def ended() -> bool:
            # The API server ends the response if the connection to the kubelet breaks.
            return not found.may_write(path) or bool(node.connection_error)

        return container_logs.read(path, ended, follow=follow and not previous, **options)

    async def execute(self, namespace: str, pod: str, container: str, argv: Sequence[str], *, tty: bool) -> Execution:
        """Run a command in a container; see :class:`~aksgpu.local.api.pod_exec.PodExec`.

        Raises:
            StatusError: the kubelet cannot be reached, the pod or the container does not exist, or the command did not
                start.
        """
        query = urlencode([("command", word) for word in argv])
        self._check_connection(namespace, pod, f"exec/{namespace}/{pod}/{container}", query)
        try:
            return await self._find_container(namespace, pod, container).execute(argv, tty=tty)
        except ExecError as error:
            prefix = "Internal error occurred: Internal error occurred: error executing command in container: "
            raise StatusError(500, "InternalError", prefix + _OCI_EXEC_ERROR.format(error)) from error

    async def attach(self, namespace: str, pod: str, container: str, *, stdin: bool) -> Execution:
        """Connect to a container's own command; see :class:`~aksgpu.local.api.pod_exec.PodExec`.

        Raises:
            StatusError: the kubelet is away, the pod or the container does not exist, or the container has ended.
        """
        self._check_connection(namespace, pod, f"attach/{namespace}/{pod}/{container}")
        try:
            return await self._find_container(namespace, pod, container).attach(stdin=stdin)
        except ExecError as error:
            message = f"Internal error occurred: error attaching to container: {error}"
            raise StatusError(500, "InternalError", message) from error

    async def connect(self, namespace: str, pod: str, port: int) -> Streams:
        """Connect to a port of a pod; see :class:`~aksgpu.local.api.port_forward_channels.PodPorts`.

        Raises:
            StatusError: the pod does not exist or the kubelet is away.
            ConnectionRefusedError: no process of the pod listens on the port.
        """
        runner = self._find_pod(namespace, pod)
        context = runner.context
        self._check_connection(namespace, pod, f"portForward/{namespace}/{pod}")
        own_ip = "" if context.pod["spec"].get("hostNetwork") else context.ip
        return await pod_ports.connect(runner.supervisor_pids(), own_ip, context.uid, port)

    def _check_connection(self, namespace: str, pod: str, path: str, query: str = "") -> None:
        """Raise StatusError if the API server cannot reach the kubelet of a pod."""
        node = self._find_pod(namespace, pod).context.node
        if node.connection_error:
            error = _kubelet_error("Post", node, path, query)
            prefix = "Internal error occurred: error sending request: "
            raise StatusError(500, "InternalError", prefix + error.message)

    def _find_pod(self, namespace: str, pod: str) -> PodRunner:
        for runner in reversed(self._runners.values()):  # an older pod of the same name may still be ending
            if (runner.context.namespace, runner.context.name) == (namespace, pod):
                return runner
        raise not_found("pods", pod)

    def _find_container(self, namespace: str, pod: str, name: str) -> ContainerRunner:
        for container in self._find_pod(namespace, pod).all_containers:
            if container.name == name:
                return container
        raise bad_request(f"container {name} is not valid for pod {pod}")

    # Informers call the next four methods, so they must not block.

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            if old is not None:
                self._tasks.spawn(self._remove_node(self._nodes.pop(old["metadata"]["name"])))
            return
        name = new["metadata"]["name"]
        if old is not None:
            self._nodes[name].update(new)
            return
        node = Node(self._objects, self._events, new, self._root, self._starts)
        self._nodes[name] = node
        node.gpus = gpus.assign_gpus(new, self._machine_gpus, self._root / "nodes")
        node.start()
        for pod in self._pods_by_node[name]:
            self._pod_changed(None, pod)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        uid = (new or old or {})["metadata"]["uid"]
        runner = self._runners.get(uid)
        if runner is not None and new is not None:
            runner.update(new)
        elif runner is not None:
            self._tasks.spawn(self._remove_pod(runner))
        elif new is not None:
            node = self._nodes.get(new["spec"].get("nodeName", ""))
            if node is not None:
                self._runners[uid] = PodRunner(self._cluster, node, new)
                self._runners[uid].start()

    def _claim_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is None:
            path = claim_directory(self._root / "claims", old)
            self._tasks.spawn(asyncio.to_thread(shutil.rmtree, path, ignore_errors=True))

    def _warn_about_names(self, old: Object | None, new: Object | None) -> None:
        """Record an event for each new pod of a Service, because the Service's name cannot be looked up."""
        known = pod_uids(old) if old else set()
        for uid in (pod_uids(new) if new else set()) - known:
            runner = self._runners.get(uid)
            if runner is not None and new is not None:
                name = new["metadata"]["name"]
                runner.context.record_event("Warning", "NamesNotSupported", NO_SERVICE_NAMES.format(name))

    async def _remove_node(self, node: Node) -> None:
        """End the pods of a deleted node, and delete its files."""
        runners = [runner for runner in self._runners.values() if runner.context.node is node]
        await asyncio.gather(*(runner.kill() for runner in runners))
        await node.stop()
        if node.name not in self._nodes:
            shutil.rmtree(node.kubelet.parent, ignore_errors=True)

    async def _remove_pod(self, runner: PodRunner) -> None:
        """End the processes of a deleted pod, and delete its files."""
        await runner.kill()
        del self._runners[runner.context.uid]
        await asyncio.sleep(KEEP_FILES_SECONDS)
        shutil.rmtree(runner.context.directory, ignore_errors=True)

    def _delete_orphans(self) -> None:
        """Delete the files of pods and claims that were deleted while no agent was running.

        Pods are ended in the background.
        """
        claims = {claim_directory(self._root / "claims", claim) for claim in self._claim_informer}
        for path in set((self._root / "claims").glob("*")) - claims:
            shutil.rmtree(path, ignore_errors=True)
        for pod in (self._root / "pods").glob("*"):
            if pod.name not in self._runners:
                self._tasks.spawn(self._delete_orphaned_pod(pod))

    async def _delete_orphaned_pod(self, pod: Path) -> None:
        containers = (pod / "containers").glob("*")
        runs = [ContainerRun(container, number) for container in containers for number in list_runs(container)]
        for run in runs:
            await run.resume()
            run.kill()
        for run in runs:
            await run.wait()
        if pod.name not in self._runners:  # its node may have been created again
            await asyncio.to_thread(shutil.rmtree, pod, ignore_errors=True)


def _log_query(**options: Any) -> str:
    """Return the query of the API server's request to a kubelet for a log."""
    names = {
        "since_time": "sinceTime",
        "since_seconds": "sinceSeconds",
        "tail_lines": "tailLines",
        "limit_bytes": "limitBytes",
    }
    query: dict[str, Any] = {}
    for name, value in options.items():
        if value is not None and value is not False:
            query[names.get(name, name)] = "true" if value is True else value
    return urlencode(sorted(query.items()))


def _kubelet_error(method: str, node: Node, path: str, query: str) -> StatusError:
    """Return the API server's error if it cannot reach a kubelet. The error has no ``reason``."""
    url = f"https://{node.ip}:10250/{path}{'?' if query else ''}{query}"
    error = StatusError(500, "", f'{method} "{url}": {node.connection_error}')
    del error.status["reason"]
    return error


def _has_mount_namespaces(directory: Path) -> bool:
    """Return whether this system allows mount namespaces, by creating one in a separate process."""
    probe = [*SHIM_COMMAND, "--probe", str(directory)]
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(probe, capture_output=True, timeout=PROBE_SECONDS, check=False).returncode == 0
    return False
