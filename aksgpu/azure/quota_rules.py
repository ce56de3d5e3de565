"""Azure's refusals because a quota or a limit of the subscription is used up."""

from __future__ import annotations

import re
from collections.abc import Mapping

from aksgpu.azure.refusal import QUOTA_PAGE, Refusal, number, shell, size_table
from aksgpu.errors import AzureError, QuotaExceeded

__all__ = ["count_limit_rule", "quota_code_rule", "quota_rule"]

_TEXTS = [
    re.compile(
        r"Insufficient (?P<spot>low.?priority |spot )?v?cpu quota requested (?P<requested>\d{1,15}),"
        r" remaining (?P<remaining>\d{1,15}) for family (?P<family>.{1,100}?) for region (?P<location>[\w-]{1,40})",
        re.I,
    ),
    re.compile(
        r"Insufficient regional (?P<spot>low.?priority |spot )?v?cpu quota left for location"
        r" (?P<location>[\w-]{1,40})\."
        r" left regional (?:low.?priority |spot )?v?cpu quota (?P<remaining>\d{1,15}),"
        r" requested quota (?P<requested>\d{1,15})",
        re.I,
    ),
    re.compile(
        r"exceeding quota limits? of (?P<family>\w[\w ]{0,99})\.\s{1,3}Maximum allowed: (?P<limit>\d{1,15}),"
        r"\s{1,3}Current in use: (?P<used>\d{1,15}),\s{1,3}Additional requested: (?P<requested>\d{1,15})",
        re.I,
    ),
]
# A family, followed later in the text by the location and the numbers. One pattern for all three would backtrack.
_APPROVED = re.compile(r"exceeding approved (?P<family>[^.]{1,100}?) quota\b", re.I)
_APPROVED_LOCATION = re.compile(r"Location: (?P<location>[\w-]{1,40})\b", re.I)
_APPROVED_NUMBERS = re.compile(
    r"Current Limit: (?P<limit>\d{1,15}),\s{1,5}Current Usage: (?P<used>\d{1,15}),"
    r"\s{1,5}Additional Required: (?P<requested>\d{1,15})",
    re.I,
)
_CODES = {
    "quotaexceeded",
    "errcode_insufficientvcpuquota",
    "insufficientvcpuquota",
    "managedclustercountexceedsquotalimit",
    "resourcequotaexceeded",
    "resourcegroupquotaexceeded",
    "subscriptionquotaexceeded",
}
_TOTAL = ("", "core", "cores", "total regional", "total regional vcpus", "total regional cores")
"""Names of the region's total, which the usages API calls ``cores``."""
_SPOT = re.compile(r"low.?priority|\bspot\b", re.I)
_SPOT_FAMILY = "lowPriorityCores"
"""The usages API's name of the quota for spot VMs."""


def quota_rule(refusal: Refusal) -> AzureError | None:
    """Recognise a vCPU quota that is used up, or another approved quota."""
    for pattern in _TEXTS:
        found = pattern.search(refusal.message)
        if found is not None:
            return _error(found.groupdict())
    approved = _approved(refusal.message)
    return _error(approved) if approved else None


def quota_code_rule(refusal: Refusal) -> AzureError | None:
    """Recognise a quota by its code alone, for texts without numbers."""
    if refusal.code.lower() not in _CODES:
        return None
    return QuotaExceeded("", hint=_hint("", ""))


def _approved(message: str) -> dict[str, str | None]:
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


def _error(found: Mapping[str, str | None]) -> AzureError:
    """Return the error for the named groups of a text about quota."""
    limit = number(found.get("limit"))
    used = number(found.get("used"))
    remaining = number(found.get("remaining"))
    if limit is not None and used is not None:
        remaining = max(0, limit - used)
    family = (found.get("family") or "").removesuffix(" Cores")
    if found.get("spot") and not _SPOT.search(family):
        family = _SPOT_FAMILY
    if family.lower() in _TOTAL:
        family = "cores"
    location = (found.get("location") or "").lower()
    return QuotaExceeded(
        "",
        hint=_hint(family, location),
        requested=number(found.get("requested")),
        remaining=remaining,
        limit=limit,
        used=used,
        family=family,
        location=location,
    )


def _hint(family: str, location: str) -> str:
    of_family = f" of '{family}'" if family else ""
    in_location = f" in {location}" if location else ""
    spot = ""
    if _SPOT.search(family):
        spot = (
            "This is the quota for spot VMs, which all sizes share. A pool with spot=False counts against the quota "
            "of its family instead. "
        )
    return (
        f"{spot}Ask for more quota{of_family}{in_location} at {QUOTA_PAGE}, or choose a size or location with quota "
        f"left: {size_table(location)}." + shell(f"az vm list-usage --location {location or 'LOCATION'} --output table")
    )


# Limits on the number of resources

_COUNT = re.compile(
    r"Cannot create more than (?P<limit>\d{1,9}) (?P<what>[\w ,()/-]{1,80}?) (?:for|in|per) (?:this|the) subscription",
    re.I,
)
_RESOURCES = re.compile(
    r"exceed the quota of '(?P<limit>\d{1,9})' resources of type '(?P<what>[\w./]{1,100})'",
    re.I,
)
_CHILDREN = re.compile(r"A load balancer cannot have more than (?P<limit>\d{1,9}) (?P<what>\w{1,60})", re.I)
_RESOURCE_COUNT = re.compile(r"current resource count is '(?P<used>\d{1,9})'", re.I)
_COUNT_CODE = re.compile(r"CountLimitReached\b")


def count_limit_rule(refusal: Refusal) -> AzureError | None:
    """Recognise a limit on the number of resources, such as public IP addresses."""
    children = _CHILDREN.search(refusal.message)
    if children:
        hint = (
            "Each Service of type LoadBalancer needs a part of the cluster's load balancer. Delete Services, or ask "
            f"for more at {QUOTA_PAGE} (provider Microsoft.Network)."
        )
        return QuotaExceeded(
            "",
            hint=hint + shell("kubectl get services --all-namespaces"),
            limit=number(children["limit"]),
            family=children["what"],
        )
    found = _COUNT.search(refusal.message) or _RESOURCES.search(refusal.message)
    code = _COUNT_CODE.search(refusal.code) or _COUNT_CODE.search(refusal.message)
    if not found and not code:
        return None
    what = found["what"] if found else ""
    used = _RESOURCE_COUNT.search(refusal.message)
    addresses = "publicip" in f"{refusal.code} {what} {refusal.message}".lower().replace(" ", "")
    return QuotaExceeded(
        "",
        hint=_count_hint(what, addresses),
        limit=number(found["limit"]) if found else None,
        used=number(used["used"]) if used else None,
        family="public IP addresses" if addresses else what,
    )


def _count_hint(what: str, addresses: bool) -> str:
    ask = f"ask for more at {QUOTA_PAGE}"
    if addresses:
        command = 'az network public-ip list --query "[?ipConfiguration==null].id" --output tsv'
        return (
            f"Delete unused public IP addresses, or {ask} (provider Microsoft.Network), or create the "
            f"cluster in another location.{shell(command)}"
        )
    of_what = f" of {what}" if what else ""
    return f"Delete unused resources{of_what}, or {ask}.{shell('az resource list --output table')}"
