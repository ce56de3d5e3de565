"""The rules of docs/architecture.md that a program can check."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import aksgpu

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "aksgpu"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# Imports inside functions that point upwards on purpose, each with its reason.
UPWARDS = {
    (
        "aksgpu.cluster.cluster_model",
        "aksgpu.cluster.credentials",
    ),  # a cluster's Kubernetes API: fetched when it is first used
    ("aksgpu.jobs.job", "aksgpu.views"),  # showing a Job in a notebook: views are loaded only when one is shown
}


def imports(name: str) -> Iterator[str]:
    """Return the modules of this package that a module imports anywhere. Imports only for types do not count."""
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


def test_there_are_no_cycles_between_modules() -> None:
    graph = {name: others for name, others in GRAPH.items() if name != "aksgpu"}
    TopologicalSorter({name: others - {"aksgpu"} for name, others in graph.items()}).prepare()


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("aksgpu.local")])
def test_the_laptop_imports_only_errors_and_common_code(name: str) -> None:
    known = {other for other in GRAPH[name] if not other.startswith(("aksgpu.local", "aksgpu.common"))}
    assert known <= {"aksgpu.errors", "aksgpu.data", "aksgpu"}


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("aksgpu.common")])
def test_common_modules_import_only_the_errors(name: str) -> None:
    assert {other for other in GRAPH[name] if not other.startswith("aksgpu.common")} <= {"aksgpu.errors", "aksgpu"}


LAPTOP_PACKAGES: dict[str, set[str]] = {
    "api": set(),
    "control": {"api"},
    "node": {"api", "control"},
    "arm": {"api", "control"},
}
"""The packages of the laptop, and those that each may import."""
LAPTOP_SHARED = ("api_data", "kinds", "name_formats", "objects", "selectors", "status_error")
"""Modules that these packages share. They import none of the packages."""


def laptop_packages(name: str) -> set[str]:
    """Return the packages of the laptop that a module imports."""
    return {other.split(".")[2] for other in GRAPH[name] if other.startswith("aksgpu.local.")} & set(LAPTOP_PACKAGES)


@pytest.mark.parametrize("package", LAPTOP_PACKAGES)
def test_packages_of_the_laptop_import_only_lower_ones(package: str) -> None:
    for name in MODULES:
        if name.startswith(f"aksgpu.local.{package}."):
            assert laptop_packages(name) <= {package} | LAPTOP_PACKAGES[package], name


@pytest.mark.parametrize("module", LAPTOP_SHARED)
def test_shared_modules_of_the_laptop_import_no_package(module: str) -> None:
    assert not laptop_packages(f"aksgpu.local.{module}")


LAYERS: tuple[set[str], ...] = (
    {"cli"},
    {"tutorial"},
    {"views"},
    {"magic", "runs"},
    {"jobs"},
    {"storage"},
    {"plugin"},
    {"diagnose"},
    {"plots"},
    {"capacity", "curves"},
    {"logs", "manifests", "metrics", "payload", "training_log"},
    {"cluster"},
    {"sizes"},
    {"azure", "kube"},
    {"waiting"},
    {"history", "progress"},
    {"notebook", "common"},
    {"errors"},
)
"""The library's packages and modules, from the top down. Each imports only those in the layers below its own."""
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def top_level(module: str) -> str:
    """Return the package or module of the library that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("name", [name for name in MODULES if top_level(name) not in ("", "local")])
def test_imports_point_downwards(name: str) -> None:
    own = top_level(name)
    for other in GRAPH[name]:
        imported = top_level(other)
        if imported not in ("", own, "local", "data"):
            assert LAYER[own] < LAYER[imported], f"{name} imports {other}"


PLACEHOLDERS = {"tests/test_MODULE.py", "metrics/formats/NAME.py", "aksgpu/metrics/formats/NAME.py"}


def test_the_files_that_the_recipes_name_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:[\w-]+/)+[\w.-]+\.\w+)`", text)) - PLACEHOLDERS
    missing = [name for name in named if not (ROOT / name).exists() and not (PACKAGE / name).exists()]
    assert len(named) > 30
    assert missing == []


def test_the_page_shows_the_layers() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE)
    shown = [set(re.findall(r"`(\w+)(?:/|\.py)`:", row)) for _, row in rows]
    assert shown == list(LAYERS)
    assert [int(number) for number, _ in rows] == list(range(1, len(LAYERS) + 1))


def test_every_module_has_a_layer() -> None:
    assert {top_level(name) for name in MODULES} - {"", "local", "data"} == set(LAYER)


def test_only_connect_imports_the_laptop() -> None:
    knows = {
        name
        for name, others in GRAPH.items()
        if not name.startswith("aksgpu.local") and any(other.startswith("aksgpu.local") for other in others)
    }
    assert knows <= {"aksgpu", "aksgpu.azure.subscription", "aksgpu.cli", "aksgpu.tutorial"}


def test_importing_the_package_loads_nothing_else() -> None:
    program = "import sys; before = set(sys.modules); import aksgpu; print(*sorted(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names] == ["aksgpu"]
    assert not {"typing", "re", "json", "asyncio", "subprocess"} & set(loaded)


def is_public(name: str) -> bool:
    """Return whether users may import a module: any one except the laptop's inner modules and the data."""
    return top_level(name) != "data" and (top_level(name) != "local" or name == "aksgpu.local")


LISTED = sorted(
    name
    for name, path in MODULES.items()
    if is_public(name) and (path.name == "__init__.py" or name.removeprefix("aksgpu.") in aksgpu.__all__)
)
"""The packages, and the modules that ``aksgpu`` offers."""


@pytest.mark.parametrize("name", [name for name in MODULES if is_public(name)])
def test_every_module_lists_its_public_names(name: str) -> None:
    module = importlib.import_module(name)
    names = module.__all__
    assert len(set(names)) == len(names)
    assert [each for each in names if not hasattr(module, each)] == []
    assert [each for each in names if each.startswith("_") and each != "__version__"] == []


@pytest.mark.parametrize("name", LISTED)
def test_tab_completion_shows_the_public_names(name: str) -> None:
    module = importlib.import_module(name)
    assert dir(module) == sorted(module.__all__)


def test_importing_everything_leaves_the_process_alone() -> None:
    program = (
        "import gc, importlib, logging, signal\n"
        "before = (gc.isenabled(), gc.get_threshold(), signal.getsignal(signal.SIGINT))\n"
        f"for name in {[name for name in MODULES if top_level(name) not in ('', 'local')]}:\n"
        "    importlib.import_module(name)\n"
        "assert before == (gc.isenabled(), gc.get_threshold(), signal.getsignal(signal.SIGINT))\n"
        "assert logging.getLogger().handlers == []\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
