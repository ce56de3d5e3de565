"""Every exception that aksgpu raises.

    AksGpuError
    ├── InvalidInput (ValueError)      an argument is wrong; nothing was sent
    ├── WaitTimeout (TimeoutError)     a wait ran out of time; has what it waited for and the last state
    ├── AzureError                     Azure Resource Manager said no
    │   ├── AzureUnreachable           no answer at all: network, name, TLS
    │   ├── AzureNotFound              no such subscription, resource group, cluster or pool
    │   ├── AzureConflict              exists and differs, or the state does not allow it
    │   │   └── OperationInProgress    another operation on the cluster has not ended yet
    │   ├── AzureAuthError             not logged in, or not allowed
    │   │   └── LocalAccountsDisabled  the cluster gives no static credentials
    │   ├── ApiServerRestricted        a private cluster, or one that answers only some addresses
    │   ├── InvalidParameter           Azure refused a name or a field
    │   ├── QuotaExceeded              the vCPU quota of the family or region is used up
    │   ├── SizeNotAvailable           a VM size that is unknown, retired, or not offered here
    │   │   └── ZoneNotAvailable       the size is offered here, but not in this zone
    │   ├── LocationNotAvailable       no such location, or closed to this subscription
    │   ├── AllocationFailed           Azure has no capacity for the size at present
    │   ├── NodeBootstrapFailed        nodes came up, and their set-up (GPU driver included) failed
    │   ├── VersionNotSupported        a Kubernetes version that AKS does not offer here
    │   ├── PolicyDenied               an Azure Policy of the organisation forbids it
    │   ├── ProviderNotRegistered      the subscription has not registered Microsoft.ContainerService
    │   ├── OperationCanceled          the operation was aborted
    │   └── Throttled                  too many requests; says how many seconds to wait
    ├── KubernetesError                the Kubernetes API refused a request; has its Status
    │   ├── NotFound
    │   │   └── LogsGone               the pods are gone, and their logs with them
    │   ├── AlreadyExists
    │   ├── Conflict
    │   ├── Forbidden
    │   ├── Unauthorized
    │   ├── Invalid
    │   ├── Expired                    a watch or list position that the server no longer keeps (410)
    │   └── Unreachable                no answer, or the connection broke
    │       ├── StreamLost             a log or watch broke off and could not be resumed
    │       └── LogUnavailable         a log that exists, or may exist, could not be read
    ├── GpuStackError                  a node's GPUs cannot be used
    │   ├── GpuNotAdvertised           nodes have GPUs, but do not advertise them: no device plugin serves them
    │   ├── PluginNotScheduled         the plugin's pods are not scheduled onto the GPU nodes
    │   ├── PluginFailed               the plugin's pod does not run
    │   ├── NoGpuDriver                the driver does not answer (NVML)
    │   ├── DriverMismatch             the versions of driver, libraries and CUDA do not match
    │   ├── GpuLost                    a GPU was lost while a container used it
    │   └── SecondGpuStack             another device plugin or operator is there already
    ├── PodPending                     a pod fits on no node; has the reasons and the number of nodes
    │   └── NoScaleUp                  the cluster autoscaler adds no node for it
    ├── JobFailed                      a Job failed; has its reason and the end of its log
    └── LaptopError                    the laptop AKS could not be started, reached or stopped

Each has a ``hint``: what to do next, as an action. ``str(error)`` ends with it. The errors of Azure and Kubernetes have
``http_status``, and ``code``: the reason in Azure's or Kubernetes' terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = [
    "AksGpuError",
    "AllocationFailed",
    "AlreadyExists",
    "ApiServerRestricted",
    "AzureAuthError",
    "AzureConflict",
    "AzureError",
    "AzureNotFound",
    "AzureUnreachable",
    "Conflict",
    "DriverMismatch",
    "Expired",
    "Forbidden",
    "GpuLost",
    "GpuNotAdvertised",
    "GpuStackError",
    "Invalid",
    "InvalidInput",
    "InvalidParameter",
    "JobFailed",
    "KubernetesError",
    "LaptopError",
    "LocalAccountsDisabled",
    "LocationNotAvailable",
    "LogUnavailable",
    "LogsGone",
    "NoGpuDriver",
    "NoScaleUp",
    "NodeBootstrapFailed",
    "NotFound",
    "OperationCanceled",
    "OperationInProgress",
    "PluginFailed",
    "PluginNotScheduled",
    "PodPending",
    "PolicyDenied",
    "ProviderNotRegistered",
    "QuotaExceeded",
    "SecondGpuStack",
    "SizeNotAvailable",
    "StreamLost",
    "Throttled",
    "Unauthorized",
    "Unreachable",
    "VersionNotSupported",
    "WaitTimeout",
    "ZoneNotAvailable",
]


class AksGpuError(Exception):
    """Base of all errors of this library.

    Args:
        message: what went wrong, and where.
        hint: what to do next, as an action; printed below the message.
        original: the exception that caused this one, where it is not raised ``from`` it.
    """

    def __init__(self, message: str, *, hint: str = "", original: BaseException | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self._original = original

    @property
    def original(self) -> BaseException | None:
        """The exception that caused this one, such as the SDK's own; None if there is none."""
        return self._original or self.__cause__

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message


class InvalidInput(AksGpuError, ValueError):
    """An argument is wrong. Nothing was sent."""


class WaitTimeout(AksGpuError, TimeoutError):
    """A wait ran out of time.

    Attributes:
        state: the last state seen, in words.
        timeout: seconds waited.
    """

    def __init__(
        self,
        message: str,
        *,
        state: str = "",
        timeout: float = 0.0,
        hint: str = "",
        original: BaseException | None = None,
    ) -> None:
        super().__init__(message, hint=hint, original=original)
        self.state = state
        self.timeout = timeout


class AzureError(AksGpuError):
    """Azure Resource Manager refused a request or an operation failed.

    The SDK's own exception, where there is one, is ``.original``.

    Args:
        message: what went wrong, and where.
        code: Azure's error code, such as ``QuotaExceeded``.
        status: the HTTP status, or None when none arrived. A failed long-running operation arrives with status 200.
        hint: what to do next, as an action.
        facts: what was read out of Azure's text.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int | None = None,
        hint: str = "",
        original: BaseException | None = None,
        **facts: object,
    ) -> None:
        super().__init__(message, hint=hint, original=original)
        self.code = code
        self.status = status
        for name, value in facts.items():
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no attribute {name!r}")
            setattr(self, name, value)


class AzureUnreachable(AzureError):
    """No answer came from Azure: the network, the name or TLS failed."""


class AzureNotFound(AzureError):
    """No such subscription, resource group, cluster or node pool."""


class AzureConflict(AzureError):
    """The resource exists and differs, or its state does not allow this."""

    differences: Mapping[str, tuple[object, object]] = MappingProxyType({})
    """What differs, as field -> (what exists, what was asked for); empty when nothing was compared."""


class OperationInProgress(AzureConflict):
    """Another operation on the cluster has not ended yet. AKS runs one at a time, and some of its own."""

    operation: str = ""
    """What runs, such as ``Updating``; empty when Azure does not say."""


class AzureAuthError(AzureError):
    """Not logged in to Azure, or not allowed to do this there."""


class LocalAccountsDisabled(AzureAuthError):
    """The cluster's local accounts are off: it gives no static credentials, only Entra ID tokens."""


class ApiServerRestricted(AzureError):
    """The cluster's Kubernetes API does not answer here: it is private, or takes only some addresses.

    Attributes:
        private: whether it is a private cluster, reached from its virtual network only.
        ranges: the IP ranges that it answers otherwise.
    """

    private: bool = False
    ranges: tuple[str, ...] = ()


class InvalidParameter(AzureError):
    """Azure refused a name or a field of the request."""

    parameter: str = ""
    """The field, as Azure calls it; empty when it does not say."""


class QuotaExceeded(AzureError):
    """The vCPU quota of a VM family or of the region is used up.

    Attributes:
        requested: vCPUs asked for (clusters, when the number of clusters is what is limited), None when not said.
        remaining: vCPUs left, None when not said.
        limit: the quota in vCPUs, None when not said.
        used: vCPUs in use, None when not said.
        family: the VM family's quota name, such as ``Standard NCASv3_T4 Family``; ``cores`` is the region's total.
        location: the region, empty when not said.
    """

    requested: int | None = None
    remaining: int | None = None
    limit: int | None = None
    used: int | None = None
    family: str = ""
    location: str = ""


class SizeNotAvailable(AzureError):
    """A VM size that is unknown, retired, or not offered to this subscription in this location.

    Attributes:
        size: the VM size, such as ``Standard_NC6``; empty when Azure does not say.
        location: the region, empty when not said.
        alternatives: sizes that could be used instead, best first.
    """

    size: str = ""
    location: str = ""
    alternatives: tuple[str, ...] = ()


class ZoneNotAvailable(SizeNotAvailable):
    """The size is offered in the location, but not in an availability zone that was asked for.

    Attributes:
        zones: the zones that were refused.
        supported: the zones that Azure names instead.
    """

    zones: tuple[str, ...] = ()
    supported: tuple[str, ...] = ()


class LocationNotAvailable(AzureError):
    """No such Azure location, or one that does not take this subscription.

    Attributes:
        location: what was asked for.
        available: the locations that Azure names instead; empty when it names none.
    """

    location: str = ""
    available: tuple[str, ...] = ()


class AllocationFailed(AzureError):
    """Azure has no capacity for this VM size in this place at present. Another zone, size or region may have."""

    constraints: tuple[str, ...] = ()
    """What the allocation was bound to, as Azure lists it."""


class NodeBootstrapFailed(AzureError):
    """The virtual machines came up, and setting them up as nodes failed."""

    exit_code: int | None = None
    """Of the node's set-up script (vmssCSE); 83 to 87 are the GPU driver's. None when not said."""


class VersionNotSupported(AzureError):
    """A Kubernetes version that AKS does not offer in this location."""


class PolicyDenied(AzureError):
    """An Azure Policy of the organisation forbids this."""


class ProviderNotRegistered(AzureError):
    """The subscription has not registered the resource provider."""

    provider: str = ""
    """Its namespace, such as ``Microsoft.ContainerService``."""


class OperationCanceled(AzureError):
    """The long-running operation was aborted."""


class Throttled(AzureError):
    """Too many requests."""

    retry_after: float | None = None
    """Seconds that Azure asks to wait, None when it does not say."""


class KubernetesError(AksGpuError):
    """The Kubernetes API refused a request.

    Attributes:
        http_status: the HTTP status; None if there was no answer.
        code: Kubernetes' reason in CamelCase, such as ``NotFound``; empty if the server gives none.
        status: the server's Status object, as a dict; empty if there was none.
        retry_after: seconds after which the server asks to try again; None if it does not say.
    """

    def __init__(
        self,
        message: str,
        *,
        status: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
        hint: str = "",
        original: BaseException | None = None,
    ) -> None:
        super().__init__(message, hint=hint, original=original)
        self.status: dict[str, Any] = dict(status or {})
        self.http_status: int | None = int(self.status.get("code") or 0) or None
        self.code: str = str(self.status.get("reason") or "")
        self.retry_after = retry_after


class NotFound(KubernetesError):
    """There is no such object, or no such kind."""


class LogsGone(NotFound):
    """The pods of a Job are gone, and their logs with them."""


class AlreadyExists(KubernetesError):
    """An object of this name exists."""


class Conflict(KubernetesError):
    """The object has changed meanwhile, or another field manager owns the field."""


class Forbidden(KubernetesError):
    """RBAC does not allow this."""


class Unauthorized(KubernetesError):
    """The API server does not accept the credentials: they are missing, wrong or expired."""


class Invalid(KubernetesError):
    """The object does not pass validation."""


class Expired(KubernetesError):
    """The server no longer keeps a resourceVersion or continue token (410 Gone)."""


class Unreachable(KubernetesError):
    """The API server gave no answer in time, or only statuses such as 500 and 503. The message has the last one.

    Attributes:
        refused: whether the connection was refused, because no server listens at the address.
        unsent: whether the request certainly did not reach the server.
        permanent: whether trying again cannot help, as with the certificate of another server.
    """

    def __init__(
        self,
        message: str,
        *,
        status: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
        refused: bool = False,
        unsent: bool = False,
        permanent: bool = False,
        hint: str = "",
        original: BaseException | None = None,
    ) -> None:
        super().__init__(message, status=status, retry_after=retry_after, hint=hint, original=original)
        self.refused = refused
        self.unsent = unsent
        self.permanent = permanent


class StreamLost(Unreachable):
    """A log or watch broke off, as AKS does with idle ones, and could not be resumed in time."""


class LogUnavailable(Unreachable):
    """A log that exists, or may exist, could not be read: the node, its kubelet or the connection to it failed."""


class GpuStackError(AksGpuError):
    """A node's GPUs cannot be used.

    Attributes:
        nodes: names of the nodes concerned; empty if not known.
    """

    def __init__(
        self,
        message: str,
        *,
        nodes: tuple[str, ...] = (),
        hint: str = "",
        original: BaseException | None = None,
    ) -> None:
        super().__init__(message, hint=hint, original=original)
        self.nodes = nodes


class GpuNotAdvertised(GpuStackError):
    """Nodes have GPUs, but do not advertise them: no device plugin serves them."""


class PluginNotScheduled(GpuStackError):
    """The device plugin's pods are not scheduled onto the GPU nodes.

    Attributes:
        taints: taints of those nodes that the pods do not tolerate, such as ``gpu=yes:NoSchedule``.
    """

    def __init__(
        self,
        message: str,
        *,
        nodes: tuple[str, ...] = (),
        taints: tuple[str, ...] = (),
        hint: str = "",
        original: BaseException | None = None,
    ) -> None:
        super().__init__(message, nodes=nodes, hint=hint, original=original)
        self.taints = taints


class PluginFailed(GpuStackError):
    """The device plugin's pod does not run."""


class NoGpuDriver(GpuStackError):
    """The NVIDIA driver does not answer (NVML): it is missing, or did not start."""


class DriverMismatch(GpuStackError):
    """The versions of the node's driver, its libraries and a program's CUDA do not match.

    Attributes:
        library: version of the NVML library; empty if not known.
    """

    def __init__(
        self,
        message: str,
        *,
        nodes: tuple[str, ...] = (),
        library: str = "",
        hint: str = "",
        original: BaseException | None = None,
    ) -> None:
        super().__init__(message, nodes=nodes, hint=hint, original=original)
        self.library = library


class GpuLost(GpuStackError):
    """A GPU was lost while a container used it."""


class SecondGpuStack(GpuStackError):
    """Another device plugin, a GPU Operator or a managed GPU pool is there already."""


class PodPending(AksGpuError):
    """A pod fits on no node.

    Attributes:
        causes: the scheduler's reasons -> number of nodes; empty if the scheduler has given none.
        nodes: number of nodes; None if not known.
    """

    def __init__(
        self,
        message: str,
        *,
        causes: Mapping[str, int] | None = None,
        nodes: int | None = None,
        hint: str = "",
        original: BaseException | None = None,
    ) -> None:
        super().__init__(message, hint=hint, original=original)
        self.causes: dict[str, int] = dict(causes or {})
        self.nodes = nodes


class NoScaleUp(PodPending):
    """The cluster autoscaler adds no node for a pod that fits on no node."""


class JobFailed(AksGpuError):
    """A Job failed.

    Attributes:
        reason: the Job condition's reason, such as ``BackoffLimitExceeded``.
        log_tail: the last lines that its pod logged.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        log_tail: str = "",
        hint: str = "",
        original: BaseException | None = None,
    ) -> None:
        super().__init__(message, hint=hint, original=original)
        self.reason = reason
        self.log_tail = log_tail


class LaptopError(AksGpuError):
    """The laptop AKS could not be started, reached or stopped."""


def __dir__() -> list[str]:
    return list(__all__)
