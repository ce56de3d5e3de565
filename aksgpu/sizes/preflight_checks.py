"""Decide whether a number of VMs is available in a location, from what Azure reports. Sends no requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from aksgpu import errors
from aksgpu.azure.refusal import QUOTA_PAGE, shell, size_table, skus_command
from aksgpu.common import gpu_size_table
from aksgpu.common.frames import facts_html
from aksgpu.sizes.skus_and_quota import Location, VmSku

__all__ = ["Preflight", "check_availability"]

_MAX_ALTERNATIVES = 3
"""Number of alternatives that a hint lists."""


@dataclass(frozen=True)
class Preflight:
    """Whether a number of VMs of a size is available in a location.

    Attributes:
        verdict: ``yes``, ``no``, or ``unknown`` if Azure's responses do not decide it. ``unknown`` never fails a check.
        vm_size: the requested size.
        location: the location.
        count: the requested number of VMs, surge included.
        spot: whether spot VMs were requested.
        reasons: why the VMs are not available, or what is unknown; one sentence each.
        requested: requested vCPUs; None if the size is unknown.
        left: vCPUs left of the deciding quota; None if unknown.
        limit: the deciding quota in vCPUs; None if unknown.
        quota: name of the deciding quota: a family, ``cores`` for the region's total, ``lowPriorityCores`` for spot.
        alternatives: what is available instead, as ``size in location``, best first.
        ask: the page on which to ask for more quota.
        error: the error that :meth:`raise_if_no` raises; None unless the verdict is ``no``.
    """

    verdict: Literal["yes", "no", "unknown"]
    vm_size: str
    location: str
    count: int
    spot: bool
    reasons: tuple[str, ...] = ()
    requested: int | None = None
    left: int | None = None
    limit: int | None = None
    quota: str = ""
    alternatives: tuple[str, ...] = ()
    ask: str = QUOTA_PAGE
    error: errors.AzureError | None = None

    def __bool__(self) -> bool:
        return self.verdict != "no"

    def __repr__(self) -> str:
        reasons = f": {'; '.join(self.reasons)}" if self.reasons else ""
        return f"Preflight({self.count} x {self.vm_size} in {self.location}: {self.verdict}{reasons})"

    def _repr_html_(self) -> str:
        alternatives = ", ".join(self.alternatives)
        if not alternatives and self.verdict == "no":
            alternatives = "nothing that was checked"
        facts = {
            "verdict": self.verdict,
            "reasons": "; ".join(self.reasons),
            "quota": self.quota,
            "vCPUs requested": "" if self.requested is None else str(self.requested),
            "vCPUs left": "" if self.left is None else f"{self.left} of {self.limit}",
            "available instead": alternatives,
            "ask for more at": self.ask if isinstance(self.error, errors.QuotaExceeded) else "",
        }
        spot = " (spot)" if self.spot else ""
        return facts_html(f"{self.count} x {self.vm_size} in {self.location}{spot}", facts)

    def raise_if_no(self) -> Preflight:
        """Return this verdict; raise the error if the verdict is ``no``.

        Raises:
            SizeNotAvailable: the size is unknown, retired, or not offered here.
            ZoneNotAvailable: the zones do not offer the size.
            QuotaExceeded: the quota is too small.
        """
        if self.error is not None:
            raise self.error
        return self


@dataclass(frozen=True)
class _Quota:
    """The quota that decides, and the vCPUs that are requested of it."""

    name: str
    requested: int
    left: int | None
    limit: int | None

    @property
    def suffices(self) -> bool:
        """Whether the quota allows the request; an unknown quota does."""
        return self.left is None or self.requested <= self.left


def check_availability(
    place: Location,
    vm_size: str,
    count: int,
    *,
    spot: bool,
    zones: tuple[str, ...],
    needs_gpu: bool,
    others: Sequence[Location] = (),
) -> Preflight:
    """Return the verdict. The arguments are those of :func:`aksgpu.sizes.preflight`, with locations that were read."""
    unknown = Preflight("unknown", vm_size, place.name, count, spot)
    try:
        known = gpu_size_table.require_current(vm_size)
    except errors.SizeNotAvailable as retired:
        return _refuse(unknown, retired, retired.alternatives)
    if not place.skus:
        reason = place.unknown or f"Azure lists no VM sizes in {place.name}"
        return replace(unknown, reasons=(reason,))
    places = (place, *others)
    sku = place.skus.get(vm_size.lower())
    if sku is None:
        not_offered = _not_offered(place, vm_size, in_table=known is not None, needs_gpu=needs_gpu)
        available = tuple(_alternatives(places, vm_size, count, spot, bool(zones))) if known else ()
        return _refuse(unknown, not_offered, available or not_offered.alternatives)
    quota = _deciding_quota(place, sku, count, spot)
    result = replace(
        unknown,
        vm_size=sku.vm_size,
        requested=quota.requested,
        left=quota.left,
        limit=quota.limit,
        quota=quota.name,
    )
    problem = _restriction(place, sku, zones, needs_gpu, spot) or _quota_problem(place, sku, quota)
    if problem is not None:
        available = tuple(_alternatives(places, sku.vm_size, count, spot, bool(zones)))
        return _refuse(result, problem, available)
    if quota.left is None:
        return replace(result, reasons=(f"the quota left in {place.name} is not known",))
    return replace(result, verdict="yes")


def _refuse(result: Preflight, error: errors.AzureError, alternatives: tuple[str, ...]) -> Preflight:
    """Return the verdict ``no``, with an error whose hint lists the alternatives that are available."""
    available = [each for each in alternatives if " in " in each]
    if available:
        error.hint = f"Available instead: {'; '.join(available[:_MAX_ALTERNATIVES])}. {error.hint}".strip()
    return replace(result, verdict="no", reasons=(error.message,), alternatives=alternatives, error=error)


def _not_offered(place: Location, vm_size: str, *, in_table: bool, needs_gpu: bool) -> errors.SizeNotAvailable:
    """Return the error for a size that the location does not list."""
    if in_table:
        alternatives = tuple(name for name in gpu_size_table.alternatives(vm_size) if name.lower() in place.skus)
        message = f"{vm_size} is not offered in {place.name}"
        hint = f"Use {alternatives[0]}, or another location." if alternatives else "Choose another location."
    else:
        names = [sku.vm_size for sku in place.skus.values() if sku.gpus or not needs_gpu]
        alternatives = tuple(gpu_size_table.nearest_names(vm_size, names))
        message = f"VM size {vm_size!r} does not exist in {place.name}"
        hint = "sizes.gpu_sizes(azure, location) lists the GPU sizes of a location."
        if alternatives:
            hint = f"Did you mean {' or '.join(map(repr, alternatives))}?"
    return errors.SizeNotAvailable(message, vm_size=vm_size, location=place.name, alternatives=alternatives, hint=hint)


def _restriction(
    place: Location, sku: VmSku, zones: tuple[str, ...], needs_gpu: bool, spot: bool
) -> errors.SizeNotAvailable | None:
    """Return the error for a size that the location lists, but that this request cannot use; None if it can."""
    size = sku.vm_size
    if needs_gpu and not sku.gpus and not gpu_size_table.is_gpu_size(size):
        message = f"{size} has no GPU"
        hint = "Choose a size from sizes.gpu_sizes(azure, location)."
    elif sku.restriction:
        message = f"{size} is not offered to this subscription in {place.name} ({sku.restriction})"
        hint = f"Ask for access at {QUOTA_PAGE}, or choose another size from {size_table(place.name)}."
        hint += shell(skus_command(place.name))
    elif spot and not sku.spot:
        message = f"{size} is not available as a spot VM"
        hint = f"Omit spot=True, or choose another size from {size_table(place.name)}."
    else:
        return _zone_problem(place, sku, zones)
    return errors.SizeNotAvailable(message, vm_size=size, location=place.name, hint=hint)


def _zone_problem(place: Location, sku: VmSku, zones: tuple[str, ...]) -> errors.ZoneNotAvailable | None:
    missing = tuple(zone for zone in zones if zone not in sku.zones)
    if not missing:
        return None
    hint = f"No zone of {place.name} offers it. Omit zones."
    if sku.zones:
        hint = f"Pass zones=({', '.join(map(repr, sku.zones))},) instead, or omit zones."
    hint += shell(f"{skus_command(place.name)} --zone")
    return errors.ZoneNotAvailable(
        f"{sku.vm_size} is not offered in zone {', '.join(missing)} of {place.name}",
        vm_size=sku.vm_size,
        location=place.name,
        zones=missing,
        supported=sku.zones,
        hint=hint,
    )


def _deciding_quota(place: Location, sku: VmSku, count: int, spot: bool) -> _Quota:
    """Return the quota with the fewest vCPUs left, among those that count the request."""
    requested = sku.vcpus * count
    names = ["lowPriorityCores"] if spot else [sku.family, "cores"]
    known = []
    for name in names:
        usage = place.usage(name)
        if usage is not None:
            known.append(_Quota(name, requested, usage.left, usage.limit))
    if not known:
        return _Quota(names[0], requested, None, None)
    return min(known, key=lambda quota: quota.left or 0)


def _quota_problem(place: Location, sku: VmSku, quota: _Quota) -> errors.QuotaExceeded | None:
    if quota.left is None or quota.limit is None or quota.suffices:
        return None
    count = quota.requested // sku.vcpus
    names = {"cores": "the region's total", "lowPriorityCores": "the spot quota"}
    name = names.get(quota.name, f"family {quota.name!r}")
    fits = f", enough for {quota.left // sku.vcpus}" if quota.left >= sku.vcpus else ""
    return errors.QuotaExceeded(
        f"{count} x {sku.vm_size} need {quota.requested} vCPUs in {place.name}; "
        f"{name} has {quota.left} of {quota.limit} left{fits}",
        requested=quota.requested,
        remaining=quota.left,
        limit=quota.limit,
        used=quota.limit - quota.left,
        family=quota.name,
        location=place.name,
        hint=(
            f"Ask for more at {QUOTA_PAGE}, or choose another size or location: {size_table(place.name)}."
            + shell(f"az vm list-usage --location {place.name} --output table")
        ),
    )


def _alternatives(places: Sequence[Location], vm_size: str, count: int, spot: bool, with_zones: bool) -> Iterator[str]:
    """Yield what is available: the size itself (in other zones too), then sizes with the same GPU, per location."""
    try:
        names = [vm_size, *gpu_size_table.alternatives(vm_size)]
    except errors.SizeNotAvailable:
        names = [vm_size]
    for place in places:
        for name in names:
            sku = place.skus.get(name.lower())
            if sku is None or _restriction(place, sku, (), needs_gpu=True, spot=spot):
                continue
            if _deciding_quota(place, sku, count, spot).suffices:
                zone = f" zone {', '.join(sku.zones)}" if with_zones and sku.zones else ""
                yield f"{sku.vm_size} in {place.name}{zone}"
