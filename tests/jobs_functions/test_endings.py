"""How a program can end, and what result() and why() say about it."""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from aksgpu import errors, jobs
from aksgpu.cluster import Cluster
from aksgpu.payload import records, runner

from .pod_process import pack, run_payload

TIMEOUT = 120
HERE = Path(__file__).parent


def leave(code: object) -> None:
    sys.exit(code)


def vanish(code: int) -> None:
    os._exit(code)


def kill(number: int) -> None:
    os.kill(os.getpid(), number)


def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def fail_before(attempt: int, folder: str) -> int:
    own = int(os.environ["AKSGPU_ATTEMPT"])
    (Path(folder) / str(own)).write_text("")
    if own < attempt:
        raise RuntimeError(f"attempt {own}")
    return own


def return_twice() -> str:
    """Return from two processes: first from the original one, and then, before that has ended, from its copy."""
    copy = os.fork()
    if copy:
        atexit.register(os.waitpid, copy, 0)
        return "original"
    while not (runner_directory() / "outcome").exists():
        time.sleep(0.01)
    return "copy"


def runner_directory() -> Path:
    return Path(os.environ["AKSGPU_RUN"])


def return_and_crash() -> str:
    atexit.register(os._exit, 9)
    return "value"


class Strange(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


def raise_strange() -> None:
    raise Strange("very strange")


@pytest.mark.parametrize(
    ("code", "words"), [(3, "sys.exit(3)"), (0, "sys.exit(0)"), ("no data", "sys.exit('no data')")]
)
def test_sys_exit_is_a_remote_error(cpu: jobs.Executor, code: object, words: str) -> None:
    job = cpu.submit(leave, code)
    with pytest.raises(errors.RemoteError) as raised:
        job.result(TIMEOUT)
    assert words in raised.value.message
    assert raised.value.type_name == "SystemExit"
    if code:
        with pytest.raises(errors.JobFailed):
            job.wait(TIMEOUT)
        assert words in job.why().verdict


@pytest.mark.parametrize("code", [0, 7])
def test_os_exit_is_explained(cpu: jobs.Executor, code: int) -> None:
    job = cpu.submit(vanish, code)
    with pytest.raises(errors.JobFailed, match=f"exit code {code} before the function returned"):
        job.result(TIMEOUT)
    expected = code or records.VANISHED
    assert job.pods().exit_code.tolist() == [expected]
    with pytest.raises(errors.JobFailed):
        job.wait(TIMEOUT)
    assert f"exit code {code} before the function returned" in job.why().verdict


def compile_text(text: str) -> None:
    compile(text, "model.py", "exec")


def test_an_error_in_the_syntax_is_described_in_one_line(tmp_path: Path) -> None:
    run = run_payload(pack(compile_text, "print(1"), tmp_path)
    assert run.record is not None
    assert run.record.header["text"] == "SyntaxError: '(' was never closed (model.py, line 1)"


def test_a_copy_of_the_process_does_not_replace_the_value(tmp_path: Path) -> None:
    run = run_payload(pack(return_twice), tmp_path)
    assert run.record is not None
    assert pickle.loads(run.record.body) == "original"


def test_a_crash_after_the_value_does_not_run_the_function_again(tmp_path: Path) -> None:
    run = run_payload(pack(return_and_crash), tmp_path)
    assert run.record is not None
    assert (run.exit_code, pickle.loads(run.record.body)) == (0, "value")
    assert "its process then ended with exit code 9" in run.output


def test_a_file_that_disappears_does_not_lose_the_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gone", "here"):
        (tmp_path / name).write_text(name)
    stat = Path.stat

    def stat_of_a_file_in_use(path: Path, **options: Any) -> os.stat_result:
        status = stat(path, **options)
        if path.name == "gone":
            path.unlink()
        return status

    monkeypatch.setattr(Path, "stat", stat_of_a_file_in_use)
    assert list(runner.file_states(tmp_path)) == ["here"]


def test_a_signal_is_explained(cpu: jobs.Executor) -> None:
    job = cpu.submit(kill, int(signal.SIGSEGV))
    with pytest.raises(errors.JobFailed, match="SIGSEGV"):
        job.result(TIMEOUT)
    with pytest.raises(errors.JobFailed):
        job.wait(TIMEOUT)
    assert "SIGSEGV" in job.why().verdict


def test_a_function_that_is_killed_may_need_more_memory(cpu: jobs.Executor) -> None:
    job = cpu.submit(kill, int(signal.SIGKILL))
    with pytest.raises(errors.JobFailed):
        job.wait(TIMEOUT)
    found = job.why()
    assert found.cause == "a killed program"
    assert found.fix.startswith("Raise Executor(memory=)")


def import_missing() -> None:
    import no_such_module  # noqa: F401


def test_a_missing_module_is_a_package_of_the_executor(cpu: jobs.Executor) -> None:
    job = cpu.submit(import_missing)
    with pytest.raises(errors.JobFailed):
        job.wait(TIMEOUT)
    found = job.why()
    assert found.fix.startswith("Name its package in Executor(packages=)")
    assert not found.python


def test_a_container_that_is_killed_for_its_memory_is_a_failed_job(aks: Cluster) -> None:
    gpu = jobs.Executor(aks, gpus=0, memory="256Mi", root=HERE)
    job = gpu.submit(lambda: len(bytearray(2**30)) and time.sleep(60))
    with pytest.raises(errors.JobFailed, match="memory"):
        job.result(TIMEOUT)
    assert job.why().fix.startswith("Raise Executor(memory=)")
    assert not job.why().shell


def test_the_time_limit_ends_the_program_and_keeps_its_log(aks: Cluster) -> None:
    job = jobs.Executor(aks, gpus=0, timeout=1, root=HERE).submit(sleep, 3600)
    with pytest.raises(errors.RunTimeout, match="time limit of 1 s"):
        job.result(TIMEOUT)
    assert job.pods().exit_code.tolist() == [records.TIMED_OUT]
    assert "the time limit of 1 s is over" in job.logs()


def test_retries_know_their_attempt(aks: Cluster, tmp_path: Path) -> None:
    gpu = jobs.Executor(aks, gpus=0, retries=2, root=HERE)
    assert gpu.submit(fail_before, 2, str(tmp_path)).result(TIMEOUT) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]


def test_without_retries_left_the_last_exception_is_raised(aks: Cluster, tmp_path: Path) -> None:
    gpu = jobs.Executor(aks, gpus=0, retries=1, root=HERE)
    with pytest.raises(RuntimeError, match="attempt 1"):
        gpu.submit(fail_before, 9, str(tmp_path)).result(TIMEOUT)


def test_an_exception_that_cannot_be_pickled_comes_back_as_text(cpu: jobs.Executor) -> None:
    with pytest.raises(errors.RemoteError) as raised:
        cpu.submit(raise_strange).result(TIMEOUT)
    assert raised.value.type_name.endswith("Strange")
    assert raised.value.arguments == ("'very strange'",)
    assert 'raise Strange("very strange")' in raised.value.traceback


def test_a_message_that_utf8_cannot_encode_comes_back(cpu: jobs.Executor) -> None:
    with pytest.raises(ValueError, match="\udcff"):
        cpu.submit(raise_text, "\udcff").result(TIMEOUT)


def raise_text(text: str) -> None:
    raise ValueError(text)


def test_a_value_that_cannot_be_pickled_is_named(cpu: jobs.Executor) -> None:
    with pytest.raises(errors.ResultUnpicklable, match="lock"):
        cpu.submit(threading.Lock).result(TIMEOUT)


def test_an_argument_that_cannot_be_pickled_is_named_before_anything_is_sent(cpu: jobs.Executor, aks: Cluster) -> None:
    before = len(aks.kube.list("Job"))
    with pytest.raises(errors.InvalidInput, match="argument 2 cannot be pickled"):
        cpu.submit(print, 1, threading.Lock())
    with pytest.raises(errors.InvalidInput, match="argument 'file' cannot be pickled"):
        cpu.submit(print, file=threading.Lock())
    assert len(aks.kube.list("Job")) == before


def test_a_class_that_this_process_cannot_import_has_its_bytes(cpu: jobs.Executor, tmp_path: Path) -> None:
    (tmp_path / "only_there.py").write_text("class Model:\n    layers = 3\n")
    job = cpu.submit(make_model, str(tmp_path))
    with pytest.raises(errors.ResultUnpicklable, match="only_there"):
        job.result(TIMEOUT)
    assert b"only_there" in job.result(TIMEOUT, raw=True)


def make_model(folder: str) -> Any:
    sys.path.insert(0, folder)
    import only_there  # type: ignore[import-not-found]  # it exists in the pod only

    return only_there.Model()


def test_an_image_without_python_is_explained(aks: Cluster, tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to("/bin/sh")
    job = jobs.Executor(aks, gpus=0, env={"PATH": str(tmp_path)}, root=HERE).submit(sleep, 0)
    with pytest.raises(errors.JobFailed, match="the image has no Python") as raised:
        job.result(TIMEOUT)
    assert "Python 3.8 or newer" in raised.value.hint
    assert job.pods().exit_code.tolist() == [records.PYTHON_MISSING]


def test_an_image_that_cannot_be_pulled_fails_at_once(aks: Cluster) -> None:
    job = jobs.Executor(aks, gpus=0, image="registry.example/none:1", root=HERE).submit(sleep, 0)
    with pytest.raises(errors.JobFailed, match="cannot be pulled"):
        job.result(TIMEOUT)


def test_files_that_the_program_leaves_are_named(cpu: jobs.Executor) -> None:
    job = cpu.submit(Path("model.pt").write_text, "weights")
    assert job.result(TIMEOUT) == 7
    assert "files in the working directory are deleted with this pod: model.pt" in job.logs()


def test_included_files_are_in_the_working_directory(
    aks: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "a.yaml").write_text("rate: 1")
    monkeypatch.chdir(tmp_path)
    gpu = jobs.Executor(aks, gpus=0, include=["configs"], root=HERE)
    job = gpu.submit(Path("configs/a.yaml").read_text)
    assert job.result(TIMEOUT) == "rate: 1"
    assert "are deleted" not in job.logs()
