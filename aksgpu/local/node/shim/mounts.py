"""Creates the namespaces of a container, mounts volumes in them, and joins them."""

# pathlib would double the start-up time.
# ruff: noqa: PTH102, PTH103, PTH106, PTH108, PTH112, PTH114, PTH115, PTH120, PTH123, PTH208, PTH211

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
MS_MOVE = 8192
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Raise the errno of a failed libc call."""
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


class MountNamespace:
    """A mount namespace with a container's volumes at their mount paths, and a host name.

    Nothing changes outside the namespace. If a mount path does not exist, its deepest existing ancestor is replaced
    with an empty directory in which all entries of the ancestor are mounted again.

    Args:
        staging: an empty directory.
        hostname: the host name; empty to keep the machine's.
    """

    def __init__(self, staging: str, hostname: str) -> None:
        self._staging = staging
        self._private: set[str] = set()  # directories in which mount points can be created
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
        """Mount volumes.

        Args:
            mounts: source, target and whether it is read-only, for each volume.
        """
        # Open all sources first, because a mount can hide the path of another source.
        opened = [(os.open(source, os.O_PATH), target, read_only) for source, target, read_only in mounts]
        for fd, target, read_only in sorted(opened, key=lambda mount: mount[1].rstrip("/").count("/")):
            source = f"/proc/self/fd/{fd}"
            target = os.path.realpath(target)
            self._create_mount_point(target, os.path.isdir(source))
            self._mount(source, target, MS_BIND | MS_REC)
            if read_only:
                # A user namespace must keep nosuid, nodev and noexec. The bits of statvfs and mount are the same.
                flags = os.statvfs(target).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)
                self._mount(None, target, MS_REMOUNT | MS_BIND | MS_RDONLY | flags)
            else:
                self._private.add(target)
            os.close(fd)

    def _create_mount_point(self, target: str, directory: bool) -> None:
        if os.path.lexists(target):
            return
        base = os.path.dirname(target)
        while not os.path.lexists(base):
            base = os.path.dirname(base)
        if base not in self._private:
            self._replace_directory(base)
        parent = target if directory else os.path.dirname(target)
        while len(parent) > len(base):
            self._private.add(parent)
            parent = os.path.dirname(parent)
        os.makedirs(target if directory else os.path.dirname(target), exist_ok=True)
        if not directory:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))

    def _replace_directory(self, base: str) -> None:
        """Replace a directory with an empty one, and mount its entries in it."""
        old = os.open(base, os.O_PATH | os.O_DIRECTORY)
        new = self._staging if base == "/" else base
        if base == "/dev":
            self._mount(base, self._staging, MS_BIND | MS_REC)
        self._mount("tmpfs", new, 0, "tmpfs", f"mode={os.fstat(old).st_mode & 0o7777 | 0o700:o}")
        if base == "/":
            self._mount(None, new, MS_UNBINDABLE)
        # Entries of a directory that cannot be listed, such as another user's /root, cannot be used either.
        readable = os.access(f"/proc/self/fd/{old}", os.R_OK)
        names = os.listdir(f"/proc/self/fd/{old}") if readable else []
        for name in names:
            source = f"/proc/self/fd/{old}/{name}"
            target = f"{new}/{name}"
            if os.path.islink(source):
                os.symlink(os.readlink(source), target)
                continue
            if target == "/dev/ptmx":
                self._link_terminals()
                continue
            if os.path.isdir(source):
                os.mkdir(target)
            else:
                os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
            try:
                self._mount(source, target, MS_BIND | MS_REC)
            except FileNotFoundError:  # it was deleted after it was listed
                if os.path.isdir(target):
                    os.rmdir(target)
                else:
                    os.unlink(target)
        os.close(old)
        if base == "/":
            os.chroot(new)
            os.chdir("/")
        self._private.add(base)

    def _link_terminals(self) -> None:
        """Make ``/dev/ptmx`` a link into a copy of the old ``/dev``, which is mounted at the staging directory.

        Linux looks for ``pts`` in the directory of the file that a program opens. It does not find it next to a mounted
        file.
        """
        copy = "/dev/.machine"
        os.mkdir(copy, 0o755)
        self._mount(self._staging, copy, MS_MOVE)
        os.symlink(f"{copy}/ptmx", "/dev/ptmx")


def join_namespaces(pid: int) -> None:
    """Enter the namespaces and the root directory of another process."""
    root = os.open(f"/proc/{pid}/root", os.O_RDONLY)
    namespaces = ("ns/user", "ns/mnt", "ns/uts")
    fds = {name: os.open(f"/proc/{pid}/{name}", os.O_RDONLY) for name in namespaces}
    different = [name for name in namespaces if os.readlink(f"/proc/self/{name}") != os.readlink(f"/proc/{pid}/{name}")]
    for name in different:
        check(libc.setns(fds[name], 0), "setns")
    if "ns/mnt" in different:
        os.fchdir(root)
        os.chroot(".")


def probe(directory: str) -> int:
    """Return 0 if this system allows mount namespaces, otherwise an errno."""
    try:
        MountNamespace(directory, "").add([(directory, "/aksgpu-probe/volume", True)])
        return 0 if os.path.isdir("/aksgpu-probe/volume") else errno.ENOENT
    except OSError as error:
        return error.errno or 1
