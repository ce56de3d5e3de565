"""In which form a client wants its answer: the Accept header."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson
import yaml
from aiohttp import web

from aksgpu.local.status import StatusError

JSON, YAML = "application/json", "application/yaml"


class Form(NamedTuple):
    """What was agreed on."""

    media: str = JSON
    shape: str = ""
    """A kind to convert to, such as ``Table``; empty for the object as it is."""
    version: str = "v1"
    pretty: bool = False

    def dump(self, obj: Any) -> bytes:
        """An object's bytes in this form."""
        if self.media == YAML:
            return yaml.dump(obj, Dumper=_DUMPER, sort_keys=False).encode()
        return orjson.dumps(obj, option=orjson.OPT_INDENT_2 if self.pretty else orjson.OPT_APPEND_NEWLINE)


_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def negotiate(request: web.Request, shapes: tuple[str, ...] = ()) -> Form:
    """The first form of the Accept header that can be served; raises NotAcceptable when there is none.

    Args:
        request: its Accept header, ``pretty`` parameter and User-Agent are looked at.
        shapes: kinds that the answer can be converted to, beside being sent as it is.
    """
    pretty = _pretty(request)
    accept = request.headers.get("Accept") or "*/*"
    for clause in accept.split(","):
        media, *parameters = (part.strip() for part in clause.split(";"))
        options = dict(parameter.partition("=")[::2] for parameter in parameters)
        shape, version = options.get("as", ""), options.get("v", "v1")
        if shape and (shape not in shapes or version not in ("v1", "v1beta1", "v2", "v2beta1")):
            continue
        if media in (JSON, "*/*", "application/*"):
            return Form(JSON, shape, version, pretty)
        if media == YAML and not shape:
            return Form(YAML)
    raise StatusError(406, "NotAcceptable", f"only the following media types are accepted: {JSON}, {YAML}")


def _pretty(request: web.Request) -> bool:
    """Indented for people: asked for, or a browser or curl by its name."""
    asked = request.query.get("pretty")
    if asked is not None:
        return asked in ("1", "true", "True")
    return request.headers.get("User-Agent", "").startswith(("curl", "Wget", "Mozilla/5.0"))
