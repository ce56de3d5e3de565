"""The helper program and its client do not trust each other's names, and say what the file system refuses."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aksgpu import errors
from aksgpu.kube.exec_stream import STDOUT
from aksgpu.progress import Progress
from aksgpu.storage import helper_program
from aksgpu.storage.downloads import _Download
from aksgpu.storage.helper_channel import Channel
from aksgpu.storage.helper_program import Header, pack, stays_inside
from aksgpu.storage.local_files import scan
from aksgpu.storage.transfer_progress import Meter
from aksgpu.storage.uploads import _Upload

HELPER = [sys.executable, helper_program.__file__, "serve"]


class ProcessStreams:
    """The streams of a process of this machine, as those of a program in a pod."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise errors.Unreachable("the process has ended") from None

    def read(self, timeout: float | None = None) -> tuple[int, bytes] | None:
        assert self._process.stdout is not None
        data = os.read(self._process.stdout.fileno(), 65536)
        return (STDOUT, data) if data else None

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()


@contextmanager
def helper(claim: Path, run: Path, prefix: list[str] | None = None) -> Iterator[Channel]:
    """Run the helper program for a directory of this machine."""
    run.mkdir(exist_ok=True)
    environment = {**os.environ, "AKSGPU_CLAIM": str(claim), "AKSGPU_RUN": str(run)}
    command = [*(prefix or []), *HELPER]
    with (
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        Channel(ProcessStreams(process), "data") as channel,
    ):
        yield channel


class ScriptedStreams:
    """A helper that sends the given frames."""

    def __init__(self, *frames: tuple[Header, bytes]) -> None:
        hello = pack({"t": "hello", "free": 10**12})
        self._pieces = [hello, *(pack(header, body) for header, body in frames)]

    def write(self, data: bytes) -> None:
        pass

    def read(self, timeout: float | None = None) -> tuple[int, bytes] | None:
        return (STDOUT, self._pieces.pop(0)) if self._pieces else None

    def close(self) -> None:
        pass


def download(target: Path, entries: list[list[Any]]) -> _Download:
    """Download from a helper that lists these entries, and sends the content ``evil`` for each file."""
    frames: list[tuple[Header, bytes]] = [
        ({"t": "base", "directory": True, "entry": ["", "d", 0o755, 0, 0, ""]}, b""),
        ({"t": "entries", "entries": entries}, b""),
        ({"t": "listed"}, b""),
    ]
    digest = "4a4e5d6b"
    for index, entry in enumerate(entries):
        if entry[1] == "f":
            frames += [({"t": "open", "i": index}, b""), ({"t": "data"}, b"evil")]
            frames += [({"t": "close", "i": index, "size": 4, "sha256": digest}, b"")]
    frames.append(({"t": "end"}, b""))
    job = _Download("", target, Meter(Progress("test", show=False)))
    job.run(Channel(ScriptedStreams(*frames), "data"))
    return job


HOSTILE = ("../evil", "/tmp/evil", "a/../../evil", "a//b", "", ".", "..", "a/\0", "./a")


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["f", "d", "l"])
def test_a_download_writes_nothing_outside_its_target(tmp_path: Path, name: str, kind: str) -> None:
    target = tmp_path / "target"
    with pytest.raises(errors.StorageError, match="leads out of the target directory"):
        download(target, [["a", "d", 0o755, 0, 0, ""], [name, kind, 0o644, 0, 4, "x"]])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "target"]


@pytest.mark.parametrize("link", ["/etc", "..", "../outside", "x/../../outside", "a/../../../outside", "a/.."])
def test_a_link_out_of_the_target_is_left_out(tmp_path: Path, link: str) -> None:
    job = download(tmp_path / "target", [["link", "l", 0o777, 0, 0, link]])
    assert job.left_out == ["link"]
    assert list((tmp_path / "target").iterdir()) == []


def test_a_download_does_not_write_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / "sub").symlink_to(outside)
    with pytest.raises(errors.StorageError, match="leads out of the target directory"):
        download(target, [["sub/evil", "f", 0o644, 0, 4, ""]])
    entries = [["dir", "d", 0o755, 0, 0, ""], ["way", "l", 0o777, 0, 0, "dir"], ["way/evil", "f", 0o644, 0, 4, ""]]
    with pytest.raises(errors.StorageError, match="leads out of the target directory"):
        download(target, entries)
    assert list(outside.iterdir()) == []


def test_a_download_that_does_not_fit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    with pytest.raises(errors.StorageError, match=r"target has too little space left: .* are needed, and .* are free"):
        download(tmp_path / "target", [["large", "f", 0o644, 0, 10**18, ""]])
    assert list((tmp_path / "target").iterdir()) == []


def test_a_target_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(errors.StorageError, match=r"file/target cannot be written: Not a directory") as raised:
        download(tmp_path / "file" / "target", [["a", "f", 0o644, 0, 4, ""]])
    assert "choose another `to`" in raised.value.hint


def test_devices_are_left_out(tmp_path: Path) -> None:
    assert download(tmp_path / "target", [["null", "s", 0o666, 0, 0, ""]]).left_out == ["null"]
    assert list((tmp_path / "target").iterdir()) == []


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["f", "d", "l"])
def test_an_upload_writes_nothing_outside_the_claim(tmp_path: Path, name: str, kind: str) -> None:
    claim = tmp_path / "claim"
    claim.mkdir()
    with helper(claim, tmp_path / "run") as channel, pytest.raises(errors.StorageError, match="claim data: "):
        channel.send({"t": "put", "path": "", "file": False})
        channel.send({"t": "entries", "entries": [[name, kind, 0o644, 0, 4, "x"]]})
        channel.receive()
        channel.receive()
    assert list(claim.iterdir()) == []


def test_the_claims_links_lead_no_request_out_of_it(tmp_path: Path) -> None:
    claim = tmp_path / "claim"
    claim.mkdir()
    (tmp_path / "secret").write_text("x")
    (claim / "way").symlink_to(tmp_path)
    for request in (
        {"t": "get", "path": "way/secret"},
        {"t": "list", "path": "way", "deep": False},
        {"t": "put", "path": "way/new", "file": True},
        {"t": "fetch", "url": "http://127.0.0.1:9/x", "path": "way/new", "sha256": ""},
    ):
        with (
            helper(claim, tmp_path / "run") as channel,
            pytest.raises(errors.StorageError, match="leads out of the claim, through a link"),
        ):
            channel.send(request)
            channel.receive()


@pytest.mark.parametrize(
    ("link", "path", "inside"),
    [
        ("a", "b", True),
        ("../a", "x/b", True),
        ("../../a", "x/b", False),
        ("a/../b", "x", False),
        (".//a", "b", True),
        ("/a", "b", False),
    ],
)
def test_which_links_stay_inside(link: str, path: str, inside: bool) -> None:
    assert stays_inside(link, path) is inside


def upload(channel: Channel, source: Path) -> None:
    entries, _ = scan(source)
    _Upload("data", source, source.name, entries, Meter(Progress("test", show=False))).run(channel)


SMALL_DISK = 'mount -t tmpfs -o size=1m none {claim} && exec "$@"'


def small_disk(claim: Path) -> list[str]:
    """Return the beginning of a command that runs with a file system of 1 MiB at a directory."""
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", SMALL_DISK.format(claim=claim), "sh"]


def test_a_file_that_does_not_fit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    claim = tmp_path / "claim"
    claim.mkdir()
    (tmp_path / "large").write_bytes(bytes(2_000_000))
    with (
        helper(claim, tmp_path / "run", small_disk(claim)) as channel,
        pytest.raises(errors.StorageFull, match=r"2\.0 MB are needed, and 1\.0 MB are free"),
    ):
        upload(channel, tmp_path / "large")


def test_a_disk_that_becomes_full_is_named(tmp_path: Path) -> None:
    claim = tmp_path / "claim"
    claim.mkdir()
    (tmp_path / "large").write_bytes(bytes(2_000_000))
    with helper(claim, tmp_path / "run", small_disk(claim)) as channel:
        channel.free = 10**12  # as if another pod had filled the disk since
        with pytest.raises(errors.StorageFull, match="No space left on device") as raised:
            upload(channel, tmp_path / "large")
    assert "storage.create" in raised.value.hint


def test_a_read_only_file_system_is_named(tmp_path: Path) -> None:
    claim = tmp_path / "claim"
    claim.mkdir()
    (tmp_path / "file").write_bytes(b"x")
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    prefix += [f'mount -t tmpfs -o ro none {claim} && exec "$@"', "sh"]
    with (
        helper(claim, tmp_path / "run", prefix) as channel,
        pytest.raises(errors.StorageError, match="Read-only file system"),
    ):
        channel.free = 10**12
        upload(channel, tmp_path / "file")


def test_a_file_that_another_program_writes_is_refused(tmp_path: Path) -> None:
    claim = tmp_path / "claim"
    claim.mkdir()
    (tmp_path / "file").write_bytes(b"x")
    part = helper_program.part_of(claim / "file")
    with (
        helper_program.open_part(part, 0),
        helper(claim, tmp_path / "run") as channel,
        pytest.raises(errors.StorageError, match="another program writes the same file"),
    ):
        upload(channel, tmp_path / "file")


HOLDER = """
import fcntl, sys, threading, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
content = bytearray(200_000_000)
for _ in range(int(sys.argv[2])):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print("holds", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("threads", [0, 2])
def test_the_files_of_a_process_that_has_ended_are_closed(tmp_path: Path, threads: int) -> None:
    """The command line of a large process is gone some milliseconds before its locks, and so is its first thread."""
    for number in range(3):
        path = tmp_path / str(number)
        command = [sys.executable, "-c", HOLDER, str(path), str(threads)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"holds\n"
            assert not helper_program.has_ended(process.pid)
            process.kill()
            while not helper_program.has_ended(process.pid):
                pass
            helper_program.open_part(path, 0).close()


def test_a_file_that_changes_during_the_upload_is_not_taken(tmp_path: Path) -> None:
    claim = tmp_path / "claim"
    claim.mkdir()
    source = tmp_path / "file"
    source.write_bytes(bytes(1_000_000))
    entries, _ = scan(source)
    source.write_bytes(bytes(500_000))
    job = _Upload("data", source, "file", entries, Meter(Progress("test", show=False)))
    with helper(claim, tmp_path / "run") as channel, pytest.raises(errors.StorageError, match="changed while"):
        job.run(channel)
    assert not (claim / "file").exists()


def test_a_program_other_than_the_helper_is_refused() -> None:
    streams = ScriptedStreams()
    streams._pieces = [b"Welcome to this machine\n"]
    with pytest.raises(errors.StorageError, match="does not understand"):
        Channel(streams, "data")
