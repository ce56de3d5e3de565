"""The Endpoints controller: keeps the Endpoints and the EndpointSlice of each Service that has a selector.

The node agent derives the names that pods can look up from the Endpoints. Here, an EndpointSlice can have any number of
pods. Kubernetes starts a new one after 100.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aksgpu.local.control import fields_without_effect
from aksgpu.local.control.controller_runtime import Cluster, Controller, is_finished, is_ready
from aksgpu.local.control.informer import object_key
from aksgpu.local.control.pod_control import reference_to
from aksgpu.local.objects import Object
from aksgpu.local.status_error import ignoring

_HEADLESS_LABEL = "service.kubernetes.io/headless"
_MANAGED_LABEL = "endpointslice.kubernetes.io/managed-by"
_SERVICE_LABEL = "kubernetes.io/service-name"
_SLICES = "endpointslices"
PORT_NOT_FORWARDED = (
    "The laptop AKS does not forward ports: the name {name} resolves to the pods' addresses, and the pods listen on "
    "port {target}. Connect to {name}:{target}, or set `port` to {target}. On AKS, {name}:{port} works"
)


class EndpointsController(Controller):
    """Writes the addresses of the pods that Services select."""

    resource = "services"
    component = "endpoint-controller"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._recorded: set[str] = set()
        self._endpoints = self.follow("endpoints", object_key)
        self._slices = self.follow(_SLICES, _service_key)
        self._services = self.informer.index(lambda service: str(service["metadata"]["namespace"]))
        self._pods = cluster.informer("pods")
        self._pods_by_namespace = self._pods.index(lambda pod: str(pod["metadata"]["namespace"]))
        self._pods.on_change(self._pod_changed)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        namespace = (new or old or {})["metadata"]["namespace"]
        for service in self._services[namespace]:
            if any(_selects(service, pod) for pod in (old, new) if pod):
                self.queue.add(object_key(service))

    async def sync(self, key: str) -> float | None:
        """Write the endpoints of one Service, or delete them with it."""
        service = self.informer.get(key)
        if service is None:
            for resource, obj in (("endpoints", self._endpoints.get(key)), (_SLICES, self._find_slice(key))):
                if obj and _is_owned(obj):
                    await self.cluster.delete(resource, obj)
            return None
        if service["metadata"].get("deletionTimestamp"):
            return None
        without_effect = fields_without_effect.of_service(service)
        if without_effect:
            self._record(service, "Normal", fields_without_effect.REASON, fields_without_effect.message(without_effect))
        if not service["spec"].get("selector"):
            return None
        pods = [pod for pod in self._pods_by_namespace[service["metadata"]["namespace"]] if _selects(service, pod)]
        pods.sort(key=lambda pod: (pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"]))
        self._warn_about_ports(service, pods)
        await self._write("endpoints", self._endpoints.get(key), build_endpoints(service, pods))
        await self._write(_SLICES, self._find_slice(key), build_slice(service, pods))
        return None

    def _warn_about_ports(self, service: Object, pods: Iterable[Object]) -> None:
        """Record an event if clients of a Service would use a port on which its pods do not listen."""
        if service["spec"].get("clusterIP") == "None":
            return
        name = service["metadata"]["name"]
        for port in service["spec"].get("ports") or ():
            targets = {target_port(port, pod) for pod in pods} - {None, port["port"]}
            for target in targets:
                message = PORT_NOT_FORWARDED.format(name=name, port=port["port"], target=target)
                self._record(service, "Warning", "PortNotForwarded", message)

    def _record(self, service: Object, kind: str, reason: str, message: str) -> None:
        """Record an event about a Service, unless it has been recorded before."""
        key = f"{service['metadata']['uid']} {message}"
        if key not in self._recorded:
            self._recorded.add(key)
            self.record_event(service, kind, reason, message)

    def _find_slice(self, key: str) -> Object | None:
        return self._slices.get(f"{key}-aksgpu")

    async def _write(self, resource: str, old: Object | None, new: Object) -> None:
        """Create an object, or replace the parts that have changed."""
        if old is None:
            with ignoring(409):
                await self.cluster.create(resource, new)
            return
        parts = {name: value for name, value in new.items() if name not in ("apiVersion", "kind", "metadata")}
        labels = new["metadata"]["labels"]
        cleared = {name: None for name in ("subsets", "endpoints", "ports") if old.get(name) and not parts.get(name)}
        changed = {name: value for name, value in parts.items() if value and value != old.get(name)}
        patch: Object = {**cleared, **changed}
        if labels != (old["metadata"].get("labels") or {}):
            patch["metadata"] = {"labels": labels}
        if patch:
            await self.cluster.patch(resource, old, patch)


def _service_key(endpoint_slice: Object) -> str:
    meta = endpoint_slice["metadata"]
    name = (meta.get("labels") or {}).get(_SERVICE_LABEL, "")
    return f"{meta['namespace']}/{name}" if name else ""


def _is_owned(obj: Object) -> bool:
    """Return whether a controller created the endpoints, and not a user for a Service without a selector."""
    labels = obj["metadata"].get("labels") or {}
    return "endpoints.kubernetes.io/managed-by" in labels or _MANAGED_LABEL in labels


def _selects(service: Object, pod: Object) -> bool:
    selector = service["spec"].get("selector") or {}
    labels = pod["metadata"].get("labels") or {}
    same_namespace = service["metadata"]["namespace"] == pod["metadata"]["namespace"]
    return bool(selector) and same_namespace and all(labels.get(key) == value for key, value in selector.items())


def _has_address(pod: Object) -> bool:
    return bool((pod.get("status") or {}).get("podIP")) and not is_finished(pod)


def _reference(pod: Object) -> Object:
    meta = pod["metadata"]
    return {"kind": "Pod", "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}


def _hostname(service: Object, pod: Object) -> dict[str, str]:
    """Return the pod's host name if the pod has its own name in the Service's domain."""
    spec = pod["spec"]
    has_name = spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]
    return {"hostname": spec["hostname"]} if has_name else {}


def _address(service: Object, pod: Object) -> Object:
    return {
        **_hostname(service, pod),
        "ip": pod["status"]["podIP"],
        "nodeName": pod["spec"].get("nodeName"),
        "targetRef": _reference(pod),
    }


def target_port(service_port: Object, pod: Object) -> int | None:
    """Return the pod's port that a Service's port is mapped to; None if the pod has no port of that name."""
    target = service_port.get("targetPort") or service_port["port"]
    if isinstance(target, int):
        return target
    protocol = service_port.get("protocol", "TCP")
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            if port.get("name") == target and port.get("protocol", "TCP") == protocol:
                return int(port["containerPort"])
    return None


def _ports(service: Object, pod: Object) -> list[Object]:
    """Return the ports of a pod, in the form of Endpoints."""
    found: list[Object] = []
    for port in service["spec"].get("ports") or ():
        number = target_port(port, pod)
        if number is None:
            continue
        name = {"name": port["name"]} if port.get("name") else {}
        found.append({**name, "port": number, "protocol": port.get("protocol", "TCP")})
    return found


def build_endpoints(service: Object, pods: Iterable[Object]) -> Object:
    """Return the Endpoints of a Service.

    Pods with equal ports are in one subset. As in Kubernetes, ``publishNotReadyAddresses`` counts all pods as ready.

    Args:
        service: the Service.
        pods: the pods that it selects, the oldest first.
    """
    all_ready = bool(service["spec"].get("publishNotReadyAddresses"))
    headless = service["spec"].get("clusterIP") == "None"
    subsets: dict[str, dict[str, Any]] = {}
    for pod in pods:
        if not _has_address(pod) or (pod["metadata"].get("deletionTimestamp") and not all_ready):
            continue
        ports = _ports(service, pod)
        if not ports and not (headless and not service["spec"].get("ports")):
            continue
        subset = subsets.setdefault(str(ports), {})
        kind = "addresses" if all_ready or is_ready(pod) else "notReadyAddresses"
        subset.setdefault(kind, []).append(_address(service, pod))
        if ports:
            subset["ports"] = ports
    labels = dict(service["metadata"].get("labels") or {})
    labels["endpoints.kubernetes.io/managed-by"] = "endpoint-controller"
    if headless:
        labels[_HEADLESS_LABEL] = ""
    meta = service["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": meta["name"], "namespace": meta["namespace"], "labels": labels},
        "subsets": list(subsets.values()),
    }


def build_slice(service: Object, pods: Iterable[Object]) -> Object:
    """Return the EndpointSlice of a Service. It includes pods that are being deleted.

    Args:
        service: the Service.
        pods: the pods that it selects, the oldest first.
    """
    all_ready = bool(service["spec"].get("publishNotReadyAddresses"))
    endpoints: list[Object] = []
    ports: list[Object] = []
    for pod in pods:
        if not _has_address(pod):
            continue
        ready = is_ready(pod)
        terminating = bool(pod["metadata"].get("deletionTimestamp"))
        ports = ports or _ports(service, pod)
        conditions = {
            "ready": all_ready or (ready and not terminating),
            "serving": ready,
            "terminating": terminating,
        }
        endpoint = {"addresses": [pod["status"]["podIP"]], "conditions": conditions, **_hostname(service, pod)}
        endpoints.append({**endpoint, "nodeName": pod["spec"].get("nodeName"), "targetRef": _reference(pod)})
    labels = dict(service["metadata"].get("labels") or {})
    labels[_MANAGED_LABEL] = "endpointslice-controller.k8s.io"
    labels[_SERVICE_LABEL] = service["metadata"]["name"]
    if service["spec"].get("clusterIP") == "None":
        labels[_HEADLESS_LABEL] = ""
    meta = service["metadata"]
    owner = reference_to({**service, "apiVersion": "v1", "kind": "Service"})
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{meta['name']}-aksgpu",
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": [owner],
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "", **port} for port in ports],
    }
