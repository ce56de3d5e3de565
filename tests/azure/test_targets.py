"""AKSGPU_TARGET is a kubeconfig: the notebooks and the example run on its cluster, and delete nothing there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

import aksgpu
from aksgpu import capacity, cluster, local, sizes, tutorial
from aksgpu.azure import KubeconfigTarget
from aksgpu.errors import InvalidInput
from aksgpu.local import Endpoint

ROOT = Path(__file__).parents[2]
QUICK = ("03",)
"""The notebook that every run executes. The others take longer."""


@pytest.fixture(scope="module")
def theirs() -> Iterator[Endpoint]:
    with local.laptop(time_scale=0.05) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def kubeconfig(theirs: Endpoint) -> Path:
    """The kubeconfig of a cluster with one GPU node that was not created with aksgpu."""
    aks = cluster.create(aksgpu.connect(theirs), "theirs", resource_group="theirs", location="eastus")
    cluster.add_gpu_pool(aks, "gpus")
    return cluster.kubeconfig(aks)


@pytest.fixture
def environment(kubeconfig: Path, tmp_path: Path) -> dict[str, str]:
    mine = {"AKSGPU_TARGET": str(kubeconfig), "AKSGPU_HOME": str(tmp_path), "AKSGPU_PROGRESS": "0"}
    return {**os.environ, **mine, "CUDA_VISIBLE_DEVICES": ""}


def pools(theirs: Endpoint) -> list[Any]:
    """Return the resources in Azure."""
    aks = cluster.get(aksgpu.connect(theirs), "theirs", resource_group="theirs")
    return cluster.list_pools(aks)[["pool", "count"]].values.tolist()


def test_the_effect_of_each_call_on_a_kubeconfig(
    kubeconfig: Path, theirs: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AKSGPU_TARGET", str(kubeconfig))
    azure = aksgpu.connect()
    assert isinstance(azure, KubeconfigTarget)
    with pytest.warns(UserWarning, match="not managed through Azure.*no cluster 'mine' was created") as seen:
        aks = cluster.create(azure, "mine", resource_group="mine", location="eastus")
    own = [warning for warning in seen if "is not managed through Azure" in str(warning.message)]
    assert {warning.filename for warning in own} == {__file__}
    assert (aks.name, aks.has_azure) == ("theirs", False)
    with pytest.warns(UserWarning, match="its 1 GPU nodes are used as they are, and no node pool 'gpunp' was added"):
        pool = cluster.add_gpu_pool(aks, "gpunp")
    assert (pool.name, pool.count, pool.taints) == ("gpus", 1, ("sku=gpu:NoSchedule",))
    assert "not managed through Azure" in repr(pool)
    with pytest.warns(UserWarning, match="nothing was deleted"):
        assert cluster.delete_pool(aks, "gpus") is False
    deletion = cluster.delete(aks)
    assert not deletion
    assert repr(deletion) == (
        "Deletion(nothing deleted; cluster theirs is not managed through Azure, so nothing was deleted)"
    )
    with (
        pytest.warns(UserWarning, match="It stays at the end of the block"),
        cluster.temporary(azure, "mine", resource_group="mine") as block,
    ):
        assert len(capacity.nodes(block)) == 2
    assert pools(theirs) == [["gpus", 1], ["nodepool1", 1]]


def test_calls_that_need_azure_are_refused(kubeconfig: Path) -> None:
    azure = aksgpu.connect(kubeconfig)
    aks = cluster.from_kubeconfig(kubeconfig)
    for call in (
        lambda: cluster.list(azure),
        lambda: cluster.leftovers(azure),
        lambda: sizes.gpu_sizes(azure, "eastus"),
        lambda: sizes.preflight(azure, "eastus", "Standard_NC4as_T4_v3"),
    ):
        with pytest.raises(InvalidInput, match="this needs an Azure subscription, but the target is a kubeconfig"):
            call()
    for act in (
        lambda: cluster.scale_pool(aks, "gpus", 2),
        lambda: cluster.list_pools(aks),
        lambda: cluster.stop(aks),
        lambda: cluster.kubeconfig(aks),
    ):
        with pytest.raises(
            InvalidInput, match="theirs, a cluster of a kubeconfig, which is not managed through Azure"
        ) as caught:
            act()
        assert not any(word in caught.value.hint for word in ("connect", "cluster.", "az aks"))


@pytest.mark.parametrize("target", ["lokal", "", ".", "/nowhere/config", "a\x00b", "x" * 5000, 5, ["local"]])
def test_targets_that_do_not_exist(target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if target == "":
        target = " "
    with pytest.raises(InvalidInput, match="`target` must be 'local', 'azure' or the path of a kubeconfig, got"):
        aksgpu.connect(target)


def test_a_subscription_is_not_accepted_for_the_laptop() -> None:
    with pytest.raises(InvalidInput, match="`subscription_id` must be used with the target 'azure'") as caught:
        aksgpu.connect(subscription_id="00000000-1111-2222-3333-444444444444")
    assert 'aksgpu.connect("azure", subscription_id=...)' in caught.value.hint


@pytest.mark.timeout(600)
def test_the_example_runs_unchanged(environment: dict[str, str], theirs: Endpoint, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "mnist.py"), "curve.png"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert "no cluster 'myAKSCluster' was created" in done.stderr
    assert "no node pool 'gpunp' was added" in done.stderr
    assert done.stdout.splitlines()[-1].startswith("Deletion(nothing deleted; cluster theirs")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert pools(theirs) == [["gpus", 1], ["nodepool1", 1]]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=() if path.stem[:2] in QUICK else pytest.mark.slow)
        for path in tutorial.notebooks()
        if path.stem[:2] in ("02", "03", "04", "05")
    ],
)
def test_the_notebooks_run_unchanged(environment: dict[str, str], theirs: Endpoint, path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    client = tutorial._client(notebook, path.parent, lambda **_: None)
    client.execute(env=environment, stderr=subprocess.DEVNULL)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = "".join(output.get("text", "") for output in outputs if output.get("name") == "stderr")
    assert "no cluster 'myAKSCluster' was created" in shown
    assert pools(theirs) == [["gpus", 1], ["nodepool1", 1]]
