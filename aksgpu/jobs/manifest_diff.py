"""Compare a manifest with the object that the cluster has.

Only fields that the manifest sets are compared: the server adds defaults. A field that the manifest sets to null is one
that it does not set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_QUANTITIES = ("limits", "requests", "overhead")
_SINGLE_QUANTITIES = ("sizeLimit", "storage")


def quantities_as_text(value: Any) -> None:
    """Make quantities the strings that the API defines them as: manifests write ``nvidia.com/gpu: 1``. In place."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in _QUANTITIES and isinstance(inner, dict):
                value[key] = {name: _text(quantity) for name, quantity in inner.items()}
            elif key in _SINGLE_QUANTITIES:
                value[key] = _text(inner)
            else:
                quantities_as_text(inner)
    elif isinstance(value, list):
        for inner in value:
            quantities_as_text(inner)


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def differences(wanted: Any, live: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of fields in which ``live`` does not have what ``wanted`` sets, such as ``spec.backoffLimit``."""
    if wanted is None:
        return
    if wanted in (None, {}, [], "") and live in (None, {}, [], ""):
        return
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        for key in wanted:
            yield from differences(wanted[key], live.get(key), f"{path}.{key}" if path else key)
    elif isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        named = _have_names(wanted) and _have_names(live)
        there = {item["name"]: item for item in live} if named else {}
        for index, item in enumerate(wanted):
            other = there.get(item["name"]) if named else live[index]
            yield from differences(item, other, f"{path}[{item['name'] if named else index}]")
    elif wanted != live and not _same_quantity(wanted, live, path):
        yield path


def _have_names(items: list[Any]) -> bool:
    """Whether each item has a name of its own, by which it is found again."""
    names = [item.get("name") for item in items if isinstance(item, Mapping)]
    return len(names) == len(items) and None not in names and len(set(map(str, names))) == len(names)


def dropped(before: Any, wanted: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of fields that an earlier manifest set and this one does not."""
    if isinstance(before, Mapping) and isinstance(wanted, Mapping):
        for key, value in before.items():
            here = f"{path}.{key}" if path else key
            if wanted.get(key) is None:
                if value not in (None, {}, [], ""):
                    yield here
            else:
                yield from dropped(value, wanted[key], here)
    elif isinstance(before, list) and isinstance(wanted, list):
        named = _have_names(before) and _have_names(wanted)
        there = {item["name"]: item for item in wanted} if named else {}
        for index, old in enumerate(before[: len(wanted)]):
            new = there.get(old["name"]) if named else wanted[index]
            yield from dropped(old, new, f"{path}[{old['name'] if named else index}]")


def _same_quantity(wanted: Any, live: Any, path: str) -> bool:
    """Whether two spellings mean the same amount: the server writes 1Gi for 1024Mi."""
    if not any(f".{name}." in path for name in _QUANTITIES) and not path.endswith(_SINGLE_QUANTITIES):
        return False
    if wanted is None or live is None:
        return False
    from kubernetes.utils.quantity import parse_quantity

    try:
        return bool(parse_quantity(wanted) == parse_quantity(live))
    except ValueError:
        return False
