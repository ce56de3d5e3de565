"""The families of log lines that :mod:`aksgpu.metrics` reads, the most specific first.

To add a family, write a module with its ``FORMATS`` and add it to the list here.
"""

from __future__ import annotations

from aksgpu.metrics.formats import (
    boosting,
    detection,
    huggingface,
    json_lines,
    keras,
    key_values,
    large_models,
    loggers,
    progress_bars,
    pytorch,
    spacy,
    tensorflow,
    text_tables,
    vision,
)
from aksgpu.metrics.formats.model import Bar, Context, Format, Row

__all__ = ["FORMATS", "Bar", "Context", "Format", "Row"]

FORMATS: tuple[Format, ...] = (
    *loggers.FORMATS,
    *json_lines.FORMATS,
    *huggingface.FORMATS,
    *tensorflow.FORMATS,
    *pytorch.FORMATS,
    *keras.FORMATS,
    *vision.FORMATS,
    *detection.FORMATS,
    *spacy.FORMATS,
    *large_models.FORMATS,
    *boosting.FORMATS,
    *progress_bars.FORMATS,
    *text_tables.FORMATS,
    *key_values.FORMATS,
)
"""In the order in which they are tried. Only the first that claims a line reads it."""


def __dir__() -> list[str]:
    return __all__
