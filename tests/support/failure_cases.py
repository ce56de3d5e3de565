"""The cases of tests/data/failures: what a diagnosis says about each, compared with what it must say."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from scripted import Request, Server

from aksgpu import diagnose, errors
from aksgpu.cluster import Cluster
from aksgpu.diagnose import gpu_failures
from aksgpu.diagnose.failure_text import Failure
from aksgpu.diagnose.scheduling_events import from_event
from aksgpu.kube import Kube

FOLDER = Path(__file__).parents[1] / "data" / "failures"


@dataclass(frozen=True)
class Case:
    """A case and what a diagnosis must say about it.

    Attributes:
        name: a few words.
        given: the input: ``log``, ``event`` with ``reason``, ``pod`` with ``reason`` (its status), ``container`` (its
            message), or the ``cluster`` of a pod.
        expected: class, attributes, parts of the verdict and of the fix.
    """

    name: str
    given: dict[str, Any]
    expected: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a diagnosis compares with what it must say.

    Attributes:
        case: the case.
        text: the verdict and the fix.
        cause_wrong: what is wrong about the class, its attributes or the verdict; empty if nothing is.
        fix_wrong: what is wrong about the fix; empty if nothing is.
    """

    case: Case
    text: str
    cause_wrong: list[str]
    fix_wrong: list[str]

    @property
    def mark(self) -> str:
        """``right``, ``half`` if only the fix or only the cause is right, or ``wrong``."""
        if not self.cause_wrong and not self.fix_wrong:
            return "right"
        return "wrong" if self.cause_wrong and self.fix_wrong else "half"


@cache
def cases() -> list[Case]:
    found = []
    for entry in yaml.safe_load((FOLDER / "cases.yaml").read_text()):
        given = {key: entry[key] for key in ("log", "event", "pod", "container", "reason") if key in entry}
        if "input" in entry:
            text = (FOLDER / entry["input"]).read_text()
            if entry["input"].endswith(".json"):
                given["cluster"] = json.loads(text)
            else:
                given["event" if "reason" in entry else "log"] = text
        found.append(Case(entry["name"], given, entry))
    return found


@cache
def outcomes() -> list[Outcome]:
    return [outcome(case) for case in cases()]


def outcome(case: Case) -> Outcome:
    """Diagnose a case, and compare the result."""
    error, verdict, fix = _diagnosed(case.given)
    expected = case.expected
    cause_wrong = []
    wanted = expected["kind"] and getattr(errors, expected["kind"])
    if (type(error) if error else None) is not (wanted or None):
        cause_wrong.append(f"class {type(error).__name__}, expected {expected['kind']}")
    for name in ("causes", "nodes", "xid"):
        if name in expected and getattr(error, name, None) != expected[name]:
            cause_wrong.append(f"{name} {getattr(error, name, None)!r}, expected {expected[name]!r}")
    cause_wrong += [
        f"{part!r} is not in the verdict" for part in expected.get("verdict", ()) if part.lower() not in verdict.lower()
    ]
    if verdict.rstrip().endswith(":"):
        cause_wrong.append("the verdict ends with a colon")
    fix_wrong = [f"{part!r} is not in the fix" for part in expected.get("fix", ()) if part not in fix]
    fix_wrong += [f"{part!r} is in the fix" for part in expected.get("not_fix", ()) if part in fix]
    return Outcome(case, f"{verdict}\n{fix}", cause_wrong, fix_wrong)


def _diagnosed(given: dict[str, Any]) -> tuple[errors.AksGpuError | None, str, str]:
    """Return the exception, the verdict and the fix for an input."""
    if "cluster" in given:
        with Server(cluster_answers(given["cluster"])) as server, tempfile.TemporaryDirectory() as folder:
            kube = Kube.from_kubeconfig(server.kubeconfig(Path(folder)))
            stub: Any = object()
            aks = Cluster("c", resource_group="g", location="eastus", azure=stub, kube=kube)
            found = diagnose.pod(aks, given["cluster"]["pod"]["metadata"]["name"])
        return found.error, found.verdict, found.fix
    error: errors.AksGpuError | None
    failure: Failure | None = None
    error = from_event(given["reason"], given["event"]) if "event" in given else None
    if error is None:
        if "event" in given:
            failure = gpu_failures.from_event(given["reason"], given["event"])
        elif "pod" in given:
            failure = gpu_failures.from_pod(given["reason"], given["pod"])
        elif "container" in given:
            failure = gpu_failures.from_container(given["container"])
        else:
            failure = gpu_failures.from_log(given["log"])
        error = failure.error() if failure else None
    return (None, "", "") if error is None else (error, error.message, error.hint)


def cluster_answers(shown: dict[str, Any]) -> Callable[[Request], None]:
    """Answer like the API server of a cluster that shows these objects.

    Args:
        shown: ``pod``, ``nodes``, ``events`` (type, reason, message), ``log``, ``other_pods``, and ``custom``: lists of
            custom resources by ``group/plural``.
    """
    pods = [shown["pod"], *shown.get("other_pods", ())]
    custom: dict[str, list[Any]] = shown.get("custom", {})

    def answer(request: Request) -> None:
        parts = request.route.strip("/").split("/")
        last = parts[-1]
        if last == "log":
            _send_log(request, shown.get("log", ""))
        elif parts[0] == "apis" and len(parts) == 2:
            groups = {name.partition("/")[0] for name in custom}
            if last in groups:
                request.json({"preferredVersion": {"groupVersion": f"{last}/v1"}})
            else:
                request.refuse(404, "NotFound", "not found")
        elif parts[0] == "apis" and f"{parts[1]}/{last}" in custom:
            request.json({"metadata": {}, "items": custom[f"{parts[1]}/{last}"]})
        elif last == "nodes":
            request.json({"metadata": {}, "items": shown["nodes"]})
        elif last == "pods":
            request.json({"metadata": {}, "items": _selected(pods, request.query.get("fieldSelector", ""))})
        elif last == "events":
            about = "uid" in request.query.get("fieldSelector", "")
            request.json({"metadata": {}, "items": _events(shown["events"]) if about else []})
        else:
            objects = shown["nodes"] if parts[-2] == "nodes" else pods if parts[-2] == "pods" else []
            found = [each for each in [*objects, *shown.get("objects", ())] if each["metadata"]["name"] == last]
            if found:
                request.json(found[0])
            else:
                request.refuse(404, "NotFound", "not found")

    return answer


def _selected(pods: list[Any], selector: str) -> list[Any]:
    if "nodeName!=" in selector:
        return [pod for pod in pods if pod["spec"].get("nodeName")]
    if "nodeName=," in selector:
        return [pod for pod in pods if not pod["spec"].get("nodeName")]
    return pods


def _events(events: list[Any]) -> list[Any]:
    return [
        {"type": kind, "reason": reason, "message": message, "metadata": {}, "involvedObject": {}}
        for kind, reason, message in events
    ]


def _send_log(request: Request, log: str) -> None:
    lines = log.splitlines()
    if request.query.get("timestamps"):
        lines = [f"2026-01-01T00:00:00.{number:09d}Z {line}" for number, line in enumerate(lines)]
    tail = int(request.query.get("tailLines") or len(lines))
    request.text("".join(f"{line}\n" for line in lines[max(0, len(lines) - tail) :]))
