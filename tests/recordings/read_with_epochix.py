"""Read the recorded logs with epochix, another reader of training output, and store what it finds.

/tmp/recordings/bin/python tests/recordings/read_with_epochix.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

LOGS = Path(__file__).parent.parent / "data" / "recorded-logs"


def main() -> None:
    """Write what epochix finds to a file beside the logs."""
    found = {path.stem: read(path) for path in sorted(LOGS.glob("*.log"))}
    content = {"version": version("epochix"), "found": found}
    (LOGS / "epochix" / "found.json").write_text(json.dumps(content, indent=1) + "\n")


def read(log: Path) -> list[list[object]]:
    """Return the names and values that epochix finds in a log."""
    with tempfile.TemporaryDirectory() as home:
        output = Path(home) / "run.json"
        command = [Path(sys.executable).with_name("epochix"), "run", log, "--no-llm", "--headless"]
        command += ["--export", "json", "--output", output]
        environment = dict(os.environ, HOME=home)
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        if not output.exists():
            return []
        events = json.loads(output.read_text())["events"]
    return [[event["raw_key"], event["canonical_key"], event["value"]] for event in events]


if __name__ == "__main__":
    main()
