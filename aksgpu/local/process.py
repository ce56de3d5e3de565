"""The background process of the laptop AKS, from the outside: start or find it, ask how it is, stop it.

Whether it runs is told by the lock that it holds on ``laptop.lock`` as long as it lives, however it ends; the pid in
``laptop.json`` is only information. A second lock, ``start.lock``, lets one starter at a time do its work, so that two
kernels that start at once get one process. What the process does is in :mod:`aksgpu.local.server`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from aksgpu.errors import LaptopError
from aksgpu.local.home import home as user_home
from aksgpu.local.settings import Settings

SUBSCRIPTION_ID = "00000000-0000-0000-0000-000000000000"
START_SECONDS = 30.0
HEALTH_SECONDS = 5.0
LOG_TAIL_BYTES = 2000
LOG_BYTES = 5 * 1024 * 1024
LOG_OLD = ".log.old"
INHERITED = (
    "PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR LD_LIBRARY_PATH PYTHONPATH PYTHONHOME VIRTUAL_ENV "
    "CONDA_PREFIX CUDA_VISIBLE_DEVICES CUDA_HOME OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS XDG_CACHE_HOME "
    "MPLCONFIGDIR COVERAGE_PROCESS_START"
)
"""Environment variables that the process gets; the others, credentials among them, stay with the caller."""


@dataclass(frozen=True)
class Endpoint:
    """Where a laptop AKS answers, and what to show it.

    Attributes:
        base_url: ``https://127.0.0.1:PORT``; Resource Manager and every cluster are below it.
        subscription_id: the one subscription that it has.
        token: the bearer token of Resource Manager.
        ca_file: the certificate authority to trust.
        home: where it keeps its files.
    """

    base_url: str
    subscription_id: str
    token: str = field(repr=False)
    ca_file: Path
    home: Path


def start(home: Path | str | None = None, *, settings: Settings | None = None) -> Endpoint:
    """Start the laptop AKS, or find the one that runs. One of another version of aksgpu makes way if it is idle.

    Args:
        home: where it keeps its files; the user's data directory by default.
        settings: for a process that is started; one that runs keeps its own. By default those of the environment.

    Raises:
        LaptopError: it does not start, its directory cannot be used, or one of another version is at work there.
    """
    place = _prepared(home)
    with _locked(place / "start.lock"):
        if (found := _found(place)) is not None:
            endpoint, record, health = found
            if record.get("version") == installed_version():
                return endpoint
            _make_way(place, record, health)
        _spawn(place, settings or Settings.from_environment())
        return _endpoint(place, _record(place))


def status(home: Path | str | None = None) -> dict[str, Any]:
    """How the laptop AKS is.

    Returns:
        ``running`` and ``home`` always; while it runs also ``pid``, ``port``, ``version``, ``started`` (ISO 8601),
        ``uptime_seconds``, ``clusters`` (``resource group/cluster`` each), ``busy`` (an operation or a pod runs)
        and ``note`` (something to know, or empty).

    Raises:
        LaptopError: it runs and does not answer.
    """
    place = _place(home)
    found = _found(place) if (place / "laptop.lock").exists() else None
    if found is None:
        return {"running": False, "home": str(place)}
    _, record, health = found
    uptime = (datetime.now(UTC) - datetime.fromisoformat(record["started"])).total_seconds()
    return {"running": True, "home": str(place), **record, "uptime_seconds": round(uptime, 1), **health}


def stop(timeout: float = 15.0, *, home: Path | str | None = None) -> None:
    """Stop the laptop AKS, if it runs: pods end, everything else is kept for the next start.

    Args:
        timeout: seconds to wait for a graceful end; the process is killed after that, which loses nothing either.
        home: where it keeps its files.

    Raises:
        LaptopError: it is still there.
    """
    place = _place(home)
    if not (place / "laptop.lock").exists():
        return
    deadline = time.monotonic() + timeout
    record: dict[str, Any] = {}
    if _running(place):
        with contextlib.suppress(LaptopError):
            record = _record(place)
            _ask(_endpoint(place, record), "/laptop/stop", method="POST")
    if _ended(place, deadline):
        return
    if record:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(record["pid"]), signal.SIGKILL)
    if not _ended(place, time.monotonic() + HEALTH_SECONDS):
        who = f"process {record['pid']}" if record else "its process is unknown"
        raise LaptopError(f"the laptop AKS does not end ({who})", hint=f"Look at {place / 'laptop.log'}.")


def inject(fault: str, *, home: Path | str | None = None, **details: Any) -> str:
    """Order a failure of the running laptop AKS, to see how one's code takes it.

    Args:
        fault: ``quota`` (``family``, ``limit``: the quota is that from now on), ``allocation`` (``vm_size``, ``code``:
            the next operation that wants machines fails), ``throttle`` (``method``, ``seconds``: the next request is
            answered 429), ``slow`` (``factor``: the next operation takes longer), ``stuck`` (the next operation goes
            on until it is aborted), ``eviction`` (``pool``: a spot node goes, at once), ``gpu-driver`` (with ``node``
            and ``message``: that node's NVIDIA driver breaks, at once; with ``vm_size`` and ``exit_code``: the next GPU
            nodes cannot be set up), or ``none``, which takes all orders back and mends drivers.
        home: where the laptop AKS keeps its files.
        **details: what the fault takes; ``times`` is how often it happens, once by default.

    Returns:
        What was done, in words.

    Raises:
        LaptopError: it does not run, or does not know such a fault.
    """
    place = _place(home)
    if not (place / "laptop.lock").exists() or not _running(place):
        raise LaptopError(f"no laptop AKS runs in {place}", hint="Start it with aksgpu.local.start().")
    body = {"fault": fault, **details}
    return str(_ask(_endpoint(place, _record(place)), "/laptop/inject", method="POST", body=body)["done"])


def installed_version() -> str:
    """The version of aksgpu."""
    try:
        return version("aksgpu")
    except PackageNotFoundError:
        return "unknown"


def _make_way(place: Path, record: dict[str, Any], health: dict[str, Any]) -> None:
    """Stop the running one, which is of another version, unless it is at work."""
    if health.get("busy", True):
        raise LaptopError(
            f"the laptop AKS in {place} is of aksgpu {record.get('version')}, this is aksgpu {installed_version()}, "
            "and something still runs on it",
            hint="When that may end, run `aksgpu local stop` (clusters are kept, running pods end) and try again.",
        )
    stop(home=place)


def _place(home: Path | str | None) -> Path:
    return user_home() if home is None else Path(home).expanduser().resolve()


def _prepared(home: Path | str | None) -> Path:
    """The directory, made when absent, and certainly the user's own."""
    place = _place(home)
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = place.stat()
    except OSError as error:
        raise _unusable(place, error.strerror or str(error)) from error
    if found.st_uid != os.getuid():
        raise _unusable(place, "it belongs to another user")
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        raise _unusable(place, "it is not writable")
    return place


def _unusable(place: Path, why: str) -> LaptopError:
    return LaptopError(
        f"the laptop AKS cannot keep its files in {place}: {why}",
        hint="Set AKSGPU_HOME to a directory of your own that is writable.",
    )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for a lock file and hold it."""
    with _opened(path) as descriptor:
        deadline = time.monotonic() + START_SECONDS
        while not _take(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise LaptopError(f"somebody else has been starting the laptop AKS in {path.parent} for long")
            time.sleep(0.02)
        yield


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path.parent, f"{path.name}: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _take(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _running(place: Path) -> bool:
    """Whether a process serves this directory: it holds the lock, and the kernel frees it when the process ends."""
    with _opened(place / "laptop.lock") as descriptor:
        return not _take(descriptor, fcntl.LOCK_SH)  # shared, so that several may ask at once


def _ended(place: Path, deadline: float) -> bool:
    while _running(place):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _record(place: Path) -> dict[str, Any]:
    """What the process says of itself; it writes this as soon as it serves."""
    deadline = time.monotonic() + HEALTH_SECONDS
    while True:
        with contextlib.suppress(OSError, ValueError):
            record = json.loads((place / "laptop.json").read_bytes())
            if isinstance(record, dict) and record.get("pid") and record.get("port"):
                return record
        if time.monotonic() > deadline or not _running(place):
            raise _silent(place, "laptop.json is missing or unreadable")
        time.sleep(0.02)


def _found(place: Path) -> tuple[Endpoint, dict[str, Any], dict[str, Any]] | None:
    """The running one with its record and its answer; None when there is none, or when it has just ended."""
    if not _running(place):
        return None
    try:
        record = _record(place)
        endpoint = _endpoint(place, record)
        return endpoint, record, _ask(endpoint, "/laptop/status")
    except LaptopError:
        if _ended(place, time.monotonic() + HEALTH_SECONDS):
            return None  # it was about to stop
        raise


def _endpoint(place: Path, record: dict[str, Any]) -> Endpoint:
    try:
        token = (place / "token").read_text(encoding="ascii").strip()
    except OSError as error:
        raise _silent(place, "its token file cannot be read") from error
    return Endpoint(f"https://127.0.0.1:{record['port']}", SUBSCRIPTION_ID, token, place / "ca.pem", place)


def _silent(place: Path, why: str) -> LaptopError:
    return LaptopError(
        f"the laptop AKS in {place} runs but does not answer: {why}",
        hint=f"Run `aksgpu local stop` and try again; its log is {place / 'laptop.log'}.",
    )


def _ask(endpoint: Endpoint, path: str, *, method: str = "GET", body: Any = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{endpoint.base_url}{path}", data, method=method)
    request.add_header("Authorization", f"Bearer {endpoint.token}")
    try:
        context = ssl.create_default_context(cafile=str(endpoint.ca_file))
        handlers = urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({})
        with urllib.request.build_opener(*handlers).open(request, timeout=HEALTH_SECONDS) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        message = error.read().decode(errors="replace")
        raise LaptopError(f"the laptop AKS refused {method} {path}: {message}") from error
    except (OSError, ValueError) as error:
        raise _silent(endpoint.home, str(error)) from error
    return dict(answer)


def _spawn(place: Path, settings: Settings) -> None:
    """Start the process and wait until it serves; raises LaptopError with the end of its log."""
    log_file = place / "laptop.log"
    read_end, write_end = os.pipe()
    command = [sys.executable, "-P", "-m", "aksgpu.local.server", "--home", str(place), "--ready-fd", str(write_end)]
    command += ["--time-scale", repr(settings.time_scale), "--idle-seconds", repr(settings.idle_seconds)]
    with os.fdopen(read_end, "rb", buffering=0) as ready:
        try:
            with _log(log_file) as log:
                # The child forks once more and ends at once, so that nothing of the laptop is this process's child.
                child = subprocess.Popen(
                    command,
                    cwd=place,
                    env=_environment(place),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(write_end,),
                    start_new_session=True,
                )
        finally:
            os.close(write_end)
        message = _until_ready(ready.fileno())
        child.wait(START_SECONDS)
    if message.get("ready"):
        return
    error = message.get("error") or "the laptop AKS did not start"
    raise LaptopError(
        f"{error}\n{_tail(log_file)}".rstrip(), hint=message.get("hint") or f"The whole log is {log_file}."
    )


def _log(path: Path) -> Any:
    """The log, to append to; a long one is put aside first, so that it does not grow for ever."""
    try:
        if path.exists() and path.stat().st_size > LOG_BYTES:
            path.replace(path.with_suffix(LOG_OLD))
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
    except OSError as error:
        raise _unusable(path.parent, f"{path.name}: {error.strerror}") from error


def _environment(place: Path) -> dict[str, str]:
    names = INHERITED.split()
    kept = {name: value for name, value in os.environ.items() if name in names or name.startswith("LC_")}
    package = str(Path(__file__).resolve().parents[2])
    if Path(package).name not in ("site-packages", "dist-packages"):
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (package, kept.get("PYTHONPATH"))))
    return {**kept, "AKSGPU_HOME": str(place), "PYTHONUNBUFFERED": "1"}


def _until_ready(descriptor: int) -> dict[str, Any]:
    """What the process reports through the pipe; empty when it died or time ran out."""
    import select

    received = b""
    deadline = time.monotonic() + START_SECONDS
    while (left := deadline - time.monotonic()) > 0 and select.select([descriptor], [], [], left)[0]:
        part = os.read(descriptor, 65536)
        received += part
        if not part or received.endswith(b"\n"):
            break
    try:
        return dict(json.loads(received))
    except ValueError:
        return {}


def _tail(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
        return file.read().decode(errors="replace").strip()
    return ""
