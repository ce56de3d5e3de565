"""What strings may look like, in the API server's own words; the forms are data (``data/rules.yaml``)."""

from __future__ import annotations

import gzip
import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def data(name: str) -> Any:
    """The content of a file in ``data``: YAML, or JSON, perhaps compressed."""
    content = files("aksgpu.local.api").joinpath("data", name).read_bytes()
    if name.endswith(".yaml"):
        return yaml.load(content, LOADER)
    return json.loads(gzip.decompress(content) if name.endswith(".gz") else content)


def problems(form: str, value: str) -> list[str]:
    """Why a value does not have this form; empty when it does."""
    if form in ("qualified-name", "annotation"):
        return qualified(value.lower() if form == "annotation" else value)
    rule = data("rules.yaml")["formats"][form]
    found = [f"must be no more than {rule['maxLength']} bytes"] if len(value.encode()) > rule["maxLength"] else []
    if not re.fullmatch(rule["pattern"], value, re.ASCII):
        found.append(rule["text"].replace("{pattern}", rule["pattern"]).replace("{value}", value))
    if form == "config-key":
        found += _parent_directory(value)
    return found


def _parent_directory(key: str) -> list[str]:
    """Why a key of a ConfigMap or Secret would leave the directory of a volume; empty when it would not."""
    if key in (".", ".."):
        return [f"must not be '{key}'"]
    return ["must not start with '..'"] if key.startswith("..") else []


def label_value(value: str) -> list[str]:
    """What is wrong with the value of a label."""
    return problems("label-value", value)


def qualified(value: str) -> list[str]:
    """What is wrong with a label key or the name of a resource: a name, perhaps after a domain and a slash."""
    prefix, slash, name = value.rpartition("/")
    if slash and (not prefix or "/" in prefix):
        text = problems("name-part", "")[0].replace("name part", "a qualified name", 1)
        return [f"{text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    found = [f"prefix part {problem}" for problem in problems("subdomain", prefix)] if slash else []
    return found + problems("name-part", name)


def extended(resource: str) -> bool:
    """Whether a resource is one that nodes advertise, such as nvidia.com/gpu; it comes in whole pieces."""
    prefix, slash, _ = resource.partition("/")
    return bool(slash) and not (prefix == "kubernetes.io" or prefix.endswith(".kubernetes.io"))
