"""Starts, finds and stops the background process of the laptop AKS.

A lock on ``laptop.lock`` shows whether the process is running. The caller of :func:`start` takes the lock and passes it
to the process, which holds it until it ends for any reason. ``laptop.json`` contains the process's address once it
listens. The process itself is :mod:`aksgpu.local.server`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import http.client
import json
import os
import resource
import shutil
import signal
import ssl
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from aksgpu import __version__
from aksgpu.common.home import home as user_home
from aksgpu.common.home import private
from aksgpu.common.private_files import write_private
from aksgpu.errors import LaptopError
from aksgpu.local.settings import Settings

LOOPBACK = "127.0.0.1"
SUBSCRIPTION_ID = "00000000-0000-0000-0000-000000000000"
START_SECONDS = 30.0
"""Timeout for a process that has been started to respond."""
LEAST_FREE_BYTES = 1 << 20
"""Free space below which a process that did not start has probably filled the disk."""
LEAST_OPEN_FILES = 256
"""Open files that the process needs for a small cluster."""
ANSWER_SECONDS = 5.0
"""Timeout for a request to the process, and for its end after SIGKILL."""
INJECT_SECONDS = 60.0
"""Timeout for a fault. An eviction waits for operations that are changing nodes, and for the pods of its node."""
POLL_SECONDS = 0.02
INHERITED = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_HOME",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "XDG_CACHE_HOME",
    "MPLCONFIGDIR",
    "COVERAGE_PROCESS_START",
    "LC_ALL",
    "LC_CTYPE",
)
"""Environment variables that the process inherits. It does not get any others, such as credentials."""


@dataclass(frozen=True)
class Endpoint:
    """The address of a laptop AKS, and what a client needs to connect.

    Attributes:
        base_url: ``https://127.0.0.1:PORT``, the address of Resource Manager and of every cluster.
        subscription_id: the id of its only subscription.
        token: the bearer token of Resource Manager.
        ca_file: the certificate authority to trust.
        home: the directory of its files.
    """

    base_url: str
    subscription_id: str
    token: str = field(repr=False)
    ca_file: Path
    home: Path


def start(home: Path | str | None = None, *, settings: Settings | None = None) -> Endpoint:
    """Start the laptop AKS unless it is running. An idle process of another version of aksgpu is replaced.

    Args:
        home: the directory of its files. None uses aksgpu's user data directory.
        settings: settings of a process that is started. A running process keeps its own. None reads the environment.

    Returns:
        The address and the credentials.

    Raises:
        LaptopError: it does not start, its directory cannot be used, or a process of another version is in use there.

    Example:
        >>> endpoint = local.start()
        >>> azure = aksgpu.connect("local")
    """
    directory = _resolve(home)
    chosen = settings or Settings.from_environment()
    while True:
        spawned = _spawn(directory, chosen)
        found = _find(directory)
        if found is None:
            if spawned:
                raise _start_error(directory)
            continue
        endpoint, state = found
        if state["version"] == __version__:
            return endpoint
        if state["busy"]:
            raise LaptopError(
                f"the laptop AKS in {directory} was started by aksgpu {state['version']} and is in use, "
                f"and this is aksgpu {__version__}",
                hint="Run `aksgpu local stop` and try again. It keeps the clusters and ends the pods.",
            )
        stop(home=directory)


def _start_error(directory: Path) -> LaptopError:
    log = directory / "laptop.log"
    record = read_record(directory)
    if not record.get("error") and shutil.disk_usage(directory).free < LEAST_FREE_BYTES:
        return LaptopError(
            f"the laptop AKS did not start: no space is left on the disk of {directory}",
            hint="Free some space, or set AKSGPU_HOME to a directory on another disk.",
        )
    tail = log.read_text(errors="replace")[-2000:].strip()
    error = record.get("error") or f"the laptop AKS did not start\n{tail}"
    return LaptopError(error, hint=record.get("hint") or f"The whole log is {log}.")


def status(home: Path | str | None = None) -> dict[str, Any]:
    """Return the state of the laptop AKS.

    Args:
        home: the directory of its files. None uses aksgpu's user data directory.

    Returns:
        ``running`` and ``home``. While it is running also ``pid``, ``port``, ``version``, ``started`` (ISO 8601),
        ``clusters`` (a list of ``resource group/cluster``), ``busy`` (whether an operation or a pod is running) and
        ``note`` (a message for the user, or empty).

    Raises:
        LaptopError: it is running and does not respond.
    """
    directory = _resolve(home)
    found = _find(directory)
    return {"running": found is not None, "home": str(directory), **(found[1] if found else {})}


def stop(timeout: float = 15.0, *, home: Path | str | None = None) -> None:
    """Stop the laptop AKS if it is running. Its pods are ended. Everything else is kept for the next start.

    Args:
        timeout: seconds to wait for a graceful end. After that, the process is killed. No data is lost.
        home: the directory of its files. None uses aksgpu's user data directory.

    Raises:
        LaptopError: it is still running.
    """
    directory = _resolve(home)
    for number, seconds in ((signal.SIGTERM, timeout), (signal.SIGKILL, ANSWER_SECONDS)):
        deadline = time.monotonic() + seconds
        sent = False
        while time.monotonic() < deadline:
            if not _is_running(directory):
                return
            sent = sent or _send_signal(directory, number)
            time.sleep(POLL_SECONDS)
    raise LaptopError(f"the laptop AKS in {directory} did not stop", hint=f"See {directory / 'laptop.log'}.")


def inject(fault: str, *, home: Path | str | None = None, **details: Any) -> str:
    """Make the running laptop AKS fail on purpose, to test how a program handles it.

    The faults and their details:

    - ``quota`` (``family``, ``limit``): change a vCPU quota.
    - ``allocation`` (``vm_size``, ``code``): the next operation that needs machines fails.
    - ``throttle`` (``method``, ``seconds``): the next request gets status 429.
    - ``slow`` (``factor``): the next operation takes longer.
    - ``stuck``: the next operation stays in progress until it is aborted.
    - ``eviction`` (``pool``): evict a spot node now.
    - ``gpu-driver`` (``node``, ``message``): break the NVIDIA driver of a node now.
    - ``gpu-driver`` (``vm_size``, ``exit_code``): the set-up of the next GPU nodes fails.
    - ``kubelet-away`` (``node``, ``cause``): logs and exec get status 500 from now on. The cause is ``kubelet`` or
      AKS' ``tunnel``. Without a node, all nodes are affected.
    - ``node-gone`` (``node``): remove a node with its pods and their logs now.
    - ``rbac-not-loaded`` (``seconds``): API servers behave as if they had just started. They refuse all users except
      the local administrator, because they do not find the users' roles. The default is 5 seconds.
    - ``none``: cancel all faults, and repair all drivers and connections.

    Args:
        fault: one of the above.
        home: the directory of the laptop's files. None uses aksgpu's user data directory.
        **details: the fault's details. ``times`` is the number of times that it happens, 1 by default.

    Returns:
        A text that says what was done.

    Raises:
        LaptopError: the laptop AKS is not running, or the fault or its details are not valid.
    """
    directory = _resolve(home)
    found = _find(directory)
    if found is None:
        raise LaptopError(f"no laptop AKS is running in {directory}", hint="Start it with aksgpu.local.start().")
    body = {"fault": fault, **details}
    return str(_request(found[0], "POST", "/laptop/inject", body, timeout=INJECT_SECONDS)["done"])


@contextlib.contextmanager
def laptop(**settings: Any) -> Iterator[Endpoint]:
    """Provide a private laptop AKS with its own directory and port. It is stopped and deleted after the block.

    Args:
        **settings: fields of :class:`~aksgpu.local.settings.Settings`, such as ``time_scale=0.05``.

    Raises:
        LaptopError: it does not start. Its directory is kept, because it contains the log.

    Example:
        >>> with local.laptop(time_scale=0.05) as endpoint:
        ...     print(endpoint.base_url)
    """
    chosen = Settings(**settings)
    directory = Path(tempfile.mkdtemp(prefix="aksgpu-"))
    endpoint = None
    try:
        endpoint = start(directory, settings=chosen)
        yield endpoint
    finally:
        stop(home=directory)
        if endpoint is not None:
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def own(directory: Path) -> Iterator[int | None]:
    """Hold the lock of a home during a block of code.

    Yields:
        The file descriptor of the lock, or None if another process holds it.
    """
    with _lock(directory, fcntl.LOCK_EX) as lock:
        if lock is not None:
            # Keep the port, because kubeconfig files contain it.
            write_record(directory, port=read_record(directory).get("port"))
        yield lock


def read_record(directory: Path) -> dict[str, Any]:
    """Return the content of ``laptop.json``. It has a ``pid`` only while a process listens."""
    with contextlib.suppress(OSError, ValueError):
        record = json.loads((directory / "laptop.json").read_bytes())
        if isinstance(record, dict):  # users can edit the file
            port = record.get("port")
            return record | {"port": port if isinstance(port, int) and 0 < port < 65536 else None}
    return {}


def write_record(directory: Path, **record: Any) -> None:
    """Replace the content of ``laptop.json``."""
    write_private(directory / "laptop.json", json.dumps(record).encode())


def _resolve(home: Path | str | None) -> Path:
    return user_home() if home is None else Path(home).expanduser().resolve()


# The process inherits the lock's descriptor, and several callers can test the lock at once with a shared lock. The
# filelock package supports neither.
@contextlib.contextmanager
def _lock(directory: Path, kind: int) -> Iterator[int | None]:
    with open(directory / "laptop.lock", "a", opener=private) as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file.fileno()


@contextlib.contextmanager
def _explain_os_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LaptopError(
            f"the laptop AKS cannot store its files in {directory}: {error.strerror or error}",
            hint="Set AKSGPU_HOME to a directory that you own and can write to.",
        ) from error


def _protect(directory: Path) -> None:
    """Raise an error if others may write into a home, unless it can be closed to them.

    It has tokens, private keys and programs. A directory that holds other files too keeps its mode.
    """
    status = directory.stat()
    if status.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "the directory belongs to another user")
    if not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return
    names = {path.name for path in directory.iterdir()}
    if names and "laptop.lock" not in names:
        raise LaptopError(
            f"the laptop AKS cannot keep its files in {directory}: other users may write into it",
            hint=f"Run `chmod go-w {directory}`, or set AKSGPU_HOME to a directory that only you can write to.",
        )
    directory.chmod(0o700)


def _check_limits() -> None:
    """Raise LaptopError if the system allows too few open files. The process raises its own limit as far as allowed."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most != resource.RLIM_INFINITY and most < LEAST_OPEN_FILES:
        raise LaptopError(
            f"the laptop AKS needs at least {LEAST_OPEN_FILES} open files, and this system allows {most}",
            hint="Raise the limit, for example with `ulimit -n 4096`, and start this program again.",
        )


def _is_running(directory: Path) -> bool:
    """Return whether a process holds the lock of this home, even if it does not listen yet."""
    with _explain_os_errors(directory):
        if not (directory / "laptop.lock").exists():
            return False
        with _lock(directory, fcntl.LOCK_SH) as lock:  # shared, so that several callers can test it at once
            return lock is None


def _send_signal(directory: Path, number: int) -> bool:
    """Send the process a signal, and return whether it was sent.

    If several machines share the home, the pid may belong to another process on this one.
    """
    pid = read_record(directory).get("pid")
    with contextlib.suppress(OSError, psutil.Error):
        if isinstance(pid, int) and Path(psutil.Process(pid).cwd()).samefile(directory):
            os.kill(pid, number)
            return True
    return False


def _find(directory: Path) -> tuple[Endpoint, dict[str, Any]] | None:
    """Wait until the running process responds.

    Returns:
        Its endpoint and state, or None if no process is running or it has ended in the meantime.
    """
    deadline = time.monotonic() + START_SECONDS
    problem = "laptop.json does not contain its address"
    while _is_running(directory):
        record = read_record(directory)
        if record.get("pid"):
            try:
                token = (directory / "token").read_text(encoding="ascii").strip()
                url = f"https://{LOOPBACK}:{record['port']}"
                endpoint = Endpoint(url, SUBSCRIPTION_ID, token, directory / "ca.pem", directory)
                return endpoint, record | _request(endpoint, "GET", "/laptop/status")
            except (OSError, ValueError, http.client.HTTPException, LaptopError) as error:
                problem = str(error)
        if time.monotonic() > deadline:
            hint = f"Run `aksgpu local stop` and try again. The log is {directory / 'laptop.log'}."
            raise LaptopError(f"the laptop AKS in {directory} is running but does not respond: {problem}", hint=hint)
        time.sleep(POLL_SECONDS)
    return None


def _request(
    endpoint: Endpoint, method: str, path: str, body: dict[str, Any] | None = None, *, timeout: float = ANSWER_SECONDS
) -> dict[str, Any]:
    context = ssl.create_default_context(cafile=endpoint.ca_file)
    port = int(endpoint.base_url.rpartition(":")[2])
    connection = http.client.HTTPSConnection(LOOPBACK, port, timeout=timeout, context=context)
    headers = {"Authorization": f"Bearer {endpoint.token}"}
    with contextlib.closing(connection):
        connection.request(method, path, json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        content = response.read()
    if response.status != 200:
        try:
            problem = json.loads(content)["error"]["message"]
        except (ValueError, KeyError, TypeError):  # errors of aiohttp itself are plain text
            problem = content.decode(errors="replace")
        raise LaptopError(f"the laptop AKS refused {method} {path}: {problem}")
    return dict(json.loads(content))


def _spawn(directory: Path, settings: Settings) -> bool:
    """Start the process unless one is running, and return whether it was started."""
    with _explain_os_errors(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _protect(directory)
        _check_limits()
        with own(directory) as lock, open(directory / "laptop.log", "ab", opener=private) as log:
            if lock is None:
                return False
            inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
            # The child forks once more and exits, so that the laptop's process is not a child of this one.
            subprocess.run(
                [sys.executable, "-P", "-m", "aksgpu.local.server", str(lock)],
                env={**inherited, **settings.environment(), "AKSGPU_HOME": str(directory), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,
                check=False,
            )
    return True
