"""Run the tutorial's notebooks in order on a private laptop AKS.

The command ``aksgpu tutorial`` calls :func:`execute`. The private laptop does not touch the user's clusters and leaves
nothing behind, also after an error. Only a laptop that does not start leaves its log.

    python -m aksgpu.tutorial      # in a checkout: execute the notebooks in place, before they are committed

The stored notebooks have no times and no widget state, and their execution counts start at 1.
"""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aksgpu.errors import AksGpuError, InvalidInput
from aksgpu.notebook import EMPTY

__all__ = ["Tutorial", "copy", "execute", "further", "notebooks"]

_TUTORIAL = "0[1-6]-*.ipynb"
"""Names of the tutorial's notebooks."""
_NOTEBOOKS = "[0-9][0-9]-*.ipynb"
"""Names of all notebooks."""
_CELL_SECONDS = 600
"""Seconds after which a cell counts as hanging."""
_WIDGET = "application/vnd.jupyter.widget-view+json"
_RESULT_TYPES = {"curve": "image/png", "accuracy": "text/plain"}
"""Tags of the cells whose outputs are results, with the MIME types of these outputs."""


@dataclass(frozen=True)
class Tutorial:
    """The files that a run of the notebooks wrote.

    Attributes:
        notebooks: the executed notebooks, in order.
        pages: the same notebooks as HTML.
        curve: the accuracy curve, a PNG.
        table: the accuracy table, as the notebook prints it.
    """

    notebooks: list[Path]
    pages: list[Path]
    curve: Path
    table: str


def notebooks() -> list[Path]:
    """Return the tutorial's notebooks in order, from the installed package or from the checkout.

    Raises:
        AksGpuError: the notebooks are in neither place.
    """
    return _found(_TUTORIAL)


def further() -> list[Path]:
    """Return the further notebooks in order. They are not steps of the tutorial, but are copied with it."""
    steps = _found(_TUTORIAL)
    return [notebook for notebook in _found(_NOTEBOOKS) if notebook not in steps]


def _found(pattern: str) -> list[Path]:
    package = Path(__file__).resolve().parent
    for folder in (package / "_notebooks", package.parent / "notebooks"):
        found = sorted(folder.glob(pattern))
        if found:
            return found
    raise AksGpuError("the tutorial's notebooks are missing from this installation", hint="Install aksgpu again.")


def copy(output: Path) -> tuple[list[Path], list[Path]]:
    """Copy the notebooks to a directory. Existing files are not replaced, because the user may have changed them.

    Args:
        output: the directory; it is created if it does not exist.

    Returns:
        The paths of all notebooks in order, and the paths of the existing files that differ from the originals.

    Raises:
        InvalidInput: the directory cannot be written.
    """
    _prepare(output)
    copies = []
    kept = []
    for notebook in (*notebooks(), *further()):
        target = output / notebook.name
        if not target.exists():
            shutil.copyfile(notebook, target)
        elif target.read_bytes() != notebook.read_bytes():
            kept.append(target)
        copies.append(target)
    return copies, kept


def execute(output: Path, *, progress: bool = True) -> Tutorial:
    """Execute the notebooks on a private laptop AKS. Write the notebooks, their HTML and the curve.

    Args:
        output: the directory; it is created if it does not exist. Files of the same names are replaced.
        progress: whether to show a bar for each notebook.

    Raises:
        InvalidInput: the directory cannot be written.
        AksGpuError: a cell failed, or the curve or the table is missing. The notebook is written up to the failed cell.
    """
    from aksgpu import local

    _prepare(output)
    written = []
    pages = []
    results: dict[str, Any] = {}
    with local.laptop() as endpoint:
        for notebook in notebooks():
            executed = _execute(notebook, output / notebook.name, endpoint.home, progress)
            written.append(output / notebook.name)
            pages.append(_write_page(executed, output / notebook.name))
            results |= _tagged(executed)
    for tag, mime in _RESULT_TYPES.items():
        if tag not in results:
            raise AksGpuError(
                f"no cell with the tag {tag!r} has an output of type {mime}",
                hint=f"See the outputs of the notebooks in {output}/*.html.",
            )
    picture = output / "accuracy.png"
    picture.write_bytes(base64.b64decode(results["curve"]))
    return Tutorial(written, pages, picture, results["accuracy"])


def update(folder: Path) -> None:
    """Execute the notebooks of a checkout in place, in order and on a private laptop AKS."""
    from aksgpu import local

    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the stored outputs are those of a machine without GPUs
    with local.laptop(time_scale=0.1) as endpoint:
        for notebook in sorted(folder.glob("*.ipynb")):
            _execute(notebook, notebook, endpoint.home, True)


def _prepare(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        if not os.access(output, os.W_OK | os.X_OK):
            raise PermissionError(13, "not writable")
    except OSError as error:
        raise InvalidInput(
            f"cannot write to {output}: {error.strerror}", hint="Choose another directory with --output."
        ) from error


def _execute(source: Path, target: Path, home: Path, progress: bool) -> Any:
    """Execute one notebook, and write it even if a cell fails."""
    import nbformat
    from tqdm import tqdm

    notebook = nbformat.read(source, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    with tqdm(total=len(cells), desc=source.stem, unit="cell", disable=not progress) as bar:
        client = _client(notebook, source.parent, lambda **_: bar.update())
        try:
            # The outputs of cells are captured. Anything else that the kernel prints would disturb the bars.
            client.execute(env=_environment(home), stderr=subprocess.DEVNULL)
        except Exception as error:
            # On Ctrl-C nbclient ends the kernel itself, and then raises one of many exceptions.
            if getattr(client, "_async_cleanup_kernel_future", None) is not None:
                raise KeyboardInterrupt from error
            raise AksGpuError(
                f"{source.name} failed: {_reason(error)}",
                hint=f"The notebook up to the failed cell is {target}.",
            ) from error
        finally:
            _tidy(notebook)
            nbformat.write(notebook, target)
    return notebook


def _client(notebook: Any, folder: Path, on_cell: Any) -> Any:
    """Return a client whose kernel runs this Python, no matter which kernel the user has registered as python3."""
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    class ThisPython(KernelSpecManager):
        def get_kernel_spec(self, _: str) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python")

    class Kernel(AsyncKernelManager):
        kernel_spec_manager = ThisPython()

    return NotebookClient(
        notebook,
        kernel_name="python3",
        kernel_manager_class=Kernel,
        timeout=_CELL_SECONDS,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,  # how a program's output is divided depends on the moment
        resources={"metadata": {"path": str(folder)}},
        on_cell_executed=on_cell,
    )


def _environment(home: Path) -> dict[str, str]:
    """Return the kernels' environment: this run's laptop, no clusters of the user, and no progress bars."""
    own = {
        "AKSGPU_HOME": str(home),
        "AKSGPU_TARGET": "local",
        "AKSGPU_PROGRESS": "0",
        "KUBECONFIG": str(home / "kubeconfig"),
    }
    return {**os.environ, **own}


def _reason(error: Exception) -> str:
    name = getattr(error, "ename", type(error).__name__)
    value = getattr(error, "evalue", str(error))
    return f"{name}: {value}"


def _tidy(notebook: Any) -> None:
    """Remove what differs between two executions or machines, and what is useless without a kernel."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        if "outputs" not in cell:
            continue
        cell.outputs = [output for output in cell.outputs if output.get("data") != EMPTY]
        for output in cell.outputs:
            # The output stays: the static copy of a live view hides the output after it.
            output.get("data", {}).pop(_WIDGET, None)


def _tagged(notebook: Any) -> dict[str, Any]:
    """Return the outputs of the tagged cells by tag. Their other outputs, such as warnings, are ignored."""
    found: dict[str, Any] = {}
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", ()):
            mime = _RESULT_TYPES.get(tag)
            for output in cell.get("outputs", ()):
                if mime in output.get("data", {}):
                    found[tag] = output.data[mime]
    return found


def _write_page(notebook: Any, notebook_path: Path) -> Path:
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter(mathjax_url="", require_js_url="").from_notebook_node(
        notebook, resources={"metadata": {"name": notebook_path.stem}}
    )
    target = notebook_path.with_suffix(".html")
    target.write_text(page, encoding="utf-8")
    return target


def __dir__() -> list[str]:
    return __all__


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m aksgpu.tutorial",
        description="Execute all notebooks of a checkout in place, on a private laptop AKS, before they are committed. "
        "The command `aksgpu tutorial` runs the tutorial and leaves the notebooks unchanged.",
    )
    parser.parse_args()
    update(Path(__file__).resolve().parents[1] / "notebooks")


if __name__ == "__main__":
    _main()
