"""Write the file of schemas in ``aksgpu/local/api/data`` again, for example after a new row in ``KINDS``.

    pip install kubernetes-validate==1.37.0
    python tests/extract_schemas.py

The package ``kubernetes-validate`` contains the published definitions of each Kubernetes release. The file contains the
definitions of the kinds in ``KINDS`` and all that they refer to, in the form of OpenAPI v3.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

from aksgpu.local.api import schema as api_schema
from aksgpu.local.kinds import KINDS

RELEASE = "1.36"
"""The Kubernetes release of the schemas."""
TARGET = Path(api_schema.__file__).parent / "data" / f"schemas-{RELEASE}.json.gz"
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
    """Return the definitions that ROOTS refer to, directly or indirectly."""
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


def find_definitions() -> Path | None:
    """Return the file of Kubernetes' definitions, or None if kubernetes-validate is not installed."""
    found = importlib.util.find_spec("kubernetes_validate")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "kubernetes-json-schema"
    return folder / f"v{RELEASE}.0-local" / "_definitions.json"


def main() -> None:
    """Write the file of schemas."""
    source = find_definitions()
    if source is None:
        raise SystemExit("kubernetes-validate is not installed: pip install kubernetes-validate==1.37.0")
    extracted = extract(json.loads(source.read_text())["$defs"])
    data = json.dumps(extracted, separators=(",", ":")).encode()
    TARGET.write_bytes(gzip.compress(data, 9, mtime=0))


if __name__ == "__main__":
    main()
