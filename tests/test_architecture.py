"""The rules of docs/architecture.md that a program can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "aksgpu"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# Imports inside functions that point upwards on purpose, each for the reason given.
UPWARDS = {
    ("aksgpu._azure.handle", "aksgpu._azure.credentials"),  # a cluster's Kubernetes API: fetched when it is first used
    ("aksgpu._jobs.job", "aksgpu.views"),  # showing a Job in a notebook: views are loaded only when one is shown
}


def imports(name: str) -> Iterator[str]:
    """Modules of this package that a module imports, wherever in it; imports for types alone do not count."""
    tree = ast.parse(MODULES[name].read_text())
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in MODULES:
                    yield full
                elif node.module in MODULES:
                    yield node.module


GRAPH = {name: {other for other in imports(name) if (name, other) not in UPWARDS} - {name} for name in MODULES}


def test_there_are_no_circles_between_modules() -> None:
    graph = {name: others for name, others in GRAPH.items() if name != "aksgpu"}
    TopologicalSorter({name: others - {"aksgpu"} for name, others in graph.items()}).prepare()


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("aksgpu.local")])
def test_the_laptop_knows_of_the_library_only_its_errors(name: str) -> None:
    known = {other for other in GRAPH[name] if not other.startswith("aksgpu.local")}
    assert known <= {"aksgpu.errors", "aksgpu.data", "aksgpu"}


def test_only_connect_knows_the_laptop() -> None:
    knows = {
        name
        for name, others in GRAPH.items()
        if not name.startswith("aksgpu.local") and any(other.startswith("aksgpu.local") for other in others)
    }
    assert knows <= {"aksgpu", "aksgpu.azure", "aksgpu.cli", "aksgpu.tutorial"}


def test_importing_the_package_loads_nothing_else() -> None:
    program = "import sys; before = set(sys.modules); import aksgpu; print(*sorted(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names] == ["aksgpu"]
    assert not {"typing", "re", "json", "asyncio", "subprocess"} & set(loaded)
