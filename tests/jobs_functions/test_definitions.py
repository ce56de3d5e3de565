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
import abc, functools, json, pickle, sys, threading, typing, weakref
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


OBJECTS = {
    "cached_property": (
        """
class Model:
    "A model."

    width = 2

    @functools.cached_property
    def size(self):
        return self.width * 2

model = Model()

def f():
    return [model.size, Model().size, vars(model)]
""",
        [4, 4, {"size": 4}],
    ),
    "TypeVar": (
        """
T = typing.TypeVar("T", bound="Base")
S = typing.TypeVar("S", int, str)

class Base:
    def same(self: T) -> T:
        return self

class Box(typing.Generic[S]):
    def __init__(self, value: S) -> None:
        self.value = value

IntBox = Box[int]

def f():
    return [IntBox(3).value, Box[str]("a").value, type(Base().same()).__name__, len(S.__constraints__)]
""",
        [3, "a", "Base", 2],
    ),
    "ParamSpec": (
        """
P = typing.ParamSpec("P")

def plain(function: typing.Callable[P, int]) -> typing.Callable[P, int]:
    return function

@plain
def one():
    return 1

def f():
    return [one(), P.__name__]
""",
        [1, "P"],
    ),
    "NewType": (
        """
UserId = typing.NewType("UserId", int)

def f():
    return [UserId(3), UserId.__name__]
""",
        [3, "UserId"],
    ),
    "registered classes": (
        """
class Base(abc.ABC):
    @abc.abstractmethod
    def go(self): ...

@Base.register
class Virtual:
    pass

Base.register(complex)

def f():
    return [isinstance(Virtual(), Base), isinstance(1j, Base), isinstance(1, Base)]
""",
        [True, True, False],
    ),
    "singledispatchmethod": (
        """
class Text:
    @functools.singledispatchmethod
    def of(self, value):
        return "any"

    @of.register
    def _(self, value: int):
        return "int"

def f():
    return [Text().of(1), Text().of("a")]
""",
        ["int", "any"],
    ),
}


@pytest.mark.parametrize("case", OBJECTS)
def test_what_the_standard_library_makes_of_a_definition_travels(case: str, tmp_path: Path) -> None:
    definitions, value = OBJECTS[case]
    assert outcomes(definitions, tmp_path) == [value, value]


AREA = """
class Square:
    def __init__(self, side):
        self.side = side

@functools.singledispatch
def area(shape):
    return 0

@area.register
def _(shape: Square):
    return shape.side ** 2

@area.register(list)
def _(shapes):
    return sum(map(area, shapes))

area([Square(1)])  # its cache is not empty then
"""


def test_implementations_by_class_travel(tmp_path: Path) -> None:
    function = """
def f():
    area.register(str, len)
    return [area([Square(2), Square(3)]), area("four"), area(1.5)]
"""
    pickled, source = outcomes(AREA + function, tmp_path)
    assert pickled == [13, 4, 0]
    assert source.startswith("refused: function 'area' cannot be sent as source, because functools.singledispatch")
    assert "Define it in a module of your project" in source


def test_implementations_by_class_of_a_module_of_the_project_travel(tmp_path: Path) -> None:
    (tmp_path / "shapes.py").write_text("import functools\n" + AREA)
    program = """
sys.path.insert(0, {folder!r})
from jobs_functions import pod_process
from shapes import Square, area

def pack_here(function, mode):
    return pod_process.pack_call(function, (), {{}}, root=Path({folder!r}), mode=mode)

pod_process.pack = pack_here

def f():
    return area([Square(2), Square(3)])
"""
    assert outcomes(program.format(folder=str(tmp_path)), tmp_path) == [13, 13]


def test_an_attribute_of_a_class_that_cannot_be_pickled_is_named(tmp_path: Path) -> None:
    definitions = """
class Store(abc.ABC):
    instance = None

    @functools.cache
    def size(self):
        return len(vars(Store))

    lock = threading.Lock()

Store.instance = Store()

def f():
    with Store.lock:
        return 1
"""
    pickled, source = outcomes(definitions, tmp_path)
    assert "the attribute 'lock' of the class Store, which is sent with the function, cannot be pickled" in pickled
    assert "Set the attribute inside the function" in pickled
    assert source == 1


def test_a_dictionary_of_weak_references_is_named(tmp_path: Path) -> None:
    definitions = """
class Key:
    pass

key = Key()
kept = weakref.WeakKeyDictionary({key: 1})

def f():
    return kept[key]
"""
    pickled, source = outcomes(definitions, tmp_path)
    assert "the variable 'kept', which the function uses, cannot be pickled" in pickled
    assert "'kept' cannot be sent as source" in source
