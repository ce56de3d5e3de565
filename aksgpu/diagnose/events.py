"""Which events belong to an object, as evidence for a diagnosis."""

from __future__ import annotations

from aksgpu.diagnose.cluster_reader import ClusterReader
from aksgpu.diagnose.diagnosis import Rows
from aksgpu.kube.client import Object

__all__ = ["Event", "event_rows", "preemptions", "warnings"]

Event = tuple[str, str]
"""Reason and message of an event."""

_SHOWN_WARNINGS = 5
"""Warnings that are evidence: the newest."""
_CREATED_POD = "Created pod: "
"""Beginning of the Job controller's message for a pod that it created."""


def warnings(reader: ClusterReader, obj: Object) -> list[Event]:
    """Return the warnings about an object, newest last, each once.

    The autoscaler's events about adding nodes count as well, although some of them are not warnings.
    """
    events = [
        (str(event.get("reason")), str(event.get("message")))
        for event in _events_of(reader, obj)
        if event.get("type") == "Warning" or "ScaleUp" in str(event.get("reason"))
    ]
    return list(dict.fromkeys(events))[-_SHOWN_WARNINGS:]


def preemptions(reader: ClusterReader, job: Object) -> list[tuple[str, str]]:
    """Return (pod, message) of the preemptions of a Job's pods, newest last.

    Pods that were deleted since are included: the Job's own events name every pod that it created.
    """
    created = set()
    for event in _events_of(reader, job):
        if event.get("reason") == "SuccessfulCreate":
            created.add(str(event.get("message", "")).removeprefix(_CREATED_POD))
    namespace = job["metadata"]["namespace"]
    selector = "involvedObject.kind=Pod,reason=Preempted"
    preempted = []
    for event in _selected_events(reader, "the preemptions of its pods", namespace, selector):
        pod = str(event["involvedObject"].get("name"))
        if pod in created:
            preempted.append((pod, str(event.get("message"))))
    return preempted


def event_rows(events: list[Event]) -> Rows:
    """Return events as evidence."""
    return tuple((f"event {reason}", message) for reason, message in events)


def _events_of(reader: ClusterReader, obj: Object) -> list[Object]:
    """Return all events about an object, newest last."""
    metadata = obj["metadata"]
    what = f"the events of {metadata['name']}"
    return _selected_events(reader, what, metadata["namespace"], f"involvedObject.uid={metadata['uid']}")


def _selected_events(reader: ClusterReader, what: str, namespace: str, selector: str) -> list[Object]:
    found = reader.attempt(what, lambda: reader.aks.kube.list("Event", namespace=namespace, field_selector=selector))
    return sorted(found or [], key=_event_time)


def _event_time(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp"))
