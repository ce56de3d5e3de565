"""Files travel to a claim and back unchanged, and only once."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.polling import wait_for

from aksgpu import errors, storage
from aksgpu.cluster import Cluster

NAMES = (
    "plain.txt",
    "ümläut ß 漢字 🎈.bin",
    " leading and trailing ",
    "new\nline",
    "quote'\"`$(x)",
    "-rf",
    "*?[a]",
    "back\\slash",
    "x" * 255,
)


def tree(directory: Path) -> dict[str, object]:
    """Return the content, permissions and times of everything below a directory."""
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        status = path.lstat()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_dir():
            found[name] = stat.S_IMODE(status.st_mode)
        else:
            found[name] = (path.read_bytes(), stat.S_IMODE(status.st_mode), status.st_mtime_ns // 1000)
    return found


def test_a_directory_travels_to_a_claim_and_back(aks: Cluster, claim: str, tmp_path: Path) -> None:
    source = tmp_path / "data"
    (source / "deep" / "er" / "empty").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        (source / name).write_bytes(name.encode() * number * 1000)
    undecodable = os.fsencode(source) + b"/not-utf8-\xff"
    Path(os.fsdecode(undecodable)).write_bytes(b"bytes")
    (source / "deep" / "program").write_text("#!/bin/sh\n")
    (source / "deep" / "program").chmod(0o755)
    (source / "deep" / "secret").write_text("x")
    (source / "deep" / "secret").chmod(0o600)
    (source / "deep" / "link").symlink_to("../plain.txt")
    (source / "deep" / "er").chmod(0o750)
    sent = storage.upload(aks, claim, source)
    assert sent.path == "data"
    assert sent.files == len(NAMES) + 3
    assert (
        sent.sent
        == sent.bytes
        == sum(path.stat().st_size for path in source.rglob("*") if not path.is_symlink() and path.is_file())
    )
    back = storage.download(aks, claim, "data", to=tmp_path / "back")
    assert (back.files, back.bytes, back.left_out) == (sent.files, sent.bytes, ())
    assert tree(tmp_path / "back") == tree(source)


def test_files_that_are_there_already_are_not_sent_again(aks: Cluster, claim: str, tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    for number in range(20):
        (source / str(number)).write_bytes(b"x" * 1000)
    assert storage.upload(aks, claim, source).sent == 20_000
    assert storage.upload(aks, claim, source).sent == 0
    (source / "7").write_bytes(b"y" * 1000)
    assert storage.upload(aks, claim, source).sent == 1000
    assert storage.download(aks, claim, "data", to=tmp_path / "back").sent == 20_000
    assert storage.download(aks, claim, "data", to=tmp_path / "back").sent == 0
    assert (tmp_path / "back" / "7").read_bytes() == b"y" * 1000


@pytest.mark.parametrize(
    ("to", "path"),
    [
        (None, "model.bin"),
        ("a/b.bin", "a/b.bin"),
        ("dir/", "dir/model.bin"),
        (".", "model.bin"),
        ("deep/er/x", "deep/er/x"),
    ],
)
def test_a_file_gets_the_path_that_was_asked_for(
    aks: Cluster, claim: str, tmp_path: Path, to: str | None, path: str
) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    assert storage.upload(aks, claim, tmp_path / "model.bin", to=to).path == path
    listed = storage.ls(aks, claim, path)
    assert list(listed["path"]) == [path]
    assert list(listed["size"]) == [7]
    target = tmp_path / "target" / "copy.bin"
    storage.download(aks, claim, path, to=target)
    assert target.read_bytes() == b"weights"


def test_the_content_of_a_directory_at_the_top(aks: Cluster, claim: str, tmp_path: Path) -> None:
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "sub" / "a").write_text("1")
    assert storage.upload(aks, claim, tmp_path / "data", to=".").path == ""
    assert list(storage.ls(aks, claim)["path"]) == ["sub"]
    assert list(storage.ls(aks, claim, recursive=True)["path"]) == ["sub", "sub/a"]
    assert list(storage.ls(aks, claim, "sub")["kind"]) == ["file"]
    whole = storage.download(aks, claim, to=tmp_path / "whole")
    assert (tmp_path / "whole" / "sub" / "a").read_text() == "1"
    assert whole.files == 1


def test_an_empty_claim_has_no_files(aks: Cluster, claim: str) -> None:
    listed = storage.ls(aks, claim)
    assert listed.empty
    assert dict(listed.dtypes.astype(str)) == {
        "path": "string",
        "kind": "string",
        "size": "Int64",
        "modified": "datetime64[ns, UTC]",
        "mode": "string",
        "link": "string",
    }


def test_links_that_lead_elsewhere_are_replaced_and_pipes_left_out(aks: Cluster, claim: str, tmp_path: Path) -> None:
    source = tmp_path / "data"
    outside = tmp_path / "outside"
    source.mkdir()
    outside.mkdir()
    (outside / "file").write_text("content")
    (source / "absolute").symlink_to(outside / "file")
    (source / "directory").symlink_to(outside)
    (source / "nowhere").symlink_to("missing")
    (source / "loop").symlink_to(source)
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as server, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        directory = os.open(source, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{directory}/socket")
        os.close(directory)
        sent = storage.upload(aks, claim, source)
    assert sorted(sent.left_out) == ["loop", "nowhere", "pipe", "socket"]
    assert any("left out" in str(each.message) and each.filename == __file__ for each in warned)
    storage.download(aks, claim, "data", to=tmp_path / "back")
    assert sorted(tree(tmp_path / "back")) == ["absolute", "directory", "directory/file"]
    assert (tmp_path / "back" / "absolute").read_text() == "content"


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Act as a user whom permissions concern, if the tests run as root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def test_a_file_that_cannot_be_read_is_named(aks: Cluster) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        path.chmod(0o755)
        (path / "secret").write_text("x")
        (path / "secret").chmod(0)
        with ordinary_user(), pytest.raises(errors.StorageError, match="secret cannot be read: Permission denied"):
            storage.upload(aks, "any", path)


@pytest.mark.parametrize("path", ["/data", "../x", "a/../../b", "nul\0", 7])
def test_paths_outside_the_claim_are_refused(aks: Cluster, tmp_path: Path, path: object) -> None:
    (tmp_path / "a").write_text("1")
    for call in (
        lambda: storage.upload(aks, "any", tmp_path / "a", to=path),  # type: ignore[arg-type]  # what is tested
        lambda: storage.download(aks, "any", path),  # type: ignore[arg-type]
        lambda: storage.ls(aks, "any", path),  # type: ignore[arg-type]
    ):
        with pytest.raises(errors.InvalidInput, match=r"must be a path in the claim"):
            call()


def test_a_source_that_does_not_exist_is_refused(aks: Cluster) -> None:
    with pytest.raises(errors.InvalidInput, match="`source` must be a file or directory that exists"):
        storage.upload(aks, "any", "no/such/file")


def test_a_path_that_does_not_exist_is_named(aks: Cluster, claim: str, tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound, match="no file or directory 'nothing'"):
        storage.download(aks, claim, "nothing", to=tmp_path)
    with pytest.raises(errors.NotFound, match="no file or directory 'nothing'"):
        storage.ls(aks, claim, "nothing")


def test_a_directory_in_the_place_of_a_file_is_not_replaced(aks: Cluster, claim: str, tmp_path: Path) -> None:
    (tmp_path / "data" / "x").mkdir(parents=True)
    (tmp_path / "data" / "x" / "y").write_text("1")
    storage.upload(aks, claim, tmp_path / "data")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("2")
    with pytest.raises(errors.StorageError, match="'x' is a directory in the claim"):
        storage.upload(aks, claim, tmp_path / "other", to="data")
    storage.download(aks, claim, "data/x/y", to=tmp_path / "y")
    assert (tmp_path / "y").read_text() == "1"


def test_two_thousand_small_files(aks: Cluster, claim: str, tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    for number in range(2000):
        (source / f"{number}.txt").write_text(str(number))
    assert storage.upload(aks, claim, source).files == 2000
    assert len(storage.ls(aks, claim, "data")) == 2000
    storage.download(aks, claim, "data", to=tmp_path / "back")
    assert tree(tmp_path / "back") == tree(source)


def test_a_disk_is_made_where_gpu_nodes_are(aks: Cluster, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    storage.create(aks, "disk", size_gb=1, shared=False)
    storage.upload(aks, "disk", tmp_path / "a")
    storage.upload(aks, "disk", tmp_path / "a")
    wait_for(lambda: aks.kube.get("PersistentVolumeClaim", "disk")["status"]["phase"] == "Bound", 60)
    storage.delete(aks, "disk", timeout=60)
