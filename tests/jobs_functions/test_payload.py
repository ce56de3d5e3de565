"""What is sent by value and what by reference, and what explain() says about it."""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import logging
import math
import multiprocessing
import numbers
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from abc import ABC
from collections.abc import Iterator
from logging import info
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar, NamedTuple

import pytest

from aksgpu import errors, jobs
from aksgpu.payload.captured import imported_names, reachable_functions
from aksgpu.payload.codes import class_body_names
from aksgpu.payload.modules import find_root, project_modules
from aksgpu.payload.packing import pack_call

from . import helper_module
from .pod_process import pack, run_payload

HERE = Path(__file__).parent


def uses_helper(number: int) -> float:
    return math.sqrt(helper_module.scaled(number))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with a package whose modules import each other, and a virtual environment inside it."""
    root = tmp_path / "project"
    package = root / "own_package"
    installed = root / ".venv" / "lib" / "python3" / "site-packages"
    package.mkdir(parents=True)
    installed.mkdir(parents=True)
    (root / "pyproject.toml").touch()
    (package / "__init__.py").write_text("")
    (package / "first.py").write_text(
        "import own_package.second\nRATE = 2\n\ndef double(x):\n    return x * RATE + own_package.second.one()\n"
    )
    (package / "second.py").write_text(
        "import own_package.first\n\ndef one():\n    return own_package.first.RATE - 1\n"
    )
    (installed / "installed_module.py").write_text("def three():\n    return 3\n")
    monkeypatch.syspath_prepend(root)
    monkeypatch.syspath_prepend(installed)
    yield root
    for name in [name for name in sys.modules if name.startswith(("own_package", "installed_module"))]:
        del sys.modules[name]


def test_the_root_is_the_nearest_parent_with_a_mark(project: Path) -> None:
    assert find_root(project / "own_package") == project
    (project / "own_package" / ".git").mkdir()
    assert find_root(project / "own_package") == project / "own_package"


def test_modules_of_the_project_travel_and_those_of_its_environment_do_not(project: Path) -> None:
    importlib.import_module("own_package.first")
    importlib.import_module("installed_module")
    names = set(project_modules(project))
    assert {"own_package", "own_package.first", "own_package.second"} <= names
    assert "installed_module" not in names
    assert not any(name.partition(".")[0] in ("aksgpu", "cloudpickle", "json", "pytest") for name in names)


@pytest.mark.parametrize("mode", ["pickle", "source"])
def test_modules_that_import_each_other_arrive(project: Path, tmp_path: Path, mode: str) -> None:
    first = importlib.import_module("own_package.first")
    payload = pack_call(first.double, (5,), {}, root=project, mode=mode)
    run = run_payload(payload, tmp_path / "pod")
    assert run.record is not None, run.output
    assert run.record.header["kind"] == "value", run.output
    assert pickle.loads(run.record.body) == 11


def test_a_changed_variable_of_a_module_travels(project: Path, tmp_path: Path) -> None:
    first = importlib.import_module("own_package.first")
    first.RATE = 10
    run = run_payload(pack_call(first.double, (5,), {}, root=project), tmp_path / "pod")
    assert run.record is not None, run.output
    assert pickle.loads(run.record.body) == 59


def test_an_edited_function_runs_in_its_new_form(project: Path, tmp_path: Path) -> None:
    first = importlib.import_module("own_package.first")
    path = project / "own_package" / "first.py"
    path.write_text(path.read_text().replace("x * RATE", "x * RATE * 1000"))
    importlib.reload(first)
    run = run_payload(pack_call(first.double, (5,), {}, root=project), tmp_path / "pod")
    assert run.record is not None, run.output
    assert pickle.loads(run.record.body) == 10_001


def test_a_module_that_the_pod_does_not_have_is_named(project: Path, tmp_path: Path) -> None:
    module = importlib.import_module("installed_module")
    run = run_payload(pack_call(module.three, (), {}, root=project), tmp_path / "pod")
    assert run.record is not None
    assert run.record.header["kind"] == "unloadable"
    assert "No module named 'installed_module'" in run.record.header["text"]


def test_editable_installations_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    information = tmp_path / "site" / "editable_one-1.0.dist-info"
    elsewhere.mkdir()
    information.mkdir(parents=True)
    (elsewhere / "editable_one.py").write_text("def one():\n    return 1\n")
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: editable-one\nVersion: 1.0\n")
    (information / "direct_url.json").write_text(f'{{"url": "file://{elsewhere}", "dir_info": {{"editable": true}}}}')
    monkeypatch.syspath_prepend(elsewhere)
    monkeypatch.syspath_prepend(tmp_path / "site")
    module = importlib.import_module("editable_one")
    run = run_payload(pack_call(module.one, (), {}, root=HERE), tmp_path / "pod")
    assert run.record is not None, run.output
    assert pickle.loads(run.record.body) == 1


class Adder:
    """A callable object, with a method."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def __call__(self, number: int) -> int:
        return number + self.offset

    def add(self, number: int) -> int:
        return self(number)


def add(number: int, offset: int) -> int:
    return number + offset


CALLABLES = [Adder(2), Adder(2).add, functools.partial(add, offset=2), lambda number: number + 2]


@pytest.mark.parametrize("mode", ["pickle", "source"])
@pytest.mark.parametrize("function", CALLABLES, ids=["object", "method", "partial", "lambda"])
def test_each_kind_of_callable_travels(function: Any, mode: str, tmp_path: Path) -> None:
    run = run_payload(pack(function, 40, mode=mode), tmp_path)
    assert run.record is not None, run.output
    assert run.record.header["kind"] == "value", run.output
    assert pickle.loads(run.record.body) == 42


LIMIT = 40
FACTOR = 3
LIMIT_OF_SIZE = 5


def defines_classes() -> int:
    class Outer:
        limit = LIMIT

        def method(self) -> int:
            class Inner:
                scaled: ClassVar = helper_module.scaled(self.limit)

            return Inner.scaled

    return Outer().method()


@pytest.mark.parametrize("mode", ["pickle", "source"])
def test_variables_that_only_class_bodies_read_travel(mode: str, tmp_path: Path) -> None:
    run = run_payload(pack(defines_classes, mode=mode), tmp_path)
    assert run.record is not None, run.output
    assert run.record.header["kind"] == "value", run.output
    assert pickle.loads(run.record.body) == 400


def test_variables_that_a_class_body_assigns_first_stay_here() -> None:
    def defines_class() -> int:
        class Inner:
            LIMIT = 1
            twice: int = LIMIT * 2
            rate = FACTOR

        return Inner.twice

    assert class_body_names(defines_class.__code__) == ["FACTOR"]


def test_variables_that_each_way_through_a_class_body_assigns_first_stay_here() -> None:
    def defines_class(numbers: list[int]) -> int:
        class Inner:
            LIMIT = 1
            found: ClassVar = []
            for FACTOR in numbers:
                if FACTOR > LIMIT:
                    found.append(FACTOR * LIMIT)
            try:
                size = len(found)
            except TypeError:
                size = LIMIT_OF_SIZE
            while size > LIMIT:
                size -= 1
            with threading.Lock() as HERE:
                text = str(HERE) + str(LIMIT)
            rate = LIMIT if numbers else size
            either = numbers or size or rate
            last = rate * LIMIT * size

        return Inner.last

    names = set(class_body_names(defines_class.__code__))
    assert names - {"str", "len", "threading", "ClassVar", "TypeError"} == {"LIMIT_OF_SIZE"}


class Slots:
    """A class whose objects have slots instead of a dict."""

    __slots__ = ("__private", "__weakref__", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.__private = -number

    def sum(self) -> int:
        return self.number + self.__private


class Pair(NamedTuple):
    """A class whose slots its base sets."""

    first: int
    second: Slots


def with_slots(before: Slots) -> tuple[Pair, bool]:
    return Pair(1, Slots(before.number + 1)), hasattr(before, "__dict__")


def test_objects_with_slots_come_back(tmp_path: Path) -> None:
    run = run_payload(pack(with_slots, Slots(1), mode="pickle"), tmp_path)
    assert run.record is not None, run.output
    assert run.record.header["kind"] == "value", run.output
    pair, has_dict = pickle.loads(run.record.body)
    after = pair.second
    assert (type(pair), type(after), after.number, after.sum(), has_dict) == (Pair, Slots, 2, 0, False)


def in_new_processes(count: int) -> list[int]:
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        return pool.map(math.factorial, range(count))


def test_a_function_may_start_processes_anew(tmp_path: Path) -> None:
    run = run_payload(pack(in_new_processes, 3), tmp_path)
    assert run.record is not None, run.output
    assert pickle.loads(run.record.body) == [1, 1, 2]


def test_a_pod_with_safe_paths_finds_the_runners_files(tmp_path: Path) -> None:
    run = run_payload(pack(math.factorial, 3), tmp_path, env={"PYTHONSAFEPATH": "1"})
    assert run.exit_code == 0, run.output


FINGERPRINT = """
import sys
sys.path.insert(0, {tests!r})
from jobs_functions import test_payload
from jobs_functions.pod_process import pack
word = "".join(["l", "r"])
values = [word, word] if {same} else ["".join(["l", "r"]), "".join(["l", "r"])]
print(pack(test_payload.uses_set, values, names={{"b": 1, "a": 2}}).fingerprint)
"""


def uses_set(values: list[str], names: dict[str, int]) -> bool:
    return values[0] in {"lr", "momentum", "decay"} and helper_module.scaled(names["a"]) > 0


def test_the_fingerprint_is_the_same_in_each_kernel() -> None:
    found = set()
    for seed, same in (("1", True), ("2", False), ("3", True)):
        program = FINGERPRINT.format(tests=str(HERE.parent), same=same)
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=150, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1


def calls_library() -> str:
    logging.info("in a function of a library that has a lock")
    info("the same by its name")
    return mkdtemp()


def test_functions_of_libraries_are_not_part_of_a_call() -> None:
    modules = project_modules(HERE)
    assert reachable_functions(calls_library, modules) == [calls_library]
    assert imported_names(calls_library, modules) == []
    assert pack(calls_library).fingerprint == pack(calls_library).fingerprint


class Rates:
    """A class with data, a property and a method that a function uses."""

    first = 1

    @property
    def second(self) -> int:
        return 2

    def sum(self) -> int:
        return self.first + self.second


def uses_class() -> int:
    return Rates().sum()


def with_default(number: int = 1, *, factor: int = 1) -> int:
    return number * factor


class Scaled:
    """A decorator of a function that has a value of its own."""

    def __init__(self, function: Any) -> None:
        functools.update_wrapper(self, function)
        self.factor = 1

    def __call__(self) -> int:
        return self.factor * int(self.__wrapped__())  # type: ignore[attr-defined]  # what update_wrapper sets


@Scaled
def scaled() -> int:
    return 1


def uses_scaled() -> int:
    return scaled()


@functools.singledispatch
def kind_of(_: object) -> str:
    import colorsys

    return colorsys.__name__


@kind_of.register
def _(_: numbers.Number) -> str:
    import fractions

    return fractions.__name__


class Cached:
    """A class with a value that is computed once."""

    @functools.cached_property
    def value(self) -> int:
        return 1


@functools.cached_property
def cached_two(_: object) -> int:
    return 2


def uses_kind() -> str:
    return kind_of(Cached().value)


def test_implementations_by_class_are_part_of_a_call() -> None:
    assert set(imported_names(uses_kind, project_modules(HERE))) == {"colorsys", "fractions"}
    before = pack(uses_kind).fingerprint
    kind_of(1)  # its cache changes, and so does the number of registrations in this process
    type("New", (ABC,), {}).register(int)
    kind_of(2)
    assert pack(uses_kind).fingerprint == before


def fingerprints(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str, str]]:
    """Yield a change's name, and the fingerprints of a call before and after it."""
    for kind, one, other in (
        ("partial", functools.partial(add, offset=1), functools.partial(add, offset=2)),
        ("self", Adder(1).add, Adder(2).add),
    ):
        yield kind, pack(one, 1).fingerprint, pack(other, 1).fingerprint
    for view, other_view in ((memoryview(b"1"), memoryview(b"2")), ({1: 2}.keys(), {2: 2}.keys())):
        yield type(view).__name__, pack(len, view).fingerprint, pack(len, other_view).fingerprint
    before = pack(uses_scaled).fingerprint
    with monkeypatch.context() as patch:
        patch.setattr(scaled, "factor", 2)
        yield "scaled", before, pack(uses_scaled).fingerprint
    for field, value in (("__defaults__", (2,)), ("__kwdefaults__", {"factor": 2})):
        before = pack(with_default).fingerprint
        with monkeypatch.context() as patch:
            patch.setattr(with_default, field, value)
            yield field, before, pack(with_default).fingerprint
    for owner, field, value in ((kind_of, "registry", {**kind_of.registry, int: str}), (Cached, "value", cached_two)):
        before = pack(uses_kind).fingerprint
        with monkeypatch.context() as patch:
            patch.setattr(owner, field, value)
            yield field, before, pack(uses_kind).fingerprint
    for name, member in (("first", 2), ("second", property(lambda self: 3)), ("sum", lambda self: 4)):
        before = pack(uses_class).fingerprint
        with monkeypatch.context() as patch:
            patch.setattr(Rates, name, member)
            yield name, before, pack(uses_class).fingerprint


def test_the_fingerprint_differs_if_the_call_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    same = [name for name, before, after in fingerprints(monkeypatch) if before == after]
    assert same == []


LOCK = threading.Lock()


def locks() -> None:
    with LOCK:
        pass


def test_a_variable_of_a_module_that_cannot_be_pickled_is_named(project: Path) -> None:
    first = importlib.import_module("own_package.first")
    first.LOCK = threading.Lock()

    def uses_module(x: int) -> Any:
        return first.double(x)

    with pytest.raises(errors.InvalidInput, match=r"variable 'LOCK' of the module own_package\.first") as raised:
        pack_call(uses_module, (5,), {}, root=project)
    assert "from own_package.first import" in raised.value.hint


def test_a_variable_of_a_helper_that_cannot_be_pickled_is_named() -> None:
    def calls_helper() -> None:
        locks()

    with pytest.raises(errors.InvalidInput, match="the variable 'LOCK', which the function locks uses, cannot"):
        pack(calls_helper)


# Explain


def test_explain_names_what_travels(cpu: jobs.Executor) -> None:
    found = cpu.explain(uses_helper, 2)
    assert f"{__name__}.uses_helper" in found.by_value
    assert helper_module.__name__ in found.by_value
    assert "math" in found.by_reference
    assert found.mode == "pickle"
    assert found.secrets == 1
    assert found.largest is None
    assert found.source_problem == ""
    assert found.image == cpu.options.image
    text = str(found)
    assert "by value" in text
    assert "uses_helper" in text
    table = found.table()
    assert dict(zip(table.name, table.how, strict=True))["math"] == "by reference"


def test_explain_sends_nothing_and_names_what_is_large(cpu: jobs.Executor) -> None:
    found = cpu.explain(len, bytes(range(256)) * 4000 + pickle.dumps(list(range(200_000))))
    assert found.largest is not None
    assert found.largest[0] == "argument 1"
    assert "largest part" in str(found)


def test_explain_refuses_what_cannot_travel(cpu: jobs.Executor) -> None:
    with pytest.raises(errors.InvalidInput, match="argument 1"):
        cpu.explain(print, sys.stdout.buffer)


# The main module


def parses_arguments() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    return int(parser.parse_args().epochs)


def test_a_function_that_parses_arguments_gets_none(tmp_path: Path) -> None:
    run = run_payload(pack(parses_arguments), tmp_path)
    assert run.record is not None, run.output
    assert run.record.header["kind"] == "value", run.output
    assert pickle.loads(run.record.body) == 3


MAIN_PROGRAM = """
import concurrent.futures
import json
import multiprocessing
import pickle
import sys
from pathlib import Path

sys.path.insert(0, {tests!r})


class Point:
    def __init__(self, x):
        self.x = x


def double(point):
    return Point(point.x * 2)


def in_processes(method, count):
    context = multiprocessing.get_context(method)
    points = [pickle.loads(pickle.dumps(Point(x))) for x in range(count)]
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return [point.x for point in pool.map(double, points)]


if __name__ == "__main__":
    from jobs_functions.pod_process import pack, run_payload

    run = run_payload(pack(in_processes, {method!r}, 3, mode={mode!r}), Path({folder!r}))
    body = run.record.body
    print(json.dumps(pickle.loads(body) if run.record.header["kind"] == "value" else json.loads(body)["traceback"]))
"""


@pytest.mark.parametrize("mode", ["pickle", "source"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pickle_finds_what_the_main_program_defines(mode: str, method: str, tmp_path: Path) -> None:
    file = tmp_path / "main_program.py"
    file.write_text(MAIN_PROGRAM.format(tests=str(HERE.parent), method=method, mode=mode, folder=str(tmp_path / "pod")))
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0, 2, 4]


# Notebook cells


CELLS = '''
import json, pickle, sys
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell

sys.path.insert(0, {tests!r})
shell = InteractiveShell.instance()

def run(cell):
    done = shell.run_cell(cell, store_history=True)
    done.raise_error()

run("""
import math
from dataclasses import dataclass
LIMIT = 3

@dataclass
class Point:
    x: float

def helper(point):
    return Point(math.sqrt(point.x) + LIMIT)
""")
run("""
def train(point):
    moved = helper(point)
    if moved.x > 100:
        raise ValueError("too far")  # a line of the cell
    return moved.x
""")
from jobs_functions.pod_process import pack, run_payload

def outcome(*args, mode, name):
    run_ = run_payload(pack(shell.user_ns["train"], *args, mode=mode), Path({folder!r}) / name)
    kind = run_.record.header["kind"]
    body = pickle.loads(run_.record.body) if kind == "value" else json.loads(run_.record.body)["traceback"]
    return [kind, body]

Point = shell.user_ns["Point"]
found = {{mode: outcome(Point(4), mode=mode, name=mode) for mode in ("pickle", "source")}}
found["fails"] = [outcome(Point(10**6), mode=mode, name="fails-" + mode) for mode in ("pickle", "source")]
run("""
def helper(point):
    return Point(point.x * 10)
""")
found["edited"] = [outcome(Point(4), mode=mode, name="edited-" + mode)[1] for mode in ("pickle", "source")]
print(json.dumps(found))
'''


def test_functions_of_cells_travel_and_edited_cells_count(tmp_path: Path) -> None:

    program = textwrap.dedent(CELLS).format(tests=str(HERE.parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["pickle"] == ["value", 5.0]
    assert found["source"] == ["value", 5.0]
    for kind, text in found["fails"]:
        assert kind == "exception"
        assert 'raise ValueError("too far")  # a line of the cell' in text
    assert found["edited"] == [40, 40]
