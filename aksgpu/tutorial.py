"""The tutorial's notebooks, executed in order on a laptop AKS of their own.

``aksgpu tutorial`` is the command for it. The laptop is private, so that nothing of the user's is touched and nothing
is left behind, whether all goes well or not; only a laptop that does not start leaves its log.

    python -m aksgpu.tutorial      # in a checkout: executes the notebooks in place, to be committed

The second writes what the first shows: outputs without times, counts from 1, and no state of widgets, which a reader
without a kernel could not use.
"""

from __future__ import annotations

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

_CELL_SECONDS = 600  # a cell that takes longer hangs
_WIDGET = "application/vnd.jupyter.widget-view+json"
_WANTED = {"curve": "image/png", "accuracy": "text/plain"}  # tags of cells, and what they are to give


@dataclass(frozen=True)
class Tutorial:
    """What an execution of the notebooks left.

    Attributes:
        notebooks: the executed notebooks, in order.
        pages: the same as HTML.
        curve: the accuracy curve, a PNG.
        table: the accuracy table, as the notebook prints it.
    """

    notebooks: list[Path]
    pages: list[Path]
    curve: Path
    table: str


def notebooks() -> list[Path]:
    """The tutorial's notebooks in order: those of the installed package, or of the checkout.

    Raises:
        AksGpuError: they are in neither place.
    """
    return _found("0[1-6]*.ipynb")


def further() -> list[Path]:
    """The notebooks that go on from there, in order. They are no step of the tutorial, and are copied with it."""
    return _found("0[7-9]*.ipynb")


def _found(pattern: str) -> list[Path]:
    package = Path(__file__).resolve().parent
    for folder in (package / "_notebooks", package.parent / "notebooks"):
        if found := sorted(folder.glob(pattern)):
            return found
    raise AksGpuError("the tutorial's notebooks are not where they belong", hint="Install aksgpu again.")


def copy(output: Path) -> tuple[list[Path], list[Path]]:
    """Copy the notebooks to work in; those that are already there are the user's and stay.

    Returns:
        All notebooks there, in order; and those of them that stayed and are not what would have been copied.

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
    """Execute the notebooks on a private laptop AKS, and write them, their HTML and the curve.

    Args:
        output: a directory, made where missing; files of the same names are replaced.
        progress: show a bar for each notebook.

    Raises:
        InvalidInput: the directory cannot be written.
        AksGpuError: a cell failed, and its notebook is written as far as it came; or the curve or the table is missing.
    """
    from aksgpu import local

    _prepare(output)
    done = []
    pages = []
    given: dict[str, Any] = {}
    with local.laptop() as endpoint:
        for notebook in notebooks():
            executed = _execute(notebook, output / notebook.name, endpoint.home, progress)
            done.append(output / notebook.name)
            pages.append(_write_page(executed, output / notebook.name))
            given |= _tagged(executed)
    for tag, mime in _WANTED.items():
        if tag not in given:
            raise AksGpuError(
                f"no cell with the tag {tag!r} gave {mime}", hint=f"What the notebooks gave is in {output}/*.html."
            )
    picture = output / "accuracy.png"
    picture.write_bytes(base64.b64decode(given["curve"]))
    return Tutorial(done, pages, picture, given["accuracy"])


def update(folder: Path) -> None:
    """Execute the notebooks of a checkout in place, in order and on a private laptop AKS."""
    from aksgpu import local

    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what is stored is what a machine without GPUs gives
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
    """Execute one notebook and write it, also when a cell fails."""
    import nbformat
    from tqdm import tqdm

    notebook = nbformat.read(source, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    with tqdm(total=len(cells), desc=source.stem, unit="cell", disable=not progress) as bar:
        client = _client(notebook, source.parent, lambda **_: bar.update())
        try:
            # What cells print is captured; the rest is the kernel's own affair, and would be printed between the bars.
            client.execute(env=_environment(home), stderr=subprocess.DEVNULL)
        except Exception as error:
            # nbclient takes Ctrl-C for itself: it ends the kernel, and then fails in one of many ways.
            if getattr(client, "_async_cleanup_kernel_future", None) is not None:
                raise KeyboardInterrupt from error
            raise AksGpuError(
                f"{source.name} failed: {_reason(error)}",
                hint=f"The notebook as far as it came is {target}.",
            ) from error
        finally:
            _tidy(notebook)
            nbformat.write(notebook, target)
    return notebook


def _client(notebook: Any, folder: Path, on_cell: Any) -> Any:
    """A client whose kernel is this very Python, whatever kernels the user has registered as python3."""
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
        resources={"metadata": {"path": str(folder)}},
        on_cell_executed=on_cell,
    )


def _environment(home: Path) -> dict[str, str]:
    """The kernels': this run's laptop, nothing of the user's clusters, and no progress bars, as those tell times."""
    mine = {
        "AKSGPU_HOME": str(home),
        "AKSGPU_TARGET": "local",
        "AKSGPU_PROGRESS": "0",
        "KUBECONFIG": str(home / "kubeconfig"),
    }
    return {**os.environ, **mine}


def _reason(error: Exception) -> str:
    name = getattr(error, "ename", type(error).__name__)
    value = getattr(error, "evalue", str(error))
    return f"{name}: {value}"


def _tidy(notebook: Any) -> None:
    """Drop what differs between two executions or two machines, and what a reader without a kernel cannot see."""
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
    """What the tagged cells gave, by tag; what else they print, such as a warning, does not matter."""
    return {
        tag: output.data[mime]
        for cell in notebook.cells
        for tag, mime in _WANTED.items()
        if tag in cell.metadata.get("tags", ())
        for output in cell.outputs
        if mime in output.get("data", {})
    }


def _write_page(notebook: Any, beside: Path) -> Path:
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter(mathjax_url="", require_js_url="").from_notebook_node(
        notebook, resources={"metadata": {"name": beside.stem}}
    )
    target = beside.with_suffix(".html")
    target.write_text(page, encoding="utf-8")
    return target


if __name__ == "__main__":
    update(Path(__file__).resolve().parents[1] / "notebooks")
