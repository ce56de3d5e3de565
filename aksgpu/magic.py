"""The magics ``%%gpu`` and ``%gpu``: cells of a notebook that run on a GPU of the cluster.

    %load_ext aksgpu

    %%gpu --gpus 1 -i x,y -o model
    model = train(x, y)

Cells with the same options share a session, so names stay defined between them. ``%gpu stop`` ends the sessions.
"""

from __future__ import annotations

import argparse
import contextlib
import pickle
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class

from aksgpu.cluster import Cluster
from aksgpu.errors import AksGpuError, InvalidInput, JobFailed, KubernetesError, ResultUnpicklable, SessionEnded
from aksgpu.jobs import Executor, job_outcome
from aksgpu.jobs.session import Session, check_idle
from aksgpu.payload.records import Record

__all__ = ["register"]

_IDLE = "10m"
"""How long a session waits for the next cell unless ``--idle`` says otherwise."""
_NO_CLUSTER = (
    "no variable is a cluster. Get one: aks = cluster.get(azure, name, resource_group=...). Or name one: %gpu use aks"
)


class _Help(Exception):
    """The user has asked for help, which has been printed."""


class _Parser(argparse.ArgumentParser):
    """A parser that raises IPython's error instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. {self.prog} --help lists the options.")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise _Help


def _cell_parser() -> _Parser:
    parser = _Parser(
        prog="%%gpu",
        description="Run the cell on a GPU of the cluster. Cells with the same options share a session: names stay "
        "defined between them.",
        epilog="%gpu shows the sessions and their cost, %gpu stop ends them, %gpu use NAME chooses the cluster or a "
        "jobs.Executor by its variable, and %gpu --idle 20m changes how long new sessions wait for a cell.",
    )
    parser.add_argument("-i", "--input", action="append", default=[], metavar="X,Y", help="variables to send")
    parser.add_argument("-o", "--output", action="append", default=[], metavar="Z", help="variables to bring back")
    parser.add_argument("--gpus", type=int, help="number of GPUs; 1 if not given")
    parser.add_argument("--image", help="container image with Python")
    parser.add_argument("--packages", help="requirements, separated by commas; or a requirements file")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="environment variable")
    parser.add_argument("--cpu", help="cores to reserve")
    parser.add_argument("--memory", help="memory to reserve, such as 8Gi")
    parser.add_argument("--vm-size", help="VM size of the node")
    parser.add_argument("--gpu-model", help="model of the GPUs, such as A100")
    parser.add_argument("--spot", action="store_true", default=None, help="use spot nodes only")
    parser.add_argument("--namespace", help="namespace of the pod")
    idle_help = f"how long the session waits for the next cell; {_IDLE} if not given"
    parser.add_argument("--idle", type=_idle, help=idle_help)
    return parser


def _line_parser() -> _Parser:
    parser = _Parser(prog="%gpu", description="Show the sessions of %%gpu and what they have cost, or end them.")
    parser.add_argument("action", nargs="?", choices=["status", "stop", "use"], default="status")
    parser.add_argument("name", nargs="?", help="variable of the cluster or of a jobs.Executor, for use")
    parser.add_argument("--idle", type=_idle, help="how long new sessions wait for a cell, such as 20m")
    return parser


_EXECUTOR_OPTIONS = ("gpus", "image", "packages", "env", "cpu", "memory", "vm_size", "gpu_model", "spot", "namespace")
"""Options of a cell that are arguments of ``jobs.Executor``."""


@dataclass
class _State:
    """What the magics of a shell remember.

    Attributes:
        sessions: the sessions by what they run on and their options.
        target: name of the variable that ``%gpu use`` has named; empty if it has not been used.
        idle: how long new sessions wait for a cell.
    """

    sessions: dict[tuple[Any, ...], Session]
    target: str = ""
    idle: str = _IDLE


@magics_class
class _GpuMagics(Magics):  # type: ignore[misc]  # IPython has no types
    """The magics of one shell."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._state = _State({})

    @line_cell_magic  # type: ignore[untyped-decorator]
    def gpu(self, line: str, cell: str | None = None) -> None:
        """Run a cell on a GPU of the cluster, or show and end the sessions. ``%%gpu --help`` lists the options."""
        with contextlib.suppress(_Help):
            words = _words(line)
            if cell is None:
                self._run_line(_line_parser().parse_args(words))
            else:
                self._run_cell(_cell_parser().parse_args(words), cell)

    # %gpu

    def _run_line(self, options: argparse.Namespace) -> None:
        if options.idle is not None:
            self._state.idle = options.idle
        if options.action == "use":
            if not options.name:
                raise UsageError("%gpu use needs the name of a variable, such as: %gpu use aks")
            self._target_named(options.name)
            self._state.target = options.name
        elif options.name:
            raise UsageError(f"unrecognized arguments: {options.name}. %gpu --help lists the options.")
        elif options.action == "stop":
            self._stop()
        elif options.idle is None:
            self._show()

    def _show(self) -> None:
        if not self._state.sessions:
            _say("no session is open")
        for session in self._state.sessions.values():
            _say(f"{_summary(session)}; it ends after {session.idle:g} s without a cell")

    def _stop(self) -> None:
        if not self._state.sessions:
            _say("no session is open")
        for key, session in list(self._state.sessions.items()):
            summary = _summary(session)
            session.close()
            del self._state.sessions[key]
            _say(f"{summary}; it has been ended")

    # %%gpu

    def _run_cell(self, options: argparse.Namespace, cell: str) -> None:
        inputs = {name: self._value(name) for name in _names("-i", options.input)}
        outputs = _names("-o", options.output)
        key, session = self._session(options)
        source = self.shell.input_transformer_manager.transform_cell(cell)
        try:
            record = session.run_cell(source, f"Cell In[{self.shell.execution_count}]", inputs, outputs)
        except JobFailed:
            self._state.sessions.pop(key, None)
            raise
        self._finish(record, session, outputs)

    def _finish(self, record: Record, session: Session, outputs: Sequence[str]) -> None:
        """Define the cell's outputs here, or raise its exception with the traceback in the pod."""
        error = job_outcome.exception_of(record, session.job.name)
        if error is not None:
            cause = error.__cause__
            if isinstance(cause, job_outcome.RemoteTraceback):
                _show_as(error, cause.text)
            raise error
        try:
            values = pickle.loads(record.body)
        except Exception as failed:
            raise ResultUnpicklable(
                f"the outputs {', '.join(outputs)} cannot be unpickled here: {type(failed).__name__}: {failed}",
                hint="Install the missing module here, or return plain data.",
            ) from failed
        self.shell.push(values)

    def _value(self, name: str) -> Any:
        try:
            return self.shell.user_ns[name]
        except KeyError:
            raise UsageError(f"-i must name variables that are defined, got {name}") from None

    def _session(self, options: argparse.Namespace) -> tuple[tuple[Any, ...], Session]:
        """Return the session of a cell, ready to run it; the first cell starts it."""
        given = _executor_options(options)
        target = self._target()
        if isinstance(target, Cluster):
            # `--gpus 1` is the default. A second session would wait for the GPU of the first.
            given.setdefault("gpus", 1)
        key = (*_identity(target), *sorted((name, str(value)) for name, value in given.items()))
        session = self._state.sessions.get(key)
        if session is not None:
            try:
                session.connect()
                return key, session
            except JobFailed as ended:
                del self._state.sessions[key]
                _say(f"{ended.message}. A new session starts; the names of the old one are gone.")
        executor = _executor(target, given)
        for other in self._state.sessions.values():
            if _is_open(other):
                _say(_stays_open(other))
        session = executor.session(idle=options.idle or self._state.idle)
        self._state.sessions[key] = session
        try:
            session.connect()
        except (JobFailed, SessionEnded):
            del self._state.sessions[key]
            with contextlib.suppress(KubernetesError):
                session.close()
            raise
        return key, session

    def _target(self) -> Cluster | Executor:
        """Return what cells run on: what ``%gpu use`` has named, or else the only cluster of the user's variables."""
        if self._state.target:
            return self._target_named(self._state.target)
        found = {
            name: value
            for name, value in self.shell.user_ns.items()
            if isinstance(value, Cluster) and not name.startswith("_")
        }
        if not found:
            raise UsageError(_NO_CLUSTER)
        if len({id(value) for value in found.values()}) > 1:
            names = ", ".join(sorted(found))
            raise UsageError(f"several variables are clusters: {names}. Choose one: %gpu use {min(found)}")
        return next(iter(found.values()))

    def _target_named(self, name: str) -> Cluster | Executor:
        value = self.shell.user_ns.get(name)
        if not isinstance(value, Cluster | Executor):
            raise UsageError(f"%gpu use needs the name of a variable that is a cluster or a jobs.Executor, got {name}")
        return value


def register(shell: Any) -> None:
    """Define the magics in a shell."""
    if not isinstance(shell.magics_manager.registry.get(_GpuMagics.__name__), _GpuMagics):
        shell.register_magics(_GpuMagics)


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"{line}: {error}") from None


def _identity(target: Cluster | Executor) -> tuple[str | int, ...]:
    """Return what makes two targets the same, also if the cell that defines the variable has run again."""
    if isinstance(target, Cluster):
        return target.name, target.resource_group, target.id
    secrets = hash(tuple(sorted(target.options.secrets.items())))
    return target.cluster.name, repr(target.options), secrets


def _executor_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a cell that are arguments of an Executor, as far as they were given."""
    given = {name: getattr(options, name) for name in _EXECUTOR_OPTIONS}
    given["packages"] = _packages(options.packages)
    given["env"] = dict(_pair(each) for each in options.env)
    return {name: value for name, value in given.items() if value not in (None, {}, [])}


def _executor(target: Cluster | Executor, given: dict[str, Any]) -> Executor:
    if isinstance(target, Cluster):
        try:
            return Executor(target, **given)
        except InvalidInput as error:
            raise UsageError(f"{error.message}. {error.hint}".rstrip(". ")) from None
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"{names} cannot be used with an Executor, which has options of its own")
    return target


def _packages(text: str | None) -> list[str] | str | None:
    if text is None or Path(text).is_file():
        return text
    return [each.strip() for each in text.split(",") if each.strip()]


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UsageError(f"--env must be NAME=VALUE, got {text}")
    return name, value


def _idle(text: str) -> str:
    """Return the value of ``--idle`` if it is valid."""
    try:
        check_idle(text)
    except InvalidInput:
        raise UsageError(
            f"--idle must be a time above 0 and at most 30 days, such as 90s, 10m or 2h, got {text}"
        ) from None
    return text


def _names(option: str, texts: Sequence[str]) -> list[str]:
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    for name in names:
        if not name.isidentifier():
            raise UsageError(f"{option} must be names of variables, such as {option} x,y, got {name}")
    return names


def _is_open(session: Session) -> bool:
    """Return whether a session has not ended, as far as that can be found out."""
    try:
        return not session.done()
    except AksGpuError:
        return True


def _stays_open(session: Session) -> str:
    """Return the note for a cell that starts a session beside another one. It may have to wait for the other's GPUs."""
    if not session.gpus:
        return f"another session stays open: {_summary(session)}. %gpu stop ends all sessions"
    held = "its GPU" if session.gpus == 1 else "its GPUs"
    return (
        f"another session stays open and keeps {held}: {_summary(session)}. "
        "%gpu stop ends all sessions and frees their GPUs"
    )


def _summary(session: Session) -> str:
    """Return a session's time and cost in one line."""
    try:
        facts = session.job.facts()
    except AksGpuError as error:
        return f"{session.job.name}: its cost could not be found out ({error.message})"
    seconds = facts["seconds"]
    time = "not started yet" if seconds is None else str(timedelta(seconds=round(seconds)))
    gpus = f"{facts['gpus']} GPU" + ("" if facts["gpus"] == 1 else "s")
    usd = facts["usd"]
    cost = "cost not known" if usd is None else f"${usd:.2f} so far"
    return f"{session.job.name}: {gpus}, {time}, {cost}"


def _show_as(error: BaseException, traceback: str) -> None:
    """Let IPython show the traceback in the pod instead of that of this library."""
    with contextlib.suppress(AttributeError):  # a class with slots
        error._render_traceback_ = lambda: traceback.rstrip().splitlines()  # type: ignore[attr-defined]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
