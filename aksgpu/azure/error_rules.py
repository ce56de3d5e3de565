"""The texts and codes in which Azure refuses, one rule a failure.

Each rule reads one :class:`Refusal` and gives the exception that stands for it, without its message, or None when it
is about something else. :mod:`aksgpu.azure.error_parsing` takes bodies apart and puts the message in; nothing else
calls
these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from aksgpu import errors
from aksgpu.common import gpu_size_table as sizes
from aksgpu.errors import AzureError

QUOTA_PAGE = "https://portal.azure.com/#view/Microsoft_Azure_Capacity/QuotaMenuBlade/~/myQuotas"
"""Where quotas are looked up and raised."""


@dataclass(frozen=True)
class Refusal:
    """One code and message of Azure's.

    Attributes:
        code: such as ``QuotaExceeded``; empty when there is none.
        message: Azure's text.
        status: the HTTP status of the answer, or None.
    """

    code: str
    message: str
    status: int | None = None


LOGIN = (
    "Log in with `az login` (in a remote notebook: `az login --use-device-code`). Without az: "
    "from azure.identity import DeviceCodeCredential; "
    'azure = aksgpu.connect("azure", credential=DeviceCodeCredential()).'
)

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
# A family, and later in the text the place and the numbers. One pattern of all three would backtrack.
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
        if found := pattern.search(refusal.message):
            return _quota_of(found.groupdict())
    if approved := _approved_quota(refusal.message):
        return _quota_of(approved)
    if refusal.code.lower() in _QUOTA_CODES:
        return errors.QuotaExceeded("", hint=_quota_hint("", ""))
    return None


def _approved_quota(message: str) -> dict[str, str | None]:
    """Family, location and numbers of a text about an approved quota; empty for other texts."""
    family = _APPROVED.search(message)
    if not family:
        return {}
    numbers = _APPROVED_NUMBERS.search(message, family.end())
    if not numbers:
        return {}
    location = _APPROVED_LOCATION.search(message, family.end(), numbers.start())
    return {**family.groupdict(), **numbers.groupdict(), **(location.groupdict() if location else {})}


def _quota_of(read: dict[str, str | None]) -> AzureError:
    numbers: dict[str, Any] = {
        name: int(value) for name in ("requested", "remaining", "limit", "used") if (value := read.get(name))
    }
    if "limit" in numbers and "used" in numbers:
        numbers["remaining"] = numbers["limit"] - numbers["used"]
    family = (read.get("family") or "").removesuffix(" Cores")
    if family.lower() in ("", "core", "cores", "total regional"):
        family = "cores"  # the name that the usages API gives the region's total
    location = (read.get("location") or "").lower()
    return errors.QuotaExceeded("", hint=_quota_hint(family, location), family=family, location=location, **numbers)


def _quota_hint(family: str, location: str) -> str:
    of = f" of '{family}'" if family else ""
    where = f" in {location}" if location else ""
    table = f"sizes.gpu_sizes(azure, {location!r})" if location else "sizes.gpu_sizes(azure, location)"
    return f"Ask for more quota{of}{where} at {QUOTA_PAGE}, or take a size or location with quota left: {table}."


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
_SIZE_CODES = {"vmsizenotsupported", "skunotavailable", "vmsizedoesnotexist", "vmsizeretired", "invalidvmsize"}


def _size(refusal: Refusal) -> AzureError | None:
    found = _NOT_ALLOWED.search(refusal.message) or _NOT_SUPPORTED.search(refusal.message)
    if not found and refusal.code.lower() not in _SIZE_CODES:
        return None
    read = found.groupdict() if found else {}
    listed = _SIZES_LISTED.search(refusal.message)
    allowed = re.findall(r"\w{1,80}", listed["sizes"]) if listed else []
    named = _ANY_SIZE.search(refusal.message)
    size = read.get("size") or (named[0] if named and named[0] not in allowed else "")
    location = (read.get("location") or "").lower()
    alternatives = _instead_of(size, allowed)
    return errors.SizeNotAvailable(
        "", hint=_size_hint(alternatives, location), size=size, location=location, alternatives=alternatives
    )


def _instead_of(size: str, allowed: list[str]) -> tuple[str, ...]:
    try:
        similar = sizes.alternatives(size)
    except AzureError:  # a size that the table does not know has no known likes
        similar = ()
    if not allowed:
        return tuple(similar)
    return tuple([name for name in similar if name in allowed] or get_close_matches(size, allowed, cutoff=0.4))


def _size_hint(alternatives: tuple[str, ...], location: str) -> str:
    table = f"sizes.gpu_sizes(azure, {location!r})" if location else "sizes.gpu_sizes(azure, location)"
    instead = f"Use {alternatives[0]} instead, or choose" if alternatives else "Choose"
    return f"{instead} from {table}."


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
    # Some clients fold the list's newlines into spaces.
    bound = _listed(constraints) if listed else ()
    elsewhere = "another zone, " if any("zone" in item.lower() for item in bound) or "Zonal" in refusal.code else ""
    return errors.AllocationFailed(
        "",
        hint=f"Azure has none left at the moment: try {elsewhere}another size or location, or again later.",
        constraints=bound,
    )


_ZONES = re.compile(r"zone\(s\) (?P<zones>.{1,100}?) for resource .{0,300}?is not supported", re.I | re.S)
_ZONES_INSTEAD = re.compile(r"supported zones for location .{1,100}? are (?P<zones>[^.]+)", re.I)


def _zone(refusal: Refusal) -> AzureError | None:
    found = _ZONES.search(refusal.message)
    if not found and refusal.code.lower() != "availabilityzonenotsupported":
        return None
    instead = _ZONES_INSTEAD.search(refusal.message)
    zones = tuple(re.findall(r"\w+", found["zones"])) if found else ()
    supported = tuple(re.findall(r"'([^']*)'", instead["zones"])) if instead else ()
    choice = f"zones=({', '.join(map(repr, supported))},)" if supported else "no zones"
    return errors.ZoneNotAvailable("", hint=f"Ask for {choice} instead.", zones=zones, supported=supported)


_LOCATION = re.compile(
    r"(?:provided location|location) '(?P<location>[^']*)' is not available for resource (?:group|type)", re.I
)
_LOCATIONS_LISTED = re.compile(r"List of available regions.{0,200}? is '(?P<locations>[^']*)'", re.I)
_LOCATION_CODES = {"locationnotavailableforresourcegroup", "locationnotavailableforresourcetype", "invalidlocation"}


def _location(refusal: Refusal) -> AzureError | None:
    found = _LOCATION.search(refusal.message)
    closed = "region is currently not accepting new customers" in refusal.message
    if not found and not closed and refusal.code.lower() not in _LOCATION_CODES:
        return None
    location = found["location"] if found else ""
    listed = _LOCATIONS_LISTED.search(refusal.message)
    available = tuple(name.strip() for name in listed["locations"].split(",")) if listed else ()
    error = errors.LocationNotAvailable("", hint=location_hint(location, available))
    error.location = location
    error.available = available
    return error


def location_hint(location: str, available: tuple[str, ...]) -> str:
    """What to do about a location that cannot be used: the nearest names among the available ones."""
    near = get_close_matches(location.lower().replace(" ", ""), available, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    if available:
        return f"Available are: {', '.join(available)}."
    return "Choose another location: `az account list-locations --output table` lists them."


_EXIT_CODE = re.compile(r'exit status=(?P<code>\d{1,9})\b|"ExitCode":\s*"(?P<json>\d{1,15})"')
_EXIT_MEANING = {
    83: "downloading the GPU driver took too long",
    84: "the GPU driver did not start",
    85: "installing the GPU driver took too long",
    86: "the GPU device plugin did not start",
    87: "the GPU reports a corrupted InfoROM",
    224: "it could not be decided whether a GPU driver is needed",
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
    code = int(found["code"] or found["json"]) if found else None
    meaning = _EXIT_MEANING.get(code or 0, "setting the node up failed")
    remedy = (
        'Delete the pool and add it again; if it stays, take another size, or gpu_driver="none" with your own driver.'
        if code in _EXIT_MEANING
        else "Delete the pool and add it again; if it stays, look the exit code up at https://aka.ms/aks-vmssCSE-errors."
    )
    return errors.NodeBootstrapFailed("", hint=f"{meaning[0].upper()}{meaning[1:]}. {remedy}", exit_code=code)


_PENDING = re.compile(r"Another (?:agentpool )?operation \((?P<operation>[^()]*)\)", re.I)
_IN_PROGRESS = re.compile(r"there's an in progress (?P<operation>[\w ]+?) operation", re.I)


def _busy(refusal: Refusal) -> AzureError | None:
    text = refusal.message
    found = _PENDING.search(text) or _IN_PROGRESS.search(text)
    if not found and "aks-pending-operation" not in text:
        return None
    return errors.OperationInProgress(
        "",
        hint="Wait until it has ended, then run the cell again; AKS runs one operation a cluster at a time.",
        operation=found["operation"] if found else "",
    )


def _stopped(refusal: Refusal) -> AzureError | None:
    if refusal.code != "OperationNotAllowed" or "stopped" not in refusal.message.lower():
        return None
    return errors.AzureConflict("", hint="Start it first: cluster.start(aks), or cluster.start_pool(aks, pool).")


def _local_accounts(refusal: Refusal) -> AzureError | None:
    if "disable local accounts" not in refusal.message:
        return None
    return errors.LocalAccountsDisabled(
        "", hint="Use the user credentials (cluster.kubeconfig without admin=True): the token then comes from Entra ID."
    )


def _throttled(refusal: Refusal) -> AzureError | None:
    if refusal.status != 429 and refusal.code not in ("Throttled", "TooManyRequests"):
        return None
    found = re.search(r"retry again in (\d{1,9}) seconds", refusal.message)
    seconds = float(found[1]) if found else None
    pause = f"{seconds:g} seconds" if seconds else "a minute"
    return errors.Throttled("", hint=f"Wait {pause}, then run the cell again.", retry_after=seconds)


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
    if entry := _CODES.get(refusal.code):
        kind, hint = entry
        return kind("", hint=hint)
    invalid = "is invalid" in refusal.message and ("name" in refusal.message or "parameter" in refusal.message)
    if invalid or refusal.code in _PARAMETER_CODES:
        found = _PARAMETER.search(refusal.message)
        parameter = next((group for group in found.groups() if group), "") if found else ""
        return errors.InvalidParameter("", hint="Change the value, then run the cell again.", parameter=parameter)
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
        "Ask who keeps the policy named above, or change what it objects to (often tags, locations or sizes).",
    ),
    "RequestDisallowedByAzure": (errors.LocationNotAvailable, "Choose another location."),
    "K8sVersionNotSupported": (
        errors.VersionNotSupported,
        "Leave kubernetes_version out for the default, or see `az aks get-versions --location ... --output table`.",
    ),
    "SubscriptionNotFound": (errors.AzureNotFound, "Check the subscription's id, and that the login may see it."),
    "ResourceGroupNotFound": (errors.AzureNotFound, "Check the name; cluster.list(azure) shows what there is."),
    "OperationPreempted": (errors.OperationCanceled, "A later operation took its place: run the cell again."),
    "OperationCanceled": (errors.OperationCanceled, "It was aborted: run the cell again to start anew."),
    "Canceled": (errors.OperationCanceled, "It was aborted: run the cell again to start anew."),
}


def _last_system_pool(refusal: Refusal) -> AzureError | None:
    if "at least one system agent pool" not in refusal.message:
        return None
    hint = "A cluster lives by its system pool: cluster.delete(aks) deletes the cluster, or add another one first."
    return errors.AzureConflict("", hint=hint)


def _by_status(refusal: Refusal) -> AzureError | None:
    match refusal.status:
        case 401:
            return errors.AzureAuthError("", hint=LOGIN)
        case 403:
            return errors.AzureAuthError("", hint=_FORBIDDEN)
        case 404:
            return errors.AzureNotFound("", hint="Check the names; cluster.list(azure) shows what there is.")
        case 409:
            return errors.AzureConflict("", hint="See the state with cluster.list(azure), then run the cell again.")
    return None


# In order: what is told by an exact text comes before what is told by a code, and a status comes last.
RULES = (
    _quota,
    _busy,
    _stopped,
    _local_accounts,
    _zone,
    _allocation,
    _location,
    _size,
    _bootstrap,
    _throttled,
    _provider,
    _last_system_pool,
    _by_code,
    _by_status,
)
