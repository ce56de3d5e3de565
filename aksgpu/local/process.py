"""The background process of the laptop AKS, from the outside: start or find it, ask how it is, stop it.

Whether it runs is told by the lock on ``laptop.lock``: a starter takes it and hands it to the process, which holds it
as long as it lives, however it ends. Where it answers is said by ``laptop.json``, as soon as it does. What the process
does is in :mod:`aksgpu.local.server`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aksgpu import __version__
from aksgpu.errors import LaptopError
from aksgpu.local.home import home as user_home
from aksgpu.local.home import private, write_private
from aksgpu.local.settings import Settings

LOOPBACK = "127.0.0.1"
SUBSCRIPTION_ID = "00000000-0000-0000-0000-000000000000"
START_SECONDS = 30.0
ANSWER_SECONDS = 5.0
LOOK_SECONDS = 0.02
INHERITED = (
    "PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR LD_LIBRARY_PATH PYTHONPATH PYTHONHOME VIRTUAL_ENV "
    "CONDA_PREFIX CUDA_VISIBLE_DEVICES CUDA_HOME OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS XDG_CACHE_HOME "
    "MPLCONFIGDIR COVERAGE_PROCESS_START LC_ALL LC_CTYPE"
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
    place = _place(home)
    chosen = settings or Settings.from_environment()
    while True:
        spawned = _spawn(place, chosen)
        if found := _found(place):
            endpoint, state = found
            if state["version"] == __version__:
                return endpoint
            if state["busy"]:
                versions = f"is of aksgpu {state['version']}, this is aksgpu {__version__}"
                raise LaptopError(
                    f"the laptop AKS in {place} {versions}, and something still runs on it",
                    hint="When that may end, run `aksgpu local stop` (clusters are kept, pods end) and try again.",
                )
            stop(home=place)
        elif spawned:
            log = place / "laptop.log"
            said = record(place)
            tail = log.read_text(errors="replace")[-2000:].strip()
            error = said.get("error") or f"the laptop AKS did not start\n{tail}"
            raise LaptopError(error, hint=said.get("hint") or f"The whole log is {log}.")


def status(home: Path | str | None = None) -> dict[str, Any]:
    """How the laptop AKS is.

    Returns:
        ``running`` and ``home`` always; while it runs also ``pid``, ``port``, ``version``, ``started`` (ISO 8601),
        ``clusters`` (``resource group/cluster`` each), ``busy`` (an operation or a pod runs) and ``note`` (something
        to know, or empty).

    Raises:
        LaptopError: it runs and does not answer.
    """
    place = _place(home)
    found = _found(place)
    return {"running": found is not None, "home": str(place), **(found[1] if found else {})}


def stop(timeout: float = 15.0, *, home: Path | str | None = None) -> None:
    """Stop the laptop AKS, if it runs: pods end, everything else is kept for the next start.

    Args:
        timeout: seconds to wait for a graceful end; the process is killed after that, which loses nothing either.
        home: where it keeps its files.

    Raises:
        LaptopError: it is still there.
    """
    place = _place(home)
    for number, seconds in ((signal.SIGTERM, timeout), (signal.SIGKILL, ANSWER_SECONDS)):
        deadline = time.monotonic() + seconds
        told = False
        while time.monotonic() < deadline:
            if not _running(place):
                return
            told = told or _signal(place, number)
            time.sleep(LOOK_SECONDS)
    raise LaptopError(f"the laptop AKS in {place} does not end", hint=f"Look at {place / 'laptop.log'}.")


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
    if (found := _found(place)) is None:
        raise LaptopError(f"no laptop AKS runs in {place}", hint="Start it with aksgpu.local.start().")
    return str(_ask(found[0], "POST", "/laptop/inject", {"fault": fault, **details})["done"])


@contextlib.contextmanager
def laptop(**settings: Any) -> Iterator[Endpoint]:
    """A private laptop AKS with a directory and a port of its own; stopped and removed at the end of the block.

    Args:
        **settings: fields of :class:`~aksgpu.local.settings.Settings`, such as ``time_scale=0.05``.

    Raises:
        LaptopError: it does not start. Its directory stays, for its log.
    """
    chosen = Settings(**settings)
    place = Path(tempfile.mkdtemp(prefix="aksgpu-"))
    endpoint = None
    try:
        endpoint = start(place, settings=chosen)
        yield endpoint
    finally:
        stop(home=place)
        if endpoint is not None:
            shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def own(place: Path) -> Iterator[int | None]:
    """Own a home for a block of code: the descriptor that says so, or None where a process owns it already."""
    with _lock(place, fcntl.LOCK_EX) as lock:
        if lock is not None:
            write_record(place, port=record(place).get("port"))  # kubeconfig files name it
        yield lock


def record(place: Path) -> dict[str, Any]:
    """What the process said of itself last; without ``pid`` while it does not serve."""
    with contextlib.suppress(OSError, ValueError):
        said = json.loads((place / "laptop.json").read_bytes())
        if isinstance(said, dict):  # a file in the user's directory may say anything
            port = said.get("port")
            return said | {"port": port if isinstance(port, int) and 0 < port < 65536 else None}
    return {}


def write_record(place: Path, **said: Any) -> None:
    """Say something of the process to those who look for it."""
    write_private(place / "laptop.json", json.dumps(said).encode())


def _place(home: Path | str | None) -> Path:
    return user_home() if home is None else Path(home).expanduser().resolve()


@contextlib.contextmanager
def _lock(place: Path, kind: int) -> Iterator[int | None]:
    with open(place / "laptop.lock", "a", opener=private) as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file.fileno()


@contextlib.contextmanager
def _files(place: Path) -> Iterator[None]:
    """Say it in words when the home cannot be used."""
    try:
        yield
    except OSError as error:
        raise LaptopError(
            f"the laptop AKS cannot keep its files in {place}: {error.strerror or error}",
            hint="Set AKSGPU_HOME to a directory of your own that is writable.",
        ) from error


def _running(place: Path) -> bool:
    """Whether a process serves this home, or is about to."""
    with _files(place):
        if not (place / "laptop.lock").exists():
            return False
        with _lock(place, fcntl.LOCK_SH) as lock:  # shared, so that several may ask at once
            return lock is None


def _signal(place: Path, number: int) -> bool:
    """Signal the process that serves; where several machines share the home, its pid may be another's here."""
    pid = record(place).get("pid")
    with contextlib.suppress(OSError):
        if pid and Path(f"/proc/{pid}/cwd").samefile(place):
            os.kill(pid, number)
            return True
    return False


def _found(place: Path) -> tuple[Endpoint, dict[str, Any]] | None:
    """The one that runs, as soon as it answers, and how it is; None when there is none, or none any more."""
    deadline = time.monotonic() + START_SECONDS
    why = "it does not say where"
    while _running(place):
        if (said := record(place)).get("pid"):
            try:
                token = (place / "token").read_text(encoding="ascii").strip()
                url = f"https://{LOOPBACK}:{said['port']}"
                endpoint = Endpoint(url, SUBSCRIPTION_ID, token, place / "ca.pem", place)
                return endpoint, said | _ask(endpoint, "GET", "/laptop/status")
            except (OSError, ValueError, http.client.HTTPException, LaptopError) as error:
                why = str(error)
        if time.monotonic() > deadline:
            hint = f"Run `aksgpu local stop` and try again; its log is {place / 'laptop.log'}."
            raise LaptopError(f"the laptop AKS in {place} runs but does not answer: {why}", hint=hint)
        time.sleep(LOOK_SECONDS)
    return None


def _ask(endpoint: Endpoint, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    trust = ssl.create_default_context(cafile=endpoint.ca_file)
    port = int(endpoint.base_url.rpartition(":")[2])
    connection = http.client.HTTPSConnection(LOOPBACK, port, timeout=ANSWER_SECONDS, context=trust)
    with contextlib.closing(connection):
        connection.request(
            method, path, json.dumps(body) if body else None, {"Authorization": f"Bearer {endpoint.token}"}
        )
        response = connection.getresponse()
        answer = response.read()
    if response.status != 200:
        try:
            why = json.loads(answer)["error"]["message"]
        except (ValueError, KeyError, TypeError):  # aiohttp's own refusals are plain text
            why = answer.decode(errors="replace")
        raise LaptopError(f"the laptop AKS refused {method} {path}: {why}")
    return dict(json.loads(answer))


def _spawn(place: Path, settings: Settings) -> bool:
    """Start the process, unless one owns the home; it answers somewhat later."""
    with _files(place):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if place.stat().st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "it belongs to another user")
        with own(place) as lock, open(place / "laptop.log", "ab", opener=private) as log:
            if lock is None:
                return False
            kept = {name: os.environ[name] for name in INHERITED.split() if name in os.environ}
            # This child forks once more and ends at once, so that nothing of the laptop is this process's child.
            subprocess.run(
                [sys.executable, "-P", "-m", "aksgpu.local.server", str(lock)],
                env={**kept, **settings.environment(), "AKSGPU_HOME": str(place), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,
                check=False,
            )
    return True
