"""What a container's processes see of this machine's files: namespaces made, entered, and their volumes mounted."""

# pathlib would double the start-up time.
# ruff: noqa: PTH102, PTH103, PTH112, PTH114, PTH115, PTH120, PTH123, PTH208, PTH211

from __future__ import annotations

import ctypes
import errno
import os
import socket

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWUSER = 0x10000000
MS_RDONLY = 1
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Raise the errno of a failed libc call."""
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


class View:
    """A private view of this machine's files, with a container's volumes at their mount paths, and a host name.

    Nothing is created outside: where a mount path is missing, its deepest existing ancestor is replaced, in this view
    only, by an empty directory in which all the ancestor's entries are mounted again.
    """

    def __init__(self, staging: str, hostname: str) -> None:
        self._staging = staging
        self._own: set[str] = set()
        user = os.getuid()
        group = os.getgid()
        root = os.geteuid() == 0
        check(libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | (0 if root else CLONE_NEWUSER)), "unshare")
        if not root:
            mapped = {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}
            for name, text in mapped.items():
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
        if hostname:
            socket.sethostname(hostname)
        self._mount(None, "/", MS_REC | MS_PRIVATE)

    @staticmethod
    def _mount(source: str | None, target: str, flags: int, kind: str | None = None, data: str = "") -> None:
        encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
        result = libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), data.encode())
        check(result, f"mount {target}")

    def add(self, mounts: list[tuple[str, str, bool]]) -> None:
        """Mount each source at its target, read-only where asked."""
        # Sources are held open: one mount may hide the path of another's source.
        held = [(os.open(source, os.O_PATH), target, read_only) for source, target, read_only in mounts]
        for fd, target, read_only in sorted(held, key=lambda mount: mount[1].rstrip("/").count("/")):
            source = f"/proc/self/fd/{fd}"
            target = os.path.realpath(target)
            self._place(target, os.path.isdir(source))
            self._mount(source, target, MS_BIND | MS_REC)
            if read_only:
                # A user namespace may not drop nosuid, nodev and noexec (2, 4, 8 in both tables).
                kept = os.statvfs(target).f_flag & 0b1110
                self._mount(None, target, MS_REMOUNT | MS_BIND | MS_RDONLY | kept)
            else:
                self._own.add(target)
            os.close(fd)

    def _place(self, target: str, directory: bool) -> None:
        if os.path.lexists(target):
            return
        base = os.path.dirname(target)
        while not os.path.lexists(base):
            base = os.path.dirname(base)
        if base not in self._own:
            self._unfold(base)
        parent = target if directory else os.path.dirname(target)
        while len(parent) > len(base):
            self._own.add(parent)
            parent = os.path.dirname(parent)
        os.makedirs(target if directory else os.path.dirname(target), exist_ok=True)
        if not directory:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))

    def _unfold(self, base: str) -> None:
        old = os.open(base, os.O_PATH | os.O_DIRECTORY)
        fresh = self._staging if base == "/" else base
        self._mount("tmpfs", fresh, 0, "tmpfs", f"mode={os.fstat(old).st_mode & 0o7777 | 0o700:o}")
        if base == "/":
            self._mount(None, fresh, MS_UNBINDABLE)
        # What may not even be listed, such as another user's /root, could not be used either.
        for name in os.listdir(f"/proc/self/fd/{old}") if os.access(f"/proc/self/fd/{old}", os.R_OK) else []:
            source = f"/proc/self/fd/{old}/{name}"
            target = f"{fresh}/{name}"
            if os.path.islink(source):
                os.symlink(os.readlink(source), target)
                continue
            if os.path.isdir(source):
                os.mkdir(target)
            else:
                os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
            try:
                self._mount(source, target, MS_BIND | MS_REC)
            except FileNotFoundError:  # gone since it was listed
                (os.rmdir if os.path.isdir(target) else os.unlink)(target)
        os.close(old)
        if base == "/":
            os.chroot(fresh)
            os.chdir("/")
        self._own.add(base)


def join(pid: int) -> None:
    """See the files and the host name that another process sees."""
    kinds = ("ns/user", "ns/mnt", "ns/uts", "root")
    fds = {kind: os.open(f"/proc/{pid}/{kind}", os.O_RDONLY) for kind in kinds}
    moved = {kind for kind in kinds if os.readlink(f"/proc/self/{kind}") != os.readlink(f"/proc/{pid}/{kind}")}
    for kind in kinds[:3]:
        if kind in moved:
            check(libc.setns(fds[kind], 0), "setns")
    if "ns/mnt" in moved:
        os.fchdir(fds["root"])
        os.chroot(".")


def probe(directory: str) -> int:
    """0 when this system grants a private view of its files."""
    try:
        View(directory, "").add([(directory, "/aksgpu-probe/volume", True)])
        return 0 if os.path.isdir("/aksgpu-probe/volume") else errno.ENOENT
    except OSError as error:
        return error.errno or 1
