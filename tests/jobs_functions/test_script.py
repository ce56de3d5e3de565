"""A script runs in a pod as ``python script.py`` does, with the files that it needs."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from aksgpu import errors, jobs, runs
from aksgpu.cluster import Cluster
from aksgpu.payload.script_packing import pack_script, read_script

from .pod_process import interpreters, run_payload
from .wheels import write_wheel

TIMEOUT = 120

TRAIN = """
import json, os, sys
from pathlib import Path
from helpers import scale
import package.inner

if __name__ == "__main__":
    config = json.loads(Path("configs/base.json").read_text())
    main = sys.modules["__main__"]
    print("REPORT", json.dumps({
        "argv": sys.argv,
        "file": os.path.basename(main.__file__),
        "value": scale(config["rate"]),
        "inner": package.inner.NAME,
        "pid": os.getpid(),
        "files": sorted(str(path) for path in Path(".").rglob("*") if "__pycache__" not in path.parts),
        "executable": os.access("tools/run.sh", os.X_OK),
    }))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a script, modules, configurations, and files that must not travel."""
    contents = {
        "pyproject.toml": "",
        "train.py": TRAIN,
        "helpers.py": "import other\n\ndef scale(rate):\n    return rate * other.FACTOR\n",
        "other.py": "FACTOR = 10\n",
        "package/__init__.py": "",
        "package/inner.py": "NAME = 'inner'\n",
        "package/lazy.py": "",
        "unused.py": "",
        "configs/base.json": '{"rate": 0.5}',
        "configs/deep/more.json": "{}",
        "configs/.env": "TOKEN=secret",
        "configs/.git/HEAD": "",
        "configs/venv/pyvenv.cfg": "",
        "configs/venv/lib/large.py": "",
        "configs/__pycache__/base.pyc": "",
        "tools/run.sh": "#!/bin/sh\n",
    }
    for name, text in contents.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "configs/empty").mkdir()
    (tmp_path / "tools/run.sh").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def gpu(aks: Cluster) -> jobs.Executor:
    """An Executor without GPUs that finds the project by the working directory."""
    return jobs.Executor(aks, gpus=0)


def report(job: jobs.Job) -> dict[str, object]:
    import json

    lines = [line for line in job.logs().splitlines() if line.startswith("REPORT")]
    return dict(json.loads(lines[0].removeprefix("REPORT")))


def test_a_script_runs_with_its_arguments_modules_and_files(gpu: jobs.Executor, project: Path) -> None:
    with pytest.warns(UserWarning, match=r"credentials .* configs/\.env"):
        job = gpu.script("train.py", "--epochs", 3, Path("x"), include=["configs/", "tools/*.sh"])
    assert job.name.startswith("train-")
    assert job.result(TIMEOUT) is None
    found = report(job)
    assert found["argv"] == ["train.py", "--epochs", "3", "x"]
    assert found["file"] == "train.py"
    assert found["value"] == 5.0
    assert found["inner"] == "inner"
    assert found["pid"] != os.getpid()
    assert found["executable"] is True
    assert found["files"] == [
        "configs",
        "configs/base.json",
        "configs/deep",
        "configs/deep/more.json",
        "configs/empty",
        "helpers.py",
        "other.py",
        "package",
        "package/__init__.py",
        "package/inner.py",
        "package/lazy.py",
        "tools",
        "tools/run.sh",
        "train.py",
    ]


def test_the_arguments_of_scripts_are_compared(gpu: jobs.Executor, project: Path) -> None:
    (project / "short.py").write_text("print('epoch 1 loss: 0.5')\n")
    first = gpu.script("short.py", "data", "--epochs", 3, "--rate=0.1", "--api-token", "hidden")
    second = gpu.script("short.py", "data", "--epochs", 5, "--rate=0.1", "--api-token", "other")
    for job in (first, second):
        job.result(TIMEOUT)
    differences = runs.compare([first, second]).differences()
    assert differences.loc["argument --epochs"].tolist() == ["3", "5"]
    assert not any("rate" in name or "token" in name for name in differences.index)


def test_a_script_of_another_directory_runs_where_the_user_is(
    gpu: jobs.Executor, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "scripts").mkdir()
    (project / "scripts/near.py").write_text("PLACE = 'near'\n")
    (project / "src/library").mkdir(parents=True)
    (project / "src/library/__init__.py").write_text("PLACE = 'src'\n")
    monkeypatch.syspath_prepend(str(project / "src"))
    text = "import near, library, os\nprint(near.PLACE, library.PLACE, open('configs/base.json').read(), __file__)\n"
    (project / "scripts/show.py").write_text(text)
    job = gpu.script("scripts/show.py", include=["configs/base.json"])
    job.result(TIMEOUT)
    assert 'near src {"rate": 0.5}' in job.logs()
    monkeypatch.chdir(project / "scripts")
    (project / "scripts/two.py").write_text("import os\nprint(os.listdir('..'), os.listdir('.'))\n")
    job = gpu.script("two.py", include=["../configs/base.json"])
    job.result(TIMEOUT)
    assert "'scripts'" in job.logs()
    assert "['two.py']" in job.logs()


def test_a_failing_script_raises_with_the_end_of_its_traceback(gpu: jobs.Executor, project: Path) -> None:
    (project / "bad.py").write_text("def divide():\n    return 1 / 0  # the line\n\n\ndivide()\n")
    job = gpu.script("bad.py")
    with pytest.raises(errors.JobFailed, match=r"bad\.py raised ZeroDivisionError") as raised:
        job.result(TIMEOUT)
    assert "return 1 / 0  # the line" in str(raised.value)
    assert "return 1 / 0  # the line" in raised.value.log_tail
    assert "runner" not in raised.value.log_tail
    assert isinstance(raised.value, errors.RemoteError)
    assert raised.value.type_name == "ZeroDivisionError"
    assert isinstance(job.exception(TIMEOUT), errors.JobFailed)
    assert "return 1 / 0  # the line" in job.logs()


def test_an_exit_code_is_reported_with_the_end_of_the_log(gpu: jobs.Executor, project: Path) -> None:
    text = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--rate')\np.parse_args()\n"
    (project / "options.py").write_text(text)
    with pytest.raises(errors.JobFailed, match="exit code 2") as raised:
        gpu.script("options.py", "--epochs", 1).result(TIMEOUT)
    assert "unrecognized arguments: --epochs 1" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("import sys; sys.exit(0)", None),
        ("import sys; sys.exit()", None),
        ("import os; os._exit(0)", None),
        ("import os; os._exit(4)", "exit code 4"),
        ("import sys; sys.exit('no data')", "exit code 1"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("def f(:", "SyntaxError"),
        ("import os, sys\nif len(sys.argv) < 2: os.execv(sys.executable, [sys.executable, sys.argv[0], 'x'])", None),
    ],
)
def test_ends_of_scripts(gpu: jobs.Executor, project: Path, text: str, result: str | None) -> None:
    (project / "end.py").write_text(text)
    job = gpu.script("end.py")
    if result is None:
        assert job.result(TIMEOUT) is None
    else:
        with pytest.raises(errors.JobFailed, match=result):
            job.result(TIMEOUT)


def test_processes_that_are_spawned_find_the_main_module(gpu: jobs.Executor, project: Path) -> None:
    text = (
        "import multiprocessing\n\n\ndef square(x):\n    return x * x\n\n\nif __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n        print(pool.map(square, [3]))\n"
    )
    (project / "spawn.py").write_text(text)
    job = gpu.script("spawn.py")
    job.result(TIMEOUT)
    assert "[9]" in job.logs()


def test_files_that_the_script_writes_are_not_lost_without_a_word(gpu: jobs.Executor, project: Path) -> None:
    text = "open('model.bin', 'w').write('x')\nopen('configs/base.json', 'a').write(' ')\n"
    (project / "writes.py").write_text(text)
    job = gpu.script("writes.py", include=["configs/base.json", "configs/deep"])
    with pytest.warns(UserWarning, match=r"deleted with its pod: configs/base\.json, model\.bin\.") as warned:
        job.result(TIMEOUT)
    assert "AKSGPU_OUT of Executor(out=)" in str(warned[0].message)
    assert "files in the working directory are deleted with this pod: configs/base.json, model.bin" in job.logs()


def test_the_same_call_with_a_name_returns_the_job_that_exists(aks: Cluster, project: Path) -> None:
    named = jobs.Executor(aks, gpus=0, name="named-script", env={"MODE": "fast"})
    (project / "short.py").write_text("import os\nprint(os.environ['MODE'])\n")
    first = named.script("short.py")
    assert first.name == "named-script"
    first.result(TIMEOUT)
    uid = aks.kube.get("Job", first.name)["metadata"]["uid"]
    assert named.script("short.py").name == first.name
    assert aks.kube.get("Job", first.name)["metadata"]["uid"] == uid
    (project / "short.py").write_text("print(2)\n")
    with pytest.raises(errors.AlreadyExists):
        named.script("short.py")


def test_options_of_the_executor_apply(aks: Cluster, project: Path) -> None:
    gpu = jobs.Executor(aks, gpus=0, include=["other.py"], root=project, workdir=str(project / "pod"))
    (project / "place.py").write_text("import os\nprint(os.getcwd(), os.listdir('.'))\nopen('kept', 'w')\n")
    job = gpu.script("place.py")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        job.result(TIMEOUT)
    assert str(project / "pod") in job.logs()
    assert "other.py" in job.logs()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("train.ipynb", "got the notebook 'train.ipynb'"),
        ("missing.py", "must be a file that exists, got 'missing.py'"),
        ("package", "got the directory 'package'"),
        ("tools/run.sh", r"must be a Python file, got 'tools/run\.sh'"),
        (3, "must be the path of a Python file, got 3"),
        ("", "must be the path of a Python file"),
    ],
)
def test_wrong_scripts_are_refused(gpu: jobs.Executor, project: Path, script: object, message: str) -> None:
    (project / "train.ipynb").write_text("{}")
    with pytest.raises(errors.InvalidInput, match=message):
        gpu.script(script)  # type: ignore[arg-type]  # what is tested


def test_the_hint_for_a_module_runs_it(gpu: jobs.Executor, project: Path) -> None:
    with pytest.raises(errors.InvalidInput) as raised:
        gpu.script("-m", "package.train")
    (project / "package" / "train.py").write_text("from . import __name__ as package\nprint(__name__, package)\n")
    (project / "file.py").write_text(raised.value.hint.split("`")[1])
    job = gpu.script("file.py", include=["package/"])
    job.result(TIMEOUT)
    assert job.logs() == "__main__ package\n"


def test_a_script_outside_the_root_is_refused(aks: Cluster, project: Path) -> None:
    gpu = jobs.Executor(aks, gpus=0, root=project / "package")
    with pytest.raises(errors.InvalidInput, match="must be below the project's directory"):
        gpu.script("train.py")


@pytest.mark.parametrize(
    ("include", "message"),
    [
        (["missing.json"], r"got 'missing\.json', which is not in"),
        (["*.nothing"], r"got '\*\.nothing', which matches none"),
        (["../outside"], "must be below the project's directory"),
        (["link"], "a link to"),
        (["loop"], "a link to a directory around it"),
        (["pipe"], "must be regular files"),
        ("configs", "`include` must be a list"),
        (["data"], r"large\.bin \(104,857,600 bytes\)"),
        (["random"], r"compressed, got .*; the largest are random/noise\.bin \(9,000,000 bytes\)"),
    ],
)
def test_wrong_files_are_refused_by_name(gpu: jobs.Executor, project: Path, include: object, message: str) -> None:
    outside = project.parent / "outside"
    outside.mkdir(exist_ok=True)
    (project / "link").symlink_to(outside)
    (project / "loop").mkdir()
    (project / "loop/inner").symlink_to(project / "loop")
    os.mkfifo(project / "pipe")
    (project / "data").mkdir()
    with (project / "data/large.bin").open("wb") as file:
        file.truncate(100 * 1024 * 1024)
    (project / "random").mkdir()
    (project / "random/noise.bin").write_bytes(os.urandom(9_000_000))
    with pytest.raises(errors.InvalidInput, match=message):
        gpu.script("train.py", include=include)  # type: ignore[arg-type]  # what is tested


def test_a_file_with_credentials_travels_if_it_is_named(gpu: jobs.Executor, project: Path) -> None:
    (project / "show.py").write_text("print(open('configs/.env').read())\n")
    job = gpu.script("show.py", include=["configs/.env"])
    job.result(TIMEOUT)
    assert "TOKEN=secret" in job.logs()


def test_a_pattern_skips_environments_and_version_control(gpu: jobs.Executor, project: Path) -> None:
    (project / "list.py").write_text("from pathlib import Path\nprint(sorted(map(str, Path('configs').rglob('*'))))\n")
    job = gpu.script("list.py", include=["configs/**/*.*"])
    job.result(TIMEOUT)
    assert "['configs/base.json', 'configs/deep', 'configs/deep/more.json']" in job.logs()


def test_the_executors_packages_are_installed(aks: Cluster, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "installed.py").write_text("import aksgpu_test_script\nprint('VERSION', aksgpu_test_script.VERSION)\n")
    write_wheel(project / "index", "aksgpu_test_script", "1.0")
    (project / "requirements.txt").write_text("aksgpu_test_script==1.0\n")
    for name in ("PIP", "UV"):
        monkeypatch.setenv(f"{name}_NO_INDEX", "1")
        monkeypatch.setenv(f"{name}_FIND_LINKS", str(project / "index"))
    job = jobs.Executor(aks, gpus=0, packages="requirements.txt").script("installed.py")
    job.result(TIMEOUT)
    assert "VERSION 1.0" in job.logs()


def test_the_warning_of_an_old_run_points_at_the_call_of_script(aks: Cluster, project: Path) -> None:
    (project / "short.py").touch()
    named = jobs.Executor(aks, gpus=0, name="short")
    job = named.script("short.py").wait(TIMEOUT)
    with pytest.warns(UserWarning, match="This is the old run") as warned:
        named.script("short.py")
    assert warned[0].filename == __file__
    job.delete()


@pytest.mark.parametrize("version", sorted(interpreters()))
def test_a_script_runs_with_every_python(version: str, project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    payload, _ = pack_script(read_script("train.py", root=None), ["--epochs", "3"], ["configs/base.json"])
    run = run_payload(payload, tmp_path_factory.mktemp("pod"), python=interpreters()[version])
    assert run.exit_code == 0, run.output
    assert '"argv": ["train.py", "--epochs", "3"]' in run.output
