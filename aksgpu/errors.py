"""Every exception that aksgpu raises.

    AksGpuError
    ├── InvalidInput (ValueError)      an argument is not valid; nothing was sent
    ├── WaitTimeout (TimeoutError)     a wait ran out of time; has the last state
    ├── AzureError                     Azure Resource Manager refused a request, or an operation failed
    │   ├── AzureUnreachable           no usable response in time
    │   ├── AzureNotFound              the subscription, resource group, cluster or pool does not exist
    │   ├── AzureConflict              the resource exists and differs, or its state does not allow the request
    │   │   ├── OperationInProgress    another operation runs on the cluster
    │   │   └── ResourceChanged        another client changed the resource after it was read
    │   ├── AzureAuthError             the login is missing or is not allowed to do this
    │   │   ├── LocalAccountsDisabled  the cluster has no static credentials
    │   │   └── SubscriptionDisabled   the subscription is disabled, and therefore read only
    │   ├── ApiServerRestricted        the cluster's API does not respond to this machine
    │   ├── InvalidParameter           Azure refused a name or a field
    │   ├── QuotaExceeded              the vCPU quota of the family or region is used up
    │   ├── SizeNotAvailable           the VM size is unknown, retired, or not offered here
    │   │   └── ZoneNotAvailable       the size is not offered in this zone
    │   ├── SubnetTooSmall             the subnet has too few IP addresses for the nodes and pods
    │   ├── LocationNotAvailable       the location does not exist, or is closed to this subscription
    │   ├── AllocationFailed           Azure has no capacity for the size at present
    │   ├── NodeBootstrapFailed        nodes started, but their set-up (GPU driver included) failed
    │   ├── VersionNotSupported        AKS does not offer the Kubernetes version here
    │   ├── PolicyDenied               an Azure Policy of the organisation forbids the request
    │   ├── ProviderNotRegistered      the subscription has not registered a resource provider
    │   │   └── FeatureNotRegistered   the subscription has not registered a preview feature
    │   ├── OperationCanceled          the operation was canceled
    │   └── Throttled                  too many requests; has the number of seconds to wait
    ├── KubernetesError                the Kubernetes API refused a request; has its Status
    │   ├── NotFound
    │   │   └── LogsGone               the pods were deleted with their logs
    │   ├── AlreadyExists
    │   ├── Conflict
    │   ├── Forbidden
    │   ├── Unauthorized
    │   ├── Invalid
    │   ├── Expired                    a watch or list position that the server no longer keeps (410)
    │   └── Unreachable                no response, or the connection broke
    │       ├── StreamLost             a log or watch was interrupted and could not be resumed
    │       └── LogUnavailable         a log that exists, or may exist, could not be read
    ├── GpuStackError                  a node's GPUs cannot be used
    │   ├── GpuNotAdvertised           nodes have GPUs, but do not advertise them: no device plugin serves them
    │   ├── PluginNotScheduled         the plugin's pods are not scheduled onto the GPU nodes
    │   ├── PluginFailed               the plugin's pod does not run
    │   ├── NoGpuDriver                the driver does not respond (NVML)
    │   ├── DriverMismatch             the versions of driver, libraries and CUDA do not match
    │   ├── GpuLost                    a GPU was lost while a container used it
    │   └── SecondGpuStack             another device plugin or operator is already installed
    ├── PodPending                     no node can run a pod; has the reasons and the number of nodes
    │   └── NoScaleUp                  the cluster autoscaler does not add a node for it
    ├── JobFailed                      a Job failed; has its reason and the end of its log
    │   ├── RemoteError                the function raised an exception that cannot be rebuilt here
    │   ├── PythonMismatch             the image's Python cannot run what this Python pickled
    │   ├── PackageError               packages could not be installed in the pod
    │   ├── RunTimeout                 the program ran longer than its limit
    │   ├── JobCancelled               the program was stopped by job.cancel() (concurrent.futures.CancelledError)
    │   └── SessionEnded               the session's pod has ended, and what was loaded there is gone
    ├── ResultError                    the function returned, and its value is not available
    │   ├── ResultLost                 the value is gone, or arrived incomplete
    │   ├── ResultTooLarge             the value is too large for the ways back
    │   └── ResultUnpicklable          the value cannot be pickled there, or unpickled here
    ├── StorageError                   files could not be copied to or from a claim
    │   └── StorageFull                the claim has too little space left
    └── LaptopError                    the laptop AKS could not be started, reached or stopped

After an interrupt by the user, a call that waits raises :class:`aksgpu.waiting.Interrupted`, a KeyboardInterrupt.

Each has a ``hint``: what to do next, as an action. ``str(error)`` ends with it. The errors of Azure and Kubernetes have
``http_status``, and ``code``: the reason in Azure's or Kubernetes' terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import CancelledError
from types import MappingProxyType
from typing import Any, TypedDict, Unpack

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
    "FeatureNotRegistered",
    "Forbidden",
    "GpuLost",
    "GpuNotAdvertised",
    "GpuStackError",
    "Invalid",
    "InvalidInput",
    "InvalidParameter",
    "JobCancelled",
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
    "PackageError",
    "PluginFailed",
    "PluginNotScheduled",
    "PodPending",
    "PolicyDenied",
    "ProviderNotRegistered",
    "PythonMismatch",
    "QuotaExceeded",
    "RemoteError",
    "ResourceChanged",
    "ResultError",
    "ResultLost",
    "ResultTooLarge",
    "ResultUnpicklable",
    "RunTimeout",
    "SecondGpuStack",
    "SessionEnded",
    "SizeNotAvailable",
    "StorageError",
    "StorageFull",
    "StreamLost",
    "SubnetTooSmall",
    "SubscriptionDisabled",
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
        original: the exception that caused this one, if this one is not raised ``from`` it.
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
    """An argument is not valid. Nothing was sent."""


class WaitTimeout(AksGpuError, TimeoutError):
    """A wait ran out of time.

    Attributes:
        state: a description of the last state.
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


class AzureErrorDetails(TypedDict, total=False):
    """The keyword arguments that every subclass of :class:`AzureError` takes."""

    code: str
    http_status: int | None
    hint: str
    original: BaseException | None


class AzureError(AksGpuError):
    """Azure Resource Manager refused a request, or an operation failed.

    Args:
        message: what went wrong, and where.
        code: Azure's error code, such as ``QuotaExceeded``; empty if Azure gave none.
        http_status: the HTTP status, or None if no response arrived. An operation that fails after it was accepted has
            the status 200.
        hint: what to do next, as an action.
        original: the exception of the Azure SDK, if there is one.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        http_status: int | None = None,
        hint: str = "",
        original: BaseException | None = None,
    ) -> None:
        super().__init__(message, hint=hint, original=original)
        self.code = code
        self.http_status = http_status


class AzureUnreachable(AzureError):
    """Azure gave no usable response in time: the network, the name, TLS or a gateway failed."""


class AzureNotFound(AzureError):
    """The subscription, resource group, cluster or node pool does not exist."""


class AzureConflict(AzureError):
    """The resource exists and differs, or its state does not allow the request.

    Attributes:
        differences: argument -> (existing value, requested value); empty if nothing was compared.
    """

    differences: Mapping[str, tuple[object, object]] = MappingProxyType({})

    def __init__(
        self,
        message: str,
        *,
        differences: Mapping[str, tuple[object, object]] = MappingProxyType({}),
        **details: Unpack[AzureErrorDetails],
    ) -> None:
        super().__init__(message, **details)
        self.differences = dict(differences)


class OperationInProgress(AzureConflict):
    """Another operation runs on the cluster. AKS runs one at a time, and starts some by itself.

    Attributes:
        operation: the running operation, such as ``Updating``; empty if Azure does not name it.
    """

    operation: str = ""

    def __init__(self, message: str, *, operation: str = "", **details: Unpack[AzureErrorDetails]) -> None:
        super().__init__(message, **details)
        self.operation = operation


class ResourceChanged(AzureConflict):
    """Another client created or changed the resource after it was read (HTTP 412)."""


class AzureAuthError(AzureError):
    """The login is missing or is not allowed to do this."""


class LocalAccountsDisabled(AzureAuthError):
    """The cluster's local accounts are disabled: it has no static credentials, only Entra ID tokens."""


class SubscriptionDisabled(AzureAuthError):
    """The subscription is disabled, and therefore read only: its spending limit or its payment is the usual reason."""


class ApiServerRestricted(AzureError):
    """The cluster's Kubernetes API does not respond to this machine.

    Attributes:
        private: whether the cluster is private, so that its API can only be reached from its virtual network.
        ranges: the IP ranges that the API accepts; empty if any address is accepted.
    """

    private: bool = False
    ranges: tuple[str, ...] = ()

    def __init__(
        self, message: str, *, private: bool = False, ranges: tuple[str, ...] = (), **details: Unpack[AzureErrorDetails]
    ) -> None:
        super().__init__(message, **details)
        self.private = private
        self.ranges = ranges


class InvalidParameter(AzureError):
    """Azure refused a name or a field of the request.

    Attributes:
        parameter: the field, as Azure names it; empty if Azure does not name it.
    """

    parameter: str = ""

    def __init__(self, message: str, *, parameter: str = "", **details: Unpack[AzureErrorDetails]) -> None:
        super().__init__(message, **details)
        self.parameter = parameter


class QuotaExceeded(AzureError):
    """The vCPU quota of a VM family or of the region, or another limit of the subscription, is used up.

    Attributes:
        requested: requested vCPUs, or resources of another limit; None if unknown.
        remaining: vCPUs left; None if unknown.
        limit: the quota in vCPUs, or the number of resources; None if unknown.
        used: vCPUs or resources in use; None if unknown.
        family: the VM family's quota name, such as ``Standard NCASv3_T4 Family``; ``cores`` is the region's total,
            ``LowPriorityCores`` that of spot VMs; for a limit on resources their name, such as ``public IP addresses``.
        location: the region; empty if unknown.
    """

    requested: int | None = None
    remaining: int | None = None
    limit: int | None = None
    used: int | None = None
    family: str = ""
    location: str = ""

    def __init__(
        self,
        message: str,
        *,
        requested: int | None = None,
        remaining: int | None = None,
        limit: int | None = None,
        used: int | None = None,
        family: str = "",
        location: str = "",
        **details: Unpack[AzureErrorDetails],
    ) -> None:
        super().__init__(message, **details)
        self.requested = requested
        self.remaining = remaining
        self.limit = limit
        self.used = used
        self.family = family
        self.location = location


class SizeNotAvailable(AzureError):
    """The VM size is unknown, retired, or not offered to this subscription in this location.

    Attributes:
        vm_size: the VM size, such as ``Standard_NC6``; empty if unknown.
        location: the region; empty if unknown.
        alternatives: VM sizes to use instead, best first.
    """

    vm_size: str = ""
    location: str = ""
    alternatives: tuple[str, ...] = ()

    def __init__(
        self,
        message: str,
        *,
        vm_size: str = "",
        location: str = "",
        alternatives: tuple[str, ...] = (),
        **details: Unpack[AzureErrorDetails],
    ) -> None:
        super().__init__(message, **details)
        self.vm_size = vm_size
        self.location = location
        self.alternatives = alternatives


class ZoneNotAvailable(SizeNotAvailable):
    """The location offers the VM size, but not in the requested availability zone.

    Attributes:
        zones: the zones that were refused.
        supported: the zones that offer the size.
    """

    zones: tuple[str, ...] = ()
    supported: tuple[str, ...] = ()

    def __init__(
        self,
        message: str,
        *,
        zones: tuple[str, ...] = (),
        supported: tuple[str, ...] = (),
        vm_size: str = "",
        location: str = "",
        **details: Unpack[AzureErrorDetails],
    ) -> None:
        super().__init__(message, vm_size=vm_size, location=location, **details)
        self.zones = zones
        self.supported = supported


class LocationNotAvailable(AzureError):
    """The Azure location does not exist, or is closed to this subscription.

    Attributes:
        location: the requested location.
        available: the locations that Azure lists instead; empty if it lists none.
    """

    location: str = ""
    available: tuple[str, ...] = ()

    def __init__(
        self,
        message: str,
        *,
        location: str = "",
        available: tuple[str, ...] = (),
        **details: Unpack[AzureErrorDetails],
    ) -> None:
        super().__init__(message, **details)
        self.location = location
        self.available = available


class AllocationFailed(AzureError):
    """Azure has no capacity for the VM size at present. Another zone, size or region may have some.

    Attributes:
        constraints: the constraints of the allocation, as Azure lists them.
        vm_size: the VM size; empty if Azure does not name it.
        location: the region; empty if Azure does not name it.
    """

    constraints: tuple[str, ...] = ()
    vm_size: str = ""
    location: str = ""

    def __init__(
        self,
        message: str,
        *,
        constraints: tuple[str, ...] = (),
        vm_size: str = "",
        location: str = "",
        **details: Unpack[AzureErrorDetails],
    ) -> None:
        super().__init__(message, **details)
        self.constraints = constraints
        self.vm_size = vm_size
        self.location = location


class SubnetTooSmall(AzureError):
    """The subnet has too few IP addresses for the nodes and their pods.

    Attributes:
        requested: addresses that are needed; None if unknown.
        available: addresses that the subnet has; None if unknown.
        subnet: name of the subnet; empty if unknown. ``networkProfile.podCIDR`` is the range of the pods' addresses.
        cidr: the subnet's range, such as ``10.10.0.0/24``; empty if unknown.
    """

    requested: int | None = None
    available: int | None = None
    subnet: str = ""
    cidr: str = ""

    def __init__(
        self,
        message: str,
        *,
        requested: int | None = None,
        available: int | None = None,
        subnet: str = "",
        cidr: str = "",
        **details: Unpack[AzureErrorDetails],
    ) -> None:
        super().__init__(message, **details)
        self.requested = requested
        self.available = available
        self.subnet = subnet
        self.cidr = cidr


class NodeBootstrapFailed(AzureError):
    """The virtual machines started, but setting them up as nodes failed.

    Attributes:
        exit_code: exit code of the node's set-up script (vmssCSE); 83 to 87 mean the GPU driver, 50 to 53 the network.
            None if unknown.
    """

    exit_code: int | None = None

    def __init__(self, message: str, *, exit_code: int | None = None, **details: Unpack[AzureErrorDetails]) -> None:
        super().__init__(message, **details)
        self.exit_code = exit_code


class VersionNotSupported(AzureError):
    """AKS does not offer the Kubernetes version in this location."""


class PolicyDenied(AzureError):
    """An Azure Policy of the organisation forbids the request.

    Attributes:
        policies: names of the policies; empty if Azure does not name them.
    """

    policies: tuple[str, ...] = ()

    def __init__(self, message: str, *, policies: tuple[str, ...] = (), **details: Unpack[AzureErrorDetails]) -> None:
        super().__init__(message, **details)
        self.policies = policies


class ProviderNotRegistered(AzureError):
    """The subscription has not registered a resource provider.

    Attributes:
        provider: the provider's namespace, such as ``Microsoft.ContainerService``.
    """

    provider: str = ""

    def __init__(self, message: str, *, provider: str = "", **details: Unpack[AzureErrorDetails]) -> None:
        super().__init__(message, **details)
        self.provider = provider


class FeatureNotRegistered(ProviderNotRegistered):
    """The subscription has not registered a preview feature.

    Attributes:
        feature: the feature's name, such as ``ManagedGPUExperiencePreview``.
    """

    feature: str = ""

    def __init__(
        self, message: str, *, provider: str = "", feature: str = "", **details: Unpack[AzureErrorDetails]
    ) -> None:
        super().__init__(message, provider=provider, **details)
        self.feature = feature


class OperationCanceled(AzureError):
    """The long-running operation was canceled."""


class Throttled(AzureError):
    """Azure received too many requests.

    Attributes:
        retry_after: seconds that Azure asks to wait; None if it does not specify this.
    """

    retry_after: float | None = None

    def __init__(self, message: str, *, retry_after: float | None = None, **details: Unpack[AzureErrorDetails]) -> None:
        super().__init__(message, **details)
        self.retry_after = retry_after


class KubernetesError(AksGpuError):
    """The Kubernetes API refused a request.

    Attributes:
        http_status: the HTTP status; None if there was no response.
        code: Kubernetes' reason in CamelCase, such as ``NotFound``; empty if the server gives none.
        status: the server's Status object, as a dict; empty if there was none.
        retry_after: seconds after which the server asks to try again; None if it does not specify this.
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
    """The object or the kind does not exist."""


class LogsGone(NotFound):
    """The pods of a Job were deleted with their logs."""


class AlreadyExists(KubernetesError):
    """An object of this name already exists."""


class Conflict(KubernetesError):
    """The object was changed after it was read, or another field manager owns the field."""


class Forbidden(KubernetesError):
    """RBAC does not allow this."""


class Unauthorized(KubernetesError):
    """The API server does not accept the credentials: they are missing, wrong or expired."""


class Invalid(KubernetesError):
    """The object does not pass validation."""


class Expired(KubernetesError):
    """The server no longer keeps a resourceVersion or continue token (410 Gone)."""


class Unreachable(KubernetesError):
    """The API server did not respond in time, or only with statuses such as 500 and 503. The message has the last one.

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
    """A log or watch was interrupted, as AKS does with idle ones, and could not be resumed in time."""


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
    """The NVIDIA driver does not respond (NVML): it is missing, or did not start."""


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
    """A GPU was lost while a container used it.

    Attributes:
        xid: the number of the driver's error (XID); None if not known.
    """

    def __init__(
        self,
        message: str,
        *,
        nodes: tuple[str, ...] = (),
        xid: int | None = None,
        hint: str = "",
        original: BaseException | None = None,
    ) -> None:
        super().__init__(message, nodes=nodes, hint=hint, original=original)
        self.xid = xid


class SecondGpuStack(GpuStackError):
    """Another device plugin, a GPU Operator or a managed GPU pool is already installed."""


class PodPending(AksGpuError):
    """No node can run a pod.

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
    """The cluster autoscaler does not add a node for a pod that no node can run."""


class JobFailed(AksGpuError):
    """A Job failed.

    Attributes:
        reason: reason of the Job's condition, such as ``BackoffLimitExceeded``.
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


class RemoteError(JobFailed):
    """The function raised an exception that cannot be rebuilt in this process.

    Attributes:
        type_name: the exception's class, with its module.
        arguments: the ``repr`` of each of its arguments.
        traceback: its traceback with source lines.
    """

    def __init__(
        self,
        message: str,
        *,
        type_name: str = "",
        arguments: tuple[str, ...] = (),
        traceback: str = "",
        hint: str = "",
        original: BaseException | None = None,
    ) -> None:
        super().__init__(message, reason="Exception", hint=hint, original=original)
        self.type_name = type_name
        self.arguments = arguments
        self.traceback = traceback


class PythonMismatch(JobFailed):
    """The image's Python cannot run what this Python pickled. Nothing was unpickled there."""


class PackageError(JobFailed):
    """Packages could not be installed in the pod."""


class RunTimeout(JobFailed):
    """The program ran longer than its limit, ``Executor(timeout=)``."""


class JobCancelled(JobFailed, CancelledError):
    """The program was stopped by ``job.cancel()``."""


class SessionEnded(JobFailed):
    """The session's pod has ended, and what was loaded there is gone."""


class ResultError(AksGpuError):
    """The function returned, and its value is not available."""


class ResultLost(ResultError):
    """The value is gone with its pod, or arrived incomplete."""


class ResultTooLarge(ResultError):
    """The value is too large for the ways back from the pod.

    Attributes:
        size: bytes of the pickled value; None if not known.
    """

    def __init__(
        self, message: str, *, size: int | None = None, hint: str = "", original: BaseException | None = None
    ) -> None:
        super().__init__(message, hint=hint, original=original)
        self.size = size


class ResultUnpicklable(ResultError):
    """The value cannot be pickled in the pod, or not be unpickled in this process."""


class StorageError(AksGpuError):
    """Files could not be copied to or from a claim."""


class StorageFull(StorageError):
    """The claim has too little space left."""


class LaptopError(AksGpuError):
    """The laptop AKS could not be started, reached or stopped."""


def __dir__() -> list[str]:
    return list(__all__)
