"""Packages are installed on top of the image's Python, from an index that is a directory here."""

from __future__ import annotations

import importlib
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aksgpu import errors, jobs
from aksgpu.cluster import Cluster
from aksgpu.payload import records
from aksgpu.payload.installer import is_satisfied
from aksgpu.payload.requirements import from_file, from_list, from_modules

from .pod_process import pack, run_payload
from .wheels import write_wheel

TIMEOUT = 170


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    write_wheel(folder, "aksgpu_test_leaf", "1.0")
    write_wheel(folder, "aksgpu_test_leaf", "2.0")
    write_wheel(folder, "aksgpu_test_tree", "1.5", requires="aksgpu_test_leaf<2")
    write_wheel(folder, "aksgpu_test_future", "1.0", python=">=4")
    return folder


INSTALLERS = ["pip", "uv"] if shutil.which("uv") else ["pip"]


@pytest.fixture(scope="session", params=INSTALLERS)
def interpreter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python without packages but pip, or without pip beside uv."""
    folder = tmp_path_factory.mktemp(request.param) / "python"
    with_pip = [] if request.param == "pip" else ["--without-pip"]
    subprocess.run([sys.executable, "-m", "venv", *with_pip, str(folder)], check=True, timeout=TIMEOUT)
    return str(folder / "bin" / "python")


def versions(*names: str) -> dict[str, str]:
    return {name: importlib.import_module(name).VERSION for name in names}


def options(index: Path) -> list[str]:
    return ["--no-index", f"--find-links={index}"]


def test_packages_and_what_they_need_are_installed(interpreter: str, index: Path, tmp_path: Path) -> None:
    packages = from_list([*options(index), "aksgpu_test_tree"])
    payload = pack(versions, "aksgpu_test_tree", "aksgpu_test_leaf", packages=packages)
    run = run_payload(payload, tmp_path, python=interpreter)
    assert run.record is not None, run.output
    assert run.record.header["kind"] == "value", run.output
    assert pickle.loads(run.record.body) == {"aksgpu_test_tree": "1.5", "aksgpu_test_leaf": "1.0"}
    assert "the packages were ready after" in run.output


@pytest.mark.parametrize(("value", "exit_code"), [("1", 0), ("False", records.NO_PACKAGES)])
def test_a_variable_keeps_the_installer_from_using_an_index(
    interpreter: str, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, exit_code: int
) -> None:
    for installer in ("PIP", "UV"):
        monkeypatch.setenv(f"{installer}_NO_INDEX", value)
        monkeypatch.setenv(f"{installer}_FIND_LINKS", str(index))
        monkeypatch.setenv(f"{installer}_INDEX_URL", "http://127.0.0.1:1/simple")
        monkeypatch.delenv(f"{installer}_EXTRA_INDEX_URL", raising=False)
    for name in ("UV_INDEX", "UV_DEFAULT_INDEX"):
        monkeypatch.delenv(name, raising=False)
    payload = pack(versions, "aksgpu_test_tree", packages=from_list(["aksgpu_test_tree"]))
    # Neither of them waits between its attempts to reach the index.
    run = run_payload(payload, tmp_path, python=interpreter, env={"PIP_RETRIES": "0", "UV_HTTP_RETRIES": "0"})
    assert run.exit_code == exit_code, run.output


@pytest.mark.parametrize(
    ("requirement", "words"),
    [("aksgpu_test_absent", ["aksgpu", "absent"]), ("aksgpu_test_future", ["no wheel of the package for this Python"])],
)
def test_a_failed_installation_has_the_installers_lines(
    interpreter: str, index: Path, tmp_path: Path, requirement: str, words: list[str]
) -> None:
    payload = pack(versions, packages=from_list([*options(index), requirement]))
    run = run_payload(payload, tmp_path, python=interpreter)
    assert run.exit_code == records.NO_PACKAGES
    assert run.record is not None
    assert run.record.header["kind"] == "packages"
    assert all(word in run.record.header["text"] for word in words)


@pytest.mark.slow
def test_an_index_that_does_not_answer_is_a_package_error(interpreter: str, tmp_path: Path) -> None:
    packages = from_list(["--index-url=http://127.0.0.1:1/simple", "aksgpu_test_leaf"])
    run = run_payload(pack(versions, packages=packages), tmp_path, python=interpreter)
    assert run.exit_code == records.NO_PACKAGES
    assert run.record is not None
    assert run.record.header["kind"] == "packages"


def test_what_the_image_has_is_not_installed_again(tmp_path: Path) -> None:
    run = run_payload(pack(sys.version.upper, packages=from_list(["cloudpickle>=2", "numpy"])), tmp_path)
    assert run.exit_code == 0, run.output
    assert not (tmp_path / "run" / "packages").exists()


def test_a_requirements_file_with_its_includes(index: Path, aks: Cluster, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("\n".join([*options(index), "-r more.txt  # a comment", ""]))
    (tmp_path / "more.txt").write_text("-c limits.txt\naksgpu_test_leaf \\\n >=1\n")
    (tmp_path / "limits.txt").write_text("aksgpu_test_leaf==1.0\n")
    gpu = jobs.Executor(aks, gpus=0, packages=tmp_path / "requirements.txt", root=Path(__file__).parent)
    assert gpu.submit(versions, "aksgpu_test_leaf").result(TIMEOUT) == {"aksgpu_test_leaf": "1.0"}


def test_a_package_error_is_raised_by_result(index: Path, aks: Cluster) -> None:
    gpu = jobs.Executor(aks, gpus=0, packages=[*options(index), "aksgpu_test_absent"], root=Path(__file__).parent)
    job = gpu.submit(versions)
    with pytest.raises(errors.PackageError, match="absent"):
        job.result(TIMEOUT)


@pytest.mark.parametrize("line", ["-e .", "./package", "/tmp/a.whl", "--editable=../x", "file:///tmp/x", "x.tar.gz"])
def test_what_is_on_this_machine_is_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidInput, match="on this machine"):
        from_list([line])
    (tmp_path / "requirements.txt").write_text(f"{line}\n")
    with pytest.raises(errors.InvalidInput, match="on this machine"):
        from_file(tmp_path / "requirements.txt")


@pytest.mark.parametrize(
    ("line", "requirement"),
    [
        ("torch==2.9  # a comment", "torch==2.9"),
        ("# a comment", None),
        ("one @ https://example.com/one.zip#sha256=0", "one @ https://example.com/one.zip#sha256=0"),
        ("one\t#two", "one"),
        ("https://example.com/one.zip#two #three", "https://example.com/one.zip#two"),
    ],
)
def test_comments_of_a_requirements_file(line: str, requirement: str | None, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(f"{line}\n")
    expected = () if requirement is None else (requirement,)
    assert from_file(tmp_path / "requirements.txt").requirements == expected


def test_a_file_that_includes_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-r requirements.txt\n")
    with pytest.raises(errors.InvalidInput, match="includes itself"):
        from_file(tmp_path / "requirements.txt")


@pytest.mark.parametrize(
    "line",
    [
        "numpy # one\nscipy",
        "numpy scipy",
        "numpy\nscipy",
        "pip install numpy",
        "numpy=2.0",
        "name: x",
        "- numpy",
        "[project]",
    ],
)
def test_a_line_that_is_not_a_requirement_is_refused(line: str) -> None:
    with pytest.raises(errors.InvalidInput, match="`packages` must have one requirement in each"):
        from_list([line])


@pytest.mark.parametrize(
    "line",
    [
        "numpy",
        "numpy==2.3.1 --hash=sha256:00",
        "ruamel.yaml[x, y] >=1,<2; python_version<'4'",
        "one (>=1)",
        "one@ https://example.com/one.whl",
        "git+https://example.com/one.git@main#egg=one",
        "torch===2.9+cu128",
    ],
)
def test_each_form_of_a_requirement_is_taken(line: str) -> None:
    assert from_list([f" {line} "]).requirements == (line,)


def test_a_list_may_be_the_lines_of_a_file() -> None:
    text = "# what the model needs\nnumpy==2.3.1  # pinned\n\n--no-deps\ntimm\n"
    found = from_list(text.splitlines(keepends=True))
    assert (found.requirements, found.options) == (("numpy==2.3.1", "timm"), ("--no-deps",))


def test_a_list_may_include_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.txt").write_bytes(b"\xef\xbb\xbfnumpy\r\n")
    (tmp_path / "limits.txt").write_text("numpy<3\n")
    found = from_list(["-r base.txt", "-climits.txt", "timm"])
    assert (found.requirements, found.options, found.constraints) == (("numpy", "timm"), (), ("numpy<3",))


def test_the_dependencies_of_a_project_are_taken(tmp_path: Path, aks: Cluster) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text('[project]\nname = "own"\ndependencies = ["numpy>=2", "timm ; python_version > \'3\'"]\n')
    options = jobs.Executor(aks, packages=str(file)).options
    assert options.packages is not None
    assert options.packages.requirements == ("numpy>=2", "timm ; python_version > '3'")
    for text, message in (
        ("[tool.poetry]\n", "must have a list `dependencies`"),
        ("project = 1\n", "must have a list `dependencies`"),
        ("[project]\ndependencies = 1\n", "must have a list `dependencies`"),
        ("[project\n", "cannot be read"),
    ):
        file.write_text(text)
        with pytest.raises(errors.InvalidInput, match=message):
            from_file(file)


def uses_numpy(count: int) -> Any:
    import numpy as np
    import yaml

    return yaml.safe_load(str(np.arange(count).sum()))


def test_auto_pins_the_distributions_of_the_modules_that_a_function_uses() -> None:
    import numpy as np
    import yaml

    payload = pack(uses_numpy, 3, packages=None)
    assert f"numpy=={np.__version__}" in payload.packages.requirements
    assert any(line.lower() == f"pyyaml=={yaml.__version__}" for line in payload.packages.requirements)
    assert not any("aksgpu" in line for line in payload.packages.requirements)


def test_auto_refuses_editable_installations_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    information = tmp_path / "mine-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (information / "top_level.txt").write_text("mine\n")
    (information / "direct_url.json").write_text('{"url": "file:///work", "dir_info": {"editable": true}}')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(errors.InvalidInput, match="mine is installed from"):
        from_modules(["mine.function"])


@pytest.mark.parametrize(
    ("line", "satisfied"),
    [
        ("pytest", True),
        (f"pytest=={pytest.__version__}", True),
        ("pytest>=1,<1000", True),
        ("PyTest >= 1", True),
        ("pytest<1", False),
        ("pytest[testing]", False),
        ("pytest; python_version > '3'", False),
        ("no-such-distribution", False),
        ("pytest @ https://example.com/pytest.whl", False),
    ],
)
def test_satisfied_requirements(line: str, satisfied: bool) -> None:
    assert is_satisfied(line) == satisfied
