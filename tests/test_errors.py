"""The tree of exceptions, as the module and the page about Azure show it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aksgpu import errors

PAGE = Path(__file__).parents[1] / "docs" / "azure.md"
BRANCH = re.compile(r" {4}(?P<indent>(?:│ {3}| {4})*)(?:[├└]── )?(?P<name>[A-Z]\w+)(?: .*)?")


def subclasses(base: type[errors.AksGpuError]) -> dict[str, type[errors.AksGpuError]]:
    """Return a class and all classes below it, by name."""
    found = {base.__name__: base}
    for child in base.__subclasses__():
        found |= subclasses(child)
    return {name: kind for name, kind in found.items() if kind.__module__ == errors.__name__}


def tree_of_the_docstring() -> dict[str, str]:
    """Return the base class of each class, as the module's docstring draws them."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        branch = BRANCH.fullmatch(line)
        if branch is None:
            continue
        depth = len(branch["indent"]) // 4 + ("── " in line)
        above[depth:] = [branch["name"]]
        parents[branch["name"]] = above[depth - 1] if depth else "Exception"
    return parents


def table_of_the_page() -> dict[str, set[str]]:
    """Return the attributes of each exception in the page's table about Azure."""
    table = PAGE.read_text().partition("## When Azure refuses")[2].partition("\n\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {row[1].strip("`"): set(re.findall(r"`(\w+)`", row[2])) if len(row) > 2 else set() for row in rows[1:]}


def test_the_docstring_draws_the_tree_of_classes() -> None:
    expected = {name: kind.__bases__[0].__name__ for name, kind in subclasses(errors.AksGpuError).items()}
    assert tree_of_the_docstring() == expected


def test_every_exception_is_public() -> None:
    assert subclasses(errors.AksGpuError).keys() == set(errors.__all__)


@pytest.mark.parametrize("name", sorted(subclasses(errors.AzureError).keys() - {"AzureError"}))
def test_the_page_about_azure_has_the_exception_with_its_attributes(name: str) -> None:
    kind = subclasses(errors.AzureError)[name]
    declared = set(vars(kind).get("__annotations__", {}))
    assert table_of_the_page().get(name) == declared, f"add or correct the row of {name} in docs/azure.md"
