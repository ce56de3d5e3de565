"""The kinds that the laptop's API server serves, one per row of :data:`KINDS`.

A row has the properties that differ between kinds: names, scope, verbs, subresources and the fields that field
selectors accept. The behaviour of single kinds is in :mod:`aksgpu.local.api.strategy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from aksgpu.local.status_error import StatusError, bad_request

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
EDIT_VERBS = ("get", "patch", "update")


@dataclass(frozen=True, eq=False)
class Type:
    """Group, version and kind of an object."""

    group: str
    version: str
    kind: str

    @cached_property
    def api_version(self) -> str:
        """``v1`` or ``group/version``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @cached_property
    def kind_and_group(self) -> str:
        """The name of the type in validation errors, such as ``Job.batch``."""
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @cached_property
    def package(self) -> str:
        """The Go package that defines the type, such as ``batch``."""
        return self.group.partition(".")[0] or "core"

    @cached_property
    def definition(self) -> str:
        """The key of this type in the published schemas."""
        root = "io.k8s.apimachinery.pkg.apis" if self.package == "meta" else "io.k8s.api"
        return f"{root}.{self.package}.{self.version}.{self.kind}"

    def decode_error(self, why: str, given: str = "") -> StatusError:
        """Return a 400 error for a body of kind ``given`` that cannot be decoded as this type."""
        head = f'{given or self.kind} in version "{self.version}" cannot be handled as a {self.kind}'
        return bad_request(f"{head}: {why}")


DELETE_OPTIONS = Type("meta.k8s.io", "v1", "DeleteOptions")


@dataclass(frozen=True, eq=False)
class Subresource(Type):
    """A subresource of a kind, with the type of its body. For ``status`` that is the object's own type."""

    verbs: tuple[str, ...] = EDIT_VERBS


@dataclass(frozen=True, eq=False)
class Kind(Type):
    """One kind: its names, its scope and its verbs."""

    plural: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    namespaced: bool = True
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: Mapping[str, Subresource] = field(default_factory=dict)
    fields: tuple[str, ...] = ()
    """Fields that field selectors accept besides metadata.name and metadata.namespace, in the API server's order."""
    generation: bool = False
    """Whether metadata.generation counts the changes of the spec."""
    name_format: str = "subdomain"
    """The format of names: ``subdomain``, ``label``, ``service`` or ``path``. See :mod:`aksgpu.local.name_formats`."""
    delete_returns_object: bool = False
    """Whether DELETE returns the object, as it does for pods and namespaces, rather than a Status."""

    @cached_property
    def qualified(self) -> str:
        """The name of the resource in error texts, such as ``jobs.batch``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @cached_property
    def json_prefix(self) -> bytes:
        """The first bytes of every stored object of this kind. Lists omit them."""
        return f'{{"kind":"{self.kind}","apiVersion":"{self.api_version}",'.encode()


def _status(kind: str, group: str = "") -> dict[str, Subresource]:
    return {"status": Subresource(group, "v1", kind)}


_AUTHENTICATION = "authentication.k8s.io"
_AUTHORIZATION = "authorization.k8s.io"
_RBAC = "rbac.authorization.k8s.io"
_SCHEDULING = "scheduling.k8s.io"
_COORDINATION = "coordination.k8s.io"
_STORAGE = "storage.k8s.io"
_NO_COLLECTION = tuple(verb for verb in ALL_VERBS if verb != "deletecollection")
_POD_PARTS = {
    "attach": Subresource("", "v1", "PodAttachOptions", ("create", "get")),
    "binding": Subresource("", "v1", "Binding", ("create",)),
    "eviction": Subresource("policy", "v1", "Eviction", ("create",)),
    "exec": Subresource("", "v1", "PodExecOptions", ("create", "get")),
    "log": Subresource("", "v1", "Pod", ("get",)),
    "portforward": Subresource("", "v1", "PodPortForwardOptions", ("create", "get")),
    **_status("Pod"),
}
_POD_FIELDS = (
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
)
_EVENT_FIELDS = (
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
)
_FINALIZE = {**_status("Namespace"), "finalize": Subresource("", "v1", "Namespace", ("update",))}

# fmt: off
KINDS: tuple[Kind, ...] = (
    Kind("", "v1", "ConfigMap", "configmaps", ("cm",)),
    Kind("", "v1", "Endpoints", "endpoints", ("ep",)),
    Kind("", "v1", "Event", "events", ("ev",), fields=_EVENT_FIELDS),
    Kind("", "v1", "Namespace", "namespaces", ("ns",), namespaced=False, verbs=_NO_COLLECTION,
         subresources=_FINALIZE, fields=("status.phase",), name_format="label", delete_returns_object=True),
    Kind("", "v1", "Node", "nodes", ("no",), namespaced=False, subresources=_status("Node"),
         fields=("spec.unschedulable",)),
    Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", ("pvc",),
         subresources=_status("PersistentVolumeClaim"), delete_returns_object=True),
    Kind("", "v1", "Pod", "pods", ("po",), ("all",), subresources=_POD_PARTS, delete_returns_object=True,
         fields=_POD_FIELDS),
    Kind("", "v1", "ResourceQuota", "resourcequotas", ("quota",),
         subresources=_status("ResourceQuota"), delete_returns_object=True),
    Kind("", "v1", "Secret", "secrets", fields=("type",)),
    Kind("", "v1", "Service", "services", ("svc",), ("all",), subresources=_status("Service"),
         fields=("spec.clusterIP", "spec.type"), name_format="service", delete_returns_object=True),
    Kind("", "v1", "ServiceAccount", "serviceaccounts", ("sa",), delete_returns_object=True,
         subresources={"token": Subresource(_AUTHENTICATION, "v1", "TokenRequest", ("create",))}),
    Kind("apps", "v1", "DaemonSet", "daemonsets", ("ds",), ("all",), generation=True,
         subresources=_status("DaemonSet", "apps")),
    Kind(_AUTHENTICATION, "v1", "SelfSubjectReview", "selfsubjectreviews", namespaced=False, verbs=("create",)),
    Kind(_AUTHENTICATION, "v1", "TokenReview", "tokenreviews", namespaced=False, verbs=("create",)),
    Kind(_AUTHORIZATION, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False,
         verbs=("create",)),
    Kind(_AUTHORIZATION, "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", namespaced=False,
         verbs=("create",)),
    Kind("batch", "v1", "Job", "jobs", (), ("all",), generation=True, subresources=_status("Job", "batch"),
         fields=("status.successful",)),
    Kind(_COORDINATION, "v1", "Lease", "leases"),
    Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    Kind(_RBAC, "v1", "ClusterRole", "clusterroles", namespaced=False, name_format="path"),
    Kind(_RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False,
         name_format="path"),
    Kind(_RBAC, "v1", "Role", "roles", name_format="path"),
    Kind(_RBAC, "v1", "RoleBinding", "rolebindings", name_format="path"),
    Kind(_SCHEDULING, "v1", "PriorityClass", "priorityclasses", ("pc",), namespaced=False),
    Kind(_STORAGE, "v1", "StorageClass", "storageclasses", ("sc",), namespaced=False, delete_returns_object=True),
)
# fmt: on

_BY_PLURAL = {kind.plural: kind for kind in KINDS}


def get_kind(plural: str) -> Kind:
    """Return the kind of a plural; raises KeyError if it is not served."""
    return _BY_PLURAL[plural]


def find_kind(group: str, version: str, plural: str) -> Kind | None:
    """Return the kind of a group, version and plural in a URL, or None if it is not served."""
    kind = _BY_PLURAL.get(plural)
    if kind is None or (kind.group, kind.version) != (group, version):
        return None
    return kind
