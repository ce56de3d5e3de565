"""Make a call from its source, in the pod.

In the pod it is the file ``aksgpu_source.py`` beside ``runner.py``, so it uses the standard library only, and works
with Python 3.8. :mod:`aksgpu.payload.source_mode` writes what it reads.
"""

from __future__ import annotations

import base64
import json
import pickle
import sys
from types import ModuleType
from typing import Any

__all__ = ["load"]


def load(content: bytes) -> Any:
    """Return the function, its positional and its keyword arguments.

    Args:
        content: the JSON of :class:`aksgpu.payload.source_mode.SourceCall`.
    """
    source = json.loads(content)
    for name in source["modules"]:
        sys.modules[name] = ModuleType(name)
    for name, statement in source["imports"]:
        exec(statement, vars(sys.modules[name]))
    waiting = _set_names(source)
    for definition in source["definitions"]:
        _define(definition)
        waiting = _set_names(waiting)
    if waiting["data"] or waiting["references"]:
        names = [entry[1] for entry in [*waiting["data"], *waiting["references"]]]
        raise NameError(f"names that the function uses could not be set: {', '.join(names)}")
    return _unpickled(source["call"])


def _set_names(waiting: dict[str, Any]) -> dict[str, Any]:
    """Set the names whose values can be made now, and return those that need a later definition."""
    data = []
    for module, name, pickled in waiting["data"]:
        try:
            setattr(sys.modules[module], name, _unpickled(pickled))
        except AttributeError:
            data.append((module, name, pickled))
    references = []
    for module, name, other_module, other_name in waiting["references"]:
        other = vars(sys.modules[other_module])
        if other_name in other:
            setattr(sys.modules[module], name, other[other_name])
        else:
            references.append((module, name, other_module, other_name))
    return {"data": data, "references": references}


def _unpickled(text: str) -> Any:
    return pickle.loads(base64.b64decode(text))


def _define(definition: dict[str, Any]) -> None:
    # Empty lines before the text give the code the line numbers of its file, for tracebacks.
    text = "\n" * (definition["line"] - 1) + definition["text"]
    code = compile(text, definition["file"], "exec", flags=definition["flags"], dont_inherit=True)
    exec(code, vars(sys.modules[definition["module"]]))
