"""The command ``aksgpu``: runs the tutorial and manages the laptop AKS.

Everything else is done in Python. Each command imports what it needs when it runs, so that ``aksgpu --help`` is fast.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from aksgpu import __version__
from aksgpu.errors import AksGpuError

__all__ = ["main"]

_STOPPED = 3
"""Exit code of ``aksgpu local status`` if the laptop AKS is stopped, as for ``systemctl status``."""
_INTERRUPTED = 130
"""Exit code after Ctrl-C, as in shells."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0 for success, 1 for an error, 3 if ``local status`` finds the laptop AKS stopped, 130 after
        Ctrl-C.

    Raises:
        SystemExit: with code 2 for a wrong command line, with code 0 for ``--help`` and ``--version``.
    """
    options = _parser().parse_args(argv)
    try:
        return int(options.run(options))
    except AksGpuError as error:
        print(f"aksgpu: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("aksgpu: interrupted", file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aksgpu",
        description="GPU jobs on Azure Kubernetes Service, from nothing to an accuracy curve and back to zero cost.",
        epilog="Everything else is done in Python: `import aksgpu; help(aksgpu)`. This command never costs money.",
    )
    parser.add_argument("--version", action="version", version=f"aksgpu {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    tutorial = commands.add_parser("tutorial", help="run the tutorial's notebooks on a private laptop AKS")
    tutorial.add_argument(
        "--output",
        type=Path,
        default=Path("aksgpu-tutorial"),
        metavar="DIR",
        help="directory for the notebooks and the curve (default: ./%(default)s)",
    )
    tutorial.add_argument(
        "--open", action="store_true", help="open a copy of the notebooks in JupyterLab instead of running them"
    )
    tutorial.set_defaults(run=_tutorial)

    local = commands.add_parser("local", help="start the laptop AKS, show its state, or stop it").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    local.add_parser("start", help="start it, unless it runs").set_defaults(run=_start)
    local.add_parser("status", help=f"show its state; the exit code is {_STOPPED} if it is stopped").set_defaults(
        run=_status
    )
    local.add_parser("stop", help="stop it and its pods; its clusters are kept").set_defaults(run=_stop)
    return parser


def _tutorial(options: argparse.Namespace) -> int:
    from aksgpu import tutorial

    output = options.output.expanduser().resolve()
    if options.open:
        copies, kept = tutorial.copy(output)
        if kept:
            names = ", ".join(path.name for path in kept)
            print(f"Not replaced in {output}: {names}. Delete or rename a file to get a new copy of it.")
        return _open(copies[0])
    done = tutorial.execute(output)
    last_lines = done.table.splitlines()
    print("\n".join([last_lines[0], *last_lines[-5:]]))
    print(f"\nNotebooks  {output}/*.ipynb, and as HTML {output}/*.html")
    print(f"Curve      {done.curve}")
    return 0


def _open(notebook: Path) -> int:
    if find_spec("jupyterlab") is None:
        raise AksGpuError(
            f"JupyterLab is not installed; the notebooks are in {notebook.parent}",
            hint="Run `pip install jupyterlab` and this command again, or open the notebooks in another editor.",
        )
    return subprocess.call([sys.executable, "-m", "jupyterlab", str(notebook)])


def _start(_: argparse.Namespace) -> int:
    from aksgpu import local

    endpoint = local.start()
    print(f"The laptop AKS runs at {endpoint.base_url}. Its files are in {endpoint.home}.")
    return 0


def _status(_: argparse.Namespace) -> int:
    from aksgpu import local

    state = local.status()
    if not state["running"]:
        print(f"The laptop AKS is stopped. Its files are in {state['home']}.")
        return _STOPPED
    for name, value in state.items():
        if isinstance(value, list):
            print(f"{name:<15} {', '.join(value) or 'none'}")
        elif value != "":
            print(f"{name:<15} {value}")
    return 0


def _stop(_: argparse.Namespace) -> int:
    from aksgpu import local

    local.stop()
    print("The laptop AKS is stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
