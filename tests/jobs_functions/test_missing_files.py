"""A file of this machine that the pod does not have: the exception says how to send it."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from aksgpu import jobs
from aksgpu.jobs.missing_files import missing_file_note

TIMEOUT = 120


def read(name: str) -> str:
    return Path(name).read_text()


def test_the_note_names_the_option(cpu: jobs.Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as missing:
        cpu.submit(read, "settings.json").result(TIMEOUT)
    note = (
        "[aksgpu] settings.json exists on this machine, but not in the pod. include=['settings.json'] sends it to the "
        "pod."
    )
    assert missing.value.__notes__ == [note]
    assert note in "".join(traceback.format_exception(missing.value))
    with pytest.raises(FileNotFoundError) as absent:
        cpu.submit(read, "nowhere.json").result(TIMEOUT)
    assert not hasattr(absent.value, "__notes__")


def test_why_names_the_options_of_the_executor(cpu: jobs.Executor) -> None:
    """A changed manifest could not be applied: its Secrets are deleted with the Job."""
    job = cpu.submit(read, "nowhere.json")
    assert isinstance(job.exception(TIMEOUT), FileNotFoundError)
    found = job.why()
    assert found.cause == "a file or directory is missing"
    assert "Executor(include=)" in found.fix
    assert found.fix.endswith("then submit it again.")
    assert not found.python
    assert not found.shell


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("FileNotFoundError: [Errno 2] No such file or directory: 'a.txt'", "include=['a.txt'] sends it to the pod"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'data'", "include=['data'] sends it to the pod"),
        ("FileNotFoundError: /x/a.npy not found: 'a.txt'", "include=['a.txt'] sends it to the pod"),
        ("FileNotFoundError: [Errno 2] No such file or directory: '../up/a.txt'", "Put it on a claim"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'b.txt'", ""),
        ("FileNotFoundError: a.txt not found.", "include=['a.txt'] sends it to the pod"),
        ("FileNotFoundError: b.txt not found.", ""),
        ("FileNotFoundError:  not found.", ""),
        ("FileNotFoundError: a.txt", ""),
        ("FileNotFoundError: [Errno 2] No such file: '\\x00'", ""),
        ("ValueError: no such thing: 'a.txt'", ""),
        ("", ""),
    ],
)
def test_which_texts_get_a_note(text: str, note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "up"
    (folder / "data").mkdir(parents=True)
    (folder / "a.txt").write_text("")
    monkeypatch.chdir(folder)
    found = missing_file_note(text)
    assert note in found
    assert bool(found) == bool(note)


def test_an_absolute_path_of_this_machine(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("")
    assert "Put it on a claim" in missing_file_note(f"FileNotFoundError: [Errno 2] No such file or directory: '{file}'")
