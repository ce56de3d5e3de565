"""Which events belong to an object, as evidence for a diagnosis."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from aksgpu.common import times
from aksgpu.diagnose.cluster_reader import ClusterReader
from aksgpu.diagnose.diagnosis import Rows
from aksgpu.kube.client import Object

__all__ = ["Event", "event_rows", "events_about", "preemptions"]

_SHOWN_WARNINGS = 5
"""Warnings that are evidence: the newest."""
_CREATED_POD = "Created pod: "
"""Beginning of the Job controller's message for a pod that it created."""
_SHOWN_REASONS = ("ScaleUp", "Nominated", "NodeClaim", "Disruption", "Preempted", "Evicted", "Workload", "Quota")
"""Parts of the reasons of events that are evidence although some are not warnings."""


class Event(NamedTuple):
    """An event.

    Attributes:
        reason: its reason, such as ``FailedScheduling``.
        message: its message.
        time: when it last happened; None if it does not say.
        warning: whether it is a warning.
    """

    reason: str
    message: str
    time: datetime | None = None
    warning: bool = True


def events_about(reader: ClusterReader, obj: Object) -> list[Event]:
    """Return the events about an object, newest last, each text once."""
    newest: dict[tuple[str, str], Event] = {}
    for event in _events_of(reader, obj):
        found = _read(event)
        newest.pop((found.reason, found.message), None)
        newest[found.reason, found.message] = found
    return list(newest.values())


def event_rows(events: list[Event]) -> Rows:
    """Return the newest warnings, and the newest events about adding nodes, as evidence."""
    shown = [event for event in events if event.warning or any(part in event.reason for part in _SHOWN_REASONS)]
    return tuple((f"event {event.reason}", event.message) for event in shown[-_SHOWN_WARNINGS:])


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


def _read(event: Object) -> Event:
    return Event(
        str(event.get("reason")),
        str(event.get("message")),
        times.parse(event.get("lastTimestamp") or event.get("eventTime")),
        event.get("type") == "Warning",
    )


def _events_of(reader: ClusterReader, obj: Object) -> list[Object]:
    """Return all events about an object, newest last."""
    metadata = obj["metadata"]
    what = f"the events of {metadata['name']}"
    namespace = metadata.get("namespace") or "default"
    return _selected_events(reader, what, namespace, f"involvedObject.uid={metadata['uid']}")


def _selected_events(reader: ClusterReader, what: str, namespace: str, selector: str) -> list[Object]:
    found = reader.attempt(what, lambda: reader.aks.kube.list("Event", namespace=namespace, field_selector=selector))
    return sorted(found or [], key=_event_time)


def _event_time(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp"))
