"""Fields of a pod that the laptop does not act on. An event names them, so that nothing is ignored silently."""

from __future__ import annotations

from collections.abc import Iterator

from aksgpu.local.objects import Object

__all__ = ["REASON", "find", "message"]

REASON = "FieldsWithoutEffect"
_POD_FIELDS = (
    "dnsConfig",
    "hostIPC",
    "hostPID",
    "imagePullSecrets",
    "readinessGates",
    "securityContext",
    "shareProcessNamespace",
    "topologySpreadConstraints",
)
_CONTAINER_FIELDS = (
    "lifecycle",
    "livenessProbe",
    "readinessProbe",
    "resizePolicy",
    "securityContext",
    "startupProbe",
    "volumeDevices",
)
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_LOCAL_STORAGE = "ephemeral-storage"


def find(spec: Object) -> list[str]:
    """Return the paths of the fields in the spec of a pod that have no effect."""
    return sorted(dict.fromkeys(_paths(spec)))


def message(paths: list[str]) -> str:
    """Return the text of the event."""
    return f"The laptop AKS does not act on {', '.join(paths)}. A real cluster does"


def _paths(spec: Object) -> Iterator[str]:
    yield from (f"spec.{field}" for field in _POD_FIELDS if spec.get(field))
    affinity = spec.get("affinity") or {}
    yield from (f"spec.affinity.{field}" for field in ("podAffinity", "podAntiAffinity") if affinity.get(field))
    if (affinity.get("nodeAffinity") or {}).get(_PREFERRED):
        yield f"spec.affinity.nodeAffinity.{_PREFERRED}"
    for group in ("initContainers", "containers"):
        for container in spec.get(group) or ():
            yield from _container_paths(container, f"spec.{group}{{{container['name']}}}")
    for volume in spec.get("volumes") or ():
        empty = volume.get("emptyDir") or {}
        yield from (f"spec.volumes{{{volume['name']}}}.emptyDir.{f}" for f in ("medium", "sizeLimit") if empty.get(f))


def _container_paths(container: Object, path: str) -> Iterator[str]:
    yield from (f"{path}.{field}" for field in _CONTAINER_FIELDS if container.get(field))
    if any(port.get("hostPort") for port in container.get("ports") or ()):
        yield f"{path}.ports.hostPort"
    resources = container.get("resources") or {}
    for kind in ("limits", "requests"):
        if _LOCAL_STORAGE in (resources.get(kind) or {}):
            yield f"{path}.resources.{kind}.{_LOCAL_STORAGE}"
