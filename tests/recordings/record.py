"""Record what real frameworks print, and what they report to their own callbacks.

    python -m venv /tmp/recordings
    /tmp/recordings/bin/pip install -r tests/recordings/requirements.txt
    /tmp/recordings/bin/python tests/recordings/record.py [NAME ...]

Each script in this directory trains a tiny model on random numbers. Its standard output and standard error are written
to one pipe, as in a container, and the log is the content of the pipe. A script runs unbuffered and without a terminal.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
LOGS = HERE.parent / "data" / "recorded-logs"
NOT_SCRIPTS = ("record", "truth", "keras_common", "lightning_common")


def main(names: list[str]) -> None:
    """Record the named scripts, or all."""
    scripts = [path for path in sorted(HERE.glob("*.py")) if path.stem not in NOT_SCRIPTS]
    for script in scripts:
        if names and script.stem not in names:
            continue
        truth = LOGS / f"{script.stem}.json"
        with tempfile.TemporaryDirectory() as directory:
            done = subprocess.run(
                [sys.executable, script, truth],
                cwd=directory,
                env=environment(directory),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
            log = done.stdout.replace(directory.encode(), b"/work")
        (LOGS / f"{script.stem}.log").write_bytes(without_paths(log))
        print(f"{script.stem}: exit code {done.returncode}, {len(log)} bytes")  # noqa: T201 - a command's output


def environment(directory: str) -> dict[str, str]:
    """Return the variables that a container would have."""
    kept = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
    return kept | {
        "HOME": directory,
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": str(HERE),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "YOLO_OFFLINE": "true",
        "OMP_NUM_THREADS": "1",
    }


def without_paths(log: bytes) -> bytes:
    """Replace the recording machine's paths."""
    prefix = str(Path(sys.prefix)).encode()
    return log.replace(prefix, b"/venv").replace(str(HERE.parent.parent).encode(), b"/project")


if __name__ == "__main__":
    main(sys.argv[1:])
