"""The kinds that the laptop's API server serves, as a table: a row a kind.

Everything that is alike for all kinds reads its differences here: names, scope, verbs, subresources, fields that a
selector may name. What only one kind does is in :mod:`aksgpu.local.api.strategy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
EDIT_VERBS = ("get", "patch", "update")


@dataclass(frozen=True)
class Subresource:
    """A part of an object with a path of its own, as discovery describes it."""

    name: str
    kind: str
    """The kind of the body; for ``status`` the object's own."""
    group: str = ""
    version: str = "v1"
    verbs: tuple[str, ...] = EDIT_VERBS


@dataclass(frozen=True, eq=False)
class Kind:
    """One row: how a kind is called, where it lives and what can be done with it."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    namespaced: bool = True
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: Mapping[str, Subresource] = field(default_factory=dict)
    fields: tuple[str, ...] = ()
    """What a field selector may name, beyond metadata.name and metadata.namespace; in the server's order."""
    generation: bool = False
    """Whether metadata.generation counts changes of the spec."""
    name_rule: str = "subdomain"
    """``subdomain``, ``label``, ``service`` or ``path``; see :mod:`aksgpu.local.api.names`."""
    body_in_delete: bool = False
    """Whether DELETE answers with the object, as pods and namespaces do, rather than a Status."""

    @cached_property
    def api_version(self) -> str:
        """``v1`` or ``group/version``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @cached_property
    def qualified(self) -> str:
        """``jobs.batch``: the name in error texts."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @cached_property
    def qualified_kind(self) -> str:
        """``Job.batch``: the name in the texts of failed validations."""
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @cached_property
    def definition(self) -> str:
        """The key of this kind in the published schemas."""
        package = {"rbac.authorization.k8s.io": "rbac", "scheduling.k8s.io": "scheduling"}.get(self.group, self.group)
        package = package.removesuffix(".k8s.io") or "core"
        return f"io.k8s.api.{package}.{self.version}.{self.kind}"

    @cached_property
    def head(self) -> bytes:
        """How the JSON of every stored object of this kind begins; list items are the rest."""
        return f'{{"kind":"{self.kind}","apiVersion":"{self.api_version}",'.encode()


def _status(kind: str, group: str = "") -> dict[str, Subresource]:
    return {"status": Subresource("status", kind, group)}


_RBAC, _SCHEDULING, _COORDINATION = "rbac.authorization.k8s.io", "scheduling.k8s.io", "coordination.k8s.io"
_NO_COLLECTION = tuple(verb for verb in ALL_VERBS if verb != "deletecollection")
_POD_PARTS = {
    "binding": Subresource("binding", "Binding", verbs=("create",)),
    "eviction": Subresource("eviction", "Eviction", "policy", "v1", ("create",)),
    "exec": Subresource("exec", "PodExecOptions", verbs=("create", "get")),
    "log": Subresource("log", "Pod", verbs=("get",)),
    **_status("Pod"),
}
_POD_FIELDS = (
    "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork status.phase "
    "status.podIP status.nominatedNodeName"
)
_EVENT_FIELDS = (
    "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid involvedObject.apiVersion "
    "involvedObject.resourceVersion involvedObject.fieldPath reason reportingComponent source type"
)
_FINALIZE = {**_status("Namespace"), "finalize": Subresource("finalize", "Namespace", verbs=("update",))}

# fmt: off
KINDS: tuple[Kind, ...] = (
    Kind("", "v1", "ConfigMap", "configmaps", "configmap", ("cm",)),
    Kind("", "v1", "Event", "events", "event", ("ev",), fields=tuple(_EVENT_FIELDS.split())),
    Kind("", "v1", "Namespace", "namespaces", "namespace", ("ns",), namespaced=False, verbs=_NO_COLLECTION,
         subresources=_FINALIZE, fields=("status.phase",), name_rule="label", body_in_delete=True),
    Kind("", "v1", "Node", "nodes", "node", ("no",), namespaced=False, subresources=_status("Node"),
         fields=("spec.unschedulable",)),
    Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "persistentvolumeclaim", ("pvc",),
         subresources=_status("PersistentVolumeClaim"), body_in_delete=True),
    Kind("", "v1", "Pod", "pods", "pod", ("po",), ("all",), subresources=_POD_PARTS, body_in_delete=True,
         fields=tuple(_POD_FIELDS.split())),
    Kind("", "v1", "ResourceQuota", "resourcequotas", "resourcequota", ("quota",),
         subresources=_status("ResourceQuota"), body_in_delete=True),
    Kind("", "v1", "Secret", "secrets", "secret", fields=("type",)),
    Kind("", "v1", "Service", "services", "service", ("svc",), ("all",), subresources=_status("Service"),
         fields=("spec.clusterIP", "spec.type"), name_rule="service", body_in_delete=True),
    Kind("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount", ("sa",), body_in_delete=True),
    Kind("apps", "v1", "ControllerRevision", "controllerrevisions", "controllerrevision"),
    Kind("apps", "v1", "DaemonSet", "daemonsets", "daemonset", ("ds",), ("all",), generation=True,
         subresources=_status("DaemonSet", "apps")),
    Kind("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews",
         "selfsubjectaccessreview", namespaced=False, verbs=("create",)),
    Kind("batch", "v1", "Job", "jobs", "job", (), ("all",), generation=True, subresources=_status("Job", "batch"),
         fields=("status.successful",)),
    Kind(_COORDINATION, "v1", "Lease", "leases", "lease"),
    Kind(_RBAC, "v1", "ClusterRole", "clusterroles", "clusterrole", namespaced=False, name_rule="path"),
    Kind(_RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", "clusterrolebinding", namespaced=False,
         name_rule="path"),
    Kind(_RBAC, "v1", "Role", "roles", "role", name_rule="path"),
    Kind(_RBAC, "v1", "RoleBinding", "rolebindings", "rolebinding", name_rule="path"),
    Kind(_SCHEDULING, "v1", "PriorityClass", "priorityclasses", "priorityclass", ("pc",), namespaced=False),
)
# fmt: on

_BY_PLURAL = {kind.plural: kind for kind in KINDS}


def by_plural(plural: str) -> Kind:
    """The row of a plural; KeyError for a resource that is not served."""
    return _BY_PLURAL[plural]


def by_path(group: str, version: str, plural: str) -> Kind | None:
    """The row of a URL's group, version and plural, or None."""
    found = _BY_PLURAL.get(plural)
    return found if found is not None and (found.group, found.version) == (group, version) else None
