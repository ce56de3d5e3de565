"""Azure's refusals of a VM size, a zone or a location, and its lack of capacity."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from aksgpu import errors
from aksgpu.azure.refusal import Refusal, location_in, shell, size_table, skus_command
from aksgpu.common import gpu_size_table
from aksgpu.errors import AzureError

__all__ = [
    "allocation_rule",
    "complete_allocation",
    "disk_rule",
    "location_hint",
    "location_rule",
    "size_rule",
    "spot_rule",
    "zone_rule",
]

_SIZE = r"Standard_[A-Z]{1,20}[0-9][\w-]{0,60}"
_ANY_SIZE = re.compile(rf"\b{_SIZE}", re.I)

# Sizes

_REFUSED = [
    re.compile(
        rf"The VM size of (?:Agent |AgentPoolProfile:[\w-]{{1,40}} )?(?P<size>{_SIZE})?\s{{0,3}}is not allowed in your"
        r" subscription(?: in location '?(?P<location>[\w-]{1,40})'?)?",
        re.I,
    ),
    re.compile(
        r"Virtual Machine size: '(?P<size>[^']{0,80})' is not supported for subscription .{0,100}?"
        r" in location '(?P<location>[\w-]{1,40})'",
        re.I | re.S,
    ),
    re.compile(
        rf"(?:requested VM|requested) size '?(?P<size>{_SIZE})'? is not available in the (?:current region|cluster)",
        re.I,
    ),
    re.compile(rf"provided value '(?P<size>{_SIZE})' for the template parameter '\w{{0,60}}VMSize'", re.I),
    re.compile(rf"value '?(?P<size>{_SIZE})'? provided for the VM size is not valid", re.I),
    re.compile(rf"(?:size|SKU) '?(?P<size>{_SIZE})'? (?:is|was|has been|will be) retired", re.I),
    re.compile(
        rf"Virtual Machine size (?P<size>{_SIZE}) is not in the allowed list of VM sizes for accelerated networking",
        re.I,
    ),
    re.compile(r"VM SKUs? chosen for agentpool\(s\) .{1,100}? (?:is|are) restricted by AKS", re.I | re.S),
]
_UNAVAILABLE = re.compile(
    r"The requested (?:VM )?(?:size|tier) for resource '(?P<resource>[^']{0,400})' is currently not available in"
    r" location '(?P<location>[^']{0,40})'(?: zones? '(?P<zones>[^']{0,40})')?",
    re.I,
)
_LISTED = re.compile(
    r"(?:(?:available|valid|supported|allowed) (?:VM )?sizes (?:are|in the current region are)"
    r"|sizes available in the current region are|available sizes are|part of the allowed value\(s\))"
    r"\s{0,3}:?\s{0,3}'?(?P<sizes>[\w,' -]{1,100000})",
    re.I,
)
_GENERATION = re.compile(
    rf"selected VM size '(?P<size>{_SIZE})' cannot boot Hypervisor Generation '(?P<generation>[12])'", re.I
)
_CONTROLLER = re.compile(rf"VM size '(?P<size>{_SIZE})' cannot boot with OS image or disk", re.I)
_CODES = {"vmsizenotsupported", "skunotavailable", "vmsizedoesnotexist", "vmsizeretired", "invalidvmsize"}
_CODES |= {"vmskunotsupported", "vmsizenotavailable", "notavailableforsubscription", "restrictedskus"}
_SIZE_SIMILARITY = 0.8
"""Similarity of names from which an allowed CPU size is suggested, from 0 (different) to 1 (equal)."""
_MOST_SIMILAR = 3
"""Number of CPU sizes that are suggested."""


def size_rule(refusal: Refusal) -> AzureError | None:
    """Recognise a size that is unknown, retired or not offered to the subscription."""
    generation = _GENERATION.search(refusal.message)
    if generation:
        return _generation_error(generation)
    controller = _CONTROLLER.search(refusal.message)
    if controller:
        return _controller_error(_spelled(controller["size"]))
    unavailable = _UNAVAILABLE.search(refusal.message)
    groups = unavailable.groupdict() if unavailable else _refused(refusal.message)
    if groups is None and refusal.code.lower() not in _CODES:
        return None
    groups = groups or {}
    listed = _LISTED.search(refusal.message)
    allowed = _ANY_SIZE.findall(listed["sizes"]) if listed else []
    vm_size = _spelled(groups.get("size") or _named_size(refusal.message, listed))
    location = (groups.get("location") or location_in(refusal.message)).lower()
    alternatives = replacements(vm_size, allowed)
    return errors.SizeNotAvailable(
        "",
        hint=_size_hint(location, alternatives, bool(allowed)),
        vm_size=vm_size,
        location=location,
        alternatives=alternatives,
    )


def _refused(message: str) -> dict[str, str | None] | None:
    """Return the named groups of the first pattern that matches; None if none does."""
    for pattern in _REFUSED:
        found = pattern.search(message)
        if found:
            return found.groupdict()
    return None


def _named_size(message: str, listed: re.Match[str] | None) -> str:
    """Return the first size that a message names before its list of allowed sizes; empty if it names none."""
    found = _ANY_SIZE.search(message, 0, listed.start() if listed else len(message))
    return found[0] if found else ""


def _generation_error(found: re.Match[str]) -> AzureError:
    vm_size = _spelled(found["size"])
    return errors.SizeNotAvailable(
        "",
        hint=(
            f"The node image is for generation {found['generation']} VMs, and this size is not. Choose another image, "
            f'such as cluster.add_gpu_pool(aks, "gpunp", vm_size={vm_size!r}, os_sku="Ubuntu"), or a size that '
            f"supports both generations: {size_table('')}."
            + shell(
                f"az vm list-skus --location LOCATION --size {vm_size} "
                "--query \"[].capabilities[?name=='HyperVGenerations'].value\" --output tsv"
            )
        ),
        vm_size=vm_size,
    )


def _controller_error(vm_size: str) -> AzureError:
    hint = (
        "The node image has no driver for the disk controller of this size, in most cases NVMe. Choose another image, "
        f'such as cluster.add_gpu_pool(aks, "gpunp", vm_size={vm_size!r}, os_sku="Ubuntu"), or another size: '
        f"{size_table('')}."
    )
    command = (
        f"az vm list-skus --location LOCATION --size {vm_size} "
        "--query \"[].capabilities[?name=='DiskControllerTypes'].value\" --output tsv"
    )
    return errors.SizeNotAvailable("", hint=hint + shell(command), vm_size=vm_size)


def _size_hint(location: str, alternatives: tuple[str, ...], has_list: bool) -> str:
    if alternatives:
        choose = f"Use {alternatives[0]} instead, or choose a size from {size_table(location)}."
    elif has_list:
        choose = (
            f"No GPU size is among those that Azure allows here. Choose another location, or ask for access at the "
            f"link in Azure's message. {size_table(location)} lists the GPU sizes of a location."
        )
    else:
        choose = f"Choose a size from {size_table(location)}."
    return choose + shell(skus_command(location))


def _is_gpu_name(vm_size: str) -> bool:
    """Return whether a name is that of a GPU size: one of the table, or of a series that begins with N."""
    short = vm_size.lower().removeprefix("standard_")
    return gpu_size_table.is_gpu_size(vm_size) or bool(re.match(r"n[cdgv]{1,3}[0-9]", short))


def _spelled(vm_size: str) -> str:
    """Return a size in Azure's spelling. AKS writes its lists in lower case."""
    known = gpu_size_table.table().get(vm_size.lower())
    if known is not None:
        return known.vm_size
    if not vm_size.lower().startswith("standard_"):
        return vm_size
    first, *others = vm_size[len("standard_") :].split("_")
    series = re.match(r"[A-Za-z]+", first)
    letters = series[0] if series else ""
    if letters != letters.lower():
        return vm_size  # Azure wrote it in its own spelling
    parts = [letters.upper() + first[len(letters) :]]
    parts += [part if re.fullmatch(r"v[0-9]+|xl", part) else part.upper() for part in others]
    return "_".join(["Standard", *parts])


def replacements(vm_size: str, allowed: Iterable[str]) -> tuple[str, ...]:
    """Return the sizes that can replace a size, best first.

    Args:
        vm_size: the refused size; empty if unknown.
        allowed: the sizes that Azure lists; empty if it lists none.

    Returns:
        Current GPU sizes in Azure's spelling. If the refused size is a CPU size, the most similar sizes that Azure
        lists.
    """
    names = list(dict.fromkeys(_spelled(name) for name in allowed))
    if vm_size and not _is_gpu_name(vm_size):
        others = [name for name in names if not _is_gpu_name(name) and name != vm_size]
        return tuple(get_close_matches(vm_size, others, n=_MOST_SIMILAR, cutoff=_SIZE_SIMILARITY))
    similar = gpu_size_table.alternatives(vm_size) if gpu_size_table.is_gpu_size(vm_size) else ()
    if not names:
        return similar
    offered = [name for name in names if _is_gpu_name(name) and not _is_retired(name) and name != vm_size]
    return tuple(sorted(offered, key=lambda name: _distance(vm_size, name, similar)))


def _is_retired(vm_size: str) -> bool:
    known = gpu_size_table.table().get(vm_size.lower())
    return known is not None and bool(known.retired_on)


def _distance(vm_size: str, name: str, similar: tuple[str, ...]) -> tuple[float, ...]:
    """Return how far a GPU size is from the refused one; smaller is closer."""
    known = gpu_size_table.table().get(name.lower())
    if known is None:
        return (3,)  # newer than the table
    if name in similar:
        return (0, similar.index(name))
    wanted = gpu_size_table.table().get(vm_size.lower())
    if not known.aks:
        return (3,)
    if wanted is None:
        return (1, known.devices, known.vcpus)
    other_vendor = wanted.gpu_model.startswith("AMD") != known.gpu_model.startswith("AMD")
    return (2 if other_vendor else 1, abs(known.devices - wanted.devices), abs(known.vcpus - wanted.vcpus))


# Capacity

_ALLOCATION_CODES = {
    "allocationfailed",
    "zonalallocationfailed",
    "overconstrainedallocationrequest",
    "overconstrainedzonalallocationrequest",
    "akscapacityheavyusage",
    "akscapacityerror",
    "skucapacityrestricted",
    "insufficientcapacity",
    "regionalcapacityexceeded",
}
_ALLOCATION_TEXTS = re.compile(
    r"failed for Capacity Restrictions|^\s{0,9}Allocation failed\.|VM allocation failed due to|do not have sufficient"
    r" capacity for the requested|experiencing heavy usage"
    r"|(?:not enough|insufficient|no) capacity (?:available )?(?:for|in) "
    r"|resource is not available in the location .{1,60}? at this moment",
    re.I,
)
_BULLET = re.compile(r"(?:^|\s)- ")


def allocation_rule(refusal: Refusal) -> AzureError | None:
    """Recognise a lack of capacity."""
    text = refusal.message
    if refusal.code.lower() not in _ALLOCATION_CODES and not _ALLOCATION_TEXTS.search(text):
        return None
    _, has_list, constraints = text.partition("Constraints applied are:")
    found = _listed(constraints) if has_list else ()
    named = _ANY_SIZE.search(text)
    vm_size = _spelled(named[0]) if named else ""
    location = location_in(text)
    is_zonal = "zonal" in refusal.code.lower() or any("zone" in item.lower() for item in found)
    is_zonal = is_zonal or "in this zone" in text.lower()
    return errors.AllocationFailed(
        "",
        hint=_reserved_hint(text) or _capacity_hint(vm_size, location, is_zonal, "Ephemeral" in constraints),
        constraints=found,
        vm_size=vm_size,
        location=location,
    )


_DEDICATED_HOST = re.compile(r"allocation to the dedicated host failed", re.I)
_RESERVATION = re.compile(r"\bcapacity reservation\b", re.I)
_RESERVATION_FULL = (
    "The capacity reservation group has no free machine of this size and zone, and Azure has no other one at present. "
    "Reserve more machines, use fewer nodes, or omit capacity_reservation_group and try another size or location."
    + shell(
        "az capacity reservation update --resource-group GROUP --capacity-reservation-group RESERVATIONS "
        "--name RESERVATION --capacity 4"
    )
)


def _reserved_hint(text: str) -> str:
    """Return the hint about machines that are set aside for the user; empty if a text is not about them."""
    if _DEDICATED_HOST.search(text):
        return (
            "The dedicated host has no room for the node. Add a dedicated host to the group, use fewer nodes, or add "
            'the pool without a group: cluster.add_gpu_pool(aks, "gpunp").'
            + shell("az vm host list --resource-group GROUP --host-group HOSTS --output table")
        )
    return _RESERVATION_FULL if _RESERVATION.search(text) else ""


def complete_allocation(
    error: errors.AllocationFailed, vm_size: str, location: str, *, is_reserved: bool = False
) -> None:
    """Add what the request asked for to an error about capacity, if Azure's text does not say it.

    Args:
        error: the error.
        vm_size: the size of the request.
        location: the location of the request.
        is_reserved: whether the request named a capacity reservation group.
    """
    old = _capacity_hint(error.vm_size, error.location, **_circumstances(error))
    if is_reserved and error.hint == old:
        error.hint = _RESERVATION_FULL
    if error.vm_size and error.location:
        return
    error.vm_size = error.vm_size or vm_size
    error.location = error.location or location
    if error.hint == old:  # other hints, such as that about the price of spot VMs, say more
        error.hint = _capacity_hint(error.vm_size, error.location, **_circumstances(error))


def _circumstances(error: errors.AllocationFailed) -> dict[str, bool]:
    """Return what the hint about capacity depends on besides the size and the location."""
    listed = " ".join(error.constraints)
    is_zonal = "zonal" in error.code.lower() or "zone" in listed.lower() or "in this zone" in error.message.lower()
    return {"is_zonal": is_zonal, "is_ephemeral": "Ephemeral" in listed}


def _listed(text: str) -> tuple[str, ...]:
    """Return the items of a list with dashes. Some clients fold the list's newlines into spaces."""
    return tuple(item.strip() for item in _BULLET.split(text)[1:])


def _capacity_hint(vm_size: str, location: str, is_zonal: bool, is_ephemeral: bool) -> str:
    zone = "another zone or no zone, " if is_zonal else ""
    disk = ' A pool with os_disk_type="Managed" needs no local disk for the OS.' if is_ephemeral else ""
    others = gpu_size_table.alternatives(vm_size) if gpu_size_table.is_gpu_size(vm_size) else ()
    example = f", such as {others[0]}" if others else ""
    return (
        f"Azure has no capacity at present. Try {zone}another size{example}, or another location, or try again later. "
        f"{size_table(location)} lists the sizes.{disk}{shell(skus_command(location))}"
    )


# The disk of the operating system

_NO_LOCAL_DISK = re.compile(
    r"does not support Ephemeral OS disk|Ephemeral OS disk is not supported for"
    r"|OS disk of Ephemeral VM with size greater|use a VM size with larger cache",
    re.I,
)
_DISK_CODES = {"vmcachesizetoosmall", "vmcannotfitephemeralosdisk"}
_CACHE = re.compile(r"(?:cache size|temporary disk size) of (?P<bytes>\d{1,16}) bytes", re.I)
_MOST_GB = re.compile(r"size greater than (?P<gb>\d{1,6}) GB", re.I)
_SMALLEST_OS_DISK_GB = 30
"""The smallest OS disk that AKS accepts."""


def disk_rule(refusal: Refusal) -> AzureError | None:
    """Recognise a size whose local disks are too small for the disk of the operating system."""
    if refusal.code.lower() not in _DISK_CODES and not _NO_LOCAL_DISK.search(refusal.message):
        return None
    named = _ANY_SIZE.search(refusal.message)
    call = 'cluster.add_gpu_pool(aks, "gpunp", os_disk_type="Managed")'
    if named:
        call = f'cluster.add_gpu_pool(aks, "gpunp", vm_size={_spelled(named[0])!r}, os_disk_type="Managed")'
    most = _MOST_GB.search(refusal.message)
    local = [int(each["bytes"]) // 2**30 for each in _CACHE.finditer(refusal.message)]
    largest = int(most["gb"]) if most else max(local, default=0)
    smaller = f", or os_disk_size_gb={largest}, which fits" if largest >= _SMALLEST_OS_DISK_GB else ""
    command = (
        "az aks nodepool add --resource-group GROUP --cluster-name CLUSTER --name gpunp --node-osdisk-type Managed"
    )
    hint = f"Use a managed disk: {call}{smaller}.{shell(command)}"
    return errors.InvalidParameter("", hint=hint, parameter="agentPoolProfile.osDiskType")


# Spot

_SPOT_PRICE = re.compile(
    r"max price '(?P<price>[0-9.]{1,20}) USD' is lower than the current spot price '(?P<current>[0-9.]{1,20}) USD'"
    rf"(?: for Azure Spot (?:VM|Virtual Machine) size '(?P<size>{_SIZE})')?",
    re.I,
)
_SPOT_SIZE = re.compile(rf"Spot (?:VM|Virtual Machine) is not supported for this VM size '?(?P<size>{_SIZE})?", re.I)
_SPOT_SUBSCRIPTION = re.compile(
    r"not enabled with Azure Spot|Spot (?:VMs? )?(?:is|are) not supported for .{0,40}offer", re.I
)


def spot_rule(refusal: Refusal) -> AzureError | None:
    """Recognise what Azure refuses for spot VMs only."""
    price = _SPOT_PRICE.search(refusal.message)
    if price:
        hint = (
            f"Spot VMs cost {price['current']} USD per hour at present. Pass a higher spot_max_price, or "
            "spot_max_price=None, which pays up to the price of regular VMs."
        )
        return errors.AllocationFailed("", hint=hint, vm_size=_spelled(price["size"] or ""))
    size = _SPOT_SIZE.search(refusal.message)
    if size or refusal.code == "AzureSpotIsNotSupportedForThisVMSize":
        vm_size = _spelled((size["size"] if size else "") or "")
        hint = f"Omit spot=True, or choose a size that is offered as a spot VM: {size_table('')}."
        return errors.SizeNotAvailable(
            "", hint=hint + shell(skus_command("")), vm_size=vm_size, alternatives=replacements(vm_size, ())
        )
    if refusal.code == "AzureSpotFeatureNotEnabledForSubscription" or _SPOT_SUBSCRIPTION.search(refusal.message):
        hint = (
            "This kind of subscription has no spot VMs. Omit spot=True, or choose another subscription: "
            'azure = aksgpu.connect("azure", subscription_id=...).'
        )
        return errors.AzureAuthError("", hint=hint + shell("az account list --output table"))
    return None


# Zones

_ZONES = re.compile(r"zone\(s\) (?P<zones>.{1,100}?) for resource .{0,300}?is not supported", re.I | re.S)
_ZONES_INSTEAD = re.compile(r"supported zones for location .{1,100}? are (?P<zones>[^.]{1,200})", re.I)
_ZONE_CODES = {"availabilityzonenotsupported", "zonenotsupported", "availabilityzonesnotsupported"}


def zone_rule(refusal: Refusal) -> AzureError | None:
    """Recognise a zone that does not offer the size."""
    unavailable = _UNAVAILABLE.search(refusal.message)
    zones = _zone_names(unavailable["zones"] or "") if unavailable else ()
    found = _ZONES.search(refusal.message)
    if not zones and not found and refusal.code.lower() not in _ZONE_CODES:
        return None
    if found:
        zones = _zone_names(found["zones"])
    instead = _ZONES_INSTEAD.search(refusal.message)
    supported = _zone_names(instead["zones"]) if instead else ()
    location = (unavailable["location"] if unavailable else location_in(refusal.message)).lower()
    named = _ANY_SIZE.search(refusal.message)
    vm_size = _spelled(named[0]) if named else ""
    return errors.ZoneNotAvailable(
        "",
        hint=_zone_hint(location, supported),
        zones=zones,
        supported=supported,
        vm_size=vm_size,
        location=location,
    )


def _zone_names(text: str) -> tuple[str, ...]:
    """Return the zones of a list, with or without quotes."""
    quoted = re.findall(r"'([^',]{1,20})'", text)
    return tuple(quoted or re.findall(r"\b[0-9]\b", text))


def _zone_hint(location: str, supported: tuple[str, ...]) -> str:
    if supported:
        choose = f"Pass zones=({', '.join(map(repr, supported))},) instead, or omit zones."
    else:
        choose = "Omit zones: the size may be available in the location without them."
    return f"{choose} {size_table(location)} shows the zones of each size.{shell(skus_command(location) + ' --zone')}"


# Locations

_LOCATION = re.compile(
    r"(?:provided location|location) '(?P<location>[^']{0,80})' is not available for resource (?:group|type)", re.I
)
_NO_PROVIDER = re.compile(r"No registered resource provider found for location '(?P<location>[^']{0,80})'", re.I)
_LOCATIONS_LISTED = re.compile(
    r"(?:List of available regions.{0,200}? is|supported locations are) '(?P<locations>[^']{0,5000})'", re.I
)
_LOCATION_SIMILARITY = 0.5
"""Similarity of names from which a location is suggested, from 0 (different) to 1 (equal)."""
_LOCATION_CODES = {"locationnotavailableforresourcegroup", "locationnotavailableforresourcetype", "invalidlocation"}
_CLOSED = re.compile(
    r"region is currently not accepting new customers|not accepting creation of new"
    r"|subscription does not have access to (?:the |this )?(?:location|region)",
    re.I,
)


def location_rule(refusal: Refusal) -> AzureError | None:
    """Recognise a location that does not exist, or is closed to the subscription."""
    found = _LOCATION.search(refusal.message) or _NO_PROVIDER.search(refusal.message)
    closed = _CLOSED.search(refusal.message)
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
