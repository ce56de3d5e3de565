"""The ``log`` subresource: validates the request and asks the node agent for a container's output."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Protocol

from aksgpu.local.api.request_bodies import query_flag, query_int
from aksgpu.local.api.status_causes import Causes
from aksgpu.local.kinds import Type
from aksgpu.local.objects import Object
from aksgpu.local.selectors import get_path
from aksgpu.local.status_error import bad_request

_WAITING = {"ErrImagePull": "image can't be pulled", "ImagePullBackOff": "trying and failing to pull image"}


class PodLogs(Protocol):
    """The part of the node agent that reads logs."""

    async def open(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool,
        previous: bool,
        timestamps: bool,
        since_time: str | None,
        since_seconds: int | None,
        tail_lines: int | None,
        limit_bytes: int | None,
    ) -> AsyncIterator[bytes]:
        """Return the output in pieces of any size; with ``follow``, until the container ends.

        ``since_time`` is an RFC 3339 timestamp in whole seconds, UTC.
        """


async def open_log(logs: PodLogs, pod: Object, query: Mapping[str, str]) -> AsyncIterator[bytes] | None:
    """Return the output that a request asks for, or None if the pod has no node yet.

    Raises:
        StatusError: The container does not exist or has not started, or the options are invalid.
    """
    metadata = pod["metadata"]
    options = _log_options(query, pod["metadata"]["name"])
    container = select_container(pod, query.get("container", ""))
    if not pod["spec"].get("nodeName"):
        return None
    _check_container_state(pod, container, options["previous"])
    return await logs.open(metadata["namespace"], metadata["name"], container, **options)


def _log_options(query: Mapping[str, str], name: str) -> Object:
    options: Object = {each: query_flag(query, each) for each in ("follow", "previous", "timestamps")}
    numbers = {"since_seconds": "sinceSeconds", "tail_lines": "tailLines", "limit_bytes": "limitBytes"}
    causes = Causes()
    for field, parameter in numbers.items():
        number = query_int(query, parameter) if query.get(parameter) else None
        options[field] = number
        smallest = 0 if parameter == "tailLines" else 1
        if number is not None and number < smallest:
            bound = "greater than 0" if smallest else "greater than or equal to 0"
            causes.invalid(parameter, number, f"must be {bound}")
    since = query.get("sinceTime")
    if since and options["since_seconds"] is not None:
        causes.forbidden("sinceSeconds", "only one of `sinceTime` or `sinceSeconds` may be specified")
    causes.raise_if_any(Type("", "v1", "PodLogOptions"), name)
    options["since_time"] = _whole_seconds(since) if since else None
    return options


def _whole_seconds(text: str) -> str:
    """Return a timestamp without its fraction, as Kubernetes passes it to the node."""
    try:
        return datetime.fromisoformat(text.replace(" ", "+")).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        raise bad_request(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse it') from None


def select_container(pod: Object, requested: str) -> str:
    """Return the container that a request names, or the only or default one; raises BadRequest."""
    spec = pod["spec"]
    name = pod["metadata"]["name"]
    containers = [each["name"] for each in spec.get("containers") or ()]
    init_containers = [each["name"] for each in spec.get("initContainers") or ()]
    if requested:
        if requested not in (*containers, *init_containers):
            raise bad_request(f"container {requested} is not valid for pod {name}")
        return requested
    if len(containers) == 1 and not init_containers:
        return str(containers[0])
    default = pod["metadata"].get("annotations", {}).get("kubectl.kubernetes.io/default-container")
    if default in containers:
        return str(default)
    message = f"a container name must be specified for pod {name}, choose one of: [{' '.join(containers)}]"
    if init_containers:
        message += f" or one of the init containers: [{' '.join(init_containers)}]"
    raise bad_request(message)


def container_status(pod: Object, container: str) -> Object:
    """Return the status of a container, or an empty dict if the pod has none yet."""
    for field in ("status.containerStatuses", "status.initContainerStatuses"):
        for status in get_path(pod, field) or ():
            if status["name"] == container:
                return dict(status)
    return {}


def _check_container_state(pod: Object, container: str, previous: bool) -> None:
    found = container_status(pod, container)
    where = f'container "{container}" in pod "{pod["metadata"]["name"]}"'
    last = get_path(found, "lastState.terminated")
    if previous and not last:
        raise bad_request(f"previous terminated {where} not found")
    if last or get_path(found, "state.running") is not None or get_path(found, "state.terminated") is not None:
        return
    waiting = get_path(found, "state.waiting.reason") or "ContainerCreating"
    raise bad_request(f"{where} is waiting to start: {_WAITING.get(waiting, waiting)}")
