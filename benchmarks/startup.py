"""Measure how long a user waits for the import, for connect() and for the tutorial, each compared with a floor.

    python benchmarks/startup.py            # import and connect
    python benchmarks/startup.py --tutorial # also the whole `aksgpu tutorial` (about a minute)

Each line has the seconds, the ratio, and the floor.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

IMPORTS = "import kubernetes.client, azure.mgmt.containerservice, azure.identity"
CONNECT = "import aksgpu; aksgpu.connect()"


def seconds(arguments: list[str], env: dict[str, str], repeat: int = 1) -> float:
    """Return the seconds of a command, best of ``repeat`` runs."""
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        subprocess.run(arguments, env=env, check=True, stdout=subprocess.DEVNULL)
        best = min(best, time.perf_counter() - start)
    return best


def row(what: str, took: float, against: str, floor: float) -> None:
    """Print one line of the table."""
    print(f"{what:<42}{took:>9.3f} s   {took / floor:>6.2f} x {against} ({floor:.3f} s)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tutorial", action="store_true", help="also time the whole `aksgpu tutorial`")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "AKSGPU_HOME": home, "AKSGPU_PROGRESS": "0"}
        python = [sys.executable, "-c"]
        bare = seconds([*python, "pass"], env, 20)
        row("import aksgpu", seconds([*python, "import aksgpu"], env, 20), "bare Python", bare)
        sdks = seconds([*python, IMPORTS], env, 3)
        row("connect(), laptop not running", seconds([*python, CONNECT], env), "importing the two SDKs", sdks)
        row("connect(), laptop running", seconds([*python, CONNECT], env, 3), "importing the two SDKs", sdks)
        aksgpu = [sys.executable, "-m", "aksgpu.cli"]
        try:
            if wanted.tutorial:
                took = seconds([*aksgpu, "tutorial", "--output", f"{home}/out"], env)
                job = [*aksgpu.copy()[:1], "-m", "aksgpu.local.images.mnist", "--max_steps", "500"]
                row("aksgpu tutorial", took, "its training alone", seconds(job, env))
        finally:
            subprocess.run([*aksgpu, "local", "stop"], env=env, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
