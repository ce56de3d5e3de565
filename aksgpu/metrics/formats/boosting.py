"""Gradient boosting: XGBoost, LightGBM and CatBoost."""

from __future__ import annotations

import re

from aksgpu.metrics.formats.model import Context, Format, Row
from aksgpu.metrics.values import NUMBER

__all__ = ["FORMATS", "read_catboost", "read_lightgbm", "read_xgboost"]

_LIGHTGBM_PAIR = re.compile(
    rf"(?<!\S)(?P<set>[\w.\-]{{1,60}})'s (?P<metric>(?:train |valid )?[\w@.\-:]{{1,60}}): "
    rf"(?P<value>{NUMBER})(?=\s|$)"
)
_LIGHTGBM_CLI = re.compile(
    rf"(?P<set>training|valid_\d{{1,3}}|[\w.\-]{{1,60}}) (?P<metric>[\w@.\-]{{1,60}}) : (?P<value>{NUMBER})\s{{0,8}}$"
)
_ROUND = re.compile(r"\[(?P<step>\d{1,15})\](?:\s{1,8}|#011)(?=\S)")
_ITERATION = re.compile(r"(?:\[LightGBM\] \[Info\] )?Iteration:\s?(?P<step>\d{1,15}), ")
_BEST_FOLLOWS = re.compile(
    r"(?:Early stopping, b|Did not meet early stopping\. B|Stopping\. B|B)est iteration(?: is)?:\s{0,4}$"
)
_REPEATED = ("best iteration",)
"""Header of a table while the next line repeats an earlier one."""
_XGBOOST_PAIR = re.compile(
    rf"(?P<name>[\w.]{{1,60}}-[\w@.\-]{{1,60}}):(?P<value>{NUMBER})(?:\+\d{{1,20}}\.?\d{{0,20}})?(?=\s|$|#011)"
)
_CATBOOST = re.compile(r"(?P<step>\d{1,15}):\s{1,8}(?=(?:learn|test|total)\d{0,3}: )")
_CATBOOST_PAIR = re.compile(rf"(?<!\S)(?P<name>learn|test\d{{0,3}}|best): (?P<value>{NUMBER})(?=\s|$)")
_CATBOOST_END = re.compile(r"bestTest = |bestIteration = |Shrink model to first ")


def _is_repeated(text: str, context: Context) -> bool:
    """Return whether a line announces a repeated line or is one. Repeated lines are skipped."""
    if _BEST_FOLLOWS.match(text):
        context.header = _REPEATED
        context.header_kind = "boosting"
        return True
    if context.header == _REPEATED:
        context.header = ()
        context.header_kind = ""
        return bool(_ROUND.match(text))
    return False


def read_lightgbm(text: str, context: Context) -> list[Row] | None:
    """Read a round of LightGBM."""
    if _is_repeated(text, context):
        return []
    found = _ROUND.match(text) or _ITERATION.match(text)
    if not found:
        return None
    values = {}
    for pair in _LIGHTGBM_PAIR.finditer(text, found.end()):
        values[f"{pair['set']} {pair['metric']}"] = float(pair["value"])
    if not values and found.re is _ITERATION:
        alone = _LIGHTGBM_CLI.match(text, found.end())
        if alone:
            values[f"{alone['set']} {alone['metric']}"] = float(alone["value"])
    return [Row(values, int(found["step"]))] if values else None


def read_xgboost(text: str, context: Context) -> list[Row] | None:
    """Read a round of XGBoost. SageMaker prints its tabs as ``#011``."""
    if _is_repeated(text, context):
        return []
    found = _ROUND.match(text)
    if not found:
        return None
    cells = re.split(r"#011|\s", text[found.end() :])
    values = {}
    for cell in cells:
        pair = _XGBOOST_PAIR.fullmatch(cell)
        if pair:
            values[pair["name"]] = float(pair["value"])
    return [Row(values, int(found["step"]))] if values else None


def read_catboost(text: str, context: Context) -> list[Row] | None:
    """Read an iteration of CatBoost."""
    found = _CATBOOST.match(text)
    if not found:
        return [] if _CATBOOST_END.match(text) else None
    values = {pair["name"]: float(pair["value"]) for pair in _CATBOOST_PAIR.finditer(text, found.end())}
    return [Row(values, int(found["step"]))] if values else []


FORMATS = (
    Format(
        "lightgbm",
        ("'s ", "Iteration:", "est iteration"),
        read_lightgbm,
        "[1]\ttraining's binary_logloss: 0.71\tvalid_1's binary_logloss: 0.72",
    ),
    Format("xgboost", ("]\t", "] ", "]#011"), read_xgboost, "[0]\ttrain-logloss:0.48\teval-logloss:0.49"),
    Format(
        "catboost",
        ("learn", "test", "best", "Shrink"),
        read_catboost,
        "0:\tlearn: 0.67\ttest: 0.68\tbest: 0.68 (0)\ttotal: 50ms\tremaining: 49s",
    ),
)
