"""The tutorial with each version of kubectl on this machine and a complete laptop AKS.

The output is compared with that of the same commands on a real cluster, except for names, ages, facts about nodes, the
training log, and the differences in ``data/differences.toml``.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import recorded
from support.live_cluster import T4, LiveCluster, kubectls, new_cluster, version_of
from support.polling import wait_for

from aksgpu.local import Endpoint

pytest_plugins = ["aksgpu.local.testing", "support.live_cluster"]

KUBECTLS = kubectls()
MANIFESTS = recorded.RECORDINGS / "manifests"
JOB = "samples-tf-mnist-demo"
PLUGIN = "nvidia-device-plugin-daemonset"
pytestmark = pytest.mark.skipif(not KUBECTLS, reason="no kubectl on PATH")

SUFFIX = r"(?<=-)[bcdfghjklmnpqrstvwxz2456789]{5}\b"
AGE = r"\b(\d+[smhd])+\b|<invalid>"


@pytest.fixture(scope="module")
def cluster(laptop: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    with new_cluster(laptop, "kubectl", tmp_path_factory.mktemp("kubectl")) as made:
        yield made


def printed(command: str) -> str:
    """Return what the recorded kubectl printed."""
    return str(next(step["stdout"] for step in recorded.steps("01-tutorial.json") if step["command"] == command))


def rows(text: str) -> list[list[str]]:
    """Return a table's cells without what differs from run to run."""
    text = re.sub(AGE, "AGE", re.sub(SUFFIX, "xxxxx", text))
    return [re.split(r"\s{2,}", line.strip()) for line in text.strip().splitlines()]


def fields(text: str, *without: str) -> list[str]:
    """Return a description's lines: names of fields, and values that do not differ from run to run."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UID", re.sub(SUFFIX, "xxxxx", text))
    text = re.sub(r"\w{3}, \d\d \w{3} \d{4} [\d:]+ \+0000", "TIME", text)
    text = re.sub(r"containerd://[0-9a-f]+|sha256:[0-9a-f]+", "ID", re.sub(r"\d+\.\d+\.\d+\.\d+", "ADDRESS", text))
    text = re.sub(r"\blocalhost\b|\baks-\w+-\d{8}-vmss\w{6}\b", "NODE", text)
    text = re.sub(r"Duration:\s+\d+s|(\d+[smh])+ \(x\d+ over (\d+[smh])+\)|" + AGE, "AGE", text)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return sorted(line for line in lines if line and not any(word in line for word in without))


def test_a_node_before_and_after_the_device_plugin(cluster: LiveCluster) -> None:
    """Nodes as ``get`` and ``describe`` show them; the GPU comes with the device plugin."""
    names = {line[0] for line in rows(cluster.kubectl(KUBECTLS[-1], "get", "nodes").stdout)[1:]}
    [node] = names
    header = rows(printed("kubectl get nodes -o wide"))[0]
    assert rows(cluster.kubectl(KUBECTLS[-1], "get", "nodes", "-o", "wide").stdout)[0] == header

    def describe() -> str:
        return cluster.kubectl(KUBECTLS[-1], "describe", "node", node).stdout

    wait_for(lambda: "kubelet is posting ready status" in describe())
    described = describe()
    assert "nvidia.com/gpu:" not in described
    for section in ("Conditions:", "Capacity:", "Allocatable:", "System Info:", "Allocated resources:", "Events:"):
        assert section in described
    assert f"node.kubernetes.io/instance-type={T4}" in described


@pytest.mark.parametrize("binary", KUBECTLS, ids=map(version_of, KUBECTLS))
def test_the_tutorial(cluster: LiveCluster, binary: str, tmp_path: Path) -> None:
    def run(*args: str, code: int = 0, stdin: str = "") -> str:
        done = cluster.kubectl(binary, *args, stdin=stdin)
        assert done.returncode == code, (args, done.stdout, done.stderr)
        return done.stdout + done.stderr

    recorded_one = version_of(binary) == "1.32"
    apply = run("apply", "-f", str(MANIFESTS / "nvidia-device-plugin-ds.yaml"))
    assert apply == printed("kubectl apply -f manifests/nvidia-device-plugin-ds.yaml")
    status = run("rollout", "status", f"ds/{PLUGIN}", "-n", "gpu-resources", "--timeout=60s")
    assert status.splitlines()[-1] == f'daemon set "{PLUGIN}" successfully rolled out'
    assert rows(run("get", "ds", "-n", "gpu-resources")) == rows(printed("kubectl get ds -n gpu-resources"))
    assert rows(run("get", "pods", "-A")) == rows(printed("kubectl get pods -A"))
    node = run("get", "nodes", "-o", "name").strip()
    wait_for(lambda: re.search(r"nvidia.com/gpu:\s+1", run("describe", node)))

    applied = f"kubectl apply -f manifests/{JOB}.yaml"
    manifest = (MANIFESTS / f"{JOB}.yaml").read_text()
    if not recorded_one:
        manifest = manifest.replace('"500"', '"50"')
    watched = tmp_path / "watched"
    requests = tmp_path / "requests"
    command = cluster.command(binary, "get", "jobs", "--watch", "-v=6")
    with watched.open("w") as output, requests.open("w") as log:
        watching = subprocess.Popen(command, stdout=output, stderr=log, env={"HOME": "/tmp"})
    try:
        wait_for(lambda: "watch=true" in requests.read_text())
        assert run("apply", "-f", "-", stdin=manifest) == printed(applied)
        waited = f"kubectl wait --for=condition=complete job/{JOB} --timeout=30s"
        assert run("wait", "--for=condition=complete", f"job/{JOB}", "--timeout=60s") == printed(waited)
        wait_for(lambda: "Complete" in watched.read_text())
    finally:
        watching.terminate()
        watching.wait()
    seen = [line[:3] for line in rows(watched.read_text())]
    assert seen[0][:3] == ["NAME", "STATUS", "COMPLETIONS"]
    assert (seen[1][1:], seen[-1][1:]) == (["Running", "0/1"], ["Complete", "1/1"])

    wanted = printed(f"kubectl get pods --selector app={JOB}")
    assert rows(run("get", "pods", "--selector", f"app={JOB}")) == rows(wanted)
    log = run("logs", "-l", f"app={JOB}", "--tail=-1")
    assert log == run("logs", f"job/{JOB}")
    steps = re.findall(r"^Accuracy at step \d+: ", log, re.M)
    wanted_steps = re.findall(r"^Accuracy at step \d+: ", printed(f"kubectl logs -l app={JOB} --tail=-1"), re.M)
    assert steps == (wanted_steps if recorded_one else wanted_steps[:5])
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:]+\.\d{9}Z ", run("logs", f"job/{JOB}", "--timestamps"))
    same = _same if recorded_one else _alike
    same(fields(run("describe", "job", JOB)), fields(printed(f"kubectl describe job {JOB}")))

    meant = (
        "kube-api-access", "Type:", "TokenExpirationSeconds", "ConfigMap", "DownwardAPI", "Mounts:", "Volumes:",
        "MissingClusterDNS", "Pulling", "Pulled",
    )  # fmt: skip
    described = f"kubectl describe pod -l app={JOB}"
    same(fields(run("describe", "pod", "-l", f"app={JOB}"), *meant), fields(printed(described), *meant))
    events = run("get", "events", "--sort-by=.lastTimestamp")
    assert rows(events)[0] == rows(printed("kubectl get events --sort-by=.lastTimestamp"))[0]
    for word in ("SuccessfulCreate", "Scheduled", "Started", "Completed"):
        assert word in events
    changed = run("apply", "-f", str(MANIFESTS / "job-changed.yaml"), code=1)
    assert f'The Job "{JOB}" is invalid: spec.template: Invalid value: ' in changed
    assert "field is immutable" in changed
    assert run("delete", "jobs", JOB).startswith(f'job.batch "{JOB}" deleted')
    assert run("get", "jobs") == "No resources found in default namespace.\n"
    wait_for(lambda: "No resources found" in run("get", "pods"))
    run("delete", "namespace", "gpu-resources")
    run("delete", "events", "--all")


def _same(ours: list[str], theirs: list[str]) -> None:
    assert ours == theirs


def _alike(ours: list[str], theirs: list[str]) -> None:
    """The recorded kubectl is 1.32. Other versions have other names for some fields with the same values."""
    told = [line for line in theirs if line.startswith(("Normal", "Warning", "Pods Statuses", "Status", "Exit Code"))]
    # From 1.36 on, kubectl puts the container before the message of an event.
    plain = [re.sub(r"spec\.containers\{[^}]*\}: ", "", line) for line in ours]
    assert [line for line in told if line not in plain] == []
