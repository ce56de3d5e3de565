"""Run a packed function with every pair of Python versions of this machine.

    python benchmarks/version_matrix.py

For each pair the table has what became of the pickle and of the source: the value, ``refused``, or another outcome,
and the seconds of the run. The interpreters are those on PATH, of uv and of pyenv. Those that pack need Python 3.11 and
cloudpickle, which uv provides; those that run need nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
OLDEST_CLIENT = 11
"""Oldest minor version of Python 3 that packs."""
EXPECTED = [6, "closed", 3.0]


def compute(number: int) -> list[object]:
    """Use a closure, a comprehension, ``finally`` and ``with``, whose bytecode differs between versions."""

    def inner(factor: int) -> int:
        try:
            return sum(each * factor for each in range(number + 1))
        finally:
            pass

    with Path(os.devnull).open() as file:
        state = "open" if not file.closed else "closed"
    state = "closed" if file.closed else state
    return [inner(1), state, number * 1.0]


def interpreters() -> dict[str, str]:
    """Return the interpreters of this machine by minor version."""
    found = {}
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for version in VERSIONS:
        candidates = [shutil.which(f"python{version}"), *map(str, pyenv.glob(f"versions/{version}.*/bin/python3"))]
        for candidate in filter(None, candidates):
            done = subprocess.run(
                [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
            )
            if done.stdout.strip() == version:
                found.setdefault(version, candidate)
    return found


def pack(folder: Path) -> None:
    """Write the payloads of both modes, and their keys."""
    sys.path.insert(0, str(ROOT))
    from aksgpu.payload.packing import pack_call

    for mode in ("pickle", "source"):
        payload = pack_call(compute, (3,), {}, root=ROOT / "benchmarks", mode=mode)
        target = folder / mode
        target.mkdir(parents=True)
        for data in payload.secrets():
            for name, content in data.items():
                (target / name).write_bytes(content)


def outcome(python: str, payload: Path) -> str:
    """Run a payload, and return what became of it."""
    from aksgpu.payload import records

    with tempfile.TemporaryDirectory() as folder:
        message = Path(folder) / "message"
        message.touch()
        env = {"AKSGPU_PAYLOAD": str(payload), "AKSGPU_RUN": f"{folder}/run", "AKSGPU_MESSAGE": str(message)}
        began = time.monotonic()
        done = subprocess.run(
            [python, str(payload / "runner.py"), "run"],
            env={**env, "PATH": os.defpath},
            capture_output=True,
            timeout=60,
        )
        seconds = time.monotonic() - began
        text = records.record_text(message.read_text())
        if not text:
            return f"exit code {done.returncode}"
        record = records.decode(text, (payload / "key").read_bytes())
    kind = record.header["kind"]
    if kind == "value":
        kind = "value" if pickle.loads(record.body) == EXPECTED else "WRONG VALUE"
    return f"{'refused' if kind == 'python' else kind} {seconds:.2f} s"


def client_command(python: str) -> list[str]:
    """Return a command that runs this file with an interpreter and cloudpickle."""
    uv = shutil.which("uv")
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if uv is None:
        return [sys.executable] if own in python else []
    return [uv, "run", "--quiet", "--no-project", "--python", python, "--with", "cloudpickle", "python"]


def main() -> None:
    """Run all pairs and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, help="write the payloads of this Python to a directory")
    arguments = parser.parse_args()
    if arguments.pack:
        pack(arguments.pack)
        return
    sys.path.insert(0, str(ROOT))
    found = interpreters()
    table = {}
    with tempfile.TemporaryDirectory() as folder:
        for version, python in found.items():
            command = client_command(python)
            if int(version.split(".")[1]) < OLDEST_CLIENT or not command:
                continue
            target = Path(folder) / version
            subprocess.run([*command, str(Path(__file__).resolve()), "--pack", str(target)], check=True)
            for other, runs_with in found.items():
                cells = {mode: outcome(runs_with, target / mode) for mode in ("pickle", "source")}
                table[f"{version} -> {other}"] = cells
                print(f"{version} -> {other:5} pickle {cells['pickle']:18} source {cells['source']}")
    print(json.dumps({"interpreters": found, "pairs": len(table)}))


if __name__ == "__main__":
    main()
