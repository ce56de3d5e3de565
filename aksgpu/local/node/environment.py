"""What a container runs, and in which environment: expansion, env, envFrom, fieldRef, resourceFieldRef, GPUs.

ConfigMaps and Secrets are read through :class:`~aksgpu.local.objects.Objects`; nothing is started here.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from decimal import ROUND_CEILING, Decimal
from pathlib import Path

from aksgpu.common import quantities
from aksgpu.local.images import Image
from aksgpu.local.node.gpus import Gpu
from aksgpu.local.objects import Object, Objects
from aksgpu.local.status_error import StatusError

# What containers see of this machine's own environment: enough to run its programs, and no secrets.
_INHERITED = ("HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")
_FIELDS = (
    *("metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations"),
    *("spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"),
)
_REFERENCE = re.compile(r"\$\$|\$\((?P<name>[^)]*)(?P<end>\)|\Z)")
"""A reference, up to the end of the text where it has no bracket at its end: so each character is read once."""


class ConfigError(Exception):
    """The container cannot be created as its spec demands (reason CreateContainerConfigError)."""


def expand(text: str, known: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` where NAME is known; ``$$`` is a dollar sign."""

    def one(match: re.Match[str]) -> str:
        if match["name"] is None:
            return "$"
        if not match["end"]:
            return match[0].replace("$$", "$")
        return known.get(match["name"], match[0])

    return _REFERENCE.sub(one, text)


def command_line(container: Object, image: Image, known: Mapping[str, str]) -> list[str]:
    """The program and its arguments: ``command`` replaces the image's entrypoint and default arguments."""
    words = [expand(word, known) for word in [*(container.get("command") or []), *(container.get("args") or [])]]
    return words if container.get("command") else [*image.entrypoint, *(words or image.cmd)]


def common(hostname: str, tools: Sequence[Path], gpus: Sequence[Gpu], driver: Path | None = None) -> dict[str, str]:
    """The environment that every container begins with."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    uuids = ",".join(gpu.uuid for gpu in gpus)
    return {
        **inherited,
        "PATH": os.pathsep.join([*map(str, tools), os.environ.get("PATH", os.defpath)]),
        "HOSTNAME": hostname,
        "PYTHONUNBUFFERED": "1",  # a log that is followed should move
        "NVIDIA_VISIBLE_DEVICES": uuids or "void",
        "CUDA_VISIBLE_DEVICES": uuids,
        "AKSGPU_GPUS": json.dumps([asdict(gpu) for gpu in gpus]),
        **({"AKSGPU_DRIVER": str(driver)} if driver else {}),
    }


async def of_container(objects: Objects, pod: Object, container: Object, node: Object) -> dict[str, str]:
    """The environment that the container's spec asks for.

    ``pod`` carries its status with the addresses; the allocatable of ``node`` stands in for limits that are not set.

    Raises:
        ConfigError: a ConfigMap, a Secret or a key that is not optional is missing.
    """
    found: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        data = await read_data(objects, pod, source)
        prefix = source.get("prefix", "")
        found |= {prefix + key: value.decode(errors="replace") for key, value in data.items()}
    for entry in container.get("env") or []:
        value = await _value(objects, entry, pod, container, node, found)
        if value is not None:
            found[entry["name"]] = value
    return found


async def _value(
    objects: Objects, entry: Object, pod: Object, container: Object, node: Object, known: Mapping[str, str]
) -> str | None:
    source = entry.get("valueFrom")
    if not source:
        return expand(entry.get("value") or "", known)
    if "fieldRef" in source:
        return field(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return resource_field(pod, source["resourceFieldRef"], container, node)
    kind, ref = next(iter(source.items()))
    data = await read_data(objects, pod, source)
    if ref["key"] in data:
        return data[ref["key"]].decode(errors="replace")
    if ref.get("optional"):
        return None
    name = "ConfigMap" if kind == "configMapKeyRef" else "Secret"
    raise ConfigError(f"couldn't find key {ref['key']} in {name} {pod['metadata']['namespace']}/{ref['name']}")


async def read_data(objects: Objects, pod: Object, source: Object, *, binary: bool = False) -> dict[str, bytes]:
    """The data of the ConfigMap or Secret that a source names; empty when there is none and need not be.

    Only files have use for a ConfigMap's ``binaryData``: an environment cannot hold all of it.

    Raises:
        ConfigError: it is not there.
    """
    kind, ref = next((key, value) for key, value in source.items() if key.startswith(("configMap", "secret")))
    resource = "configmaps" if kind.startswith("configMap") else "secrets"
    name = ref.get("name") or ref["secretName"]
    try:
        obj = await objects.get(resource, name, pod["metadata"]["namespace"])
    except StatusError as error:
        if error.code != 404:
            raise
        if ref.get("optional"):
            return {}
        raise ConfigError(f'{resource.removesuffix("s")} "{name}" not found') from error
    coded = obj.get("data" if resource == "secrets" else "binaryData" if binary else "") or {}
    plain = {} if resource == "secrets" else obj.get("data") or {}
    found = {key: base64.b64decode(value) for key, value in coded.items()}
    return found | {key: value.encode() for key, value in plain.items()}


def field(pod: Object, path: str) -> str:
    """A field of the pod, as the downward API offers it.

    Raises:
        ConfigError: it offers no such field.
    """
    if match := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str((pod["metadata"].get(match[1]) or {}).get(match[2], ""))
    if path not in _FIELDS:
        raise ConfigError(f"unsupported fieldPath: {path}")
    part, _, name = path.partition(".")
    value = (pod.get(part) or {}).get(name) or ""
    match value:
        case dict():
            return "\n".join(f"{key}={json.dumps(text)}" for key, text in sorted(value.items()))
        case list():
            return ",".join(one["ip"] for one in value)
    return str(value)


def resource_field(pod: Object, ref: Object, container: Object, node: Object) -> str:
    """A container's limit or request in the unit of ``divisor``; without a limit, what the node can give."""
    spec = pod["spec"]
    if name := ref.get("containerName"):
        every = [*(spec.get("initContainers") or []), *spec["containers"]]
        container = next((one for one in every if one["name"] == name), container)
    kind, _, resource = str(ref["resource"]).partition(".")
    resources = container.get("resources") or {}
    value = (resources.get(kind) or {}).get(resource)
    if value is None and kind == "limits":
        value = node.get("status", {}).get("allocatable", {}).get(resource)
    divisor = quantities.parse(ref.get("divisor") or "1") or Decimal(1)
    return str(int((quantities.parse(value or "0") / divisor).to_integral_value(ROUND_CEILING)))
