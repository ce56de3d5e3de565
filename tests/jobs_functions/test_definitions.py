"""What a main program defines with the standard library: whether it works in the pod, in both modes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent.parent
IMPORTS = """
import json, pickle, sys
import importlib.metadata
import xml.dom
from pathlib import Path

sys.path.insert(0, {tests!r})
"""
CALLS = """

def outcome(mode):
    from aksgpu.errors import InvalidInput
    from jobs_functions.pod_process import pack, run_payload

    try:
        payload = pack(f, mode=mode)
    except InvalidInput as error:
        return "refused: " + str(error)
    run = run_payload(payload, Path({folder!r}) / mode)
    return pickle.loads(run.record.body) if run.record.header["kind"] == "value" else run.output


if __name__ == "__main__":
    print(json.dumps([outcome("pickle"), outcome("source")]))
"""


def outcomes(definitions: str, folder: Path) -> list[Any]:
    """Run the function ``f`` of a program in a pod, and return its values or the refusals, as pickle and as source."""
    places = {"tests": str(TESTS), "folder": str(folder / "pod")}
    file = folder / "program.py"
    file.write_text(IMPORTS.format(**places) + definitions + CALLS.format(**places))
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


CLASS_BODIES = {
    "submodule": (
        """
def f():
    class Inner:
        number = xml.dom.Node.ELEMENT_NODE
    return Inner.number
""",
        1,
    ),
    "submodule in a function": (
        """
def f():
    def inner():
        return [importlib.metadata.PackageNotFoundError.__name__ for _ in range(1)]
    return inner()
""",
        ["PackageNotFoundError"],
    ),
    "branch": (
        """
rate = 3
def f(flag=False):
    class Inner:
        if flag:
            rate = 1
        twice = rate * 2
    return Inner.twice
""",
        6,
    ),
    "exception": (
        """
rate = 3
def f():
    class Inner:
        try:
            int("x")
            rate = 1
        except ValueError:
            pass
        twice = rate * 2
    return Inner.twice
""",
        6,
    ),
    "loop": (
        """
rate = 3
def f(count=0):
    class Inner:
        for rate in range(count):
            pass
        last = rate
    return Inner.last
""",
        3,
    ),
    "deleted": (
        """
rate = 3
def f():
    class Inner:
        rate = 1
        del rate
        twice = rate * 2
    return Inner.twice
""",
        6,
    ),
}


@pytest.mark.parametrize("case", CLASS_BODIES)
def test_what_a_class_body_may_read_travels(case: str, tmp_path: Path) -> None:
    definitions, value = CLASS_BODIES[case]
    assert outcomes(definitions, tmp_path) == [value, value]
