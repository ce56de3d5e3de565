"""The GPU sizes that a location offers, and the check whether a number of VMs is available.

The properties of a size come from a table in this package, which was read from Azure's documentation, and from
Compute's list of SKUs for sizes newer than the table. Availability, quota and prices are read from Azure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from aksgpu.azure import resource_names
from aksgpu.azure.calls import call
from aksgpu.azure.throttling import READ_TIMEOUT
from aksgpu.common.arguments import integer, shown
from aksgpu.common.frames import frame
from aksgpu.common.gpu_size_table import GpuSize, is_gpu_size, table
from aksgpu.errors import AzureUnreachable, InvalidInput, LocationNotAvailable
from aksgpu.sizes import skus_and_quota
from aksgpu.sizes.preflight_checks import Preflight, check_availability
from aksgpu.sizes.skus_and_quota import Location, Price, VmSku
from aksgpu.waiting import Timeout

if TYPE_CHECKING:
    import pandas as pd

    from aksgpu.azure.subscription import Azure

__all__ = ["gpu_sizes", "preflight", "require_available"]

_SHORT_TIMEOUT = 20.0
"""Time limit in seconds of :func:`require_available`, which only refuses earlier than AKS would."""

_COLUMNS = {
    "vm_size": "string",
    "gpu_model": "string",
    "gpus": "Float64",
    "gpu_memory_gb": "Float64",
    "gpu_memory_gb_total": "Float64",
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
def gpu_sizes(azure: Azure, location: str, *, timeout: Timeout = READ_TIMEOUT) -> pd.DataFrame:
    """Return every GPU size that a location lists for the subscription.

    Args:
        azure: the subscription.
        location: such as ``eastus``.
        timeout: seconds, or text such as ``"2m"``, to keep trying while Azure gives no usable response; None for no
            limit.

    Returns:
        A DataFrame, one row per size, sorted by GPU model and size. A table with all columns is displayed in a
        shortened form that fits a screen. The columns are:

        - ``vm_size`` (string): Azure's name.
        - ``gpu_model`` (string): NA for sizes newer than this package.
        - ``gpus`` (Float64): GPUs of a VM; a fraction is a share of one GPU.
        - ``gpu_memory_gb`` (Float64): memory in GB of one GPU, or of the share of a GPU.
        - ``gpu_memory_gb_total`` (Float64): memory in GB of all the VM's GPUs.
        - ``vcpus`` (Int64), ``ram_gb`` (Float64, GB), ``arch`` (string, ``amd64`` or ``arm64``).
        - ``zones`` (string): availability zones open to the subscription, separated by commas; empty for none.
        - ``restriction`` (string): why the subscription cannot use the size here; empty if it can.
        - ``family`` (string): quota family.
        - ``family_left``, ``regional_left``, ``spot_left`` (Int64): vCPUs left of the family's, the region's and the
          region's spot quota; NA if unknown.
        - ``usd_per_hour``, ``spot_usd_per_hour`` (Float64): US dollars per VM hour, Linux, pay as you go and spot;
          NA if unknown. ``usd_per_gpu_hour``, ``spot_usd_per_gpu_hour``: the same per GPU.
        - ``retired`` (boolean): whether Azure retired the size; NA for sizes newer than this package, as for ``mig``.
        - ``mig`` (boolean): whether the GPUs can be split.
        - ``driver`` (string): driver that AKS installs; NA if unknown.
        - ``aks`` (boolean): whether AKS lists the size as supported; NA for sizes newer than this package.

    Raises:
        InvalidInput: an argument is not valid.
        LocationNotAvailable: the location offers no VM sizes.
        AzureUnreachable: Azure gave no usable response in time.
        AzureError: Azure refused the request.

    Example:
        >>> table = sizes.gpu_sizes(azure, "eastus")
        >>> table.sort_values("usd_per_gpu_hour").head()
    """
    # Lazy import: the module needs pandas, which takes half a second to load.
    from aksgpu.sizes.display import SizeTable

    place = skus_and_quota.read_location(azure, resource_names.check_location(location))
    if not place.skus:
        raise LocationNotAvailable(
            f"Azure offers no VM sizes in {location!r}",
            location=location,
            hint="Check the location's name: `az account list-locations --output table` lists them.",
        )
    skus = [sku for sku in place.skus.values() if sku.gpus or is_gpu_size(sku.vm_size)]
    prices = skus_and_quota.prices(azure, place.name, [sku.vm_size for sku in skus])
    rows = [_row(sku, place, prices.get(sku.vm_size, Price())) for sku in skus]
    found = SizeTable(frame(rows, _COLUMNS))
    return found.sort_values(["gpu_model", "gpus", "vm_size"], ignore_index=True, na_position="last")


def _row(sku: VmSku, place: Location, price: Price) -> dict[str, Any]:
    known = table().get(sku.vm_size.lower())
    gpus = known.gpus if known else sku.gpus
    return {
        "vm_size": sku.vm_size,
        "gpus": gpus,
        "vcpus": sku.vcpus,
        "ram_gb": sku.ram_gb or (known.ram_gb if known else None),
        "arch": sku.arch,
        "zones": ",".join(sku.zones),
        "restriction": sku.restriction,
        "family": sku.family,
        "family_left": place.vcpus_left(sku.family),
        "regional_left": place.vcpus_left("cores"),
        "spot_left": place.vcpus_left("lowPriorityCores"),
        "usd_per_hour": price.on_demand,
        "usd_per_gpu_hour": _per_gpu(price.on_demand, gpus),
        "spot_usd_per_hour": price.spot,
        "spot_usd_per_gpu_hour": _per_gpu(price.spot, gpus),
        **(_table_columns(known) if known else {}),
    }


def _table_columns(size: GpuSize) -> dict[str, Any]:
    """Return the columns that only this package's table has."""
    return {
        "gpu_model": size.gpu_model,
        "gpu_memory_gb": size.gpu_memory_gb,
        "gpu_memory_gb_total": size.gpu_memory_gb_total,
        "retired": bool(size.retired_on),
        "mig": size.mig,
        "driver": size.driver or None,
        "aks": size.aks,
    }


def _per_gpu(usd: float | None, gpus: float) -> float | None:
    if usd is None or not gpus:
        return None
    return round(usd / gpus, 4)


@call("checking availability in {}")
def preflight(
    azure: Azure,
    location: str,
    vm_size: str,
    count: int = 1,
    *,
    spot: bool = False,
    zones: str | Iterable[str | int] = (),
    surge: int | str = 0,
    needs_gpu: bool = True,
    look_in: str | Iterable[str] = (),
    timeout: Timeout = READ_TIMEOUT,
) -> Preflight:
    """Check whether a number of VMs is available, before money is spent. Unknown values never fail the check.

    Args:
        azure: the subscription.
        location: such as ``eastus``.
        vm_size: such as ``Standard_NC4as_T4_v3``.
        count: number of nodes; for an autoscaled pool, the maximum.
        spot: check for spot VMs, which have a separate quota.
        zones: availability zones that must offer the size, such as ``["1", "2"]``; or a single string.
        surge: additional nodes during an upgrade: a number, or a share of ``count`` in AKS' form, such as ``"33%"``.
        needs_gpu: whether the size must have a GPU.
        look_in: other locations to search for alternatives, or one location. Each costs two requests.
        timeout: seconds, or text such as ``"2m"``, to keep trying while Azure gives no usable response; None for no
            limit.

    Returns:
        The verdict, with reasons, numbers and alternatives that are available.

    Raises:
        InvalidInput: an argument is not valid.
        AzureError: the request failed. After HTTP status 403, 429 or 5xx nothing is raised, and the verdict is
            ``unknown``.

    Example:
        >>> sizes.preflight(azure, "eastus", "Standard_NC4as_T4_v3", count=2)
        Preflight(2 x Standard_NC4as_T4_v3 in eastus: yes)
    """
    name = vm_size.strip() if isinstance(vm_size, str) else vm_size
    vm_size = resource_names.check(resource_names.SIZE, name, "vm_size")
    count = integer("count", count, 0)
    nodes = count + _surge_nodes(surge, count)
    wanted_zones = tuple(dict.fromkeys(_check_zone(zone) for zone in _check_list("zones", zones)))
    here = resource_names.check_location(location)
    elsewhere = [resource_names.check_location(other, "look_in") for other in _check_list("look_in", look_in)]
    place = skus_and_quota.read_location_if_known(azure, here)
    others = [
        skus_and_quota.read_location_if_known(azure, other) for other in dict.fromkeys(elsewhere) if other != here
    ]
    return check_availability(place, vm_size, nodes, spot=spot, zones=wanted_zones, needs_gpu=needs_gpu, others=others)


def _check_list(argument: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Iterable):
        return tuple(value)
    raise InvalidInput(
        f"`{argument}` must be a list of strings, got {shown(value)}",
        hint=f"Pass a list of strings: {argument}=[...].",
    )


def _check_zone(zone: Any) -> str:
    if isinstance(zone, int) and not isinstance(zone, bool):
        return str(zone)
    if isinstance(zone, str) and zone.strip():
        return zone.strip()
    raise InvalidInput(
        f"`zones` must be a list of availability zones, got an item {shown(zone)}",
        hint='For example: zones=["1", "2"].',
    )


def _surge_nodes(surge: Any, count: int) -> int:
    """Return the number of additional nodes. AKS rounds shares up."""
    if isinstance(surge, str):
        share = re.fullmatch(r"(\d{1,3})%", surge.strip(), re.ASCII)
        if share is not None:
            return -(-int(share[1]) * count // 100)
    try:
        return integer("surge", surge, 0)
    except InvalidInput as error:
        error.hint = 'Pass a number of nodes, such as surge=1, or a share, such as surge="33%".'
        raise


def require_available(
    azure: Azure,
    location: str,
    vm_size: str,
    count: int,
    *,
    spot: bool = False,
    zones: Iterable[str] = (),
    needs_gpu: bool = True,
) -> None:
    """Raise the error of a failed :func:`preflight`, before a request that costs money is sent.

    Unknown values never fail the check. It takes at most 20 seconds. Arguments and errors are those of
    :func:`preflight`.
    """
    try:
        found = preflight(
            azure,
            location,
            vm_size,
            count,
            spot=spot,
            zones=tuple(zones),
            needs_gpu=needs_gpu,
            timeout=_SHORT_TIMEOUT,
        )
    except AzureUnreachable:
        return
    found.raise_if_no()
