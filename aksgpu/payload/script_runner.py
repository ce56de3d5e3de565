"""Run a script in the pod as ``python script.py`` does.

In the pod it is the file ``aksgpu_script.py``. It uses the standard library only, and works with Python 3.8.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

__all__ = ["run"]


def run(runner: Any, entries: dict[str, bytes]) -> int:
    """Run the script, leave its outcome for the runner, and return the exit code.

    Args:
        runner: the module ``runner.py``.
        entries: the files of the payload.
    """
    plan = json.loads(entries["script.json"])
    top = Path.cwd()
    _complete_layout(runner, plan, top)
    path = top / plan["script"]
    os.chdir(top / plan["directory"])
    sys.argv[:] = [plan["name"], *plan["args"]]
    sys.path[:1] = [str(path.parent), *(str(top / each) for each in plan["search_path"])]
    # This module's caller loses its place as __main__, and must not be deleted.
    runner.KEPT.append(sys.modules["__main__"])
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    vars(main).update(
        __file__=str(path),
        __builtins__=__builtins__,
        __loader__=importlib.machinery.SourceFileLoader("__main__", str(path)),
        __annotations__={},
    )
    try:
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), vars(main))
    except SystemExit as leaving:
        return _left(runner, plan["name"], runner.exit_code_of(leaving))
    except BaseException as error:
        own = error.__traceback__
        error.__traceback__ = own.tb_next if own else None
        _show(runner, error)
        text = f"{plan['name']} raised {runner.describe(error)}"
        runner.write_outcome({"kind": "script", "text": text}, runner.failure_body(error))
        return 1
    return _left(runner, plan["name"], 0)


def _complete_layout(runner: Any, plan: dict[str, Any], top: Path) -> None:
    """Make the directories that have no files, and make files executable that are so on the client."""
    for name in (*plan["directories"], plan["directory"]):
        runner.made(top / name)
    for name in plan["executables"]:
        (top / name).chmod(0o755)


def _left(runner: Any, name: str, exit_code: int) -> int:
    """Leave the outcome of a script that has ended by itself."""
    text = f"{name} ended with exit code {exit_code}"
    body = b"" if exit_code else pickle.dumps(None, 4)
    runner.write_outcome({"kind": "exit_code" if exit_code else "value", "text": text}, body)
    return exit_code


def _show(runner: Any, error: BaseException) -> None:
    """Print a traceback, by the script's own hook if it has set one."""
    sys.stdout.flush()
    if sys.excepthook is not sys.__excepthook__:
        sys.excepthook(type(error), error, error.__traceback__)
    else:
        sys.stderr.write(runner.traceback_text(error))
    sys.stderr.flush()
