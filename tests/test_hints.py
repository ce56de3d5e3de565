"""Every call in a hint, an error, a docstring, a page or a notebook can be made: its names and arguments exist.

Texts are read with a tolerant scanner: a call begins at a known name, such as ``cluster.``, and ends at its closing
bracket. ``...`` among the arguments means anything. A placeholder of an f-string is one argument.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import aksgpu
from aksgpu import (
    azure,
    capacity,
    cluster,
    diagnose,
    errors,
    jobs,
    kube,
    local,
    logs,
    manifests,
    metrics,
    plots,
    plugin,
    runs,
    sizes,
    storage,
    tutorial,
    views,
)
from aksgpu.local import images

ROOT = Path(__file__).parents[1]
HOLE = "_placeholder_"

MEANINGS: dict[str, tuple[Any, ...]] = {
    "aksgpu": (aksgpu,),
    "azure": (azure.Azure,),  # in all texts, the subscription
    "aks": (cluster.Cluster,),
    "job": (jobs.Job,),
    "gpu": (jobs.Executor,),
    "kube": (kube, kube.Kube),
    "connect": (aksgpu.connect,),
    "capacity": (capacity,),
    "cluster": (cluster,),
    "diagnose": (diagnose,),
    "errors": (errors,),
    "images": (images,),
    "jobs": (jobs,),
    "local": (local,),
    "logs": (logs,),
    "manifests": (manifests,),
    "metrics": (metrics,),
    "plots": (plots,),
    "plugin": (plugin,),
    "runs": (runs,),
    "sizes": (sizes,),
    "storage": (storage,),
    "tutorial": (tutorial,),
    "views": (views,),
}
"""The meanings of each name in a text. ``kube`` is either the module or the API of a cluster."""

CALL = re.compile(rf"(?<![\w./\-@\"'])(?:(?:{'|'.join(MEANINGS)})(?:\.\w+)+|connect)\(")


class Call(NamedTuple):
    """A call in a text."""

    where: str
    text: str
    node: ast.Call


def calls_in_prose(text: str, where: str) -> Iterator[Call]:
    """Calls in a sentence."""
    for found in CALL.finditer(text):
        source = balanced(text, found.start(), found.end() - 1)
        if not source:
            continue
        try:
            tree = ast.parse(tidy(source), mode="eval").body
        except SyntaxError:  # such as a signature with annotations, or an example with a sentence in it
            continue
        yield from calls_in(tree, where)


def balanced(text: str, start: int, bracket: int) -> str:
    """Return the text from ``start`` to the bracket that closes the one at ``bracket``; empty if it is not closed."""
    depth = 0
    quote = ""
    for place in range(bracket, len(text)):
        character = text[place]
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
            if depth == 0:
                return text[start : place + 1]
    return ""


def tidy(source: str) -> str:
    """Return the call on one line, with each ``...`` where Python accepts it: before named arguments."""
    source = " ".join(source.split())
    if re.search(r"=[^()]*, \.\.\.\)$", source):
        source = source.replace(", ...)", ")").replace("(", "(..., ", 1)
    return source


def calls_in(tree: ast.AST, where: str) -> Iterator[Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and parts(node.func):
            yield Call(where, ast.unparse(node), node)


def parts(func: ast.expr) -> list[str]:
    """Return the names in text such as ``cluster.create``; empty if it does not begin with a known name."""
    names: list[str] = []
    while isinstance(func, ast.Attribute):
        names.insert(0, func.attr)
        func = func.value
    if not isinstance(func, ast.Name) or func.id not in MEANINGS or HOLE in names:
        return []
    if not names and func.id != "connect":
        return []
    return [func.id, *names]


def problem(call: ast.Call) -> str:
    """Return why a call cannot be made; empty if it can be made with one of the meanings of its first name."""
    root, *names = parts(call.func)
    found = [_problem(meaning, names, call) for meaning in MEANINGS[root]]
    return "" if "" in found else found[0]


def _problem(target: Any, names: list[str], call: ast.Call) -> str:
    for name in names:
        if not isinstance(target, (ModuleType, type)):
            return ""  # an attribute of a call's result, whose type is not known here
        found = member(target, name)
        if found is None:
            return f"{getattr(target, '__name__', target)} has no {name}"
        target = found
    if isinstance(target, property):
        return f"{names[-1]} is not a method"
    if not callable(target):
        return f"{'.'.join(names)} cannot be called"
    method = len(names) > 0 and inspect.isfunction(target) and "." in target.__qualname__
    return unbindable(target, call, method=method)


def member(target: Any, name: str) -> Any:
    """Return an attribute of a module or of a class's instances, or None."""
    if isinstance(target, ModuleType):
        return getattr(target, name, None)
    found = inspect.getattr_static(target, name, None)
    if isinstance(found, property):
        returned = inspect.get_annotations(found.fget).get("return") if found.fget else None  # type: ignore[arg-type]
        return {"Kube": kube.Kube, "Azure": azure.Azure, "Azure | None": azure.Azure}.get(str(returned), found)
    if isinstance(found, (classmethod, staticmethod)):
        return found.__get__(None, target)
    fields = {field.name for field in dataclasses.fields(target)} if dataclasses.is_dataclass(target) else set()
    annotated = {key: value for base in target.__mro__ for key, value in inspect.get_annotations(base).items()}
    if found is None and (name in fields or name in annotated):
        return {"Azure": azure.Azure, "Azure | None": azure.Azure}.get(str(annotated.get(name)), property())
    return found


def unbindable(target: Any, call: ast.Call, *, method: bool) -> str:
    signature = inspect.signature(target)
    anything = any(isinstance(arg, ast.Starred) or _is_ellipsis(arg) for arg in call.args)
    anything = anything or any(keyword.arg is None for keyword in call.keywords)
    given: list[Any] = [arg for arg in call.args if not isinstance(arg, ast.Starred) and not _is_ellipsis(arg)]
    named = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}
    own = [object()] if method else []
    try:
        if anything:
            signature.bind_partial(**named)
            return ""
        bound = signature.bind(*own, *given, **named)
    except TypeError as wrong:
        return str(wrong)
    for name, value in bound.arguments.items():
        if name in ("azure", "aks") and isinstance(value, ast.Name) and value.id in {"azure", "aks", "job"} - {name}:
            return f"the argument {name} gets {value.id}"
    if target is aksgpu.connect and set(named) - {"target"}:
        where = bound.arguments.get("target")
        if not isinstance(where, ast.Constant) or where.value != "azure":
            return 'without "azure" it connects to the laptop AKS'
    return ""


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


# Finding texts


@cache
def strings(path: Path) -> list[tuple[int, str]]:
    """Return every string of a module, with docstrings, and f-strings with their placeholders filled."""
    found: list[tuple[int, str]] = []
    inside: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(value) for value in node.values}
            texts = [value.value if isinstance(value, ast.Constant) else HOLE for value in node.values]
            found.append((node.lineno, "".join(map(str, texts))))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            found.append((node.lineno, node.value))
    return found


def calls_of_library() -> Iterator[Call]:
    for path in sorted((ROOT / "aksgpu").rglob("*.py")):
        for line, text in strings(path):
            yield from calls_in_prose(text, f"{path.relative_to(ROOT)}:{line}")


def calls_of_code(source: str, where: str) -> Iterator[Call]:
    """Yield the calls of a program, and those in its comments and strings."""
    try:
        yield from calls_in(ast.parse(source), where)
    except SyntaxError:  # an excerpt, such as one with a shell command in it
        yield from calls_in_prose(source, where)
        return
    for line in source.splitlines():
        _, sign, comment = line.partition("  # ")
        if sign or line.lstrip().startswith("#"):
            yield from calls_in_prose(comment or line, where)


def calls_of_markdown(text: str, where: str) -> Iterator[Call]:
    for place, piece in enumerate(re.split(r"^```(.*)$", text, flags=re.MULTILINE)):
        # The parts are prose, the opening fence, code and the closing fence, repeatedly.
        if place % 4 == 2:
            yield from calls_of_code(piece, where)
        elif place % 4 == 0:
            yield from calls_in_prose(piece, where)


def calls_of_pages() -> Iterator[Call]:
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        yield from calls_of_markdown(path.read_text(), str(path.relative_to(ROOT)))
    for path in sorted((ROOT / "examples").glob("*.py")):
        where = str(path.relative_to(ROOT))
        yield from calls_of_code(path.read_text(), where)
        for _, text in strings(path):
            yield from calls_in_prose(text, where)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for number, cell in enumerate(json.loads(path.read_text())["cells"]):
            where = f"{path.relative_to(ROOT)}, cell {number}"
            source = "".join(cell["source"])
            read = calls_of_code if cell["cell_type"] == "code" else calls_of_markdown
            yield from read(source, where)


def wrong(calls: Iterator[Call]) -> list[str]:
    return [f"{call.where}: {call.text}: {why}" for call in calls if (why := problem(call.node))]


def test_calls_in_hints_errors_and_docstrings() -> None:
    assert not wrong(calls_of_library())
    assert len(list(calls_of_library())) > 100, "the scanner finds them"


def test_calls_in_pages_examples_and_notebooks() -> None:
    assert not wrong(calls_of_pages())
    found = list(calls_of_pages())
    assert len(found) > 100
    assert {call.where.partition(",")[0].partition("/")[0] for call in found} == {"README.md", *PLACES}


PLACES = ("docs", "examples", "notebooks")


@pytest.mark.parametrize(
    "hint",
    [
        "Take another size: sizes.gpu_sizes(azure).",
        "choose another subscription: connect(subscription_id=...).",
        "choose another subscription: aksgpu.connect(subscription_id='x').",
        'or give connect("azure", credential=azure.identity.DeviceCodeCredential()).',
        "plugin.instal(aks) installs it.",
        "plugin.install() installs it.",
        "jobs.apply(aks, manifest, replce=True) runs it again.",
        "jobs.apply(..., replce=True) runs it again.",
        "job.wait(tiemout=5, ...) waits.",
        "job.wait_longer() waits.",
        f"cluster.scale_pool(azure, {HOLE}, 3) adds nodes.",
        "cluster.add_gpu_pool(azure, 'gpunp') adds a pool.",
        "cluster.list(aks) lists.",
        "aks.kube.appply(obj) applies.",
        "aks.kube.delete() deletes.",
        "capacity.wait_schedulable(aks, 1, 600) waits.",
        "azure.name() is the name.",
        "(see `kube.Kube.frobnicate(1)`)",
    ],
)
def test_a_call_that_cannot_be_made_is_found(hint: str) -> None:
    assert wrong(calls_in_prose(hint, "here"))


@pytest.mark.parametrize(
    "hint",
    [
        "Take another size: sizes.gpu_sizes(azure, location).",
        'connect("azure", subscription_id=...) chooses one; azure = aksgpu.connect(...)',
        "jobs.apply(..., replace=True), or jobs.apply(replace=True, ...) in short.",
        f"cluster.scale_pool(aks, {HOLE}, 3) adds nodes, and plugin.{HOLE}(aks) does not matter.",
        'aks.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ...}})',
        'job.wait(timeout=5); see "metadata.name(1)" and pods.cluster.local(1)',
    ],
)
def test_a_call_that_can_be_made_passes(hint: str) -> None:
    calls = list(calls_in_prose(hint, "here"))
    assert calls
    assert not wrong(iter(calls))


ROLE = re.compile(r":(?:func|class|mod|meth|attr|data):`~?([\w.]+)`")


def references() -> Iterator[tuple[str, str, str]]:
    """Yield each name that a docstring refers to: its place, the module, and the name."""
    for path in sorted((ROOT / "aksgpu").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for line, text in strings(path):
            for name in ROLE.findall(text):
                yield f"{path.relative_to(ROOT)}:{line}", module, name


def exists(module: str, name: str) -> bool:
    """Return whether a name exists, by itself or in the module or one of its classes."""
    if name.startswith("aksgpu"):
        with contextlib.suppress(ValueError, ImportError, AttributeError):
            return pkgutil.resolve_name(name) is not None
        # A field of a dataclass has no value in its class.
        owner, _, field = name.rpartition(".")
        with contextlib.suppress(ValueError, ImportError, AttributeError):
            return field in inspect.get_annotations(pkgutil.resolve_name(owner))
        return False
    here = [importlib.import_module(module)]
    here.append(importlib.import_module(".".join(module.split(".")[:2])))  # where users find what a module defines
    owners = [*here, *(found for owner in here for found in vars(owner).values() if isinstance(found, type))]
    first, _, rest = name.partition(".")
    owners = [getattr(owner, first) for owner in owners if hasattr(owner, first)]
    return bool(owners) and (not rest or any(hasattr(owner, rest) for owner in owners))


def test_names_that_docstrings_refer_to_exist() -> None:
    found = list(references())
    assert len(found) > 50
    assert not [(where, name) for where, module, name in found if not exists(module, name)]
    assert not exists("aksgpu.jobs", "sumbit")
    assert not exists("aksgpu.jobs", "aksgpu.jobs.sumbit")
