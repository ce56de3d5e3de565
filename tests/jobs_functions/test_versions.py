"""A payload runs with every Python of this machine, or is refused before anything is unpickled."""

from __future__ import annotations

import ast
import functools
import math
import pickle
import socket
import sys
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from importlib import resources
from math import sqrt as root
from pathlib import Path
from typing import Any

import pytest

from aksgpu.errors import InvalidInput
from aksgpu.payload import records, session_packing
from aksgpu.payload.packing import RUNNER_FILES

from . import helper_module
from .helper_module import Scale, scaled
from .pod_process import interpreters, pack, run_payload

OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
WEIGHTS = {"a": 1.5, "b": [2, 3]}
POD_FILES = {**RUNNER_FILES, **session_packing._FILES, "lib/aksgpu_script.py": "script_runner.py"}
"""The files of this package that run in a pod, by their names there."""
VERSIONS = sorted(interpreters(), key=lambda version: int(version.split(".")[1]))
EACH_VERSION = [
    pytest.param(version, marks=[] if version in (OWN, VERSIONS[0]) else pytest.mark.slow) for version in VERSIONS
]
"""This Python and the oldest one in each run of the tests, and the others in a complete one."""


class Mode(Enum):
    FAST = 1
    SLOW = 2


@dataclass
class Settings:
    rate: float
    mode: Mode = Mode.FAST
    tags: list = field(default_factory=list)


DEFAULT = Settings(0.25, Mode.SLOW, ["x"])


def twice(function):
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return 2 * function(*args, **kwargs)

    return wrapper


@twice
def total(numbers: list) -> float:
    return sum(numbers)


@functools.lru_cache(maxsize=None)  # noqa: UP033  # older Pythons run it
def fibonacci(number: int) -> int:
    return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)


def compute(settings: Settings, number: int, factor: float = DEFAULT.rate) -> Any:
    squares = [each * each for each in range(number)]
    try:
        raise KeyError("inside")
    except KeyError as error:
        caught = str(error)
    return {
        "version": sys.version_info[:2],
        "squares": squares,
        "root": root(16) + math.floor(2.5),
        "total": total(WEIGHTS["b"]),
        "scaled": scaled(2) + helper_module.scaled(3),
        "fibonacci": fibonacci(20),
        "ordered": list(OrderedDict(a=1)),
        "settings": settings,
        "default": DEFAULT.mode.name,
        "factor": factor,
        "caught": caught,
        "scale": Scale(4).apply(2),
    }


def expected(version: str) -> dict[str, Any]:
    return {
        "version": tuple(map(int, version.split("."))),
        "squares": [0, 1, 4, 9],
        "root": 6.0,
        "total": 10,
        "scaled": 50,
        "fibonacci": 6765,
        "ordered": ["a"],
        "settings": Settings(0.5, Mode.FAST, ["y"]),
        "default": "SLOW",
        "factor": 0.25,
        "caught": "'inside'",
        "scale": 8,
    }


def test_this_python_is_among_the_interpreters() -> None:
    assert interpreters()[OWN] == sys.executable


@pytest.mark.parametrize("version", EACH_VERSION)
def test_source_gives_the_same_value_with_every_python(version: str, tmp_path: Path) -> None:
    payload = pack(compute, Settings(0.5, tags=["y"]), 4, mode="source")
    run = run_payload(payload, tmp_path, python=interpreters()[version])
    assert run.record is not None, run.output
    assert run.record.header["kind"] == "value", run.output
    assert pickle.loads(run.record.body) == expected(version)


@pytest.mark.parametrize("version", EACH_VERSION)
def test_a_pickle_runs_with_its_own_python_and_is_refused_by_any_other(version: str, tmp_path: Path) -> None:
    payload = pack(compute, Settings(0.5, tags=["y"]), 4, mode="pickle")
    run = run_payload(payload, tmp_path, python=interpreters()[version])
    assert run.record is not None, run.output
    if version == OWN:
        assert run.record.header["kind"] == "value", run.output
        assert pickle.loads(run.record.body) == expected(version)
    else:
        assert run.exit_code == records.PYTHON_DIFFERS
        assert run.record.header["kind"] == "python"
        assert "Nothing was unpickled" in run.output


@pytest.mark.parametrize("version", EACH_VERSION)
def test_by_default_another_python_uses_the_source(version: str, tmp_path: Path) -> None:
    run = run_payload(pack(compute, Settings(0.5, tags=["y"]), 4), tmp_path, python=interpreters()[version])
    assert run.record is not None, run.output
    assert run.record.header["kind"] == "value", run.output
    assert pickle.loads(run.record.body) == expected(version)
    assert ("runs from its source" in run.output) == (version != OWN)


@pytest.mark.parametrize("header", [{"python": "3.7"}, {"implementation": "PyPy"}])
def test_a_header_of_another_python_is_refused(header: dict[str, str], tmp_path: Path) -> None:
    run = run_payload(pack(compute, None, 1, mode="pickle"), tmp_path, header=header)
    assert run.exit_code == records.PYTHON_DIFFERS
    assert run.record is not None
    assert run.record.header["kind"] == "python"


def test_a_pickle_that_would_do_harm_is_not_loaded_by_another_python(tmp_path: Path) -> None:
    marker = tmp_path / "loaded"

    class Harm:
        def __reduce__(self) -> Any:
            return Path.touch, (marker,)

    payload = pack(print, Harm(), mode="pickle")
    run_payload(payload, tmp_path / "other", header={"python": "3.7"})
    assert not marker.exists()
    run_payload(payload, tmp_path / "same")
    assert marker.exists()


def test_lambdas_and_closures_travel_as_source(tmp_path: Path) -> None:
    offset = 5
    add = lambda number: number + offset + WEIGHTS["b"][0]  # noqa: E731  # it is what is tested

    def apply(number: int) -> int:
        return add(number) * 2

    run = run_payload(pack(apply, 1, mode="source"), tmp_path)
    assert run.record is not None
    assert pickle.loads(run.record.body) == 16


def test_the_traceback_of_source_shows_the_original_lines(tmp_path: Path) -> None:
    def fails() -> None:
        raise RuntimeError("from source")  # this very line

    run = run_payload(pack(fails, mode="source"), tmp_path)
    assert run.record is not None
    assert run.record.header["kind"] == "exception"
    assert "# this very line" in run.output
    assert f'{Path(__file__).name}", line' in run.output


def counter() -> Any:
    count = 0

    def increase() -> int:
        nonlocal count
        count += 1
        return count

    return increase


@pytest.mark.parametrize(
    ("function", "args", "named"),
    [
        (counter(), (), "increase"),
        (eval("lambda: 1"), (), "lambda"),
        (len, (socket.socket(),), "an argument"),
        (exec, (compile("1", "x", "eval"),), "code"),
    ],
)
def test_what_source_cannot_express_is_refused_by_name(function: Any, args: tuple[Any, ...], named: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be sent as source") as raised:
        pack(function, *args, mode="source")
    assert named in raised.value.message


@pytest.mark.parametrize("name", POD_FILES.values())
def test_the_files_of_the_pod_have_the_syntax_of_the_oldest_python(name: str) -> None:
    text = resources.files("aksgpu.payload").joinpath(name).read_text()
    tree = ast.parse(text, feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    own = {Path(file).stem for file in POD_FILES}
    assert {module.partition(".")[0] for module in imported} <= sys.stdlib_module_names | own | {"cloudpickle"}
