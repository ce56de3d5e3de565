"""A test of each GPU node: a small pod runs ``nvidia-smi``, and what it sees is compared with what is advertised."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aksgpu.capacity.gpu_table import gpu_nodes
from aksgpu.capacity.gpu_usage import Usage, usage_or_none
from aksgpu.common.arguments import shown
from aksgpu.common.frames import frame
from aksgpu.errors import InvalidInput, KubernetesError, NotFound, WaitTimeout
from aksgpu.kube import path_names, pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.kube.node_facts import Node, tolerations
from aksgpu.logs.job_logs import read as read_log
from aksgpu.waiting import Timeout, Timer, wait_until

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["smoke_test"]

IMAGE = "nvcr.io/nvidia/cuda:12.9.1-base-ubuntu24.04"
"""The image of the pods. The container runtime adds ``nvidia-smi`` and the driver's libraries of the node."""
_COMMAND = "nvidia-smi -L && nvidia-smi --query-gpu=driver_version --format=csv,noheader"
_LABEL = "aksgpu.dev/smoke-test"
"""Label of the pods, with a value of its own for each call."""
_POLL_SECONDS = 1.0
_TAIL_LINES = 200
"""Lines of a pod's log that are read: a node has at most 56 slices of GPUs."""
_LONGEST_LOG = 300
"""Characters of a failed pod's log that a problem contains."""

_WHOLE_GPU = re.compile(r"^GPU \d{1,3}: (?P<model>.{1,100}?) \(UUID: GPU-", re.M)
_SLICE = re.compile(r"\(UUID: MIG-")
_DRIVER = re.compile(r"^\d{3}\.\d{1,4}(?:\.\d{1,4})?$", re.M)

_COLUMNS = {
    "node": "string",
    "pool": "string",
    "resource": "string",
    "advertised": "Int64",
    "requested": "Int64",
    "seen": "Int64",
    "gpu_model": "string",
    "driver": "string",
    "ok": "boolean",
    "problem": "string",
}


@dataclass
class _Test:
    """The test of one GPU resource of one node.

    Attributes:
        node: the node.
        resource: the GPU resource.
        requested: number of GPUs that the pod requests; 0 if it is not tested.
        pod: name of the pod; empty if it is not tested.
        problem: why it is not tested, or what is wrong.
        skipped: whether the node says nothing about its GPUs, because it is not tested.
        output: the log of the pod if it succeeded; None before.
        done: whether the pod has ended or cannot start.
    """

    node: Node
    resource: str
    requested: int = 0
    pod: str = ""
    problem: str = ""
    skipped: bool = False
    output: str | None = None
    done: bool = False

    def row(self) -> dict[str, Any]:
        """Return the row of the table."""
        seen = model = driver = None
        if self.output is not None:
            models = _WHOLE_GPU.findall(self.output)
            slices = len(_SLICE.findall(self.output))
            seen = slices or len(models)  # the GPU of a slice is listed too
            model = models[0] if models else None
            found = _DRIVER.search(self.output)
            driver = found[0] if found else None
            if seen != self.requested:
                self.problem = (
                    f"nvidia-smi sees {seen} GPUs, and the pod was given {self.requested}: "
                    f"kubectl describe node {self.node.name} shows its conditions; plugin.status(aks) shows the plugin"
                )
        return {
            "node": self.node.name,
            "pool": self.node.pool,
            "resource": self.resource,
            "advertised": self.node.allocatable.get(self.resource, 0) if self.node.reported else None,
            "requested": self.requested or None,
            "seen": seen,
            "gpu_model": model,
            "driver": driver,
            "ok": None if self.skipped else not self.problem,
            "problem": self.problem or None,
        }


def smoke_test(
    aks: HasKube,
    *,
    image: str = IMAGE,
    namespace: str | None = None,
    timeout: Timeout = 600,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Run ``nvidia-smi`` in a small pod on each GPU node, and compare what it sees with what the node advertises.

    Each pod requests all free GPUs of its node, for the seconds that the test takes. GPUs that other pods use are not
    tested. The pods are deleted at the end, also after an interruption.

    Args:
        aks: the cluster.
        image: image of the pods, with a shell. The node adds ``nvidia-smi``.
        namespace: namespace of the pods; None uses the context's namespace.
        timeout: seconds, or text such as ``"10m"``; None means no limit. A pod that has not ended then is a problem of
            its node, not an error.
        progress: False shows no progress; None reads ``AKSGPU_PROGRESS``.

    Returns:
        One row for each GPU node and resource:

        - node, pool, resource (string): as for :func:`gpus`.
        - advertised (Int64): number of healthy GPUs that the node advertises; NA if it has reported none yet.
        - requested (Int64): number of GPUs that the pod requested; NA if no pod was created.
        - seen (Int64): number of GPUs that ``nvidia-smi`` listed; NA if it did not run.
        - gpu_model, driver (string): as ``nvidia-smi`` prints them; NA if it did not run.
        - ok (boolean): whether the pod saw the GPUs that it requested; NA if the node was not tested.
        - problem (string): why not, or why it was not tested; NA if ok.

    Raises:
        InvalidInput: an argument is wrong.
        Forbidden: you may not list nodes or create pods.
        Invalid: the API server does not accept the pods.

    Example:
        capacity.smoke_test(aks)
    """
    check_cluster(aks)
    if not isinstance(image, str) or not image:
        raise InvalidInput(f"`image` must be an image's name, got {shown(image)}", hint=f"For example {IMAGE!r}.")
    if namespace is None:
        namespace = aks.kube.namespace
    path_names.check_namespace(namespace)
    timer = Timer(timeout)
    tests = _planned(gpu_nodes(aks), usage_or_none(aks))
    run = secrets.token_hex(4)
    try:
        for number, test in enumerate(test for test in tests if test.requested):
            test.pod = f"gpu-smoke-test-{run}-{number}"
            aks.kube.create(_pod(test, image, namespace, run))
        _await(aks, tests, namespace, timer, progress)
    finally:
        _delete(aks, tests, namespace)
    return frame([test.row() for test in tests], _COLUMNS)


def _planned(nodes: list[Node], using: Mapping[str, Usage] | None) -> list[_Test]:
    """Return the tests: those without `requested` are not carried out, for the reason in `problem`."""
    tests = []
    for node in sorted(nodes, key=lambda node: (node.pool, node.name)):
        advertised = [name for name, count in sorted(node.allocatable.items()) if count]
        for resource in advertised or [node.resource]:
            tests.append(_plan(node, resource, using))
    return tests


def _plan(node: Node, resource: str, using: Mapping[str, Usage] | None) -> _Test:
    if not node.usable:
        reason = f"it is not ready ({node.readiness})" if not node.ready else "it is cordoned or being repaired"
        return _Test(node, resource, problem=f"not tested: {reason}", skipped=True)
    if not node.nvidia:
        reason = "not tested: nvidia-smi runs on Linux nodes with NVIDIA's GPUs only"
        return _Test(node, resource, problem=reason, skipped=True)
    advertised = node.allocatable.get(resource, 0)
    if not advertised:
        return _Test(node, resource, problem="the node advertises no GPU: plugin.status(aks) shows why")
    taken = 0 if using is None else using.get(node.name, Usage()).taken[resource]
    free = max(0, advertised - taken)
    if not free:
        return _Test(node, resource, problem="not tested: other pods use its GPUs", skipped=True)
    return _Test(node, resource, requested=free)


def _pod(test: _Test, image: str, namespace: str, run: str) -> Object:
    """Return a pod for one node. The scheduler places it, so that it is given GPUs that no other pod uses."""
    count = str(test.requested)
    here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [test.node.name]}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": test.pod, "namespace": namespace, "labels": {_LABEL: run}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "tolerations": tolerations([test.node], system=True),
            "affinity": {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [here]}}
            },
            "containers": [
                {
                    "name": "nvidia-smi",
                    "image": image,
                    "command": ["sh", "-c", _COMMAND],
                    "resources": {
                        "limits": {test.resource: count},
                        "requests": {"cpu": "50m", "memory": "64Mi", test.resource: count},
                    },
                }
            ],
        },
    }


def _await(aks: HasKube, tests: list[_Test], namespace: str, timer: Timer, progress: bool | None) -> None:
    """Wait until each pod has ended or cannot start, and read its log."""

    def poll() -> tuple[bool | None, str]:
        for test in tests:
            if test.pod and not test.done:
                _observe(aks, test, namespace)
        left = [test for test in tests if test.pod and not test.done]
        return (None if left else True), f"{len(left)} of {len(tests)} nodes left"

    try:
        wait_until(
            poll,
            "the test of the GPU nodes",
            timeout=timer,
            interval=_POLL_SECONDS,
            progress=progress,
            on_interrupt="The pods are deleted; capacity.smoke_test(aks) tests again.",
        )
    except WaitTimeout:
        for test in tests:
            if test.pod and not test.done:
                test.problem = f"the pod did not end in time: {_last_state(aks, test, namespace)}"


def _observe(aks: HasKube, test: _Test, namespace: str) -> None:
    """Record the result of a pod that has ended or cannot start."""
    try:
        pod = aks.kube.get("Pod", test.pod, namespace)
    except NotFound:
        test.problem = "the pod was deleted by another program"
        test.done = True
        return
    phase = (pod.get("status") or {}).get("phase")
    if phase == "Succeeded":
        test.output = read_log(aks, test.pod, namespace=namespace, tail_lines=_TAIL_LINES)
        test.done = True
    elif phase == "Failed":
        log = " ".join(_log_or_empty(aks, test.pod, namespace).split())[-_LONGEST_LOG:]
        word, message = pod_facts.state(pod)
        test.problem = f"nvidia-smi failed: {' '.join(part for part in (word, message, log) if part)}"
        test.done = True
    elif pod_facts.state(pod).word in pod_facts.STUCK:
        word, message = pod_facts.state(pod)
        test.problem = f"the pod does not start: {word} {message}".strip()
        test.done = True


def _log_or_empty(aks: HasKube, pod: str, namespace: str) -> str:
    try:
        return read_log(aks, pod, namespace=namespace, tail_lines=_TAIL_LINES)
    except KubernetesError:
        return ""  # a missing log must not hide the failure itself


def _last_state(aks: HasKube, test: _Test, namespace: str) -> str:
    try:
        word, message = pod_facts.state(aks.kube.get("Pod", test.pod, namespace))
    except KubernetesError as failed:
        return failed.message
    return f"{word} {message}".strip()


def _delete(aks: HasKube, tests: list[_Test], namespace: str) -> None:
    for test in tests:
        if test.pod:
            with contextlib.suppress(KubernetesError):
                aks.kube.delete("Pod", test.pod, namespace)
