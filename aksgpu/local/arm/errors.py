"""Refusals of the laptop's Resource Manager, in Azure's words and Azure's two body shapes.

The front door of Azure Resource Manager wraps an error in ``{"error": {...}}``; the AKS resource provider behind it
answers flat. Clients meet both, so the laptop gives both where Azure does.
"""

from __future__ import annotations

from typing import Any

from aksgpu.local.arm.data import REGIONS, SUBSCRIPTION, Size, sizes

QUOTA_ADVICE = (
    "If you want to increase the quota, please follow this instruction: "
    "https://learn.microsoft.com/en-us/azure/quotas/view-quotas. Surge nodes would also consume vcpu quota, please "
    "consider use smaller maxSurge or use maxUnavailable to proceed upgrade without surge nodes, details: "
    "aka.ms/aks/maxUnavailable."
)


class ArmError(Exception):
    """A refusal.

    Args:
        status: the HTTP status.
        code: Azure's error code.
        message: Azure's text.
        flat: whether the AKS resource provider says it, whose bodies are not wrapped.
        target: the field at fault, where AKS names one.
    """

    def __init__(self, status: int, code: str, message: str, *, flat: bool = False, target: str = "") -> None:
        super().__init__(f"({code}) {message}")
        self.status, self.code, self.message, self.flat, self.target = status, code, message, flat, target
        self.headers: dict[str, str] = {}

    def body(self) -> dict[str, Any]:
        """The answer's body."""
        target = {"target": self.target} if self.target else {}
        if self.flat:
            return {"code": self.code, "details": None, "message": self.message, "subcode": "", **target}
        return {"error": {"code": self.code, "message": self.message, **target}}


def rejected(code: str, message: str, *, status: int = 400, target: str = "") -> ArmError:
    """A refusal by the AKS resource provider."""
    return ArmError(status, code, message, flat=True, target=target)


def invalid(parameter: str, why: str) -> ArmError:
    """A value against the rules of AKS."""
    message = f"The value of parameter {parameter} is invalid. Error details: {why}"
    return rejected("InvalidParameter", message, target=parameter)


def missing(parameter: str) -> ArmError:
    """A value that AKS needs."""
    return rejected("InvalidParameter", f"Required parameter {parameter} is missing (null).", target=parameter)


def unchangeable(field: str) -> ArmError:
    """A field that is fixed once the resource exists."""
    return rejected("PropertyChangeNotAllowed", f"Changing property '{field}' is not allowed.", target=field)


def group_not_found(name: str) -> ArmError:
    """No such resource group."""
    return ArmError(404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found.")


def cluster_not_found(name: str, group: str) -> ArmError:
    """No such cluster."""
    message = (
        f"The Resource 'Microsoft.ContainerService/managedClusters/{name}' under resource group '{group}' was not "
        "found. For more details please go to https://aka.ms/ARMResourceNotFoundFix"
    )
    return ArmError(404, "ResourceNotFound", message)


def pool_not_found(pool: str, cluster: str, group: str) -> ArmError:
    """No such agent pool."""
    message = (
        f"Could not find the agentpool in subscription: {SUBSCRIPTION}, resourceGroup: {group}, "
        f"resourceName: {cluster}, agentPoolName: {pool}."
    )
    return rejected("NotFound", message, status=404)


def location_not_available(location: str, resource_type: str | None) -> ArmError:
    """A region that does not exist or does not have the resource type; None is for resource groups."""
    regions = ",".join(REGIONS)
    if resource_type is None:
        message = (
            f"The provided location '{location}' is not available for resource group. "
            f"List of available regions is '{regions}'."
        )
        return ArmError(400, "LocationNotAvailableForResourceGroup", message)
    message = (
        f"The provided location '{location}' is not available for resource type '{resource_type}'. "
        f"List of available regions for the resource type is '{regions}'."
    )
    return ArmError(400, "LocationNotAvailableForResourceType", message)


def operation_in_progress(state: str) -> ArmError:
    """AKS does one operation on a cluster at a time."""
    message = (
        f"Operation is not allowed: Another operation ({state}) is in progress, please wait for it to finish before "
        "starting a new operation. See https://aka.ms/aks-pending-operation for more details"
    )
    return rejected("OperationNotAllowed", message, status=409)


def not_allowed(message: str) -> ArmError:
    """The cluster is in a state that does not allow this."""
    return rejected("OperationNotAllowed", message, status=409)


def size_not_allowed(name: str, location: str) -> ArmError:
    """A VM size that nobody knows."""
    known = ",".join(size.name for size in sizes().values() if size.offered(location) and not size.restricted())
    message = (
        f"The VM size of {name} is not allowed in your subscription in location '{location}'. "
        f"The available VM sizes are '{known}'. For more details, please visit https://aka.ms/cpu-quota"
    )
    return rejected("BadRequest", message)


def size_not_supported(size: Size, location: str) -> ArmError:
    """A VM size that is retired, or not offered to this subscription in this region."""
    message = f"Virtual Machine size: '{size.name}' is not supported for subscription {SUBSCRIPTION}"
    message += f" in location '{location}'."
    if size.retired_on:
        message += f" The size was retired on {size.retired_on}; see https://aka.ms/vmsize-retirement."
    return rejected("VMSizeNotSupported", message)


def family_quota(requested: int, remaining: int, family: str, location: str) -> ArmError:
    """The family's quota is too small for the request."""
    message = (
        f"Insufficient vcpu quota requested {requested}, remaining {remaining} for family {family} "
        f"for region {location}. {QUOTA_ADVICE}"
    )
    return rejected("ErrCode_InsufficientVCPUQuota", message)


def regional_quota(requested: int, remaining: int, location: str) -> ArmError:
    """The region's quota is too small for the request."""
    message = (
        f"Insufficient regional vcpu quota left for location {location}. left regional vcpu quota {remaining}, "
        f"requested quota {requested}. {QUOTA_ADVICE}"
    )
    return rejected("ErrCode_InsufficientVCPUQuota", message)
