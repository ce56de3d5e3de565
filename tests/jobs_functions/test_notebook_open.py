"""IPython replaces ``open`` in a notebook. A function of a cell gets the one of the pod's Python."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

HERE = Path(__file__).parent

CELL = """
import json, sys
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell

sys.path.insert(0, {tests!r})
shell = InteractiveShell.instance()
shell.run_cell('''
def read(path, reader):
    with open(path) as file:
        return file.read(), reader(path).read()
''').raise_error()
assert shell.user_ns["open"] is not open

from jobs_functions.pod_process import pack, run_payload

found = {{}}
for mode in ("pickle", "source"):
    for path in ({text!r}, "/nonexistent"):
        payload = pack(shell.user_ns["read"], path, shell.user_ns["open"], mode=mode)
        assert not [name for name in payload.by_reference + payload.by_value if "IPython" in name]
        record = run_payload(payload, Path({folder!r}) / (mode + Path(path).name)).record
        found[mode + " " + record.header["kind"]] = record.body.decode(errors="replace")
print(json.dumps(found))
"""


def test_a_function_of_a_cell_opens_files(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("hello there")
    program = textwrap.dedent(CELL).format(tests=str(HERE.parent), folder=str(tmp_path), text=str(text))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert sorted(found) == ["pickle exception", "pickle value", "source exception", "source value"]
    for mode in ("pickle", "source"):
        assert "hello there" in found[f"{mode} value"]
        assert "FileNotFoundError" in found[f"{mode} exception"]
        assert "IPython" not in found[f"{mode} exception"]
