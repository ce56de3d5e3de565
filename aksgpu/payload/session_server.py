"""The process of a session in the pod: it runs calls one after another, and keeps their output and outcome.

In the pod it is the file ``aksgpu_session.py``. It uses the standard library only, and works with Python 3.8.

Clients connect through a socket in the run directory. A client that comes back gets the rest of the output of its call,
because the output is kept in a file until the next call. :func:`connect` is the program that joins the socket with the
streams of ``pods/exec``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pickle
import platform
import select
import signal
import socket
import struct
import sys
import termios
import threading
import time
import uuid
from collections import OrderedDict, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __name__.startswith("aksgpu."):
    from aksgpu.payload import cell_runner as cells
    from aksgpu.payload import session_frames as frames
else:
    import aksgpu_cells as cells
    import aksgpu_frames as frames

__all__ = ["SOCKET", "connect", "serve"]

SOCKET = "session.sock"
"""Name of the socket in the run directory."""
CHUNK_BYTES = 64 * 1024
LARGEST_OUTPUT = 1024 * 1024 * 1024
"""Bytes of one call's output that are kept. Further output is in the container's log only."""
SILENCE_SECONDS = 120.0
"""Seconds without a message after which ``connect`` ends. Clients send a message every few seconds."""
SIGN_SECONDS = 2.0
"""Seconds after which a client that sends a large message gets a sign that it arrives."""
POLL_SECONDS = 0.02
KEPT_CALLS = 8
"""Ended calls of other clients that are kept. A client whose connection broke gets its outcome later."""
KEPT_BYTES = 512 * 1024 * 1024
"""Bytes of their values and output that are kept. The newest of these calls is kept whatever its size."""
CUT = b"\n[aksgpu] more output than 1 GiB: the rest is in the log of the Job\n"


class Call:
    """A call, its output and its outcome.

    Attributes:
        client: which client has sent it.
        header: the header of its message.
        body: the body of its message; empty once it has run.
        size: bytes of its output's records.
        outcome: how it ended; None before.
        result: the body of the outcome.
        is_interrupted: whether it was interrupted before it began.
    """

    def __init__(self, header: dict[str, Any], body: bytes, path: Path) -> None:
        self.id = str(header["id"])
        self.client = str(header.get("client"))
        self.header = header
        self.body = body
        self.size = 0
        self.outcome: dict[str, Any] | None = None
        self.result = b""
        self.is_interrupted = False
        self._path = path
        self._file = path.open("wb", buffering=0)

    def write(self, stream: int, data: bytes) -> None:
        """Add to its output."""
        if self.size > LARGEST_OUTPUT:
            return
        self._append(stream, data)
        if self.size > LARGEST_OUTPUT:
            self._append(2, CUT)

    def _append(self, stream: int, data: bytes) -> None:
        text = frames.record(stream, data)
        self._file.write(text)
        self.size += len(text)

    def read(self, offset: int) -> bytes:
        """Return a part of its output's records."""
        with self._path.open("rb") as file:
            file.seek(offset)
            return file.read(min(CHUNK_BYTES, self.size - offset))

    def forget(self) -> None:
        """Delete its output."""
        self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink()


class Output:
    """Takes what this process and its children write to standard output and error.

    It goes to the container's log, and to the call that runs.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._pipes: dict[int, tuple[int, int]] = {}
        for stream in (1, 2):
            log = os.dup(stream)
            read, write = os.pipe()
            os.dup2(write, stream)
            os.close(write)
            self._pipes[read] = (stream, log)
        threading.Thread(target=self._copy, daemon=True).start()

    def _copy(self) -> None:
        while True:
            ready, _, _ = select.select(list(self._pipes), [], [])
            for pipe in ready:
                with self._lock:
                    self._copy_piece(pipe)

    def _copy_piece(self, pipe: int) -> None:
        stream, log = self._pipes[pipe]
        data = os.read(pipe, CHUNK_BYTES)
        with contextlib.suppress(OSError):
            write_all(log, data)
        self._server.add_output(stream, data)

    def drain(self) -> None:
        """Wait until everything that was written before has been taken."""
        with contextlib.suppress(Exception):  # the program may have closed or replaced them
            sys.stdout.flush()
            sys.stderr.flush()
        while True:
            with self._lock:
                if not any(waiting_bytes(pipe) for pipe in self._pipes):
                    return
            time.sleep(POLL_SECONDS)


def waiting_bytes(descriptor: int) -> int:
    """Return how many bytes can be read from a pipe."""
    buffer = fcntl.ioctl(descriptor, termios.FIONREAD, struct.pack("i", 0))
    return int(struct.unpack("i", buffer)[0])


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes to a file descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class Server:
    """Runs calls in the main thread, and serves clients in others.

    Args:
        runner: the module ``runner.py``.
        header: the header of the payload.

    Attributes:
        instance: a name of this process that no other has.
        changed: what the threads of connections wait for: output, outcomes and the end.
        is_closing: whether a client has closed the session.
    """

    def __init__(self, runner: Any, header: dict[str, Any]) -> None:
        self.runner = runner
        self.header = header
        self.instance = uuid.uuid4().hex
        self.changed = threading.Condition()
        self.is_closing = False
        self._calls: OrderedDict[str, Call] = OrderedDict()
        self._queue: deque[Call] = deque()
        self._current: Call | None = None
        self._may_interrupt = False
        self._directory = runner.made(runner.RUN / "session")
        self._namespace = cells.Namespace(self.display)
        self._main = threading.get_ident()
        signal.signal(signal.SIGINT, self._receive_interrupt)
        self._output = Output(self)

    # Called by the threads of connections and of the output

    def add_output(self, stream: int, data: bytes) -> None:
        """Add to the output of the call that runs."""
        with self.changed:
            if self._current is not None:
                self._current.write(stream, data)
                self.changed.notify_all()

    def display(self, bundle: dict[str, str]) -> None:
        """Add an object to the output of the call that runs, after what was printed before."""
        self._output.drain()
        self.add_output(frames.DISPLAY, json.dumps(bundle).encode())

    def submit(self, header: dict[str, Any], body: bytes) -> Call:
        """Queue a call, unless it is known. Earlier calls of the same client are forgotten: it has their outcomes."""
        with self.changed:
            known = self._calls.get(str(header["id"]))
            if known is not None:
                return known
            call = Call(header, body, self._directory / uuid.uuid4().hex)
            for old in forgettable(list(self._calls.values()), call.client):
                del self._calls[old.id]
                old.forget()
            self._calls[call.id] = call
            self._queue.append(call)
            self.changed.notify_all()
            return call

    def find(self, call_id: str) -> Call | None:
        """Return a call by its id."""
        with self.changed:
            return self._calls.get(call_id)

    def interrupt(self, call_id: str) -> None:
        """Raise KeyboardInterrupt in a call; one that has not begun is not run."""
        with self.changed:
            call = self._calls.get(call_id)
            if call is None or call.outcome is not None:
                return
            call.is_interrupted = True
            if call is self._current:
                self._send_interrupt()

    def close(self) -> None:
        """End the session; a call that runs is interrupted."""
        with self.changed:
            self.is_closing = True
            if self._current is not None:
                self._send_interrupt()
            self.changed.notify_all()

    def _send_interrupt(self) -> None:
        """Interrupt the main thread and the child processes, as Ctrl-C in a terminal does."""
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGINT)
        else:
            signal.pthread_kill(self._main, signal.SIGINT)

    # Called by the main thread

    def _receive_interrupt(self, *_: object) -> None:
        if self._may_interrupt:
            raise KeyboardInterrupt

    def run(self) -> str:
        """Run calls until the session ends, and return why it has ended."""
        idle = float(self.header["idle"])
        ends = time.monotonic() + idle
        while True:
            call = self._next(ends)
            if call is None:
                return "the session was closed" if self.is_closing else f"the session was idle for {idle:g} s"
            self._execute(call)
            ends = time.monotonic() + idle

    def _next(self, ends: float) -> Call | None:
        """Return the next call; None at the end of the session."""
        with self.changed:
            while not self._queue:
                left = ends - time.monotonic()
                if self.is_closing or left <= 0:
                    return None
                self.changed.wait(min(left, 3600))
            self._current = self._queue.popleft()
            return self._current

    def _execute(self, call: Call) -> None:
        own = os.getpid()
        try:
            outcome, result = self._outcome(call)
        except KeyboardInterrupt as late:  # it came while the call ended
            self._may_interrupt = False
            outcome, result = self._failure(late)
        if os.getpid() != own:  # the function returned in a copy of this process, which it made with os.fork
            os._exit(0)
        self._output.drain()
        with self.changed:
            call.body = b""
            call.outcome = outcome
            call.result = result
            self._current = None
            self.changed.notify_all()

    def _outcome(self, call: Call) -> tuple[dict[str, Any], bytes]:
        """Run a call, and return its outcome."""
        runner = self.runner
        entries = split(call.header["entries"], call.body)
        header = {**self.header, **call.header}
        runner.pickler.header = header
        try:
            try:
                self._may_interrupt = True
                if call.is_interrupted:
                    raise KeyboardInterrupt
                value = self._value(header, entries)
            finally:
                self._may_interrupt = False
        except Unloadable as failed:
            text = f"the function could not be loaded: {runner.describe(failed.error)}"
            return {"kind": "unloadable", "text": text}, runner.failure_body(failed.error)
        except SystemExit as leaving:
            text = f"the function called sys.exit({leaving.code!r})"
            return {"kind": "exit", "text": text}, runner.failure_body(without_own_frames(leaving))
        except BaseException as error:
            return self._failure(error)
        try:
            return {"kind": "value", "text": ""}, runner.pickler.dumps(value)
        except BaseException as error:
            what = f"the value of type {type(value).__name__}"
            if header["kind"] == "cell":
                what = self._unpicklable_names(value)
            text = f"{what} cannot be pickled: {runner.describe(error)}"
            return {"kind": "unpicklable", "text": text}, runner.failure_body(error)

    def _value(self, header: dict[str, Any], entries: dict[str, bytes]) -> Any:
        """Return the value of a function or of a cell."""
        if header["kind"] == "cell":
            return self._namespace.run(header["name"], entries)
        self.runner.show_sources(json.loads(entries["sources.json"]))
        try:
            if header["mode"] == "source":
                self._update_project(entries)
            function, args, kwargs = self.runner.load_call(header, entries)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise Unloadable(error) from error
        return function(*args, **kwargs)

    def _unpicklable_names(self, values: dict[str, Any]) -> str:
        """Return which outputs of a cell cannot be pickled, in words."""
        names = []
        for name, value in values.items():
            try:
                self.runner.pickler.dumps(value)
            except Exception:
                names.append(f"{name} of type {type(value).__name__}")
        return f"the output {', '.join(names)}"

    def _update_project(self, entries: dict[str, bytes]) -> None:
        """Write modules that are sent as source, and forget those that have changed."""
        top = self.runner.RUN / "project"
        for name, content in entries.items():
            if name.startswith("project/"):
                path = top / name[len("project/") :]
                if path.exists() and path.read_bytes() != content:
                    forget_modules(top)
                self.runner.install_files({name: content}, "project/", top)

    def _failure(self, error: BaseException) -> tuple[dict[str, Any], bytes]:
        error = without_own_frames(error)
        return {"kind": "exception", "text": self.runner.describe(error)}, self.runner.failure_body(error)


def forgettable(calls: list[Call], client: str) -> list[Call]:
    """Return the calls that are forgotten when a client sends its next one.

    Args:
        calls: all calls that are known, oldest first.
        client: the client that sends another call.
    """
    ended = [call for call in calls if call.outcome is not None]
    found = [call for call in ended if call.client == client]
    others = [call for call in reversed(ended) if call.client != client]
    kept = 0
    for number, call in enumerate(others):
        kept += call.size + len(call.result)
        if number >= KEPT_CALLS or (number > 0 and kept > KEPT_BYTES):
            found.append(call)
    return found


class Unloadable(Exception):
    """A function cannot be loaded."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


def forget_modules(directory: Path) -> None:
    """Forget the imported modules of a directory, so that they are imported again."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.startswith(str(directory)):
            del sys.modules[name]


def without_own_frames(error: BaseException) -> BaseException:
    """Return an exception whose traceback begins in the user's code."""
    found = error.__traceback__
    while found is not None and found.tb_frame.f_code.co_filename in (__file__, cells.__file__):
        found = found.tb_next
    return error.with_traceback(found)


def split(names: list[Any], body: bytes) -> dict[str, bytes]:
    """Return the entries of a call by name."""
    entries = {}
    start = 0
    for name, size in names:
        entries[name] = body[start : start + size]
        start += size
    return entries


class Connection:
    """A client's connection."""

    def __init__(self, server: Server, client: socket.socket) -> None:
        self._server = server
        self._client = client
        self._sending = threading.Lock()
        self._call: Call | None = None
        self._offset = 0
        self._is_open = True
        self._last_sign = time.monotonic()
        threading.Thread(target=self._send_news, daemon=True).start()

    def serve(self) -> None:
        """Read the client's messages until it disconnects."""
        decoder = frames.Decoder()
        with contextlib.suppress(OSError):
            self._send(self._hello())
            while True:
                data = self._client.recv(CHUNK_BYTES * 16)
                if not data:
                    break
                if time.monotonic() - self._last_sign > SIGN_SECONDS:
                    self._send({"op": "pong"})
                for header, body in decoder.feed(data):
                    self._receive(header, body)
        with self._server.changed:
            self._is_open = False
            self._server.changed.notify_all()
        self._client.close()

    def _hello(self) -> dict[str, Any]:
        return {
            "op": "hello",
            "instance": self._server.instance,
            "python": ".".join(map(str, sys.version_info[:2])),
            "implementation": platform.python_implementation(),
            "pid": os.getpid(),
        }

    def _receive(self, header: dict[str, Any], body: bytes) -> None:
        operation = header["op"]
        if operation == "call":
            self._attach(self._server.submit(header, body), 0)
        elif operation == "attach":
            call = self._server.find(header["id"])
            if call is None:
                self._send({"op": "unknown", "id": header["id"]})
            else:
                self._attach(call, header["offset"])
        elif operation == "interrupt":
            self._server.interrupt(header["id"])
        elif operation == "close":
            self._server.close()
        elif operation == "ping":
            self._send({"op": "pong"})

    def _attach(self, call: Call, offset: int) -> None:
        with self._server.changed:
            self._call = call
            self._offset = offset
            self._server.changed.notify_all()

    def _send(self, header: dict[str, Any], body: bytes = b"") -> None:
        with self._sending:
            self._last_sign = time.monotonic()
            self._client.sendall(frames.encode(header, body))

    def _send_news(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                message = self._wait_for_news()
                if message is None:
                    return
                self._send(*message)

    def _wait_for_news(self) -> tuple[dict[str, Any], bytes] | None:
        """Return the next message about the call; None when the client has disconnected."""
        with self._server.changed:
            while self._is_open:
                call = self._call
                if call is not None and self._offset < call.size:
                    data = call.read(self._offset)
                    start = self._offset
                    self._offset += len(data)
                    return {"op": "output", "id": call.id, "offset": start}, data
                if call is not None and call.outcome is not None:
                    self._call = None
                    return {"op": "outcome", "id": call.id, "outcome": call.outcome}, call.result
                self._server.changed.wait()
        return None


def serve(runner: Any, header: dict[str, Any]) -> int:
    """Serve a session until it ends, leave its outcome for the runner, and return the exit code."""
    listener = listen(runner.RUN)
    runner.KEPT.append(sys.modules["__main__"])
    server = Server(runner, header)
    threading.Thread(target=accept, args=(listener, server), daemon=True).start()
    text = server.run()
    listener.close()
    runner.write_outcome({"kind": "value", "text": text}, pickle.dumps(None, 4))
    return 0


def listen(run: Path) -> socket.socket:
    """Return the socket for clients. Its path is relative, because a socket's path is at most 107 bytes long."""
    directory = Path.cwd()
    listener = socket.socket(socket.AF_UNIX)
    os.chdir(run)
    try:
        temporary = Path(SOCKET + ".new")
        listener.bind(str(temporary))
        listener.listen()
        temporary.replace(SOCKET)
    finally:
        os.chdir(directory)
    return listener


def accept(listener: socket.socket, server: Server) -> None:
    """Accept clients."""
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=Connection(server, client).serve, daemon=True).start()


def connect(run: Path) -> int:
    """Join standard input and output with the session's socket, until one of them ends."""
    server = socket.socket(socket.AF_UNIX)
    os.chdir(run)
    server.connect(SOCKET)
    last = time.monotonic()
    while True:
        ready, _, _ = select.select([0, server.fileno()], [], [], 1.0)
        if 0 in ready:
            data = os.read(0, CHUNK_BYTES)
            if not data:
                return 0
            server.sendall(data)
            last = time.monotonic()
        if server.fileno() in ready:
            data = server.recv(CHUNK_BYTES)
            if not data:
                return 0
            write_all(1, data)
        if time.monotonic() - last > SILENCE_SECONDS:
            return 0
