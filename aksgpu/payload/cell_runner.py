"""Run notebook cells in the pod: names stay defined between cells, and the last expression is displayed.

In the pod it is the file ``aksgpu_cells.py``. It uses the standard library only, and works with Python 3.8.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import linecache
import os
import pickle
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Namespace"]

LARGEST_REPRESENTATION = 4 * 1024 * 1024
"""Characters of one representation of a displayed object."""
IMAGE_TYPES = {"_repr_png_": "image/png", "_repr_jpeg_": "image/jpeg"}
TEXT_TYPES = {
    "_repr_html_": "text/html",
    "_repr_svg_": "image/svg+xml",
    "_repr_markdown_": "text/markdown",
    "_repr_latex_": "text/latex",
}


class MissingOutput(NameError):
    """A name that should be returned is not defined after the cell."""


class Shell:
    """What ``!command`` and ``%magic`` in a cell call. Only commands and a few magics exist in the pod."""

    def system(self, command: str) -> None:
        """Run a shell command; its output goes where that of the cell goes."""
        subprocess.run(command, shell=True, check=False)

    def getoutput(self, command: str) -> list[str]:
        """Return the lines that a shell command prints."""
        done = subprocess.run(
            command, shell=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return done.stdout.splitlines()

    def run_line_magic(self, name: str, line: str, **_: Any) -> None:
        """Run a magic."""
        if name == "pip":
            self.system(f"{sys.executable} -m pip {line}")
        elif name == "cd":
            os.chdir(Path(line.strip() or "~").expanduser())
        elif name not in ("matplotlib", "config"):
            raise NotImplementedError(f"%{name} does not exist in the pod")

    def run_cell_magic(self, name: str, line: str, cell: str) -> None:
        """Refuse a magic for a whole cell."""
        raise NotImplementedError(f"%%{name} does not exist in the pod")


class Namespace:
    """The names that cells define. It is the module ``__main__`` of this process once the first cell has run.

    Args:
        show: called with the representations of each displayed object, by MIME type.
    """

    def __init__(self, show: Callable[[dict[str, str]], None]) -> None:
        self._show = show
        self._main = types.ModuleType("__main__")
        vars(self._main).update(__builtins__=__builtins__, display=self.display, get_ipython=Shell)

    def display(self, *objects: object) -> None:
        """Show objects in the notebook."""
        for each in objects:
            self._show(representations(each))

    def run(self, name: str, entries: dict[str, bytes]) -> dict[str, Any]:
        """Run a cell, and return the names that are asked for.

        Args:
            name: the name of the cell in tracebacks.
            entries: ``cell`` is the source, ``inputs.pkl`` are names to define before, and ``outputs.json`` are names
                to return.
        """
        os.environ.setdefault("MPLBACKEND", "Agg")
        source = entries["cell"].decode()
        sys.modules["__main__"] = self._main
        scope = vars(self._main)
        if "inputs.pkl" in entries:
            _, _, inputs, *_ = pickle.loads(entries["inputs.pkl"])
            scope.update(inputs)
        lines = source.splitlines(keepends=True)
        linecache.cache[name] = (len(source), None, lines, name)
        body, last = parts(source, name)
        exec(compile(body, name, "exec", dont_inherit=True), scope)
        if last is not None:
            value = eval(compile(last, name, "eval", dont_inherit=True), scope)
            if value is not None:
                scope["_"] = value
                self.display(value)
        self._show_figures()
        wanted = json.loads(entries["outputs.json"])
        missing = [each for each in wanted if each not in scope]
        if missing:
            raise MissingOutput(f"name {missing[0]!r} is not defined after the cell")
        return {each: scope[each] for each in wanted}

    def _show_figures(self) -> None:
        """Show the open figures of matplotlib, and close them, as notebooks do."""
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is None:
            return
        for number in pyplot.get_fignums():
            self.display(pyplot.figure(number))
        pyplot.close("all")


def parts(source: str, name: str) -> tuple[ast.Module, ast.Expression | None]:
    """Return the statements of a cell, and its last expression if it ends with one without a semicolon."""
    tree = ast.parse(source, name)
    if not tree.body or not isinstance(tree.body[-1], ast.Expr) or ends_with_semicolon(source):
        return tree, None
    last = tree.body.pop()
    assert isinstance(last, ast.Expr)
    return tree, ast.Expression(last.value)


def ends_with_semicolon(source: str) -> bool:
    """Return whether a cell's last token is a semicolon."""
    import tokenize

    last = ""
    ignored = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER, tokenize.INDENT, tokenize.DEDENT)
    with contextlib.suppress(tokenize.TokenError):
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type not in ignored:
                last = token.string
    return last == ";"


def representations(value: object) -> dict[str, str]:
    """Return how a notebook may show an object, by MIME type. Images are in base64."""
    found = {"text/plain": plain(value)}
    if hasattr(value, "_repr_mimebundle_") and not isinstance(value, type):
        with contextlib.suppress(Exception):
            bundle = value._repr_mimebundle_(include=None, exclude=None)
            bundle = bundle[0] if isinstance(bundle, tuple) else bundle
            found.update({kind: as_text(content) for kind, content in bundle.items() if _is_simple(content)})
    for method, kind in {**TEXT_TYPES, **IMAGE_TYPES}.items():
        content = represented(value, method)
        if content is not None:
            found[kind] = as_text(content)
    if type(value).__module__ == "matplotlib.figure":
        found["image/png"] = figure_png(value)
    return {kind: text for kind, text in found.items() if len(text) <= LARGEST_REPRESENTATION}


def plain(value: object) -> str:
    """Return the text of an object, as a notebook shows it."""
    if isinstance(value, (list, dict, tuple, set, frozenset)):
        import pprint

        with contextlib.suppress(Exception):
            if len(repr(value)) < 100_000:
                return pprint.pformat(value, sort_dicts=False)
    return repr(value)


def represented(value: object, method: str) -> Any:
    """Return the result of a representation method; None if the object has none or it fails."""
    if isinstance(value, type) or not hasattr(type(value), method):
        return None
    with contextlib.suppress(Exception):
        result = getattr(value, method)()
        result = result[0] if isinstance(result, tuple) else result
        return result if _is_simple(result) else None
    return None


def _is_simple(content: object) -> bool:
    return isinstance(content, (str, bytes))


def as_text(content: Any) -> str:
    """Return text, or bytes in base64."""
    return base64.b64encode(content).decode() if isinstance(content, bytes) else str(content)


def figure_png(figure: Any) -> str:
    """Return a figure of matplotlib as a PNG image in base64."""
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight")
    return base64.b64encode(file.getvalue()).decode()
