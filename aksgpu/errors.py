"""Every exception that aksgpu raises.

    AksGpuError
    ├── InvalidInput (ValueError)      an argument that cannot be right: nothing was sent
    ├── WaitTimeout (TimeoutError)     a wait ran out of time; says what was waited for and its last state
    ├── AzureError                     Azure Resource Manager said no
    │   ├── AzureNotFound              no such subscription, resource group, cluster or pool
    │   ├── AzureConflict              exists and differs, or another operation is in progress
    │   ├── AzureAuthError             not logged in, or not allowed
    │   ├── QuotaExceeded              the vCPU quota of the family or region is used up
    │   ├── SizeNotAvailable           a VM size that is unknown, retired, or not offered here
    │   └── AllocationFailed           Azure has no capacity for the size at present
    ├── KubernetesError                the Kubernetes API said no; carries its Status
    │   ├── NotFound
    │   ├── AlreadyExists
    │   ├── Conflict
    │   ├── Forbidden
    │   ├── Unauthorized
    │   ├── Invalid
    │   └── Expired                    a watch or list position that the server no longer keeps (410)
    ├── GpuStackError                  no usable device plugin, or more than one
    ├── JobFailed                      a Job ended in failure; carries its reason and the log's tail
    └── LaptopError                    the laptop AKS could not be started, reached or stopped

Each has a ``hint``: what to do next, as an action. It is part of the message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class AksGpuError(Exception):
    """Base of all errors of this library.

    Args:
        message: what went wrong, and where.
        hint: what to do next, as an action; printed below the message.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message


class InvalidInput(AksGpuError, ValueError):
    """An argument that cannot be right. Nothing was sent anywhere."""


class WaitTimeout(AksGpuError, TimeoutError):
    """A wait ran out of time.

    Attributes:
        state: the last state seen, in words.
        timeout: seconds waited.
    """

    def __init__(self, message: str, *, state: str = "", timeout: float = 0.0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.state = state
        self.timeout = timeout


class AzureError(AksGpuError):
    """Azure Resource Manager refused a request or an operation failed.

    Attributes:
        code: Azure's error code, such as ``QuotaExceeded``.
        status: the HTTP status, or None when none arrived.
    """

    def __init__(self, message: str, *, code: str = "", status: int | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.status = status


class AzureNotFound(AzureError):
    """No such subscription, resource group, cluster or node pool."""


class AzureConflict(AzureError):
    """The resource exists and differs, or another operation on it is in progress."""


class AzureAuthError(AzureError):
    """Not logged in to Azure, or not allowed to do this there."""


class QuotaExceeded(AzureError):
    """The vCPU quota of a VM family or of the region is used up."""


class SizeNotAvailable(AzureError):
    """A VM size that is unknown, retired, or not offered to this subscription in this location."""


class AllocationFailed(AzureError):
    """Azure has no capacity for this VM size in this place at present."""


class KubernetesError(AksGpuError):
    """The Kubernetes API refused a request.

    Attributes:
        status: the server's Status object, as a dict.
        code: the HTTP status code.
        reason: Kubernetes' reason in CamelCase, such as ``NotFound``.
    """

    def __init__(self, message: str, *, status: Mapping[str, Any] | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status: dict[str, Any] = dict(status or {})
        self.code: int = int(self.status.get("code") or 0)
        self.reason: str = str(self.status.get("reason") or "")


class NotFound(KubernetesError):
    """No such object, or no such kind."""


class AlreadyExists(KubernetesError):
    """An object of this name exists."""


class Conflict(KubernetesError):
    """The object changed in between, or another field manager owns the field."""


class Forbidden(KubernetesError):
    """RBAC does not allow this."""


class Unauthorized(KubernetesError):
    """The API server does not know this caller: credentials are missing, wrong or stale."""


class Invalid(KubernetesError):
    """The object does not pass validation."""


class Expired(KubernetesError):
    """A resourceVersion or continue token that the server no longer keeps (410 Gone)."""


class GpuStackError(AksGpuError):
    """No usable device plugin, or a second GPU stack on top of a first one."""


class JobFailed(AksGpuError):
    """A Job ended in failure.

    Attributes:
        reason: the Job condition's reason, such as ``BackoffLimitExceeded``.
        log_tail: the last lines that its pod logged.
    """

    def __init__(self, message: str, *, reason: str = "", log_tail: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.log_tail = log_tail


class LaptopError(AksGpuError):
    """The laptop AKS could not be started, reached or stopped."""
