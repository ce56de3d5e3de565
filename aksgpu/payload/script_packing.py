"""Pack a script, the project's modules that it imports, and further files into a payload."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from aksgpu.common.arguments import shown
from aksgpu.errors import InvalidInput
from aksgpu.payload.imported_files import Imported, find_imported
from aksgpu.payload.modules import find_root
from aksgpu.payload.packing import LARGEST_PAYLOAD, Payload, seal
from aksgpu.payload.project_files import ProjectFiles, collect, large_files
from aksgpu.payload.requirements import NONE, Packages, from_modules

__all__ = ["Script", "pack_script", "read_script"]

_ARGUMENT = "script"
_MODULE_HINT = (
    'A file with `import runpy; runpy.run_module("package.train", run_name="__main__")` runs a module. '
    'script("file.py", include=["package/"]) sends the package.'
)


class Script:
    """A script of the user, and the project that it belongs to. Made by :func:`read_script`.

    Attributes:
        path: the file.
        root: the directory of the project, whose layout is kept in the pod.
        directory: the directory in which it runs, on this machine.
    """

    def __init__(self, path: Path, root: Path, directory: Path) -> None:
        self.path = path
        self.root = root
        self.directory = directory


def read_script(path: object, *, root: Path | None) -> Script:
    """Return a script by its path, relative to the working directory.

    Args:
        path: the user's argument.
        root: the project's directory; None finds it.

    Raises:
        InvalidInput: it is not a Python file that can run.
    """
    if not isinstance(path, str | os.PathLike):
        raise InvalidInput(f"`{_ARGUMENT}` must be the path of a Python file, got {shown(path)}")
    text = os.fspath(path)
    if isinstance(text, bytes) or not text or "\0" in text:
        raise InvalidInput(f"`{_ARGUMENT}` must be the path of a Python file, got {shown(text)}")
    working = Path.cwd()
    named = working / Path(text).expanduser()
    file = named.parent.resolve() / named.name
    _check_file(file, text)
    if root is None:
        root = find_root(working)
        if not file.is_relative_to(root):
            root = find_root(file.parent)
    if not file.is_relative_to(root):
        raise InvalidInput(
            f"`{_ARGUMENT}` must be below the project's directory {str(root)!r}, got {str(file)!r}",
            hint="Name a directory around it: Executor(aks, root='..').",
        )
    return Script(file, root, working if working.is_relative_to(root) else file.parent)


def pack_script(
    script: Script, args: Iterable[str], include: Iterable[str] = (), *, packages: Packages | None = NONE
) -> tuple[Payload, tuple[str, ...]]:
    """Pack a script.

    Args:
        script: the script.
        args: its arguments.
        include: further files, directories and patterns.
        packages: what the pod installs; None for the installed distributions of the modules that the script imports.

    Returns:
        The payload, and the files with credentials that were left out.

    Raises:
        InvalidInput: a file does not exist, is outside the project, or they are too large together.
    """
    files = ProjectFiles(script.root)
    files.add(script.path, _ARGUMENT)
    collect(files, include, script.directory)
    python_files = tuple(path for name, path in files.files.items() if name.endswith(".py"))
    imported = find_imported(script.path, script.root.resolve(), python_files)
    for path in sorted(imported.files):
        files.add(_as_below(path, script.root), "script")
    entries = {f"work/{name}": content for name, content in sorted(files.contents().items())}
    entries["script.json"] = json.dumps(_plan(script, list(args), files, imported), sort_keys=True).encode()
    digest = hashlib.sha256()
    for name, content in entries.items():
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    if packages is None:
        packages = from_modules(imported.others)
    entries["packages.json"] = packages.content()
    entries["lib/aksgpu_script.py"] = resources.files("aksgpu.payload").joinpath("script_runner.py").read_bytes()
    payload = seal({"task": "script", "mode": "script"}, entries, fingerprint=digest.hexdigest())
    if len(payload.body) > LARGEST_PAYLOAD:
        raise InvalidInput(
            f"the script and its files must have at most {LARGEST_PAYLOAD:,} bytes, compressed, "
            f"got {len(payload.body):,}; {large_files(files)}",
            hint='Put data on a claim: Executor(aks, volumes={"/data": "data"}).',
        )
    return replace(payload, packages=packages), tuple(sorted(files.left_out))


def _check_file(file: Path, text: str) -> None:
    name = shown(text)
    if file.suffix == ".ipynb":
        raise InvalidInput(
            f"`{_ARGUMENT}` must be a Python file, got the notebook {name}",
            hint=f"Convert it: jupyter nbconvert --to script {file.name}. Or run its cells with %%gpu.",
        )
    if file.is_dir():
        raise InvalidInput(
            f"`{_ARGUMENT}` must be a Python file, got the directory {name}",
            hint=f"Name the file in it, and include the rest: script('{text.rstrip('/')}/train.py', include=[...]).",
        )
    if not file.exists():
        raise InvalidInput(
            f"`{_ARGUMENT}` must be a file that exists, got {name}, which is not in {Path.cwd()}",
            hint=_MODULE_HINT if text == "-m" else "",
        )
    if file.suffix not in (".py", ".pyw", ""):
        raise InvalidInput(
            f"`{_ARGUMENT}` must be a Python file, got {name}",
            hint="A Python file can start other programs: subprocess.run(['bash', 'train.sh'], check=True).",
        )


def _as_below(path: Path, root: Path) -> Path:
    """Return a resolved path below the root as the user's root has it, which may be a link."""
    return root / path.relative_to(root.resolve())


def _plan(script: Script, args: list[str], files: ProjectFiles, imported: Imported) -> dict[str, Any]:
    """Return how the script runs. All paths are relative to the project's directory."""
    root = script.root

    def below(path: Path) -> str:
        return path.relative_to(root).as_posix()

    return {
        "script": below(script.path),
        "name": os.path.relpath(script.path, script.directory),
        "args": args,
        "directory": below(script.directory),
        "search_path": [below(_as_below(each, root)) for each in imported.search_path],
        "directories": sorted(files.directories),
        "executables": sorted(name for name, path in files.files.items() if os.access(path, os.X_OK)),
    }
