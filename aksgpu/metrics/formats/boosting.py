"""Gradient boosting: XGBoost, LightGBM and CatBoost."""

from __future__ import annotations

import re

from aksgpu.metrics.formats.model import Context, Format, Row
from aksgpu.metrics.values import NUMBER

_LIGHTGBM_NAME = r"(?P<set>[\w.\-]{1,60})'s (?P<metric>[\w@.\-:]{1,60})"
_LIGHTGBM_PAIR = re.compile(rf"(?<!\S){_LIGHTGBM_NAME}: (?P<value>{NUMBER})(?: \+ {NUMBER})?")
_ROUND = re.compile(r"\[(?P<step>\d{1,12})\]\s{1,8}(?=\S)")
_ITERATION = re.compile(r"(?:\[LightGBM\] \[Info\] )?Iteration:\s?(?P<step>\d{1,12}), ")
_XGBOOST_PAIR = re.compile(rf"(?<!\S)(?P<name>[\w.]{{1,60}}-[\w@.\-]{{1,60}}):(?P<value>{NUMBER})(?:\+{NUMBER})?")
_CATBOOST = re.compile(r"(?P<step>\d{1,12}):\s{1,8}(?=(?:learn|test|total): )")
_CATBOOST_PAIR = re.compile(rf"(?<!\S)(?P<name>learn|test\d{{0,3}}|best): (?P<value>{NUMBER})")


def read_lightgbm(text: str, context: Context) -> list[Row] | None:
    """Read a round of LightGBM."""
    found = _ROUND.match(text) or _ITERATION.match(text)
    if not found:
        return None
    values = {}
    for pair in _LIGHTGBM_PAIR.finditer(text, found.end()):
        values[f"{pair['set']} {pair['metric']}"] = float(pair["value"])
    return [Row(values, int(found["step"]))] if values else None


def read_xgboost(text: str, context: Context) -> list[Row] | None:
    """Read a round of XGBoost."""
    found = _ROUND.match(text)
    if not found:
        return None
    values = {pair["name"]: float(pair["value"]) for pair in _XGBOOST_PAIR.finditer(text, found.end())}
    return [Row(values, int(found["step"]))] if values else None


def read_catboost(text: str, context: Context) -> list[Row] | None:
    """Read an iteration of CatBoost."""
    found = _CATBOOST.match(text)
    if not found:
        return None
    values = {pair["name"]: float(pair["value"]) for pair in _CATBOOST_PAIR.finditer(text, found.end())}
    return [Row(values, int(found["step"]))] if values else []


FORMATS = (
    Format("lightgbm", ("'s ",), read_lightgbm, "[1]\ttraining's binary_logloss: 0.71\tvalid_1's binary_logloss: 0.72"),
    Format("xgboost", ("]\t", "] "), read_xgboost, "[0]\ttrain-logloss:0.48\teval-logloss:0.49"),
    Format(
        "catboost", ("learn: ", "test: "), read_catboost, "0:\tlearn: 0.67\ttest: 0.68\tbest: 0.68 (0)\ttotal: 50ms"
    ),
)
