"""Makes the file of schemas in ``aksgpu/local/api/data`` from Kubernetes' published definitions, whenever these change.

    python tests/extract_schemas.py .../kubernetes-json-schema/v1.36.0-local/_definitions.json schemas-1.36.json.gz

The input is a file of the PyPI package ``kubernetes-validate``, which carries the definitions of each Kubernetes
release. Kept are the kinds of the table and all that they refer to, in the form that OpenAPI v3 has.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

from aksgpu.local.kinds import KINDS

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
ROOTS = (
    *(kind.definition for kind in KINDS),
    "io.k8s.api.authentication.v1.TokenRequest",
    "io.k8s.api.core.v1.Binding",
    "io.k8s.api.policy.v1.Eviction",
    f"{META}DeleteOptions",
    f"{META}Status",
)
_OLD = "#/$defs/"
_NEW = "#/components/schemas/"


def _plain(schema: Any) -> Any:
    """The schema without JSON Schema's nulls and enumerations, which OpenAPI v3 and kubectl do not expect."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: _plain(value) for key, value in schema.items() if key != "enum"}
    if isinstance(result.get("type"), list):
        result["type"] = next(each for each in result["type"] if each != "null")
    if isinstance(result.get("$ref"), str):
        result["$ref"] = result["$ref"].replace(_OLD, _NEW)
    return result


def extract(definitions: dict[str, Any]) -> dict[str, Any]:
    """The closure of ROOTS."""
    found: dict[str, Any] = {}
    todo = list(ROOTS)
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found[name] = schema = _plain(definitions[name])
        own = [gvk for gvk in schema.get("x-kubernetes-group-version-kind", []) if name.endswith(gvk["kind"])]
        if own and name.startswith(META):
            schema["x-kubernetes-group-version-kind"] = own[:1]
        todo += [part.split('"')[0] for part in json.dumps(schema).split(_NEW)[1:]]
    for name, form in ((QUANTITY, None), (INT_OR_STRING, "int-or-string")):
        found[name] = {"type": "string", **({"format": form} if form else {})} | {
            key: value for key, value in found[name].items() if key == "description"
        }
    return dict(sorted(found.items()))


def write(definitions: Path, target: Path) -> None:
    """Read the definitions, write the extract; the same input gives the same bytes."""
    data = json.dumps(extract(json.loads(definitions.read_text())["$defs"]), separators=(",", ":")).encode()
    target.write_bytes(gzip.compress(data, 9, mtime=0))


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
