"""Fields of a pod that the laptop does not act on. An event names them, so that nothing is ignored silently."""

from __future__ import annotations

from collections.abc import Iterator

from aksgpu.local.objects import Object

__all__ = ["find"]

_POD_FIELDS = (
    "automountServiceAccountToken",
    "dnsConfig",
    "hostIPC",
    "hostPID",
    "hostnameOverride",
    "imagePullSecrets",
    "readinessGates",
    "resources",
    "schedulingGroup",
    "securityContext",
    "shareProcessNamespace",
    "topologySpreadConstraints",
)
_CONTAINER_FIELDS = (
    "lifecycle",
    "livenessProbe",
    "readinessProbe",
    "resizePolicy",
    "restartPolicyRules",
    "securityContext",
    "startupProbe",
    "volumeDevices",
)
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_LOCAL_STORAGE = "ephemeral-storage"
_MOUNT_DEFAULTS = {"mountPropagation": "None", "recursiveReadOnly": "Disabled"}
_PROJECTED_SOURCES = ("clusterTrustBundle", "podCertificate", "serviceAccountToken")


def find(spec: Object) -> list[str]:
    """Return the paths of the fields in the spec of a pod that have no effect."""
    return sorted(dict.fromkeys(_paths(spec)))


def _paths(spec: Object) -> Iterator[str]:
    yield from (f"spec.{field}" for field in _POD_FIELDS if spec.get(field))
    if spec.get("hostUsers") is False:
        yield "spec.hostUsers"
    if (spec.get("os") or {}).get("name", "linux") != "linux":
        yield "spec.os"
    affinity = spec.get("affinity") or {}
    yield from (f"spec.affinity.{field}" for field in ("podAffinity", "podAntiAffinity") if affinity.get(field))
    if (affinity.get("nodeAffinity") or {}).get(_PREFERRED):
        yield f"spec.affinity.nodeAffinity.{_PREFERRED}"
    for group in ("initContainers", "containers"):
        for container in spec.get(group) or ():
            yield from _container_paths(container, f"spec.{group}{{{container['name']}}}")
    for volume in spec.get("volumes") or ():
        yield from _volume_paths(volume, f"spec.volumes{{{volume['name']}}}")


def _volume_paths(volume: Object, path: str) -> Iterator[str]:
    empty = volume.get("emptyDir") or {}
    yield from (f"{path}.emptyDir.{field}" for field in ("medium", "sizeLimit") if empty.get(field))
    for source in (volume.get("projected") or {}).get("sources") or ():
        yield from (f"{path}.projected.{field}" for field in _PROJECTED_SOURCES if source.get(field))


def _container_paths(container: Object, path: str) -> Iterator[str]:
    yield from (f"{path}.{field}" for field in _CONTAINER_FIELDS if container.get(field))
    if any(port.get("hostPort") for port in container.get("ports") or ()):
        yield f"{path}.ports.hostPort"
    for mount in container.get("volumeMounts") or ():
        for field, default in _MOUNT_DEFAULTS.items():
            if mount.get(field, default) != default:
                yield f"{path}.volumeMounts{{{mount['name']}}}.{field}"
    resources = container.get("resources") or {}
    if resources.get("claims"):
        yield f"{path}.resources.claims"
    for kind in ("limits", "requests"):
        if _LOCAL_STORAGE in (resources.get(kind) or {}):
            yield f"{path}.resources.{kind}.{_LOCAL_STORAGE}"
