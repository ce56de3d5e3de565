"""Count the lines of each package and the constructs that make code dense, as shown in docs/architecture.md.

python tests/support/style_counts.py [aksgpu]
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

MAX_FUNCTION_LINES = 40
"""Functions with more lines than this, without the docstring, are counted."""
_NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def has_docstring(node: ast.AST) -> bool:
    return isinstance(node, Function | ast.ClassDef | ast.Module) and ast.get_docstring(node, clean=False) is not None


def is_packed(node: ast.AST) -> bool:
    """Return whether a node is an assignment of the form ``a, b = x, y``."""
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)


def is_long(function: Function) -> bool:
    body = function.body[1:] if has_docstring(function) and len(function.body) > 1 else function.body
    last = function.end_lineno or 0
    return last - body[0].lineno + 1 > MAX_FUNCTION_LINES


def code_lines(text: str) -> int:
    """Return the number of lines without docstrings, comments and blank lines."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        # A string that is a statement is a docstring, also after a constant.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def package(path: Path, root: Path) -> str:
    """Return the package that a file belongs to, with the subpackage for ``local``."""
    folders = path.relative_to(root).parts[:-1]
    depth = 2 if folders[:1] == ("local",) else 1
    return "/".join(folders[:depth]) or "."


def main(root: Path) -> None:
    """Print the counts."""
    lines_of: Counter[str] = Counter()
    names: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for path in sorted(root.rglob("*.py")):
        text = path.read_text()
        names[path.name] += path.name != "__init__.py"
        counts["lines"] += len(text.splitlines())
        lines_of[package(path, root)] += code_lines(text)
        for node in ast.walk(ast.parse(text)):
            counts["assignments"] += isinstance(node, ast.Assign)
            counts["packed"] += is_packed(node)
            counts["walruses"] += isinstance(node, ast.NamedExpr)
            if isinstance(node, Function):
                counts["long"] += is_long(node)
                counts["imports"] += sum(isinstance(inner, ast.Import | ast.ImportFrom) for inner in ast.walk(node))
    alike = sum(count for count in names.values() if count > 1)
    print(f"packed assignments        {100 * counts['packed'] / counts['assignments']:.1f} %")
    print(f"walruses per 1,000 lines  {1000 * counts['walruses'] / counts['lines']:.1f}")
    print(f"functions over {MAX_FUNCTION_LINES} lines   {counts['long']}")
    print(f"imports inside functions  {counts['imports']}")
    print(f"files with equal names    {alike}")
    for name, lines in sorted(lines_of.items()):
        print(f"{lines:>6,} {name}")
    print(f"{lines_of.total():>6,} total")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "aksgpu"))
