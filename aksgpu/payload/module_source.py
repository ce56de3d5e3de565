"""The source of functions, lambdas and classes, from files and from notebook cells, with the names that it uses."""

from __future__ import annotations
import __future__

import ast
import inspect
import linecache
import sys
import textwrap
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from aksgpu.errors import InvalidInput

__all__ = ["Definition", "class_definition", "function_definition", "lambda_definition"]

_HINT = "Define it in a file or a notebook cell, or use an image with the Python of this kernel."
_ANNOTATIONS = __future__.annotations.compiler_flag


class Definition(NamedTuple):
    """The source of a function or class."""

    text: str
    """A statement that defines it at the top level of a module."""
    file_name: str
    line: int
    """Its first line in that file, from 1."""
    names: tuple[str, ...]
    """Names that it reads from its module: in bodies, decorators, defaults, base classes and annotations."""
    chains: tuple[tuple[str, ...], ...]
    """Names with the attributes that it reads of them, such as ``("xml", "etree", "ElementTree")``."""
    flags: int
    """Compiler flags of its module."""


def function_definition(function: Callable[..., Any]) -> Definition:
    """Return the definition of a function, or of what a decorator made of it.

    Raises:
        InvalidInput: its source cannot be found, or cannot be moved to the top level of a module.
    """
    inner = inspect.unwrap(function)
    code: CodeType = inner.__code__
    lines, first = _lines_of(code, inner.__qualname__)
    text = textwrap.dedent("".join(lines))
    return _definition(text, code.co_filename, first, inner.__qualname__, code.co_flags & _ANNOTATIONS)


def lambda_definition(function: FunctionType, name: str) -> Definition:
    """Return an assignment of a lambda to a name.

    Raises:
        InvalidInput: its source cannot be found, or several lambdas of the line are alike.
    """
    code = function.__code__
    file_lines = linecache.getlines(code.co_filename)
    segments = _lambdas("".join(file_lines), code)
    if len(segments) != 1:
        reason = "its source was not found" if not segments else "several lambdas of its line are alike"
        raise InvalidInput(f"a lambda cannot be sent as source: {reason}", hint="Define it with def.")
    text = f"{name} = ({segments[0]}\n)\n"
    return _definition(text, code.co_filename, code.co_firstlineno, "a lambda", code.co_flags & _ANNOTATIONS)


def _lambdas(text: str, code: CodeType) -> list[str]:
    """Return the different texts of the lambdas in a file that have a line and code."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return []
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda) and node.lineno <= code.co_firstlineno <= (node.end_lineno or node.lineno):
            segment = ast.get_source_segment(text, node) or ""
            compiled = compile(ast.Expression(node), code.co_filename, "eval", dont_inherit=True)
            inner = [each for each in compiled.co_consts if isinstance(each, CodeType)]
            if inner and _alike(inner[0], code):
                found[segment] = None
    return list(found)


def _alike(one: CodeType, other: CodeType) -> bool:
    """Return whether two codes use the same names and constants. Closures change the instructions."""
    names = set(one.co_names) | set(one.co_freevars)
    other_names = set(other.co_names) | set(other.co_freevars)
    arguments = one.co_varnames[: one.co_argcount] == other.co_varnames[: other.co_argcount]
    constants = [each for each in one.co_consts if not isinstance(each, CodeType)]
    other_constants = [each for each in other.co_consts if not isinstance(each, CodeType)]
    return arguments and names == other_names and constants == other_constants


def class_definition(cls: type) -> Definition:
    """Return the definition of a class at the top level of a module or notebook.

    Raises:
        InvalidInput: its source cannot be found.
    """
    module = sys.modules.get(cls.__module__)
    names = [_file_of_methods(cls), str(getattr(module, "__file__", None) or "")]
    if cls.__module__ == "__main__":
        # Cells are kept in the order in which they ran; the newest definition counts.
        names += [name for name in reversed(linecache.cache) if "ipykernel" in name or name.startswith("<ipython")]
    for name in filter(None, names):
        lines = linecache.getlines(name)
        node = _class_node("".join(lines), cls.__name__)
        if node is not None:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            text = "".join(lines[first - 1 : node.end_lineno])
            flags = _ANNOTATIONS if _has_future_annotations("".join(lines)) else 0
            return _definition(text, name, first, cls.__qualname__, flags)
    raise InvalidInput(f"class {cls.__qualname__!r} cannot be sent as source: its source was not found", hint=_HINT)


def _file_of_methods(cls: type) -> str:
    """Return the file of the class's first method that was defined in it; empty if it has none."""
    for value in vars(cls).values():
        function = inspect.unwrap(value) if callable(value) else getattr(value, "__func__", None)
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType) and getattr(function, "__qualname__", "").startswith(f"{cls.__qualname__}."):
            name = code.co_filename
            if linecache.getlines(name):
                return name
    return ""


def _class_node(text: str, name: str) -> ast.ClassDef | None:
    """Return the last definition of a class at the top level of a text."""
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return None
    found = [node for node in body if isinstance(node, ast.ClassDef) and node.name == name]
    return found[-1] if found else None


def _has_future_annotations(text: str) -> bool:
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            return any(alias.name == "annotations" for alias in node.names)
    return False


def _lines_of(code: CodeType, name: str) -> tuple[list[str], int]:
    try:
        return inspect.getsourcelines(code)
    except (OSError, TypeError, SyntaxError) as error:
        raise InvalidInput(f"function {name!r} cannot be sent as source: {error}", hint=_HINT) from error


def _definition(text: str, file_name: str, line: int, name: str, flags: int) -> Definition:
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise InvalidInput(f"{name!r} cannot be sent as source: {error}", hint=_HINT) from error
    if any(isinstance(node, ast.Nonlocal) for node in _outermost(tree)):
        raise InvalidInput(
            f"function {name!r} cannot be sent as source, because it changes a variable of an enclosing function",
            hint="Pass the value as an argument and return the new one.",
        )
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return Definition(text, file_name, line, tuple(dict.fromkeys(names)), _chains(tree), flags)


def _chains(tree: ast.Module) -> tuple[tuple[str, ...], ...]:
    found: dict[tuple[str, ...], None] = {}
    for node in ast.walk(tree):
        attributes: list[str] = []
        inner: ast.expr | ast.AST = node
        while isinstance(inner, ast.Attribute):
            attributes.append(inner.attr)
            inner = inner.value
        if attributes and isinstance(inner, ast.Name):
            found[(inner.id, *reversed(attributes))] = None
    return tuple(found)


def _outermost(tree: ast.Module) -> list[ast.stmt]:
    """Return the statements of a function itself, without those of functions inside it."""
    found: list[ast.stmt] = []
    for node in tree.body:
        waiting = list(getattr(node, "body", ()))
        while waiting:
            each = waiting.pop()
            if isinstance(each, ast.stmt):
                found.append(each)
            if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                waiting += [child for child in ast.iter_child_nodes(each) if isinstance(child, ast.stmt)]
    return found
