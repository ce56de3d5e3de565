"""Pod statuses, compared with those of a real kubelet."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from aksgpu.local.node import container as node_container

from .conftest import Lab

RECORDINGS = Path(__file__).parents[2] / "data" / "kube-recordings"


def recorded(step: int) -> dict[str, Any]:
    steps = json.loads((RECORDINGS / "05-job-life.json").read_text())["steps"]
    pod: dict[str, Any] = json.loads(steps[step]["stdout"])["items"][0]
    return pod


def plain(status: dict[str, Any]) -> Any:
    """Return a status without values that differ between runs, and without the mount of the service account token."""
    text = json.dumps(status, sort_keys=True)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "TIME", text)
    text = re.sub(r"(containerd://|sha256:)[0-9a-f]{64}", r"\1ID", text)
    text = re.sub(r'"\d+\.\d+\.\d+\.\d+"', '"ADDRESS"', text)
    found = json.loads(text)
    for container in found["containerStatuses"]:
        container.pop("volumeMounts", None)
        if "waiting" in container["state"]:
            container["state"]["waiting"]["message"] = "MESSAGE"
    return found


@pytest.mark.parametrize(("step", "phase"), [(3, "Failed"), (8, "Succeeded"), (15, "Pending")])
async def test_status_is_as_recorded(lab: Lab, step: int, phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_container, "ERR_IMAGE_PULL_SECONDS", 1e6)  # The recording is from the first seconds.
    real = recorded(step)
    assert real["status"]["phase"] == phase
    container = real["spec"]["containers"][0]
    container = {key: container[key] for key in ("name", "image", "imagePullPolicy", "command")}
    await lab.run("same", container=container)
    pod = await lab.until("same", lambda pod: "terminated" in str(pod["status"]) or "ErrImage" in str(pod["status"]))
    if phase != "Pending":
        pod = await lab.phase("same", phase)
    assert plain(pod["status"]) == plain(real["status"])
