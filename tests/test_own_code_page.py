"""docs/own-code.md: its numbers are those of the code, its errors exist, and the rights that it lists suffice."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from support.polling import wait_for

from aksgpu import errors, jobs
from aksgpu.cluster import Cluster
from aksgpu.jobs import executor_arguments
from aksgpu.kube import Kube, kubeconfig
from aksgpu.payload import packing, project_files, records, requirements, runner

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]

PAGE = (Path(__file__).parents[1] / "docs" / "own-code.md").read_text()
TIMEOUT = 120
MIB = 1024 * 1024


def table(title: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its header."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    assert len(rows) > 2, title
    return [[cell.strip() for cell in row] for row in rows[2:]]


LIMITS = {
    "a call, compressed": (
        f"{packing.LARGEST_PAYLOAD // MIB} MiB; a warning above {packing.WARN_ABOVE // 1024} KiB names the largest part"
    ),
    "files of `include`, before compression": (
        f"{project_files.LARGEST_TOTAL // MIB} MiB, and at most {project_files.MOST_FILES:,} files"
    ),
    "one Secret of a call": f"{packing._SECRET_BYTES // 1024} KiB; a call uses as many as it needs",
    "a value in the pod's termination message": (
        f"the encoded message has at most {records.LARGEST_MESSAGE:,} bytes, which is about 2.7 KB of value"
    ),
    "a larger value, compressed": (
        f"{records.LARGEST_FRAMED_BODY // MIB} MiB, through the log of a sidecar; a larger one raises "
        "`ResultTooLarge`. With `out=` there is no limit"
    ),
    "the source that is sent in case the pod's Python differs": f"{packing._LARGEST_SPARE_SOURCE // 1024} KiB",
    "a name": (
        f"{executor_arguments.LONGEST_NAME} characters: lower case letters, digits and `-`, beginning with a letter"
    ),
    "between SIGTERM and SIGKILL": f"{runner.GRACE_SECONDS:g} s",
}


def test_the_page_names_the_variables_that_are_sent() -> None:
    named = [name for _, cell in table("Packages") for name in re.findall(r"`([A-Z_]+)`", cell)]
    assert sorted(named) == sorted(requirements._PASSED_ON)


def test_the_limits_are_those_of_the_code() -> None:
    assert dict(table("Limits")) == LIMITS


def test_the_value_of_a_termination_message_has_the_size_that_the_page_says() -> None:
    outcome = {"kind": "value", "text": "returned a value of type bytes", "seconds": 12.345, "attempt": 0}
    text = records.encode({**outcome, "exit_code": 0, "where": "message"}, os.urandom(2700), os.urandom(32))
    assert len(records.message(str(outcome["text"]), text).encode()) <= records.LARGEST_MESSAGE


def test_the_page_names_errors_that_exist() -> None:
    named = set(re.findall(r"`([A-Z]\w+)`", " ".join(row[1] for row in table("Failures"))))
    assert {"ResultLost", "PythonMismatch", "JobCancelled"} <= named
    assert [name for name in named if not hasattr(errors, name)] == []


# The rights


class Limited:
    """A cluster as a user sees it who has a role in one namespace."""

    name = "limited"

    def __init__(self, kube: Kube) -> None:
        self.kube = kube


@pytest.fixture
def limited(aks: Cluster, tmp_path: Path) -> Limited:
    """Return the cluster for a user who has exactly the rights of the page's table."""
    rules = [
        {"apiGroups": [group.strip("`")], "resources": [resource.strip("`")], "verbs": verbs.split(", ")}
        for group, resource, verbs, _ in table("Permissions")
    ]
    assert len(rules) > 4
    place = {"name": "researcher", "namespace": "page"}
    for made in (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "page"}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": place, "rules": rules},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": place,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "researcher"},
            "subjects": [{"kind": "User", "name": "researcher", "apiGroup": "rbac.authorization.k8s.io"}],
        },
    ):
        aks.kube.apply(made)
    config: Any = kubeconfig.load(aks.kube._transport._path)
    for entry in config["users"]:
        entry["user"] = {**entry["user"], "as": "researcher"}
    path = tmp_path / "researcher"
    path.write_text(json.dumps(config))
    return Limited(Kube.from_kubeconfig(path))


@pytest.mark.timeout(300)
def test_the_rights_that_the_page_lists_suffice(limited: Limited, tmp_path: Path) -> None:
    with pytest.raises(errors.Forbidden):
        limited.kube.list("Node")
    cpu = jobs.Executor(limited, gpus=0, namespace="page", root=Path(__file__).parent, secrets={"TOKEN": "a secret"})
    job = cpu.submit(lambda: (os.environ["TOKEN"], os.urandom(100_000)))
    token, _ = job.result(TIMEOUT)  # a large value comes through the sidecar's log
    assert token == "a secret"
    assert job.logs() == ""
    assert job.metrics().empty
    assert job.why().unknown == ()
    waiting = cpu.submit(wait_for, (tmp_path / "never").exists, 3600)
    wait_for(waiting.running, 60)
    assert waiting.cancel(timeout=TIMEOUT)
    missing = jobs.Executor(limited, gpus=0, namespace="page", node_selector={"disk": "none"}).submit(os.getpid)
    assert not [each for each in missing.why().unknown if "event" in each.lower()]
    assert missing.cancel(timeout=TIMEOUT)
    assert set(jobs.list(limited, namespace="page")["job"]) == {job.name, waiting.name, missing.name}
    for each in (job, waiting, missing):
        each.delete()
    assert jobs.list(limited, namespace="page").empty
