"""Read what belongs to a diagnosis. What cannot be read is remembered as unknown, and never taken for absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from aksgpu.diagnose.diagnosis import Diagnosis, Rows
from aksgpu.errors import KubernetesError, NotFound, Unreachable
from aksgpu.kube.client import HasKube
from aksgpu.kube.node_facts import Node, read
from aksgpu.logs.job_logs import read as read_log

Object = Mapping[str, Any]
T = TypeVar("T")

TAIL = 20
"""Lines of a log that are evidence."""
TAIL_PATIENCE = 5.0
"""Seconds for which a log that is not served is asked for again."""
_EVENTS = 5
"""Events that are evidence."""


class Reader:
    """Reads a cluster for one diagnosis.

    Attributes:
        aks: the cluster.
        unknown: what could not be read, and why.
    """

    def __init__(self, aks: HasKube) -> None:
        self.aks = aks
        self.unknown: list[str] = []
        self._silent = False

    @property
    def has_azure(self) -> bool:
        """Whether Azure manages the cluster, so that node pools and ``az`` reach it."""
        return getattr(self.aks, "azure", None) is not None

    def attempt(self, what: str, fetch: Callable[[], T]) -> T | None:
        """Return what ``fetch`` returns, or None if the API server refuses or does not answer.

        Once the API server has not answered, no further request is made: each could take a minute.

        Args:
            what: what is fetched, such as ``the nodes``.
            fetch: makes the request.
        """
        if self._silent:
            self.unknown.append(f"{what}: not asked for, since the API server does not answer")
            return None
        try:
            return fetch()
        except Unreachable as failed:
            self._silent = True
            self.unknown.append(f"{what}: {failed.message}")
        except KubernetesError as failed:
            self.unknown.append(f"{what}: {failed.message}")
        return None

    def finish(self, found: Diagnosis) -> Diagnosis:
        """Return the diagnosis with what could not be read."""
        return replace(found, unknown=tuple(dict.fromkeys((*found.unknown, *self.unknown))))

    def node(self, name: str) -> Object | None:
        """Return the Node object. Empty if there is no such node, None if that could not be read."""

        def fetch() -> Object:
            try:
                return self.aks.kube.get("Node", name)
            except NotFound:
                return {}

        return self.attempt(f"node {name}", fetch)

    def nodes(self) -> list[Node] | None:
        """Return all nodes by pool and name; None if they could not be read."""
        found = self.attempt("the nodes", lambda: self.aks.kube.list("Node", pick=read))
        return None if found is None else sorted(found, key=lambda node: (node.pool, node.name))

    def events(self, obj: Object) -> list[tuple[str, str]]:
        """Return the warnings about an object as (reason, message), newest last, each once."""
        telling = [
            event
            for event in self.all_events(obj)
            if event.get("type") == "Warning" or "ScaleUp" in str(event.get("reason"))
        ]
        pairs = [(str(event.get("reason")), str(event.get("message"))) for event in telling]
        return list(dict.fromkeys(pairs))[-_EVENTS:]

    def all_events(self, obj: Object) -> list[Object]:
        """Return all events about an object, newest last."""
        metadata = obj["metadata"]
        selector = f"involvedObject.uid={metadata['uid']}"
        what = f"the events of {metadata['name']}"
        return self._selected_events(what, metadata["namespace"], selector)

    def preemptions(self, obj: Object) -> list[tuple[str, str]]:
        """Return (pod, message) of the preemptions of a Job's pods, those that are gone included, newest last."""
        metadata = obj["metadata"]
        made = {
            str(event.get("message", "")).removeprefix("Created pod: ")
            for event in self.all_events(obj)
            if event.get("reason") == "SuccessfulCreate"
        }
        selector = "involvedObject.kind=Pod,reason=Preempted"
        found = self._selected_events("the preemptions of its pods", metadata["namespace"], selector)
        pairs = [(str(event["involvedObject"].get("name")), str(event.get("message"))) for event in found]
        return [(pod, message) for pod, message in pairs if pod in made]

    def _selected_events(self, what: str, namespace: str, selector: str) -> list[Object]:
        found = self.attempt(what, lambda: self.aks.kube.list("Event", namespace, field_selector=selector))
        return sorted(found or [], key=_event_time)

    def tail(self, pod: Object, container: str, *, previous: bool = False) -> str:
        """Return the last lines of a container's log; empty if it has none or it could not be read.

        Args:
            pod: the pod.
            container: name.
            previous: of the run before the last restart.
        """
        metadata = pod["metadata"]

        def fetch() -> str:
            return read_log(
                self.aks,
                metadata["name"],
                namespace=metadata["namespace"],
                container=container,
                tail_lines=TAIL,
                previous=previous,
                patience=TAIL_PATIENCE,
            )

        found = self.attempt(f"the log of pod {metadata['name']}", fetch)
        return (found or "").rstrip()


def _event_time(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp"))


def event_rows(events: list[tuple[str, str]]) -> Rows:
    """Return events as evidence."""
    return tuple((f"event {reason}", message) for reason, message in events)
