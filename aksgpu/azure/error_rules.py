"""The texts and codes of Azure's refusals, with one rule per failure.

A rule gets one :class:`Refusal` and returns the exception for it, without a message, or None if the refusal is about
something else. Only :mod:`aksgpu.azure.error_parsing` calls the rules. It parses the bodies and adds the message.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from aksgpu import errors
from aksgpu.common import gpu_size_table
from aksgpu.errors import AzureError

__all__ = ["LOGIN", "QUOTA_PAGE", "RULES", "Refusal", "location_hint"]

QUOTA_PAGE = "https://portal.azure.com/#view/Microsoft_Azure_Capacity/QuotaMenuBlade/~/myQuotas"
"""The page of the Azure portal that shows quotas and accepts requests for more."""


@dataclass(frozen=True)
class Refusal:
    """One code and message of Azure.

    Attributes:
        code: Azure's error code, such as ``QuotaExceeded``; empty if there is none.
        message: Azure's text.
        http_status: the HTTP status of the response, or None.
    """

    code: str
    message: str
    http_status: int | None = None


Rule = Callable[[Refusal], AzureError | None]
"""A rule: it returns the exception for a refusal, or None if the refusal is about something else."""

LOGIN = (
    "Log in with `az login` (in a remote notebook: `az login --use-device-code`). Without az: "
    "from azure.identity import DeviceCodeCredential; "
    'azure = aksgpu.connect("azure", credential=DeviceCodeCredential()).'
)
"""The hint for a missing login."""

_QUOTA_TEXTS = [
    re.compile(
        r"Insufficient vcpu quota requested (?P<requested>\d{1,15}), remaining (?P<remaining>\d{1,15})"
        r" for family (?P<family>.{1,100}?) for region (?P<location>[\w-]+)",
        re.I,
    ),
    re.compile(
        r"Insufficient regional vcpu quota left for location (?P<location>[\w-]+)\."
        r" left regional vcpu quota (?P<remaining>\d{1,15}), requested quota (?P<requested>\d{1,15})",
        re.I,
    ),
    re.compile(
        r"exceeding quota limits of (?P<family>\w+)\. Maximum allowed: (?P<limit>\d{1,15}),"
        r" Current in use: (?P<used>\d{1,15}), Additional requested: (?P<requested>\d{1,15})",
        re.I,
    ),
]
# A family, followed later in the text by the location and the numbers. One pattern for all three would backtrack.
_APPROVED = re.compile(r"exceeding approved (?P<family>[^.]{1,100}?) quota\.", re.I)
_APPROVED_LOCATION = re.compile(r"Location: (?P<location>[\w-]{1,40}),", re.I)
_APPROVED_NUMBERS = re.compile(
    r"Current Limit: (?P<limit>\d{1,15}), Current Usage: (?P<used>\d{1,15}),"
    r" Additional Required: (?P<requested>\d{1,15})",
    re.I,
)
_QUOTA_CODES = {
    "quotaexceeded",
    "errcode_insufficientvcpuquota",
    "insufficientvcpuquota",
    "managedclustercountexceedsquotalimit",
}


def _quota(refusal: Refusal) -> AzureError | None:
    for pattern in _QUOTA_TEXTS:
        found = pattern.search(refusal.message)
        if found is not None:
            return _quota_error(found.groupdict())
    approved = _approved_quota(refusal.message)
    if approved:
        return _quota_error(approved)
    if refusal.code.lower() in _QUOTA_CODES:
        return errors.QuotaExceeded("", hint=_quota_hint("", ""))
    return None


def _approved_quota(message: str) -> dict[str, str | None]:
    """Return family, location and numbers of a text about an approved quota; empty for other texts."""
    family = _APPROVED.search(message)
    if not family:
        return {}
    numbers = _APPROVED_NUMBERS.search(message, family.end())
    if not numbers:
        return {}
    location = _APPROVED_LOCATION.search(message, family.end(), numbers.start())
    found = family.groupdict() | numbers.groupdict()
    if location:
        found |= location.groupdict()
    return found


def _quota_error(found: dict[str, str | None]) -> AzureError:
    """Return the error for the named groups of a text about quota."""
    limit = _number(found.get("limit"))
    used = _number(found.get("used"))
    remaining = _number(found.get("remaining"))
    if limit is not None and used is not None:
        remaining = limit - used
    family = (found.get("family") or "").removesuffix(" Cores")
    if family.lower() in ("", "core", "cores", "total regional"):
        family = "cores"  # the name of the region's total in the usages API
    location = (found.get("location") or "").lower()
    return errors.QuotaExceeded(
        "",
        hint=_quota_hint(family, location),
        requested=_number(found.get("requested")),
        remaining=remaining,
        limit=limit,
        used=used,
        family=family,
        location=location,
    )


def _number(text: str | None) -> int | None:
    return int(text) if text else None


def _quota_hint(family: str, location: str) -> str:
    of_family = f" of '{family}'" if family else ""
    in_location = f" in {location}" if location else ""
    return (
        f"Ask for more quota{of_family}{in_location} at {QUOTA_PAGE}, or choose a size or location with quota left: "
        f"{_size_table(location)}."
    )


def _size_table(location: str) -> str:
    """Return the call that lists the GPU sizes of a location."""
    return f"sizes.gpu_sizes(azure, {location!r})" if location else "sizes.gpu_sizes(azure, location)"


_NOT_ALLOWED = re.compile(
    r"The VM size of (?:AgentPoolProfile:\S+ )?(?P<size>Standard_\w+)?\s*is not allowed in your subscription"
    r"(?: in location '(?P<location>[\w-]+)')?",
    re.I,
)
_NOT_SUPPORTED = re.compile(
    r"Virtual Machine size: '(?P<size>[^']+)' is not supported for subscription .{0,100}?"
    r" in location '(?P<location>[\w-]+)'",
    re.I | re.S,
)
_SIZES_LISTED = re.compile(r"available VM sizes are '?(?P<sizes>[\w,' ]+)", re.I)
_ANY_SIZE = re.compile(r"\bStandard_[A-Z]{1,20}\d\w{0,40}")
_SIZE_SIMILARITY = 0.4
"""Lowest similarity of names at which an allowed size is suggested, from 0 (different) to 1 (equal)."""
_SIZE_CODES = {"vmsizenotsupported", "skunotavailable", "vmsizedoesnotexist", "vmsizeretired", "invalidvmsize"}


def _size(refusal: Refusal) -> AzureError | None:
    found = _NOT_ALLOWED.search(refusal.message) or _NOT_SUPPORTED.search(refusal.message)
    if not found and refusal.code.lower() not in _SIZE_CODES:
        return None
    groups = found.groupdict() if found else {}
    listed = _SIZES_LISTED.search(refusal.message)
    allowed = re.findall(r"\w{1,80}", listed["sizes"]) if listed else []
    vm_size = groups.get("size") or ""
    named = _ANY_SIZE.search(refusal.message)
    if not vm_size and named and named[0] not in allowed:
        vm_size = named[0]
    location = (groups.get("location") or "").lower()
    alternatives = _alternatives(vm_size, allowed)
    choose = f"Use {alternatives[0]} instead, or choose" if alternatives else "Choose"
    return errors.SizeNotAvailable(
        "",
        hint=f"{choose} a size from {_size_table(location)}.",
        vm_size=vm_size,
        location=location,
        alternatives=alternatives,
    )


def _alternatives(vm_size: str, allowed: list[str]) -> tuple[str, ...]:
    """Return the sizes that can replace a size, among the allowed ones if Azure lists them."""
    try:
        similar = gpu_size_table.alternatives(vm_size)
    except AzureError:
        similar = ()  # the table does not have the size
    if not allowed:
        return similar
    return tuple(name for name in similar if name in allowed) or tuple(
        get_close_matches(vm_size, allowed, cutoff=_SIZE_SIMILARITY)
    )


_ALLOCATION_CODES = {
    "allocationfailed",
    "zonalallocationfailed",
    "overconstrainedallocationrequest",
    "overconstrainedzonalallocationrequest",
    "akscapacityheavyusage",
    "skucapacityrestricted",
}


_BULLET = re.compile(r"(?:^|\s)- ")


def _listed(text: str) -> tuple[str, ...]:
    """Return the items of a list with dashes. Some clients fold the list's newlines into spaces."""
    return tuple(item.strip() for item in _BULLET.split(text)[1:])


def _allocation(refusal: Refusal) -> AzureError | None:
    text = refusal.message
    known = refusal.code.lower() in _ALLOCATION_CODES or text.lstrip().startswith("Allocation failed.")
    if not known and "failed for Capacity Restrictions" not in text:
        return None
    _, listed, constraints = text.partition("Constraints applied are:")
    found = _listed(constraints) if listed else ()
    is_zonal = "Zonal" in refusal.code or any("zone" in item.lower() for item in found)
    other_zone = "another zone, " if is_zonal else ""
    return errors.AllocationFailed(
        "",
        hint=f"Azure has no capacity at present. Try {other_zone}another size or location, or try again later.",
        constraints=found,
    )


_SUBNET_TEXTS = [
    re.compile(
        r"Pre-allocated IPs (?P<requested>\d{1,15}) exceeds IPs available (?P<available>\d{1,15})"
        r" in Subnet Cidr (?P<cidr>[\w.:/]{1,100})(?:, Subnet Name (?P<subnet>[\w-]{1,100}(?:\.\w{1,100})?))?",
        re.I,
    ),
    re.compile(
        r"Subnet (?P<subnet>[^\s,]{1,400}) with address prefix (?P<cidr>[\w.:/]{1,100})"
        r" does not have enough capacity for (?P<requested>\d{1,15}) IP addresses",
        re.I,
    ),
]
_SUBNET_CODES = {"InsufficientSubnetSize", "SubnetIsFull"}
_POD_RANGE = "networkProfile.podCIDR"
"""What Azure names instead of a subnet if the range of the pods' addresses is too small."""


def _subnet(refusal: Refusal) -> AzureError | None:
    matches = [pattern.search(refusal.message) for pattern in _SUBNET_TEXTS]
    found = next((match.groupdict() for match in matches if match), {})
    if not found and refusal.code not in _SUBNET_CODES:
        return None
    subnet = (found.get("subnet") or "").rpartition("/")[2]
    remedy = "add the pool in a larger subnet: cluster.add_gpu_pool(aks, vnet_subnet_id=...)"
    if subnet == _POD_RANGE:
        remedy = "use a cluster with a larger range for pods"
    return errors.SubnetFull(
        "",
        hint=f"Ask for fewer nodes (of a pool with an autoscaler, max_count counts), or {remedy}.",
        subnet=subnet,
        cidr=found.get("cidr") or "",
        requested=_number(found.get("requested")),
        available=_number(found.get("available")),
    )


def _managed_subnet(refusal: Refusal) -> AzureError | None:
    if "Cannot use a custom subnet" not in refusal.message:
        return None
    hint = "Omit vnet_subnet_id. AKS manages the subnet of this cluster's pools."
    return errors.InvalidParameter("", hint=hint, parameter="vnetSubnetID")


_ZONES = re.compile(r"zone\(s\) (?P<zones>.{1,100}?) for resource .{0,300}?is not supported", re.I | re.S)
_ZONES_INSTEAD = re.compile(r"supported zones for location .{1,100}? are (?P<zones>[^.]+)", re.I)


def _zone(refusal: Refusal) -> AzureError | None:
    found = _ZONES.search(refusal.message)
    if not found and refusal.code.lower() != "availabilityzonenotsupported":
        return None
    instead = _ZONES_INSTEAD.search(refusal.message)
    zones = tuple(re.findall(r"\w+", found["zones"])) if found else ()
    supported = tuple(re.findall(r"'([^']*)'", instead["zones"])) if instead else ()
    hint = "Omit zones."
    if supported:
        hint = f"Pass zones=({', '.join(map(repr, supported))},) instead."
    return errors.ZoneNotAvailable("", hint=hint, zones=zones, supported=supported)


_LOCATION = re.compile(
    r"(?:provided location|location) '(?P<location>[^']*)' is not available for resource (?:group|type)", re.I
)
_LOCATIONS_LISTED = re.compile(r"List of available regions.{0,200}? is '(?P<locations>[^']*)'", re.I)
_LOCATION_SIMILARITY = 0.5
"""Lowest similarity of names at which a location is suggested, from 0 (different) to 1 (equal)."""
_LOCATION_CODES = {"locationnotavailableforresourcegroup", "locationnotavailableforresourcetype", "invalidlocation"}


def _location(refusal: Refusal) -> AzureError | None:
    found = _LOCATION.search(refusal.message)
    closed = "region is currently not accepting new customers" in refusal.message
    if not found and not closed and refusal.code.lower() not in _LOCATION_CODES:
        return None
    location = found["location"] if found else ""
    listed = _LOCATIONS_LISTED.search(refusal.message)
    available = tuple(name.strip() for name in listed["locations"].split(",")) if listed else ()
    return errors.LocationNotAvailable(
        "", hint=location_hint(location, available), location=location, available=available
    )


def location_hint(location: str, available: tuple[str, ...]) -> str:
    """Return the hint for a location that is not available: the most similar names among the available ones."""
    similar = get_close_matches(location.lower().replace(" ", ""), available, n=3, cutoff=_LOCATION_SIMILARITY)
    if similar:
        return f"Did you mean {' or '.join(map(repr, similar))}?"
    if available:
        return f"Available locations: {', '.join(available)}."
    return "Choose another location: `az account list-locations --output table` lists them."


_EXIT_CODE = re.compile(r'exit status=(?P<code>\d{1,9})\b|"ExitCode":\s*"(?P<json>\d{1,15})"')
_EXIT_MEANINGS = {
    83: "downloading the GPU driver took too long",
    84: "the GPU driver did not start",
    85: "installing the GPU driver took too long",
    86: "the GPU device plugin did not start",
    87: "the GPU reports a corrupted InfoROM",
    224: "the script could not determine whether a GPU driver is needed",
    225: "NVIDIA's package repository key could not be fetched",
    226: "NVIDIA's package repository could not be set up",
    228: "the GPU monitoring service (DCGM) failed",
    229: "the GPU monitoring service (DCGM) failed",
    235: "the GPU monitoring service (DCGM) failed",
}


def _bootstrap(refusal: Refusal) -> AzureError | None:
    if refusal.code != "VMExtensionProvisioningError" and "vmssCSE" not in refusal.message:
        return None
    found = _EXIT_CODE.search(refusal.message)
    exit_code = int(found["code"] or found["json"]) if found else None
    meaning = "the set-up of the node failed"
    remedy = "look up the exit code at https://aka.ms/aks-vmssCSE-errors."
    if exit_code in _EXIT_MEANINGS:
        meaning = _EXIT_MEANINGS[exit_code]
        remedy = 'choose another size, or pass gpu_driver="none" and install your own driver.'
    sentence = f"{meaning[0].upper()}{meaning[1:]}."
    return errors.NodeBootstrapFailed(
        "", hint=f"{sentence} Delete the pool and add it again. If that fails too, {remedy}", exit_code=exit_code
    )


_PENDING = re.compile(r"Another (?:agentpool )?operation \((?P<operation>[^()]*)\)", re.I)
_IN_PROGRESS = re.compile(r"there's an in progress (?P<operation>[\w ]+?) operation", re.I)


def _busy(refusal: Refusal) -> AzureError | None:
    text = refusal.message
    found = _PENDING.search(text) or _IN_PROGRESS.search(text)
    if not found and "aks-pending-operation" not in text:
        return None
    return errors.OperationInProgress(
        "",
        hint="Wait until it ends, then run the cell again. AKS runs one operation per cluster at a time.",
        operation=found["operation"] if found else "",
    )


def _stopped(refusal: Refusal) -> AzureError | None:
    if refusal.code != "OperationNotAllowed" or "stopped" not in refusal.message.lower():
        return None
    return errors.AzureConflict("", hint="Start it first, with cluster.start(aks) or cluster.start_pool(aks, pool).")


def _local_accounts(refusal: Refusal) -> AzureError | None:
    if "disable local accounts" not in refusal.message:
        return None
    return errors.LocalAccountsDisabled(
        "",
        hint="Use the user credentials, cluster.kubeconfig(aks) without admin=True. Their token comes from Entra ID.",
    )


def _throttled(refusal: Refusal) -> AzureError | None:
    if refusal.http_status != 429 and refusal.code not in ("Throttled", "TooManyRequests"):
        return None
    found = re.search(r"retry again in (\d{1,9}) seconds", refusal.message)
    retry_after = float(found[1]) if found else None
    pause = f"{retry_after:g} seconds" if retry_after else "a minute"
    return errors.Throttled("", hint=f"Wait {pause}, then run the cell again.", retry_after=retry_after)


def _changed(refusal: Refusal) -> AzureError | None:
    if refusal.http_status != 412 and refusal.code != "PreconditionFailed":
        return None
    return errors.ResourceChanged("", hint="Read the resource again, then repeat the change.")


def _node_resource_group(refusal: Refusal) -> AzureError | None:
    if not refusal.code.startswith("NodeResourceGroup"):
        return None
    if refusal.code.endswith("AlreadyExists"):
        return errors.AzureConflict("", hint="Choose another node resource group, or delete the existing one first.")
    return errors.InvalidParameter("", hint="Choose another node resource group.", parameter="nodeResourceGroup")


def _provider(refusal: Refusal) -> AzureError | None:
    found = re.search(r"not registered to use namespace '([\w.]+)'", refusal.message)
    if not found and refusal.code != "MissingSubscriptionRegistration":
        return None
    provider = found[1] if found else "Microsoft.ContainerService"
    return errors.ProviderNotRegistered(
        "", hint=f"Run `az provider register --namespace {provider} --wait`.", provider=provider
    )


_PARAMETER = re.compile(
    r"parameter ([\w.]+) is (?:invalid|missing)|^(\S+) is invalid|property '([\w.]+)' is not allowed", re.I
)
_PARAMETER_CODES = {"InvalidParameter", "InvalidResourceGroup", "PropertyChangeNotAllowed"}


def _by_code(refusal: Refusal) -> AzureError | None:
    if refusal.code in _CODES:
        kind, hint = _CODES[refusal.code]
        return kind("", hint=hint)
    invalid = "is invalid" in refusal.message and ("name" in refusal.message or "parameter" in refusal.message)
    if invalid or refusal.code in _PARAMETER_CODES:
        found = _PARAMETER.search(refusal.message)
        parameter = next((group for group in found.groups() if group), "") if found else ""
        return errors.InvalidParameter("", hint="Correct the value, then run the cell again.", parameter=parameter)
    return None


_FORBIDDEN = (
    "Ask the subscription's owner for the role, or choose another subscription: "
    'azure = aksgpu.connect("azure", subscription_id=...).'
)
_CODES: dict[str, tuple[type[AzureError], str]] = {
    "AuthorizationFailed": (errors.AzureAuthError, _FORBIDDEN),
    "LinkedAuthorizationFailed": (errors.AzureAuthError, _FORBIDDEN),
    "InvalidAuthenticationToken": (errors.AzureAuthError, LOGIN),
    "ExpiredAuthenticationToken": (errors.AzureAuthError, LOGIN),
    "AuthenticationFailed": (errors.AzureAuthError, LOGIN),
    "InvalidAuthenticationTokenTenant": (errors.AzureAuthError, LOGIN),
    "RequestDisallowedByPolicy": (
        errors.PolicyDenied,
        "Change what the policy forbids (often tags, locations or sizes), or ask the owner of the policy.",
    ),
    "RequestDisallowedByAzure": (errors.LocationNotAvailable, "Choose another location."),
    "K8sVersionNotSupported": (
        errors.VersionNotSupported,
        "Omit kubernetes_version for the default, or see `az aks get-versions --location ... --output table`.",
    ),
    "SubscriptionNotFound": (
        errors.AzureNotFound,
        "Check the id of the subscription, and whether your login has access to it.",
    ),
    "ResourceGroupNotFound": (errors.AzureNotFound, "Check the name. cluster.list(azure) lists the clusters."),
    "OperationPreempted": (errors.OperationCanceled, "A later operation replaced it. Run the cell again."),
    "OperationCanceled": (
        errors.OperationCanceled,
        "The operation was aborted. Run the cell again to start a new one.",
    ),
    "Canceled": (errors.OperationCanceled, "The operation was aborted. Run the cell again to start a new one."),
}


def _last_system_pool(refusal: Refusal) -> AzureError | None:
    if "at least one system agent pool" not in refusal.message:
        return None
    hint = "A cluster needs a system pool. Add another one first, or delete the cluster with cluster.delete(aks)."
    return errors.AzureConflict("", hint=hint)


def _by_status(refusal: Refusal) -> AzureError | None:
    match refusal.http_status:
        case 401:
            return errors.AzureAuthError("", hint=LOGIN)
        case 403:
            return errors.AzureAuthError("", hint=_FORBIDDEN)
        case 404:
            return errors.AzureNotFound("", hint="Check the names. cluster.list(azure) lists the clusters.")
        case 409:
            return errors.AzureConflict("", hint="Check the state with cluster.list(azure), then run the cell again.")
    return None


RULES: tuple[Rule, ...] = (
    _quota,
    _busy,
    _stopped,
    _local_accounts,
    _zone,
    _subnet,
    _managed_subnet,
    _allocation,
    _location,
    _size,
    _bootstrap,
    _throttled,
    _provider,
    _last_system_pool,
    _changed,
    _node_resource_group,
    _by_code,
    _by_status,
)
"""The rules, in the order in which they are tried: exact texts first, then codes, and the HTTP status last."""
