"""The arguments of ``add_gpu_pool``, each declared once: its default, its Azure name, its check and its description.

To add a field, add it to :class:`GpuPoolRequest`. The function's signature and docstring, the request and the
comparison with an existing pool follow from there. This module sends no requests.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from aksgpu.azure import resource_names
from aksgpu.azure.azure_arguments import check_choice, check_text, check_text_list, check_text_mapping
from aksgpu.azure.resources import power_of
from aksgpu.common.arguments import integer, shown
from aksgpu.errors import InvalidInput

__all__ = [
    "MAX_NODES",
    "SPOT_TAINT",
    "Differences",
    "GpuPoolRequest",
    "check_counts",
    "check_size",
    "differences",
    "remedy",
    "takes_fields_of",
]

P = ParamSpec("P")
First = TypeVar("First")
Request = TypeVar("Request")
Result = TypeVar("Result")

SPOT_TAINT = "kubernetes.azure.com/scalesetpriority=spot:NoSchedule"
"""The taint that AKS adds to the nodes of spot pools."""

MAX_NODES = 1000
"""Number of nodes that AKS allows in a pool."""

_SMALLEST_DISK = 30
_LARGEST_DISK = 2048
"""Sizes in GB that AKS allows for OS disks."""

_DOC_WIDTH = 120
"""Characters per line of a docstring."""

Differences = dict[str, tuple[object, object]]
"""Argument -> (existing value, requested value)."""

Check = Callable[[Any, str], Any]
"""Checks an argument, given its value and name, and returns Azure's value; None if nothing is to be sent."""

Compare = Callable[["AzureField", str, Any, Any], Differences]
"""Compares Azure's existing and requested values of an argument, given its declaration and name."""


# Checks


def check_size(value: object, argument: str = "vm_size") -> str:
    """Return an argument that must have the form of a VM size's name. Only Azure can tell whether the size exists."""
    try:
        return resource_names.check(resource_names.SIZE, value, argument)
    except InvalidInput as error:
        error.hint += " sizes.gpu_sizes(azure, location) lists the sizes."
        raise


def check_counts(count: object, min_count: object, max_count: object) -> None:
    """Check numbers of nodes against AKS' rules.

    Raises:
        InvalidInput: a number is out of range, or the numbers contradict each other.
    """
    nodes = integer("count", count, 0, MAX_NODES)
    if (min_count is None) != (max_count is None):
        raise InvalidInput("`min_count` and `max_count` must be given together", hint="Pass both, or neither.")
    if min_count is None:
        return
    minimum = integer("min_count", min_count, 0, MAX_NODES)
    maximum = integer("max_count", max_count, 0, MAX_NODES)
    if not minimum <= nodes <= maximum:
        raise InvalidInput(
            f"`count` must be between `min_count` and `max_count`, got {nodes}, {minimum} and {maximum}",
            hint=f"The numbers must satisfy 0 <= min_count <= count <= max_count <= {MAX_NODES}.",
        )


def _optional(check: Check) -> Check:
    def check_optional(value: Any, argument: str) -> Any:
        return None if value is None else check(value, argument)

    return check_optional


def _integer(minimum: int, maximum: int) -> Check:
    return lambda value, argument: integer(argument, value, minimum, maximum)


def _choice(*choices: str) -> Check:
    return lambda value, argument: check_choice(value, argument, choices)


def _text(example: str) -> Check:
    return lambda value, argument: check_text(value, argument, example)


def _driver(value: object, argument: str) -> str:
    return check_choice(value, argument, ("install", "none")).capitalize()


def _spot_priority(value: object, argument: str) -> str | None:
    return "Spot" if value else None


def _spot_price(value: Any, argument: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and (value == -1 or 0 < value < math.inf):
        return float(value)
    raise InvalidInput(
        f"`{argument}` must be a number of US dollars per node hour above 0, got {shown(value)}",
        hint="None or -1 pays up to the price of regular VMs.",
    )


# Comparisons


def _compare_value(field: AzureField, argument: str, existing: Any, requested: Any) -> Differences:
    if requested is None and not field.always_compared:
        return {}
    existing = field.azure_default if existing is None else existing
    requested = field.azure_default if requested is None else requested
    if _is_same(existing, requested):
        return {}
    return {argument: (field.to_argument(existing), field.to_argument(requested))}


def _is_same(existing: object, requested: object) -> bool:
    if isinstance(existing, int | float) and isinstance(requested, int | float):
        return existing == requested
    return str(existing).lower() == str(requested).lower()


def _compare_zones(field: AzureField, argument: str, existing: Any, requested: Any) -> Differences:
    if not requested or set(requested) == set(existing or ()):
        return {}
    return {argument: (tuple(existing or ()), tuple(requested))}


def _compare_taints(field: AzureField, argument: str, existing: Any, requested: Any) -> Differences:
    has = tuple(sorted(taint for taint in existing or () if taint != SPOT_TAINT))
    wants = tuple(sorted(taint for taint in requested or () if taint != SPOT_TAINT))
    return {} if has == wants else {argument: (has, wants)}


def _compare_items(singular: str) -> Compare:
    """Compare the requested items of a mapping. Other existing items do not matter."""

    def compare(field: AzureField, argument: str, existing: Any, requested: Any) -> Differences:
        found: Differences = {}
        for name, value in (requested or {}).items():
            existing_value = (existing or {}).get(name)
            if existing_value != value:
                found[f"{singular} {name}"] = (existing_value, value)
        return found

    return compare


# Declarations


@dataclass(frozen=True)
class AzureField:
    """How an argument is checked, sent to Azure and compared with an existing pool.

    Attributes:
        name: Azure's name of the property; dots separate the names of nested objects.
        check: checks the argument and returns Azure's value.
        azure_default: what Azure uses if the property is not sent.
        always_compared: whether an existing value counts as a difference if the argument is omitted.
        for_spot: whether the property exists only for spot pools, where it is always sent.
        compare: compares Azure's existing and requested values.
        to_argument: converts Azure's value to the argument's, for errors.
    """

    name: str
    check: Check
    azure_default: object = None
    always_compared: bool = False
    for_spot: bool = False
    compare: Compare = _compare_value
    to_argument: Callable[[Any], object] = lambda value: value

    def read(self, properties: Mapping[str, Any]) -> Any:
        """Return Azure's value in the properties of a pool; None if it is not there."""
        value: Any = properties
        for key in self.name.split("."):
            value = (value or {}).get(key)
        return value

    def write(self, properties: dict[str, Any], value: object) -> None:
        """Set Azure's value in the properties of a pool."""
        *parents, last = self.name.split(".")
        for key in parents:
            properties = properties.setdefault(key, {})
        properties[last] = value


def _argument(default: Any, doc: str) -> Any:
    """Declare an argument that is not a property of the pool."""
    return dataclasses.field(default=default, metadata={"doc": doc})


def _property(default: Any, name: str, check: Check, doc: str, **options: Any) -> Any:
    """Declare an argument that is a property of the pool; see :class:`AzureField` for the options."""
    return dataclasses.field(default=default, metadata={"doc": doc, "azure": AzureField(name, check, **options)})


@dataclass(frozen=True)
class GpuPoolRequest:
    """The arguments of :func:`aksgpu.cluster.add_gpu_pool` after the cluster."""

    name: str = _argument("gpunp", "1 to 12 lower case letters and digits, beginning with a letter.")
    _: KW_ONLY
    vm_size: str = _property(
        "Standard_NC4as_T4_v3", "vmSize", check_size, "a GPU size; :func:`aksgpu.sizes.gpu_sizes` lists them."
    )
    count: int = _property(1, "count", _integer(0, MAX_NODES), f"number of nodes, 0 to {MAX_NODES}.")
    node_taints: Sequence[str] = _property(
        ("sku=gpu:NoSchedule",),
        "nodeTaints",
        check_text_list,
        "taints such as ``key=value:Effect``. The default keeps pods away that request no GPU; :mod:`aksgpu.plugin` "
        "and :mod:`aksgpu.jobs` add the tolerations.",
        compare=_compare_taints,
    )
    node_labels: Mapping[str, str] | None = _property(
        None, "nodeLabels", check_text_mapping, "additional labels of the nodes.", compare=_compare_items("label")
    )
    min_count: int | None = _property(
        None,
        "minCount",
        _optional(_integer(0, MAX_NODES)),
        "minimum number of nodes; with ``max_count``, the cluster autoscaler chooses the number.",
    )
    max_count: int | None = _property(None, "maxCount", _optional(_integer(0, MAX_NODES)), "maximum number of nodes.")
    spot: bool = _property(
        False,
        "scaleSetPriority",
        _spot_priority,
        "use spot VMs, which are cheaper and which Azure may evict. AKS adds a taint.",
        azure_default="Regular",
        always_compared=True,
        to_argument=lambda priority: priority == "Spot",
    )
    eviction_policy: Literal["Delete", "Deallocate"] = _property(
        "Delete",
        "scaleSetEvictionPolicy",
        _choice("Delete", "Deallocate"),
        "what happens to a spot node that Azure evicts.",
        azure_default="Delete",
        for_spot=True,
    )
    spot_max_price: float | None = _property(
        None,
        "spotMaxPrice",
        _optional(_spot_price),
        "maximum price of a spot node in US dollars per hour; None pays up to the price of regular VMs.",
        azure_default=-1,
        for_spot=True,
    )
    zones: Sequence[str] = _property(
        (), "availabilityZones", check_text_list, 'availability zones, such as ``("1", "2")``.', compare=_compare_zones
    )
    gpu_driver: Literal["install", "none"] | None = _property(
        None,
        "gpuProfile.driver",
        _optional(_driver),
        "``install`` or ``none``; None leaves it to AKS, which installs the driver.",
        azure_default="Install",
        always_compared=True,
        to_argument=str.lower,
    )
    gpu_instance_profile: str | None = _property(
        None,
        "gpuInstanceProfile",
        _optional(_text("MIG1g")),
        "splits each GPU of an A100, H100 or H200 (``MIG1g`` to ``MIG7g``).",
        always_compared=True,
    )
    management_mode: Literal["Managed", "Unmanaged"] | None = _property(
        None,
        "gpuProfile.nvidia.managementMode",
        _optional(_choice("Managed", "Unmanaged")),
        "``Managed`` lets AKS run the driver, the device plugin and the monitoring on the nodes.",
        azure_default="Unmanaged",
        always_compared=True,
    )
    os_sku: str | None = _property(None, "osSKU", _optional(_text("Ubuntu")), "such as ``Ubuntu`` or ``AzureLinux``.")
    os_disk_type: Literal["Managed", "Ephemeral"] | None = _property(
        None, "osDiskType", _optional(_choice("Managed", "Ephemeral")), "``Managed`` or ``Ephemeral``."
    )
    os_disk_size_gb: int | None = _property(
        None, "osDiskSizeGB", _optional(_integer(_SMALLEST_DISK, _LARGEST_DISK)), "size of the OS disk in GB."
    )
    scale_down_mode: Literal["Delete", "Deallocate"] | None = _property(
        None,
        "scaleDownMode",
        _optional(_choice("Delete", "Deallocate")),
        "``Deallocate`` keeps the disks of removed nodes, with the images on them; the disks cost money.",
    )
    capacity_reservation_group: str | None = _property(
        None,
        "capacityReservationGroupID",
        _optional(_text("/subscriptions/.../capacityReservationGroups/mine")),
        "resource id of a capacity reservation group.",
    )
    vnet_subnet_id: str | None = _property(
        None,
        "vnetSubnetID",
        _optional(_text("/subscriptions/.../virtualNetworks/mine/subnets/gpus")),
        "resource id of the subnet of the nodes, in a cluster whose pools use subnets of your own.",
    )
    tags: Mapping[str, str] | None = _property(
        None, "tags", check_text_mapping, "Azure tags of the pool.", compare=_compare_items("tag")
    )
    preflight: bool = _argument(
        True, "check size, zones and quota first, and refuse what is not available; False leaves the check to AKS."
    )
    timeout: float | str | None = _argument(
        1800,
        'seconds, or text such as ``"30m"``, for the whole call; None for no limit. When the time is up, the creation '
        "continues in Azure.",
    )
    progress: bool | None = _argument(None, "False hides the progress bar; None reads ``AKSGPU_PROGRESS``.")

    @property
    def max_nodes(self) -> int:
        """The number of nodes that the pool may reach."""
        return self.count if self.max_count is None else max(self.count, self.max_count)

    def azure_properties(self) -> dict[str, Any]:
        """Return the properties of the pool to send to Azure.

        Raises:
            InvalidInput: an argument is not valid.
        """
        check_counts(self.count, self.min_count, self.max_count)
        properties: dict[str, Any] = {"mode": "User", "osType": "Linux"}
        for argument, field in _azure_fields().items():
            value = field.check(getattr(self, argument), argument)
            if field.for_spot and not self.spot:
                continue
            if field.for_spot and value is None:
                value = field.azure_default
            if value not in (None, [], {}):
                field.write(properties, value)
        if self.max_count is not None:
            properties["enableAutoScaling"] = True
        return properties


@functools.cache
def _azure_fields() -> dict[str, AzureField]:
    """Return the declarations of the arguments that are properties of the pool, by argument."""
    fields = dataclasses.fields(GpuPoolRequest)
    return {field.name: field.metadata["azure"] for field in fields if "azure" in field.metadata}


def takes_fields_of(
    request: Callable[P, Request],
) -> Callable[[Callable[[First, Request], Result]], Callable[Concatenate[First, P], Result]]:
    """Decorate a function of two arguments, so that it takes the fields of the second one as arguments.

    The signature and the docstring list the fields, for ``help()`` and for completion in notebooks and editors.

    Args:
        request: the dataclass of the second argument. Its fields have their description as metadata.
    """

    def decorate(function: Callable[[First, Request], Result]) -> Callable[Concatenate[First, P], Result]:
        @functools.wraps(function)
        def with_fields(first: First, /, *args: P.args, **kwargs: P.kwargs) -> Result:
            return function(first, request(*args, **kwargs))

        own = inspect.signature(function)
        first, second = own.parameters.values()
        fields = inspect.signature(request).parameters.values()
        # inspect.signature and help() read this attribute.
        with_fields.__signature__ = own.replace(parameters=[first, *fields])  # type: ignore[attr-defined]
        with_fields.__doc__ = _list_fields(function.__doc__ or "", second.name, request)
        return with_fields

    return decorate


def _list_fields(docstring: str, argument: str, request: Any) -> str:
    """Return the docstring with the description of each field instead of that of the argument."""
    lines: list[str] = []
    for line in docstring.splitlines():
        if not line.strip().startswith(f"{argument}:"):
            lines.append(line)
            continue
        indent = line[: len(line) - len(line.lstrip())]
        for field in dataclasses.fields(request):
            text = f"{field.name}: {field.metadata['doc']}"
            lines += textwrap.wrap(
                text, _DOC_WIDTH, initial_indent=indent, subsequent_indent=f"{indent}    ", break_on_hyphens=False
            )
    return "\n".join(lines)


# Existing pools


def differences(existing: Mapping[str, Any], request: GpuPoolRequest) -> Differences:
    """Return the differences between the properties of an existing pool and a request."""
    requested = request.azure_properties()
    autoscales = bool(existing.get("enableAutoScaling"))
    found: Differences = {}
    for argument, field in _azure_fields().items():
        if field.for_spot and existing.get("scaleSetPriority") != "Spot":
            continue  # the difference of `spot` covers it
        if argument == "count" and (autoscales or requested.get("enableAutoScaling")):
            continue  # the autoscaler chooses the number
        found |= field.compare(field, argument, field.read(existing), field.read(requested))
    if autoscales and not requested.get("enableAutoScaling"):
        found["max_count"] = (existing.get("maxCount"), None)
    if power_of({"properties": existing}) == "Stopped":
        found["power"] = ("Stopped", "Running")
    return found


_LIMITS = {"min_count", "max_count"}
_CHANGEABLE = {*_LIMITS, "count", "power"}
"""What can be changed in an existing pool. For other differences, the pool has to be created again."""


def remedy(found: Differences, pool: str) -> str:
    """Return the hint for differences, as an action."""
    if found.keys() == {"power"}:
        return f"Start the pool with cluster.start_pool(aks, {pool!r}), or the cluster with cluster.start(aks)."
    if found.keys() <= {"count"}:
        return f"Change the number of nodes with cluster.scale_pool(aks, {pool!r}, count)."
    if found.keys() <= _LIMITS and None not in found.get("max_count", ()):
        return (
            f"Change the limits of the autoscaler with cluster.scale_pool(aks, {pool!r}, min_count=..., max_count=...)."
        )
    fields = ", ".join(sorted(found.keys() - _CHANGEABLE) or found)
    return (
        f"A pool's {fields} cannot be changed. Delete it with cluster.delete_pool(aks, {pool!r}) and add it again, "
        "or choose another name."
    )
