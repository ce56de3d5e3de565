"""The main module of processes that multiprocessing spawns: it has the functions and classes of the user's main module.

In the pod it is the file ``aksgpu_main.py`` beside ``runner.py``, so it uses the standard library only, and works with
Python 3.8. multiprocessing runs it in each new process before it unpickles what that process is to do.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from pathlib import Path
from typing import Any

__all__ = ["read_names"]


def read_names(run: Path) -> dict[str, Any]:
    """Return the functions and classes of the user's main module by name.

    Args:
        run: the runner's directory, in which the runner has left the call.
    """
    call = run / "call.pkl"
    if call.exists():
        return dict(pickle.loads(call.read_bytes())[3])
    here = str(Path(__file__).parent)
    sys.path.insert(0, here)
    try:
        loader = importlib.import_module("aksgpu_source")
    finally:
        sys.path.remove(here)
    loader.load((run / "source.json").read_bytes())
    return {name: value for name, value in vars(sys.modules["__main__"]).items() if not name.startswith("__")}


if __name__ == "__mp_main__":
    globals().update(read_names(Path(os.environ.get("AKSGPU_RUN", "/aksgpu/run"))))
