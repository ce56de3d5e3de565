"""The program that runs in the pod: it checks the payload, runs it in a process of its own, and reports the outcome.

It uses the standard library only and works with Python 3.8, because the image is the user's. The file
``aksgpu_records.py`` beside it is :mod:`aksgpu.payload.records`, and ``aksgpu_gpu_sampler.py`` is
:mod:`aksgpu.payload.gpu_sampler`.

    python runner.py run       the main container: run the payload
    python runner.py task      the process of the payload, which ``run`` starts
    python runner.py result    the sidecar: write a large result and the GPU samples to its log when the main container
                               has ended
    python runner.py cancel    stop the program; job.cancel() runs this in the main container
    python runner.py connect   join standard input and output with a session; session() runs this
    python runner.py gpu [T]   print the GPU samples that are later than T; job.gpu() runs this in the main container

Paths come from the environment: ``AKSGPU_PAYLOAD`` is the read-only directory of the payload, ``AKSGPU_RUN`` a writable
one that the containers share, and ``AKSGPU_MESSAGE`` the file of the termination message.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import importlib
import io
import json
import os
import pickle
import platform
import select
import signal
import subprocess
import sys
import time
import traceback
import types
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = str(Path(__file__).parent)
if TYPE_CHECKING or __name__ != "__main__":
    from aksgpu.payload import records
else:
    sys.path.insert(0, HERE)
    import aksgpu_records as records

    # The user's modules may have the names of the files beside this one.
    sys.path[:] = [entry for entry in sys.path if entry != HERE]

__all__ = ["run"]

PAYLOAD = Path(os.environ.get("AKSGPU_PAYLOAD", "/aksgpu/payload"))
RUN = Path(os.environ.get("AKSGPU_RUN", "/aksgpu/run"))
MESSAGE = Path(os.environ.get("AKSGPU_MESSAGE", "/dev/termination-log"))

OWN_PID = os.getpid()
"""This process. A copy that the program makes with ``os.fork`` has another id."""
OUTCOME = RUN / "outcome"
"""The file in which the task's process leaves its outcome: a line of JSON, then the body."""
RESULT = RUN / "result"
"""The file with the text of a record for the sidecar."""
PID_FILE = RUN / "runner.pid"
CANCELLED = RUN / "cancelled"
"""A file that exists after ``cancel``."""
READY = RUN / "sidecar-ready"
"""A file that exists when the sidecar is ready for SIGTERM."""
FORMAT = 1
"""Format of the payload that this runner reads."""
GRACE_SECONDS = 30.0
"""Seconds between SIGTERM and SIGKILL."""
POLL_SECONDS = 0.05
READY_SECONDS = 60.0
"""Seconds that a large result waits for the sidecar to be ready."""
LARGEST_PICKLED_EXCEPTION = 2 * 1024 * 1024
"""Characters of a pickled exception. A larger one comes back as text."""
LARGEST_TRACEBACK = 200_000
"""Characters of a traceback that come back."""
LARGEST_LIST = 300
"""Characters of the list of packages that the log shows."""
SLOW_INSTALLATION = 60.0
"""Seconds of an installation after which an image is suggested."""
SHOWN_FILES = 5
"""Files that a notice about lost files names."""
SHORTER = (200, 80, 20)
"""Characters of the texts of a record that is too long for a message."""
LONGEST_SHOWN_NAME = 80
"""Characters of each of their names, from the end."""


class Refused(Exception):
    """The payload cannot be run. Its outcome and exit code say why."""

    def __init__(self, kind: str, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.kind = kind
        self.exit_code = exit_code


def own_module(name: str) -> Any:
    """Import a file beside this one that is rarely needed. Without it, a pod starts faster."""
    sys.path.insert(0, HERE)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(HERE)


def say(text: str) -> None:
    """Print a line of the runner's own."""
    print(f"[aksgpu] {text}", file=sys.stderr, flush=True)


# The payload


def read_header() -> dict[str, Any]:
    """Return the payload's header."""
    header = json.loads((PAYLOAD / "header.json").read_bytes())
    if header["format"] != FORMAT:
        raise Refused("damaged", f"this runner reads payloads of format {FORMAT}", records.PAYLOAD_DAMAGED)
    return dict(header)


def check_python(header: dict[str, Any]) -> str:
    """Return the mode in which the payload is read: its own, or ``source`` if this Python differs and it has that.

    A pickle of another Python is refused. Nothing may be unpickled before: it can crash, or return wrong values.
    """
    wanted = header["python"]
    own = ".".join(map(str, sys.version_info[:2]))
    implementation = platform.python_implementation()
    if header["mode"] != "pickle" or (own, implementation) == (wanted, header["implementation"]):
        return str(header["mode"])
    if not header["source_problem"]:
        return "source"
    text = (
        f"the function was pickled by {header['implementation']} {wanted}, and the image has {implementation} {own}. "
        f"Nothing was unpickled. It was not sent as source, because: {header['source_problem']}"
    )
    raise Refused("python", text, records.PYTHON_DIFFERS)


def read_body(header: dict[str, Any], key: bytes) -> dict[str, bytes]:
    """Return the files of the payload's body by name, after its HMAC was verified."""
    parts = [(PAYLOAD / f"body-{number:03d}").read_bytes() for number in range(header["parts"])]
    stored = b"".join(parts)
    digest = hashlib.sha256(stored).hexdigest()
    mac = hmac.new(key, stored, hashlib.sha256).hexdigest()
    if digest != header["sha256"] or not hmac.compare_digest(mac, header["hmac"]):
        raise Refused("damaged", "the payload is incomplete or was changed in transit", records.PAYLOAD_DAMAGED)
    with zipfile.ZipFile(io.BytesIO(stored)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def read_key() -> bytes:
    """Return the key of the HMACs."""
    return (PAYLOAD / "key").read_bytes()


def install_files(entries: dict[str, bytes], prefix: str, directory: Path) -> None:
    """Write the files of the payload whose names begin with a prefix to a directory."""
    for name, content in entries.items():
        if name.startswith(prefix):
            path = directory / name[len(prefix) :]
            made(path.parent)
            path.write_bytes(content)


# The main container


def run() -> int:
    """Run the payload in a process of its own, and return the exit code of the container."""
    began = time.monotonic()
    supervisor = Supervisor()
    key = read_key()
    body = b""
    try:
        prepare()
        prepare_output(key)
        header = read_header()
        check_python(header)
        entries = read_body(header, key)
        interpreter = install_packages(json.loads(entries["packages.json"]), supervisor)
        directory = workspace()
        install_files(entries, "work/", directory)
        given = file_states(directory)
        with own_module("aksgpu_gpu_sampler").sampling(RUN):
            exit_code = supervisor.run([interpreter, __file__, "task"], directory, time_limit())
        outcome, body = read_outcome(supervisor, exit_code, header["task"])
        lost = report_lost_files(directory, given)
        if lost:
            outcome["lost"] = lost
    except Refused as refused:
        say(str(refused))
        exit_code = refused.exit_code
        outcome = cancelled_outcome() or {"kind": refused.kind, "text": str(refused)}
    outcome["seconds"] = round(time.monotonic() - began, 3)
    outcome["attempt"] = attempt()
    outcome["python"] = ".".join(map(str, sys.version_info[:2]))
    outcome["exit_code"] = outcome.get("exit_code", exit_code)
    report(outcome, body, key)
    return int(outcome["exit_code"])


def prepare() -> None:
    """Prepare the environment of the program: its attempt, and directories that it can write to."""
    RUN.mkdir(parents=True, exist_ok=True)
    PID_FILE.write_text(str(os.getpid()))
    os.environ["AKSGPU_ATTEMPT"] = str(attempt())
    own = ".".join(map(str, sys.version_info[:2]))
    if os.environ.get("AKSGPU_PYTHON", own) != own:
        say(f"the image has Python {own}, and Python {os.environ['AKSGPU_PYTHON']} was asked for")
    if not is_writable(Path(os.environ.get("HOME") or "/nonexistent")):
        os.environ["HOME"] = str(made(RUN / "home"))
    if not is_writable(Path(os.environ.get("TMPDIR") or "/tmp")):
        os.environ["TMPDIR"] = str(made(RUN / "tmp"))


def attempt() -> int:
    """Return the number of the attempt, from 0: how many pods of this run have ended before."""
    return sum(int(os.environ.get(name) or 0) for name in ("AKSGPU_FAILURES", "AKSGPU_DISRUPTIONS"))


def is_writable(directory: Path) -> bool:
    """Return whether files can be created in a directory."""
    return directory.is_dir() and os.access(directory, os.W_OK | os.X_OK)


def made(directory: Path) -> Path:
    """Return a directory, which is created if it does not exist."""
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def time_limit() -> float:
    """Return the seconds that the program may run; infinity for no limit."""
    return float(os.environ.get("AKSGPU_TIMEOUT") or "inf")


def workspace() -> Path:
    """Return the working directory of the program."""
    return made(Path(os.environ.get("AKSGPU_WORKDIR") or RUN / "work"))


class Supervisor:
    """Starts processes, passes signals on to them, and ends them when their time is up.

    Attributes:
        timed_out: whether the time was up.
        signals: signals that the runner has received.
    """

    def __init__(self) -> None:
        self.timed_out = False
        self.signals: list[int] = []
        self._kill_at = float("inf")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, _: object) -> None:
        self.signals.append(number)

    def run(self, command: list[str], directory: Path, limit: float = float("inf"), **options: Any) -> int:
        """Run a command until it ends, and return its exit code as Popen does.

        Args:
            command: the command.
            directory: its working directory.
            limit: seconds after which it is ended.
            options: further arguments of Popen.
        """
        if self.signals:
            return -self.signals[0]
        deadline = time.monotonic() + limit
        passed = 0
        process = subprocess.Popen(command, cwd=directory, start_new_session=True, **options)
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(POLL_SECONDS)
                now = time.monotonic()
                if now >= deadline and not self.timed_out:
                    self.timed_out = True
                    say(f"the time limit of {limit:g} s is over: the program is asked to end (SIGTERM)")
                    self._end(process, now)
                if len(self.signals) > passed:
                    passed = len(self.signals)
                    self._end(process, now)
                if now >= self._kill_at:
                    say(f"the program did not end within {GRACE_SECONDS:g} s: it is killed (SIGKILL)")
                    send(process, signal.SIGKILL)
                    self._kill_at = float("inf")
        finally:
            send(process, signal.SIGKILL)  # processes that the program left running

    def _end(self, process: subprocess.Popen[bytes], now: float) -> None:
        send(process, signal.SIGTERM)
        self._kill_at = min(self._kill_at, now + GRACE_SECONDS)


def send(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a process and those that it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def install_packages(packages: dict[str, Any], supervisor: Supervisor) -> str:
    """Install the payload's packages, and return the interpreter that has them."""
    if not packages["requirements"]:
        return sys.executable
    installer = own_module("aksgpu_installer")
    began = time.monotonic()
    say(f"installing packages: {' '.join(packages['requirements'])[:LARGEST_LIST]}")
    try:
        interpreter: str = installer.install(packages, RUN / "packages", supervisor.run)
    except installer.InstallFailed as failed:
        if supervisor.signals:
            raise Refused("died", "the pod was ended while packages were installed", 128 + signal.SIGTERM) from None
        raise Refused("packages", str(failed), records.NO_PACKAGES) from None
    seconds = time.monotonic() - began
    slow = ". An image that has them starts sooner" if seconds > SLOW_INSTALLATION else ""
    say(f"the packages were ready after {seconds:.0f} s{slow}")
    return interpreter


# The outcome


def read_outcome(supervisor: Supervisor, exit_code: int, kind: str) -> tuple[dict[str, Any], bytes]:
    """Return the outcome that the task's process left, or what its end means."""
    cancelled = cancelled_outcome()
    if cancelled:
        return cancelled, b""
    if OUTCOME.exists():
        first, _, body = OUTCOME.read_bytes().partition(b"\n")
        outcome = dict(json.loads(first))
        if outcome["kind"] == "value" and kind == "function":
            if exit_code:
                say(f"the function has returned; its process then ended with exit code {exit_code}")
            outcome["exit_code"] = 0  # the value counts, so that the Job does not run it again
        if outcome["kind"] == "value" or not supervisor.timed_out:
            return outcome, body
    if supervisor.timed_out:
        text = f"the program ran longer than its time limit of {time_limit():g} s"
        return {"kind": "timeout", "text": text, "exit_code": records.TIMED_OUT}, b""
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        text = f"the {kind}'s process was ended by {name}{who_sent(-exit_code, supervisor)}"
        return {"kind": "died", "text": text, "signal": name, "exit_code": 128 - exit_code}, b""
    if kind == "script":  # it has called os._exit, or has replaced its process
        text = f"the script ended with exit code {exit_code}"
        return {"kind": "exit_code" if exit_code else "value", "text": text}, b"" if exit_code else pickle.dumps(None)
    text = f"the {kind}'s process ended with exit code {exit_code} before the {kind} returned"
    return {"kind": "died", "text": text, "exit_code": exit_code or records.VANISHED}, b""


def cancelled_outcome() -> dict[str, Any] | None:
    """Return the outcome of a program that ``cancel`` has stopped; None if it has not."""
    if not CANCELLED.exists():
        return None
    return {"kind": "cancelled", "text": "the program was stopped", "exit_code": records.STOPPED}


def who_sent(number: int, supervisor: Supervisor) -> str:
    """Return what is known about the sender of a signal, as a clause."""
    if number in supervisor.signals:
        return ", because the pod is being ended"
    if number == signal.SIGKILL and killed_for_memory():
        return ", by the kernel, because the container's memory was used up"
    return ""


def killed_for_memory() -> bool:
    """Return whether the kernel has killed a process of this container for its memory."""
    try:
        events = Path("/sys/fs/cgroup/memory.events").read_text().split()
        return int(events[events.index("oom_kill") + 1]) > 0
    except (OSError, ValueError, IndexError):
        return False


def report(outcome: dict[str, Any], body: bytes, key: bytes) -> None:
    """Write the outcome where the client finds it: the termination message, or the sidecar's log."""
    is_kept = keep_in_output(outcome, body, key)
    text = records.encode({**outcome, "where": "message"}, body, key)
    summary = str(outcome.get("text") or "")
    whole = records.message(summary, text)
    if len(whole.encode()) > records.LARGEST_MESSAGE:
        stored, _ = records.compress(body)
        where = "file" if is_kept else "nowhere"
        if len(stored) <= records.LARGEST_FRAMED_BODY:
            where = "log"
        header = {**outcome, "text": summary[: records.LARGEST_SUMMARY], "size": len(body), "stored": len(stored)}
        header["where"] = where
        if where == "log":
            write_whole(RESULT, records.encode(header, body, key).encode())
            wait_for_sidecar()
        whole = short_message(summary, header, key)
    MESSAGE.write_text(whole, encoding="utf-8")


def short_message(summary: str, header: dict[str, Any], key: bytes) -> str:
    """Return the message of a record without its body. Its texts are cut, so that Kubernetes does not cut the record.

    In JSON, a character can take twelve bytes.
    """
    for characters in (records.LARGEST_SUMMARY, *SHORTER):
        texts = [name for name in ("text", "lost") if name in header]
        cut: dict[str, Any] = {name: str(header[name])[:characters] for name in texts}
        whole = records.message(summary, records.encode({**header, **cut}, b"", key))
        if len(whole.encode()) <= records.LARGEST_MESSAGE:
            break
    return whole


def keep_in_output(outcome: dict[str, Any], body: bytes, key: bytes) -> bool:
    """Write the outcome to the claim for output, and return whether that was done."""
    file = output_file(key)
    if file is None:
        return False
    try:
        made(file.parent)
        write_whole(file, records.to_file({**outcome, "where": "message"}, body, key))
    except OSError as error:
        say(f"the result could not be written to the claim for output: {error}")
        return False
    return True


def output_file(key: bytes) -> Path | None:
    """Return the file for the outcome on the claim for output; None without such a claim."""
    directory = os.environ.get("AKSGPU_OUT")
    if not directory:
        return None
    own = Path(directory)
    return own.parent / ".aksgpu" / own.name / records.output_file(key)


def prepare_output(key: bytes) -> None:
    """Make the Job's directory on the claim for output, and delete the outcome of an earlier attempt."""
    file = output_file(key)
    if file is None:
        return
    try:
        made(Path(os.environ["AKSGPU_OUT"]))
        if file.exists():
            file.unlink()
    except OSError as error:
        text = f"the claim for output cannot be written: {error}"
        raise Refused("output", text, records.NO_OUTPUT) from None


def wait_for_sidecar() -> None:
    """Wait until the sidecar can receive SIGTERM. Without it, the result would be lost."""
    deadline = time.monotonic() + READY_SECONDS
    while not READY.exists() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds all of it or none."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(content)
    temporary.replace(path)


def report_lost_files(directory: Path, given: dict[str, tuple[int, int]]) -> str:
    """Print and return which files the program wrote to its working directory, if they disappear with the pod.

    Args:
        directory: the working directory.
        given: the files that it had before.
    """
    if os.environ.get("AKSGPU_WORKDIR"):
        return ""
    files = sorted(name for name, state in file_states(directory).items() if given.get(name) != state)
    if not files:
        return ""
    more = f" and {len(files) - SHOWN_FILES} more" if len(files) > SHOWN_FILES else ""
    names = ", ".join(name[-LONGEST_SHOWN_NAME:] for name in files[:SHOWN_FILES]) + more
    place = ". What is written to $AKSGPU_OUT stays" if os.environ.get("AKSGPU_OUT") else ""
    say(f"files in the working directory are deleted with this pod: {names}{place}")
    return names


def file_states(directory: Path) -> dict[str, tuple[int, int]]:
    """Return the size and the time of each file of a directory by its path, without cached bytecode."""
    states = {}
    for place, directories, names in os.walk(directory):
        if "__pycache__" in directories:
            directories.remove("__pycache__")
        for name in names:
            path = Path(place, name)
            with contextlib.suppress(OSError):  # another process may delete it at the same time
                if path.is_file():
                    status = path.stat()
                    states[str(path.relative_to(directory))] = (status.st_size, status.st_mtime_ns)
    return states


# The task's process


def task() -> int:
    """Run the payload's content, and leave its outcome for the runner."""
    del sys.argv[1:]  # the user's code may parse its arguments
    header = read_header()
    header["mode"] = check_python(header)
    entries = read_body(header, read_key())
    libraries = made(RUN / "lib")
    install_files(entries, "lib/", libraries)
    install_files(entries, "project/", made(RUN / "project"))
    install_files(entries, "spare/", made(RUN / "spare"))
    sys.path[:] = [str(Path.cwd()), str(libraries), *sys.path, str(RUN / "spare")]
    show_sources(json.loads(entries["sources.json"]))
    return TASKS[header["task"]](header, entries)


def show_sources(sources: dict[str, str]) -> None:
    """Let tracebacks show the lines of modules and notebook cells that are not files here."""
    import linecache

    for name, text in sources.items():
        lines = text.splitlines(keepends=True)
        linecache.cache[name] = (len(text), None, lines, name)


def load_call(header: dict[str, Any], entries: dict[str, bytes]) -> Any:
    """Return the function, its positional and its keyword arguments."""
    main = users_main()
    # Processes that multiprocessing starts anew load the call from the file.
    if header["mode"] == "pickle":
        write_whole(RUN / "call.pkl", entries["call.pkl"])
        function, args, kwargs, names = pickle.loads(entries["call.pkl"])
        vars(main).update(names)
        return function, args, kwargs
    say(f"the function was written with Python {header['python']} and runs from its source")
    sys.path.insert(0, str(RUN / "project"))
    write_whole(RUN / "source.json", entries["source.json"])
    loaded = own_module("aksgpu_source").load(entries["source.json"])
    sys.modules["__main__"].__file__ = MAIN_FILE
    return loaded


MAIN_FILE = str(Path(HERE, "aksgpu_main.py"))
"""File of the user's main module, which is :mod:`aksgpu.payload.spawned_main`."""
KEPT: list[object] = []
"""This module, whose place the user's ``__main__`` takes."""


def users_main() -> types.ModuleType:
    """Return the module ``__main__`` of the user, by which pickle finds functions and classes of a notebook."""
    main = sys.modules["__main__"]
    if vars(main) is globals():
        KEPT.append(main)
        main = types.ModuleType("__main__")
        main.__file__ = MAIN_FILE
        sys.modules["__main__"] = main
    return main


def call(header: dict[str, Any], entries: dict[str, bytes]) -> int:
    """Call the function, and write its value or exception."""
    pickler.header = header
    try:
        function, args, kwargs = load_call(header, entries)
    except BaseException as error:
        text = f"the function could not be loaded: {describe(error)}"
        write_outcome({"kind": "unloadable", "text": text, "exit_code": records.PAYLOAD_DAMAGED}, failure_body(error))
        traceback.print_exc()
        return records.PAYLOAD_DAMAGED
    try:
        value = function(*args, **kwargs)
    except SystemExit as leaving:
        code = exit_code_of(leaving)
        write_outcome(
            {"kind": "exit", "text": f"the function called sys.exit({leaving.code!r})"}, failure_body(leaving)
        )
        return code
    except BaseException as error:
        sys.stderr.write(traceback_text(error))
        write_outcome({"kind": "exception", "text": describe(error)}, failure_body(error))
        return 1
    return deliver(value)


def run_script(header: dict[str, Any], entries: dict[str, bytes]) -> int:
    """Run a script, and write its outcome."""
    import aksgpu_script

    return int(aksgpu_script.run(sys.modules[__name__], entries))


def run_session(header: dict[str, Any], _: dict[str, bytes]) -> int:
    """Run the calls of a session until it ends."""
    import aksgpu_session

    return int(aksgpu_session.serve(sys.modules[__name__], header))


TASKS = {"function": call, "script": run_script, "session": run_session}
"""What runs a payload's content, by the header's ``task``. Each leaves an outcome and returns the exit code."""


def exit_code_of(leaving: SystemExit) -> int:
    """Return the exit code that Python would give; print the text of ``sys.exit("text")``, as Python does."""
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        return leaving.code
    print(leaving.code, file=sys.stderr)
    return 1


def deliver(value: object) -> int:
    """Write the value of the function."""
    try:
        body = pickler.dumps(value)
    except BaseException as error:
        text = f"the value of type {type(value).__name__} cannot be pickled: {describe(error)}"
        say(text)
        write_outcome({"kind": "unpicklable", "text": text}, failure_body(error))
        return 1
    write_outcome({"kind": "value", "text": f"returned a value of type {type(value).__name__}"}, body)
    return 0


class OutcomePickler:
    """Pickles values and exceptions so that the client can read them.

    Attributes:
        header: the payload's header, with the mode in which it was read.
    """

    def __init__(self) -> None:
        self.header: dict[str, Any] = {}

    def dumps(self, value: object) -> bytes:
        """Return the pickle of a value. Another Python can read only what is pickled by reference."""
        if self.header.get("mode") == "source":
            return pickle.dumps(value, 4)
        import cloudpickle

        return bytes(cloudpickle.dumps(value, self.header.get("protocol", 4)))


pickler = OutcomePickler()


def write_outcome(outcome: dict[str, Any], body: bytes) -> None:
    """Leave an outcome for the runner, except in a copy of the process that the program made with ``os.fork``."""
    if os.getpid() != OWN_PID:
        return
    write_whole(OUTCOME, json.dumps(outcome).encode() + b"\n" + body)


def describe(error: BaseException) -> str:
    """Return an exception in one line."""
    try:
        if isinstance(error, SyntaxError):  # its text has several lines
            return f"{type(error).__name__}: {error}"
        return "".join(traceback.format_exception_only(type(error), error)).strip()
    except Exception:
        return type(error).__name__


def traceback_text(error: BaseException) -> str:
    """Return the traceback without the frames of this program."""
    found = error.__traceback__
    while found is not None and found.tb_frame.f_code.co_filename == __file__:
        found = found.tb_next
    return "".join(traceback.format_exception(type(error), error, found))


def failure_body(error: BaseException) -> bytes:
    """Return an exception as JSON: its class, arguments and traceback as text, and its pickle if it has one."""
    pickled = None
    with contextlib.suppress(BaseException):
        content = pickler.dumps(error)
        pickle.loads(content)
        pickled = base64.b64encode(content).decode()
    arguments = []
    for each in getattr(error, "args", ()):
        with contextlib.suppress(Exception):
            arguments.append(repr(each)[:2000])
    described = {
        "type": type(error).__qualname__,
        "module": type(error).__module__,
        "arguments": arguments,
        "text": describe(error)[:LARGEST_TRACEBACK],
        "traceback": traceback_text(error)[-LARGEST_TRACEBACK:],
        "pickle": pickled if len(pickled or "") <= LARGEST_PICKLED_EXCEPTION else None,
    }
    return json.dumps(described).encode()


# The sidecar and the cancellation


def result() -> int:
    """Wait for SIGTERM, which comes when the main container has ended; then write to the log.

    The log gets a large result, and the GPU samples after it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    made(RUN)
    READY.touch()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    if RESULT.exists():
        for line in records.to_frames(RESULT.read_text()):
            sys.stdout.write(line + "\n")
    return gpu()


def cancel() -> int:
    """Ask the runner of this container to stop the program."""
    made(RUN)
    CANCELLED.touch()
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(PID_FILE.read_text()), signal.SIGTERM)
    return 0


def connect() -> int:
    """Join standard input and output with the session of this container, once it is ready."""
    while not (RUN / "session.sock").exists():
        is_readable, _, _ = select.select([0], [], [], POLL_SECONDS)
        if is_readable:  # the client sends nothing before the session's greeting, so its connection has ended
            return 0
    sys.path.insert(0, str(RUN / "lib"))
    import aksgpu_session

    return int(aksgpu_session.connect(RUN))


def gpu() -> int:
    """Print the GPU samples; those after a time if one is given."""
    since = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    for line in own_module("aksgpu_gpu_sampler").read_lines(RUN, since):
        sys.stdout.write(line + "\n")
    sys.stdout.flush()
    return 0


COMMANDS = {"run": run, "task": task, "result": result, "cancel": cancel, "connect": connect, "gpu": gpu}

if __name__ == "__main__":
    sys.exit(COMMANDS[sys.argv[1]]())
