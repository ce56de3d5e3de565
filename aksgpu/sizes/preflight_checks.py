"""The verdict on a wish for VMs, from what Azure said about a location. Asks nothing of Azure itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aksgpu import errors
from aksgpu.azure.error_rules import QUOTA_PAGE
from aksgpu.common import gpu_size_table as sizes
from aksgpu.common.frames import facts_html
from aksgpu.sizes.skus_and_quota import Location, Offer


@dataclass(frozen=True)
class Preflight:
    """Whether a number of VMs of a size can be had in a location.

    Attributes:
        verdict: ``yes``; ``no``; or ``unknown`` when Azure did not say enough, which blocks nothing.
        vm_size: the size asked for.
        location: where.
        count: VMs asked for, surge included.
        spot: whether as spot VMs.
        reasons: why not, or what is unknown; one sentence each.
        requested: vCPUs asked for; None when the size is unknown.
        left: vCPUs left of the quota that decides; None when unknown.
        limit: that quota, in vCPUs; None when unknown.
        quota: that quota's name: a family, ``cores`` for the region's total, ``lowPriorityCores`` for spot VMs.
        alternatives: what would work instead, as ``size in location``, best first.
        ask: where to ask for more quota.
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
        why = f": {'; '.join(self.reasons)}" if self.reasons else ""
        return f"Preflight({self.count} x {self.vm_size} in {self.location}: {self.verdict}{why})"

    def _repr_html_(self) -> str:
        no = self.verdict == "no"
        facts = {
            "verdict": self.verdict,
            "reasons": "; ".join(self.reasons),
            "quota": self.quota,
            "vCPUs requested": "" if self.requested is None else str(self.requested),
            "vCPUs left": "" if self.left is None else f"{self.left} of {self.limit}",
            "would work": ", ".join(self.alternatives) or ("" if not no else "nothing that was looked at"),
            "ask for more at": self.ask if isinstance(self.error, errors.QuotaExceeded) else "",
        }
        return facts_html(f"{self.count} x {self.vm_size} in {self.location}{' (spot)' if self.spot else ''}", facts)

    def raise_if_no(self) -> Preflight:
        """Itself, unless the verdict is no.

        Raises:
            SizeNotAvailable: the size is unknown, retired, or not offered here.
            ZoneNotAvailable: not in these zones.
            QuotaExceeded: the quota does not suffice.
        """
        if self.error is not None:
            raise self.error
        return self


def verdict(
    place: Location,
    vm_size: str,
    count: int,
    *,
    spot: bool,
    zones: tuple[str, ...],
    gpu: bool,
    others: Sequence[Location] = (),
) -> Preflight:
    """Judge; arguments as for :func:`aksgpu.sizes.preflight`."""
    wish: dict[str, Any] = {"vm_size": vm_size, "location": place.name, "count": count, "spot": spot}
    try:
        known = sizes.require_current(vm_size)
    except errors.SizeNotAvailable as retired:
        return _no(wish, retired, retired.alternatives)
    if not place.offers:
        reason = place.unknown or f"Azure lists no VM sizes in {place.name}"
        return Preflight("unknown", **wish, reasons=(reason,))
    offer = place.offers.get(vm_size.lower())
    if offer is None:
        missing = _not_offered(place, vm_size, known is not None, gpu)
        there = _alternatives((place, *others), vm_size, count, spot, bool(zones)) if known else ()
        return _with_alternatives(wish, missing, tuple(there) or missing.alternatives)
    wish["vm_size"] = offer.size
    numbers = _quota(place, offer, count, spot)
    against: errors.AzureError | None = _refused(place, offer, zones, gpu, spot) or _too_little(place, offer, numbers)
    if against is None:
        unknown = numbers["left"] is None
        reasons = (f"the quota left in {place.name} is not known",) if unknown else ()
        return Preflight("unknown" if unknown else "yes", **wish, **numbers, reasons=reasons)
    there = _alternatives((place, *others), offer.size, count, spot, bool(zones))
    return _with_alternatives({**wish, **numbers}, against, tuple(there))


def _with_alternatives(wish: dict[str, Any], error: errors.AzureError, there: tuple[str, ...]) -> Preflight:
    if any(" in " in each for each in there):
        error.hint = f"This would work: {'; '.join(there[:3])}. {error.hint}".strip()
    return _no(wish, error, there)


def _no(wish: dict[str, Any], error: errors.AzureError, alternatives: tuple[str, ...]) -> Preflight:
    return Preflight("no", **wish, reasons=(error.message,), alternatives=alternatives, error=error)


def _not_offered(place: Location, vm_size: str, known: bool, gpu: bool) -> errors.SizeNotAvailable:
    names = [offer.size for offer in place.offers.values() if offer.gpus or not gpu]
    if known:
        instead = tuple(name for name in sizes.alternatives(vm_size) if name.lower() in place.offers)
        message = f"{vm_size} is not offered in {place.name}"
        hint = f"Use {instead[0]}, or another location." if instead else "Choose another location."
    else:
        instead = tuple(sizes.near(vm_size, names))
        message = f"no VM size is called {vm_size!r} in {place.name}"
        hint = (
            f"Did you mean {' or '.join(map(repr, instead))}?" if instead else "See sizes.gpu_sizes(azure, location)."
        )
    return errors.SizeNotAvailable(message, size=vm_size, location=place.name, alternatives=instead, hint=hint)


def _refused(
    place: Location, offer: Offer, zones: tuple[str, ...], gpu: bool, spot: bool
) -> errors.SizeNotAvailable | None:
    facts: dict[str, Any] = {"size": offer.size, "location": place.name}
    if gpu and not offer.gpus and not sizes.is_gpu_size(offer.size):
        return errors.SizeNotAvailable(
            f"{offer.size} has no GPU", **facts, hint="Choose one from sizes.gpu_sizes(azure, location)."
        )
    if offer.restriction:
        return errors.SizeNotAvailable(
            f"{offer.size} is not offered to this subscription in {place.name} ({offer.restriction})",
            **facts,
            hint=f"Ask for access at {QUOTA_PAGE}, or choose another size or location.",
        )
    if spot and not offer.spot:
        return errors.SizeNotAvailable(
            f"{offer.size} cannot be had as a spot VM", **facts, hint="Leave spot=True out, or choose another size."
        )
    missing = tuple(zone for zone in zones if zone not in offer.zones)
    if missing:
        has = f"zones {', '.join(offer.zones)} have it" if offer.zones else "no zone has it"
        return errors.ZoneNotAvailable(
            f"{offer.size} is not offered in zone {', '.join(missing)} of {place.name}",
            **facts,
            zones=missing,
            supported=offer.zones,
            hint=f"In {place.name}, {has}." + ("" if offer.zones else " Leave zones out."),
        )
    return None


def _quota(place: Location, offer: Offer, count: int, spot: bool) -> dict[str, Any]:
    """The numbers of the quota that decides: the one with the least left."""
    names = ["lowPriorityCores"] if spot else [offer.family, "cores"]
    usages = [(usage.left, name, usage.limit) for name in names if (usage := place.usage(name))]
    left, name, limit = min(usages) if usages else (None, names[0], None)
    return {"requested": offer.vcpus * count, "left": left, "limit": limit, "quota": name}


def _too_little(place: Location, offer: Offer, numbers: dict[str, Any]) -> errors.QuotaExceeded | None:
    requested, left, limit, name = (numbers[key] for key in ("requested", "left", "limit", "quota"))
    if left is None or requested <= left:
        return None
    count = requested // offer.vcpus
    called = {"cores": "the region's total", "lowPriorityCores": "the spot quota"}.get(name, f"family {name!r}")
    return errors.QuotaExceeded(
        f"{count} x {offer.size} need {requested} vCPUs in {place.name}; {called} has {left} of {limit} left"
        f"{f', enough for {left // offer.vcpus}' if left >= offer.vcpus else ''}",
        requested=requested,
        remaining=left,
        limit=limit,
        used=limit - left,
        family=name,
        location=place.name,
        hint=f"Ask for more at {QUOTA_PAGE}, or take another size or location.",
    )


def _alternatives(places: Sequence[Location], size: str, count: int, spot: bool, with_zones: bool) -> Iterator[str]:
    """What can be had: the size itself (in other zones too), then sizes with the same GPU, place by place."""
    try:
        names = [size, *sizes.alternatives(size)]
    except errors.SizeNotAvailable:
        names = [size]
    for where in places:
        for name in names:
            offer = where.offers.get(name.lower())
            if offer is None or _refused(where, offer, (), gpu=True, spot=spot):
                continue
            if _too_little(where, offer, _quota(where, offer, count, spot)) is None:
                zone = f" zone {', '.join(offer.zones)}" if with_zones and offer.zones else ""
                yield f"{offer.size} in {where.name}{zone}"
