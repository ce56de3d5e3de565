"""The data files of the API server: schemas, rules, protobuf fields and table columns (``api/data``)."""

from __future__ import annotations

import gzip
import json
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from aksgpu.common import yaml_loader


@cache
def load(name: str) -> Any:
    """Return the content of a YAML or JSON file in ``api/data``; the JSON may be compressed."""
    content = files("aksgpu.local.api").joinpath("data", name).read_bytes()
    if name.endswith(".yaml"):
        return yaml.load(content, yaml_loader.LOADER)
    if name.endswith(".gz"):
        content = gzip.decompress(content)
    return json.loads(content)
