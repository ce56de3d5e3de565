"""Find fields of a pod's spec that are at the wrong level, such as after an indentation error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aksgpu.errors import InvalidInput
from aksgpu.kube.client import Object
from aksgpu.kube.node_facts import gpus_of

__all__ = ["check_container_level", "check_gpu_limits", "check_pod_level"]

_POD_FIELDS = (
    "affinity",
    "hostIPC",
    "hostNetwork",
    "imagePullSecrets",
    "nodeSelector",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "serviceAccountName",
    "tolerations",
    "volumes",
)
"""Fields of a pod that a container does not have."""
_CONTAINER_FIELDS = ("args", "command", "env", "image", "ports", "volumeMounts")
"""Fields of a container that a pod does not have."""


def check_pod_level(pod_spec: Object, path: str) -> None:
    """Check that a pod's spec has no fields of a container.

    Args:
        pod_spec: the spec of the pods, whose resources are mappings.
        path: its path in the manifest.

    Raises:
        InvalidInput: it has such a field, or asks for GPUs outside of its containers.
    """
    for field in _CONTAINER_FIELDS:
        if field in pod_spec:
            raise InvalidInput(
                f"`{path}.{field}` must be in a container, `{path}.containers[0].{field}`",
                hint="Indent it like the container's `name`.",
            )
    resources = pod_spec.get("resources") or {}
    for field in ("limits", "requests"):
        if gpus_of(resources.get(field), f"`{path}.resources.{field}`"):
            raise InvalidInput(
                f"`{path}.resources` must not name GPUs: only containers have them, `{path}.containers[0].resources`",
                hint="Indent `resources` like the container's `name`: the pod as a whole can only ask for CPU and "
                "memory.",
            )


def check_container_level(container: Object, path: str, pod_path: str) -> None:
    """Check that a container has no fields of a pod.

    Args:
        container: the container.
        path: its path in the manifest.
        pod_path: the path of the pod's spec.

    Raises:
        InvalidInput: it has such a field.
    """
    for field in _POD_FIELDS:
        if field in container:
            raise InvalidInput(
                f"`{path}.{field}` must be in the pod's spec, `{pod_path}.{field}`",
                hint="Indent it like `containers`.",
            )


def check_gpu_limits(resources: Mapping[str, Any], path: str) -> None:
    """Check that a container's limits name the GPUs that its requests name.

    Args:
        resources: the container's resources.
        path: their path in the manifest.

    Raises:
        InvalidInput: the limits lack them, or name another number.
    """
    limits = gpus_of(resources.get("limits"), f"`{path}.limits`")
    for name, count in gpus_of(resources.get("requests"), f"`{path}.requests`").items():
        if limits.get(name) != count:
            given = f"{limits[name]}" if name in limits else "none"
            raise InvalidInput(
                f"`{path}.limits` must have as many {name} as the requests, {count}, got {given}",
                hint=f"Write limits: {{{name}: {count}}}. Leave GPUs out of the requests: they follow from the limits.",
            )
