"""The command ``aksgpu``: the tutorial, and the laptop AKS.

Everything else is the library's, in Python. Nothing heavy is imported before a command needs it.
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

_STOPPED = 3  # as systemctl says it
_INTERRUPTED = 130  # as shells say it


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for an error, 2 for a wrong command line."""
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
        epilog="The rest is Python: `import aksgpu; help(aksgpu)`. Nothing that this command does costs money.",
    )
    parser.add_argument("--version", action="version", version=f"aksgpu {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    tutorial = commands.add_parser("tutorial", help="execute the tutorial's notebooks on a laptop AKS of their own")
    tutorial.add_argument(
        "--output", type=Path, default=Path("aksgpu-tutorial"), metavar="DIR", help="where to write (./%(default)s)"
    )
    tutorial.add_argument(
        "--open", action="store_true", help="do not execute: open a copy of the notebooks in JupyterLab"
    )
    tutorial.set_defaults(run=_tutorial)

    local = commands.add_parser("local", help="start, look at or stop the laptop AKS").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    local.add_parser("start", help="start it, or find it running").set_defaults(run=_start)
    local.add_parser("status", help=f"say how it is; exits with {_STOPPED} when it is stopped").set_defaults(
        run=_status
    )
    local.add_parser("stop", help="end its pods and stop it; clusters are kept").set_defaults(run=_stop)
    return parser


def _tutorial(options: argparse.Namespace) -> int:
    from aksgpu import tutorial

    output = options.output.expanduser().resolve()
    if options.open:
        copies, kept = tutorial.copy(output)
        if kept:
            names = ", ".join(path.name for path in kept)
            print(f"Already in {output}, and left as they are: {names}. Remove or rename one to get it fresh.")
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
            hint="Run `pip install jupyterlab` and this command again, or open them in an editor that shows notebooks.",
        )
    return subprocess.call([sys.executable, "-m", "jupyterlab", str(notebook)])


def _start(_: argparse.Namespace) -> int:
    from aksgpu import local

    endpoint = local.start()
    print(f"The laptop AKS answers at {endpoint.base_url}; its files are in {endpoint.home}")
    return 0


def _status(_: argparse.Namespace) -> int:
    from aksgpu import local

    state = local.status()
    if not state["running"]:
        print(f"The laptop AKS is stopped; its files are in {state['home']}")
        return _STOPPED
    for name, value in state.items():
        if value == "":
            continue
        print(f"{name:<15} {', '.join(value) or 'none' if isinstance(value, list) else value}")
    return 0


def _stop(_: argparse.Namespace) -> int:
    from aksgpu import local

    local.stop()
    print("The laptop AKS is stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
