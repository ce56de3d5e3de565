"""GPU VM sizes: what each is, what a location offers and costs, and whether a wish can be had before money is spent.

    sizes.gpu_sizes(azure, "westeurope")                                    # a DataFrame
    sizes.preflight(azure, "westeurope", "Standard_NC4as_T4_v3", count=2)   # one verdict, with reasons

What a size is comes from a table in this package (Azure's documentation, read size by size), and from Compute's SKUs
for sizes newer than that table. What is offered, what quota is left and what it costs comes from Azure when asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from aksgpu.azure import resource_names
from aksgpu.azure.calls import call
from aksgpu.azure.throttling import READ_TIMEOUT
from aksgpu.common.arguments import integer
from aksgpu.common.frames import frame
from aksgpu.common.gpu_size_table import GpuSize, alternatives, is_gpu_size, lookup, table
from aksgpu.errors import AzureUnreachable, InvalidInput, LocationNotAvailable
from aksgpu.sizes.preflight_checks import Preflight, verdict

if TYPE_CHECKING:
    import pandas as pd

    from aksgpu.azure.subscription import Azure

__all__ = ["GpuSize", "Preflight", "alternatives", "gpu_sizes", "lookup", "preflight"]


_SHORT_TIMEOUT = 20.0
"""Seconds that a look takes at most which only helps to refuse early."""

_COLUMNS = {
    "size": "string",
    "gpu": "string",
    "gpus": "Float64",
    "gpu_memory_gb": "Float64",
    "vcpus": "Int64",
    "ram_gb": "Float64",
    "arch": "string",
    "zones": "string",
    "restriction": "string",
    "family": "string",
    "family_left": "Int64",
    "regional_left": "Int64",
    "spot_left": "Int64",
    "usd_per_hour": "Float64",
    "usd_per_gpu_hour": "Float64",
    "spot_usd_per_hour": "Float64",
    "spot_usd_per_gpu_hour": "Float64",
    "retired": "boolean",
    "mig": "boolean",
    "driver": "string",
    "aks": "boolean",
}


@call("listing GPU sizes in {}")
def gpu_sizes(azure: Azure, location: str, *, timeout: float | None = READ_TIMEOUT) -> pd.DataFrame:
    """Every GPU size that the subscription sees in a location.

    Args:
        azure: the subscription.
        location: such as ``eastus``.
        timeout: seconds to go on trying while Azure gives no usable answer; None for no limit.

    Returns:
        A DataFrame, one row a size, sorted by GPU model and size. Shown whole, it is shortened to fit a screen; all
        these columns are there to sort, filter and choose from:

        - ``size`` (string): Azure's name.
        - ``gpu`` (string): GPU model; NA for sizes newer than this package.
        - ``gpus`` (Float64): GPUs of a VM; fractions are shares of a card.
        - ``gpu_memory_gb`` (Float64): memory of one GPU (of the share, for fractions), in GB.
        - ``vcpus`` (Int64), ``ram_gb`` (Float64, GB), ``arch`` (string, ``amd64`` or ``arm64``).
        - ``zones`` (string): availability zones open to the subscription, separated by commas; empty for none.
        - ``restriction`` (string): why the subscription cannot have it here; empty when it can.
        - ``family`` (string): quota family.
        - ``family_left``, ``regional_left``, ``spot_left`` (Int64): vCPUs left of the family's, the region's and the
          region's spot quota; NA when not known.
        - ``usd_per_hour``, ``spot_usd_per_hour`` (Float64): US dollars per VM hour, Linux, pay as you go and spot;
          NA when not known. ``usd_per_gpu_hour``, ``spot_usd_per_gpu_hour``: the same per GPU.
        - ``retired`` (boolean): retired by Azure; NA for sizes newer than this package, as for ``mig``.
        - ``mig`` (boolean): its GPUs can be split.
        - ``driver`` (string): driver that AKS installs; NA when not known.
        - ``aks`` (boolean): whether AKS lists it among those that it supports; NA for sizes newer than this package.

    Raises:
        InvalidInput: an argument makes no sense.
        LocationNotAvailable: no VM sizes are offered there.
        AzureUnreachable: Azure gave no usable answer in time.
        AzureError: Azure refused.
    """
    from aksgpu.sizes import skus_and_quota as _offers
    from aksgpu.sizes.display import SizeTable

    place = _offers.location(azure, resource_names.check_location(location))
    if not place.offers:
        raise LocationNotAvailable(
            f"no VM sizes are offered in {location!r}",
            location=location,
            hint="Check the location's name: `az account list-locations --output table` lists them.",
        )
    offers = [offer for offer in place.offers.values() if offer.gpus or is_gpu_size(offer.size)]
    prices = _offers.prices(azure, place.name, [offer.size for offer in offers])
    rows = [_row(offer, place, prices.get(offer.size, _offers.Price())) for offer in offers]
    return SizeTable(frame(rows, _COLUMNS)).sort_values(["gpu", "gpus", "size"], ignore_index=True, na_position="last")


def _row(offer: Any, place: Any, price: Any) -> dict[str, Any]:
    known = table().get(offer.size.lower())
    gpus = known.gpus if known else offer.gpus

    def left(name: str) -> int | None:
        usage = place.usage(name)
        return usage.left if usage else None

    def per_gpu(usd: float | None) -> float | None:
        return round(usd / gpus, 4) if usd is not None and gpus else None

    return {
        "size": offer.size,
        "gpu": known.gpu if known else None,
        "gpus": gpus,
        "gpu_memory_gb": known.gpu_memory_gb / known.devices if known else None,
        "vcpus": offer.vcpus,
        "ram_gb": offer.ram_gb or (known.ram_gb if known else None),
        "arch": offer.arch,
        "zones": ",".join(offer.zones),
        "restriction": offer.restriction,
        "family": offer.family,
        "family_left": left(offer.family),
        "regional_left": left("cores"),
        "spot_left": left("lowPriorityCores"),
        "usd_per_hour": price.on_demand,
        "usd_per_gpu_hour": per_gpu(price.on_demand),
        "spot_usd_per_hour": price.spot,
        "spot_usd_per_gpu_hour": per_gpu(price.spot),
        "retired": bool(known.retired_on) if known else None,
        "mig": known.mig if known else None,
        "driver": (known.driver or None) if known else None,
        "aks": known.aks if known else None,
    }


@call("looking whether it can be had in {}")
def preflight(
    azure: Azure,
    location: str,
    vm_size: str,
    count: int = 1,
    *,
    spot: bool = False,
    zones: str | Iterable[str | int] = (),
    surge: int | str = 0,
    gpu: bool = True,
    look_in: str | Iterable[str] = (),
    timeout: float | None = READ_TIMEOUT,
) -> Preflight:
    """Can this be had? Asked before money is spent; what is unknown never says no.

    Args:
        azure: the subscription.
        location: such as ``eastus``.
        vm_size: such as ``Standard_NC4as_T4_v3``.
        count: nodes (of an autoscaled pool: the most that it may have).
        spot: as spot VMs, which have a quota of their own.
        zones: availability zones that must have it, such as ``["1", "2"]``; one alone will do.
        surge: further nodes that an upgrade starts before it stops old ones; or a share of ``count`` as AKS writes it,
            such as ``"33%"``.
        gpu: whether it has to be a GPU size.
        look_in: further locations to look for alternatives in, or one; each costs two requests.
        timeout: seconds to go on trying while Azure gives no usable answer; None for no limit.

    Returns:
        The verdict, with reasons, numbers and alternatives that would work.

    Raises:
        InvalidInput: an argument makes no sense.
        AzureError: Azure could not be asked at all. That it does not tell (403, 429, 5xx) is the verdict ``unknown``.
    """
    from aksgpu.sizes import skus_and_quota as _offers

    vm_size = resource_names.check(
        resource_names.SIZE, vm_size.strip() if isinstance(vm_size, str) else vm_size, "vm_size"
    )
    count = integer("count", count, 0)
    most = count + _surge(surge, count)
    wanted = tuple(dict.fromkeys(_zone(zone) for zone in _several("zones", zones)))
    here = resource_names.check_location(location)
    elsewhere = dict.fromkeys(resource_names.check_location(other, "look_in") for other in _several("look_in", look_in))
    place = _offers.location_if_told(azure, here)
    others = [_offers.location_if_told(azure, other) for other in elsewhere if other != here]
    return verdict(place, vm_size, most, spot=spot, zones=wanted, gpu=gpu, others=others)


def _several(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Iterable):
        return tuple(value)
    raise InvalidInput(
        f"`{name}` must be a list of texts, got {resource_names.shown(value)}",
        hint=f"Give a list of texts: {name}=[...].",
    )


def _zone(zone: Any) -> str:
    if isinstance(zone, int) and not isinstance(zone, bool):
        return str(zone)
    if isinstance(zone, str) and zone.strip():
        return zone.strip()
    raise InvalidInput(
        f"`zones` must be availability zones, got one with {resource_names.shown(zone)}",
        hint='For example: zones=["1", "2"].',
    )


def _surge(surge: Any, count: int) -> int:
    """Nodes; AKS rounds shares up."""
    share = re.fullmatch(r"(\d{1,3})%", surge.strip(), re.ASCII) if isinstance(surge, str) else None
    return -(-int(share[1]) * count // 100) if share else _whole_surge(surge)


def _whole_surge(surge: Any) -> int:
    try:
        return integer("surge", surge, 0)
    except InvalidInput as error:
        error.hint = 'Give nodes, such as surge=1, or a share such as surge="33%".'
        raise


def require_available(
    azure: Azure,
    location: str,
    vm_size: str,
    count: int,
    *,
    spot: bool = False,
    zones: Iterable[str] = (),
    gpu: bool = True,
) -> None:
    """Refuse what cannot be had, before a request that costs money. Not knowing refuses nothing.

    Arguments and errors as for :func:`preflight`; Azure is asked for a short time only.
    """
    try:
        preflight(
            azure, location, vm_size, count, spot=spot, zones=tuple(zones), gpu=gpu, timeout=_SHORT_TIMEOUT
        ).raise_if_no()
    except AzureUnreachable:
        return
