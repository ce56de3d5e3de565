"""Functions run in a warm pod, with their output, exceptions and interrupts."""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.polling import wait_for
from support.tcp_relay import relayed

from aksgpu import cluster, errors, jobs
from aksgpu.cluster import Cluster
from aksgpu.jobs import session_connection, state_explanation
from aksgpu.jobs.session import Session
from aksgpu.payload import session_server
from aksgpu.payload.session_packing import pack_cell

from .limited_user import limited
from .pod_process import interpreters

HERE = Path(__file__).parent
TIMEOUT = 120


class RateError(ValueError):
    """An exception with an attribute of its own."""

    def __init__(self, rate: float) -> None:
        super().__init__(f"{rate} is too high")
        self.rate = rate

    def __reduce__(self) -> Any:
        return RateError, (self.rate,)


@pytest.fixture(scope="module")
def session(cpu: jobs.Executor) -> Iterator[Session]:
    """A session that several tests use."""
    with cpu.session(idle="10m") as opened:
        yield opened


def remember(name: str, value: object = None) -> tuple[int, object]:
    """Keep a value in a module of the standard library, and return the process and the former value."""
    former = getattr(json, name, None)
    setattr(json, name, value)
    return os.getpid(), former


def test_calls_share_one_process_in_the_pod(session: Session) -> None:
    first, former = session(remember, "kept", value=3)
    assert former is None
    second, former = session(remember, "kept")
    assert former == 3
    assert first == second != os.getpid()


def return_from_two_processes() -> int:
    """Return from this process after its copy has returned."""
    copy = os.fork()
    if copy:
        os.waitpid(copy, 0)
    return os.getpid()


def test_a_copy_of_the_process_does_not_serve_the_session(session: Session) -> None:
    process = session(os.getpid)
    assert session(return_from_two_processes) == process
    assert session(os.getpid) == process


def test_output_comes_while_the_function_runs(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_file = tmp_path / "go"

    def talk(path: str) -> str:
        print("begun: ü")
        print("problem", file=sys.stderr)
        subprocess.run(["sh", "-c", "echo from a child"], check=True)
        while not Path(path).exists():
            time.sleep(0.02)
        print("ended", end="")
        return "value"

    out = io.StringIO()
    error = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", error)
    values: list[str] = []
    thread = threading.Thread(target=lambda: values.append(session(talk, str(signal_file))))
    thread.start()
    wait_for(lambda: "from a child" in out.getvalue() and "problem" in error.getvalue(), 60)
    assert out.getvalue() == "begun: ü\nfrom a child\n"
    signal_file.touch()
    thread.join(TIMEOUT)
    assert values == ["value"]
    assert out.getvalue() == "begun: ü\nfrom a child\nended"
    assert error.getvalue() == "problem\n"
    wait_for(lambda: "from a child" in session.job.logs(), 60)


def test_a_large_output_is_whole(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    def count(lines: int) -> None:
        for number in range(lines):
            print(number)

    session(count, 100_000)
    assert capsys.readouterr().out.split() == [str(number) for number in range(100_000)]


def test_included_files_are_in_the_working_directory(
    aks: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "base.json").write_text('{"rate": 0.5}')
    (tmp_path / "own_rates.py").write_text("RATE = 2")
    (tmp_path / "big.bin").write_bytes(os.urandom(9 * 1024 * 1024))
    monkeypatch.chdir(tmp_path)
    gpu = jobs.Executor(aks, gpus=0, include=["configs/", "own_rates.py"], root=tmp_path)
    with gpu.session() as session:
        read = session(lambda: Path("configs/base.json").read_text())
        rate = session(lambda: importlib.import_module("own_rates").RATE)
    assert read == '{"rate": 0.5}'
    assert rate == 2
    with pytest.raises(errors.InvalidInput, match="files of `include` must have at most 8,388,608 bytes"):
        jobs.Executor(aks, gpus=0, include=["big.bin"], root=tmp_path).session()


def test_exceptions_are_those_of_the_function(session: Session) -> None:
    def fail(rate: float) -> None:
        raise RateError(rate)  # the line in the traceback

    with pytest.raises(RateError) as raised:
        session(fail, 0.5)
    assert raised.value.rate == 0.5
    remote = str(raised.value.__cause__)
    assert "raise RateError(rate)  # the line in the traceback" in remote
    assert "aksgpu_session" not in remote
    assert "runner.py" not in remote
    assert session(lambda: "alive") == "alive"


def test_an_exit_and_a_value_that_cannot_be_pickled_leave_the_session_alive(session: Session) -> None:
    with pytest.raises(errors.RemoteError, match=r"sys\.exit\(3\)"):
        session(sys.exit, 3)
    with pytest.raises(errors.ResultUnpicklable, match="lock"):
        session(threading.Lock)
    assert session(lambda: "alive") == "alive"


def test_large_arguments_and_values(session: Session) -> None:
    data = os.urandom(1024) * 20_000
    assert session(lambda given: given[::-1], data) == data[::-1]


def test_what_cannot_travel_is_refused(session: Session) -> None:
    with pytest.raises(errors.InvalidInput, match="argument 1 cannot be pickled"):
        session(len, threading.Lock())
    with pytest.raises(errors.InvalidInput, match="`fn` must be a function, got 3"):
        session(3)  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize("idle", [0, -1, "soon", None, "90d", True])
def test_wrong_idle_times_are_refused(cpu: jobs.Executor, idle: Any) -> None:
    with pytest.raises(errors.InvalidInput, match="`idle` must be"):
        cpu.session(idle=idle)


# Changed code


def test_a_changed_function_runs_as_it_is_now(session: Session) -> None:
    def answer() -> int:
        return 1

    assert session(answer) == 1

    def answer() -> int:  # type: ignore[no-redef]  # what is tested
        return 2

    assert session(answer) == 2


def test_changed_modules_of_the_project_are_sent_again(
    aks: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "session_constants.py").write_text("FACTOR = 2\n")
    module = tmp_path / "session_helpers.py"
    module.write_text("from session_constants import FACTOR\n\n\ndef scale(x):\n    return x * FACTOR\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    helpers = importlib.import_module("session_helpers")
    scale = helpers.scale
    with jobs.Executor(aks, gpus=0, root=tmp_path).session() as session:
        assert session(scale, 5) == 10
        (tmp_path / "session_constants.py").write_text("FACTOR = 30\n")
        assert session(scale, 5) == 150
        assert "imported again, because their files have changed: session_constants" in capsys.readouterr().err
        module.write_text(module.read_text() + "\n\ndef scale(x):\n    raise ValueError(x)  # new\n")
        with pytest.raises(ValueError, match="5") as raised:
            session(scale, 5)
        assert "raise ValueError(x)  # new" in str(raised.value.__cause__)
        assert capsys.readouterr().err.count("session_helpers") == 1
    for name in ("session_constants", "session_helpers"):
        sys.modules.pop(name)


# Other Pythons

VERSIONS = sorted(interpreters(), key=lambda version: int(version.split(".")[1]))


def python_version(add: int) -> tuple[str, int]:
    print("in the pod")
    return f"{sys.version_info[0]}.{sys.version_info[1]}", FACTOR + add


FACTOR = 40


@pytest.mark.parametrize("version", sorted({VERSIONS[0], VERSIONS[-1]}))
def test_functions_and_cells_run_with_another_python(
    aks: Cluster, version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = jobs.Executor(aks, gpus=0, root=HERE, python=interpreters()[version])
    with gpu.session() as session:
        assert session(python_version, 2) == (version, 42)
        assert capsys.readouterr().out == "in the pod\n"
        with pytest.raises(ZeroDivisionError):
            session(divmod, 1, 0)
        record = session.run_cell("found = {**given, 'b': 2}\nfound", "cell", {"given": {"a": (1,)}}, ["found"])
        assert record.header["kind"] == "value", record
        assert pickle.loads(record.body) == {"found": {"a": (1,), "b": 2}}
        assert capsys.readouterr().out == "{'a': (1,), 'b': 2}\n"


def test_other_inputs_than_plain_data_need_the_same_python() -> None:
    with pytest.raises(errors.InvalidInput, match=r"the input 'x' must be plain data, .* type function"):
        pack_cell("cell", "x", {"x": python_version}, [], root=HERE, is_same_python=False)


# Interrupts and threads


def test_calls_of_several_threads_run_one_after_another(session: Session) -> None:
    def twice(number: int) -> int:
        time.sleep(0.01)
        return 2 * number

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda number: session(twice, number), range(24))) == [2 * each for each in range(24)]


# The end of a session


def test_closing_deletes_the_job_and_its_secrets(cpu: jobs.Executor, aks: Cluster) -> None:
    session = cpu.session()
    assert session(len, "abc") == 3
    assert not session.done()
    session.close()
    session.close()
    assert session.done()
    assert aks.kube.find("Job", session.job.name) is None
    wait_for(lambda: aks.kube.list("Secret", label_selector=f"aksgpu.dev/executor={session.job.name}") == [])
    with pytest.raises(errors.SessionEnded, match="was closed"):
        session(len, "abc")


def test_an_idle_session_ends_by_itself_and_says_so(cpu: jobs.Executor) -> None:
    session = cpu.session(idle=0.5)
    wait_for(lambda: session.job.status().phase == "Complete", 60)
    with pytest.raises(errors.SessionEnded, match=r"was idle for 0\.5 s"):
        session(len, "abc")
    session.close()


def test_a_session_whose_process_dies_says_why(cpu: jobs.Executor) -> None:
    with cpu.session() as session:
        with pytest.raises(errors.JobFailed, match="SIGKILL"):
            session(lambda: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(errors.JobFailed, match="SIGKILL"):
            session(len, "abc")


def test_a_deleted_session_says_so(cpu: jobs.Executor) -> None:
    session = cpu.session()
    session.job.delete()
    with pytest.raises(errors.SessionEnded, match="was deleted"):
        session(len, "abc")
    session.close()


def test_a_session_that_is_being_deleted_says_so(cpu: jobs.Executor, aks: Cluster) -> None:
    session = cpu.session(idle=0.5)
    job = session.job
    wait_for(lambda: job.status().phase == "Complete", 60)
    aks.kube.patch("Job", job.name, {"metadata": {"finalizers": ["example.com/hold"]}})
    for secret in aks.kube.list("Secret", label_selector=f"aksgpu.dev/executor={job.name}"):
        aks.kube.delete("Secret", secret["metadata"]["name"])
    with pytest.raises(errors.ResultLost):
        session(len, "abc")
    aks.kube.delete("Job", job.name, propagation_policy="Background")
    try:
        with pytest.raises(errors.SessionEnded, match="was deleted"):
            session(len, "abc")
    finally:
        aks.kube.patch("Job", job.name, {"metadata": {"finalizers": None}})
    session.close()


def test_a_session_that_waits_for_gpus_shows_why(
    aks: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(state_explanation, "_AFTER", 0.0)
    monkeypatch.setattr(state_explanation, "_EVERY", 0.5)
    monkeypatch.setenv("AKSGPU_PROGRESS", "1")
    opened = jobs.Executor(aks, gpus=2, root=HERE).session()
    shown = ""

    def shows_why() -> bool:
        nonlocal shown
        shown += capsys.readouterr().err
        return "no node has 2 nvidia.com/gpu; the largest has 1" in shown

    with ThreadPoolExecutor() as pool:
        connecting = pool.submit(opened.connect)
        try:
            wait_for(shows_why)
        finally:
            opened.job.delete()
        with pytest.raises(errors.SessionEnded):
            connecting.result()
    opened.close()


def test_a_session_waits_on_if_its_image_is_pulled_again(aks: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = jobs.Job.wait
    waits: list[jobs.Job] = []

    def wait_in_the_next_attempt(job: jobs.Job, *args: Any, **options: Any) -> jobs.Job:
        waits.append(job)
        if len(waits) == 1:
            raise errors.WaitTimeout("the image is pulled again")
        return wait(job, *args, **options)

    monkeypatch.setattr(jobs.Job, "wait", wait_in_the_next_attempt)
    with (
        jobs.Executor(aks, gpus=0, image="registry.example/none:1", root=HERE).session() as opened,
        pytest.raises(errors.JobFailed, match="cannot be pulled"),
    ):
        opened.connect()
    assert len(waits) > 1


def test_a_named_session_is_found_again(aks: Cluster) -> None:
    named = jobs.Executor(aks, gpus=0, name="named-session", root=HERE)
    first = named.session()
    process, _ = first(remember, "named", value=1)
    second = named.session()
    assert second(remember, "named") == (process, 1)
    second.close()
    with pytest.raises(errors.SessionEnded):
        first(len, "abc")
    first.close()


# Another process

CLIENT = """
import os, sys, time
from pathlib import Path
from aksgpu import cluster, jobs

def where():
    return os.getpid()

def forever(path):
    try:
        print("begun", flush=True)
        while True:
            time.sleep(3600)
    finally:
        Path(path).write_text("interrupted")

gpu = jobs.Executor(cluster.from_kubeconfig(sys.argv[1]), gpus=0)
session = gpu.session(idle=sys.argv[2])
process = session(where)
print("JOB", session.job.name, flush=True)
if sys.argv[3] == "interrupt":
    try:
        session(forever, sys.argv[4])
    except KeyboardInterrupt:
        print("KeyboardInterrupt", flush=True)
    print("same process", session(where) == process, flush=True)
elif sys.argv[3] == "vanish":
    os._exit(0)
"""


def start_client(aks: Cluster, directory: Path, *args: str) -> subprocess.Popen[str]:
    """Start a program that opens a session of its own."""
    config = directory / "config"
    cluster.get_credentials(aks, file=config)
    (directory / "client.py").write_text(CLIENT)
    command = [sys.executable, "client.py", str(config), *args]
    return subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, text=True)


def line(client: subprocess.Popen[str]) -> str:
    assert client.stdout is not None
    return client.stdout.readline().strip()


def test_an_interrupt_reaches_the_function_and_the_session_lives_on(aks: Cluster, tmp_path: Path) -> None:
    with start_client(aks, tmp_path, "10m", "interrupt", str(tmp_path / "mark")) as client:
        name = line(client).removeprefix("JOB ")
        assert line(client) == "begun"
        client.send_signal(signal.SIGINT)
        assert line(client) == "KeyboardInterrupt"
        assert line(client) == "same process True"
        assert client.wait(TIMEOUT) == 0
    assert (tmp_path / "mark").read_text() == "interrupted"
    # The program's end has deleted the session that it left open.
    wait_for(lambda: aks.kube.find("Job", name) is None, 60)


def test_a_session_without_a_client_ends_by_itself(aks: Cluster, tmp_path: Path) -> None:
    with start_client(aks, tmp_path, "10s", "vanish") as client:
        job = jobs.get(aks, line(client).removeprefix("JOB "))
        assert client.wait(TIMEOUT) == 0
    wait_for(lambda: job.status().phase == "Complete", 60)
    job.delete()


# Few rights


def test_the_edit_role_of_a_namespace_suffices(aks: Cluster, tmp_path: Path) -> None:
    team = limited(aks, tmp_path)
    with jobs.Executor(team, gpus=0, namespace="team", root=HERE).session() as session:
        process, _ = session(remember, "limited")
        assert session(os.getpid) == process
        assert session.cost() is None


# Broken connections


def test_a_broken_connection_is_taken_up_again_without_loss(
    aks: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def count(directory: str, lines: int) -> str:
        with (Path(directory) / "starts").open("a") as file:
            file.write("x")
        for number in range(lines):
            print(number, flush=True)
            if number in (lines // 4, lines // 2):
                (Path(directory) / f"reached-{number}").touch()
                while not (Path(directory) / f"cut-{number}").exists():
                    time.sleep(0.02)
        return "done"

    lines = 8000
    config = tmp_path / "config"
    _, relay = relayed(aks, config)
    session = jobs.Executor(cluster.from_kubeconfig(config), gpus=0, root=HERE).session()
    assert session(len, "abc") == 3

    def cut() -> None:
        for number in (lines // 4, lines // 2):
            wait_for((tmp_path / f"reached-{number}").exists, 60)
            relay.cut()
            (tmp_path / f"cut-{number}").touch()

    thread = threading.Thread(target=cut)
    thread.start()
    assert session(count, str(tmp_path), lines) == "done"
    thread.join(TIMEOUT)
    assert capsys.readouterr().out.split() == [str(number) for number in range(lines)]
    assert (tmp_path / "starts").read_text() == "x"
    relay.cut()
    assert session(len, "abcd") == 4
    session.close()
    relay.stop()


def test_calls_of_another_client_leave_an_outcome_that_was_not_received(aks: Cluster, tmp_path: Path) -> None:
    def run(directory: str) -> str:
        with (Path(directory) / "starts").open("a") as file:
            file.write("x")
        while not (Path(directory) / "go").exists():
            time.sleep(0.02)
        return "done"

    config = tmp_path / "config"
    _, relay = relayed(aks, config)
    name = "two-clients"
    first = jobs.Executor(cluster.from_kubeconfig(config), gpus=0, name=name, root=HERE).session()
    second = jobs.Executor(aks, gpus=0, name=name, root=HERE).session()
    assert first(len, "abc") == 3
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(first, run, str(tmp_path))
        wait_for((tmp_path / "starts").exists)
        relay.stall()
        (tmp_path / "go").touch()
        for _ in range(3):
            assert second(len, "abcd") == 4
        relay.cut()
        assert waiting.result(TIMEOUT) == "done"
    assert (tmp_path / "starts").read_text() == "x"
    first.close()
    second.close()
    relay.stop()


def test_ended_calls_of_other_clients_are_kept_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def running(name: str, client: str) -> session_server.Call:
        call = session_server.Call({"id": name, "client": client}, b"", tmp_path / name)
        call.forget()  # closes its file
        return call

    def ended(name: str, client: str, size: int = 1) -> session_server.Call:
        call = running(name, client)
        call.outcome = {"kind": "value"}
        call.result = bytes(size)
        return call

    def forgotten(calls: list[session_server.Call]) -> set[str]:
        return {call.id for call in session_server.forgettable(calls, "own")}

    monkeypatch.setattr(session_server, "KEPT_CALLS", 2)
    monkeypatch.setattr(session_server, "KEPT_BYTES", 10)
    small = [ended(name, name) for name in "abc"]
    assert forgotten([ended("mine", "own"), *small, running("runs", "a")]) == {"mine", "a"}
    assert forgotten([*small, ended("large", "d", 20)]) == {"a", "b", "c"}
    assert forgotten([ended("large", "d", 20), ended("new", "e")]) == {"large"}


@pytest.mark.slow
def test_a_connection_that_falls_silent_is_made_again(
    aks: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session_connection, "_PING_SECONDS", 0.1)
    monkeypatch.setattr(session_connection, "_READ_SECONDS", 0.2)
    monkeypatch.setattr(session_connection, "_SILENCE_SECONDS", 5.0)

    def wait(path: str) -> str:
        print("begun", flush=True)
        while not Path(path).exists():
            time.sleep(0.02)
        print("ended")
        return "done"

    config = tmp_path / "config"
    _, relay = relayed(aks, config)
    session = jobs.Executor(cluster.from_kubeconfig(config), gpus=0, root=HERE).session()
    assert session(len, "abc") == 3

    def stall() -> None:
        wait_for(lambda: "begun" in session.job.logs(), 60)
        relay.stall()
        (tmp_path / "go").touch()

    thread = threading.Thread(target=stall)
    thread.start()
    assert session(wait, str(tmp_path / "go")) == "done"
    thread.join(TIMEOUT)
    assert capsys.readouterr().out == "begun\nended\n"
    relay.stall()
    data = os.urandom(1024) * 20_000
    assert session(len, data) == len(data)
    session.close()
    relay.stop()
