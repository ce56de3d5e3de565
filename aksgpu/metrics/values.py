"""Numbers and names as training programs print them: which names are metrics, and the general name of each."""

from __future__ import annotations

import functools
import math
import re
from typing import Literal

__all__ = [
    "END",
    "EPOCH_NAMES",
    "MEASURES",
    "NAME",
    "NUMBER",
    "PAIR",
    "RATES",
    "SETTINGS",
    "STEP_NAMES",
    "canonical",
    "integer",
    "is_metric",
    "names_a_measure",
    "of_percent",
    "share",
]

NUMBER = (
    r"(?:[-+]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][-+]?\d{1,4})?(?![\d.]{0,80}\d)"
    r"|[-+]?(?i:nan|inf(?:inity)?)\b)"
)
"""A pattern for one number. Every repetition is bounded, so that no input makes it slow."""
NAME = r"[A-Za-z][\w@/.\-]{0,63}"
"""A pattern for a metric's name in ``name=value``."""
END = r"(?!\w|[/:\-]\d|[.,]\d)"
"""A pattern for the end of a whole number: no unit follows, and no rest of a date, a time, a version or a thousand."""

PAIR = re.compile(rf"(?<![\w@/.\-])(?P<name>{NAME})\s?[=:]\s{{0,3}}(?P<value>{NUMBER})(?:(?P<unit>\s?%)|{END})")
"""``name=value`` or ``name: value`` with a bare number or a percentage."""

_NOT_METRICS = frozenset(
    (
        # times
        "eta",
        "elapsed",
        "remaining",
        "time",
        "data_time",
        "time_elapsed",
        "iter_time",
        "step_time",
        "train_time",
        "test_time",
        "val_time",
        "data",
        "wall",
        "train_wall",
        "total_time",
        "runtime",
        "train_runtime",
        "eval_runtime",
        "test_runtime",
        "predict_runtime",
        "eval_model_preparation_time",
        "timestamp",
        "ts",
        "date",
        "datetime",
        "_timestamp",
        "_runtime",
        "clock",
        "dur",
        "duration",
        "sec",
        "secs",
        "seconds",
        "s",
        "ms",
        "dt",
        "progress",
        "latency",
        # what identifies the run or its machine
        "v_num",
        "version",
        "pid",
        "port",
        "seed",
        "trial",
        "rank",
        "local_rank",
        "world_size",
        "node",
        "gpu",
        "device",
        "level",
        "line",
        "lineno",
        "status",
        "code",
        # sizes
        "gpu_mem",
        "memory",
        "mem",
        "max_mem",
        "gpu_memory",
        "gb_free",
        "memallocated",
        "maxmemallocated",
        "size",
        "batch",
        "batch_size",
        "train_batch_size",
        "eval_batch_size",
        "per_device_train_batch_size",
        "bsz",
        "wpb",
        "global_batch_size",
        "test_size",
        "val_size",
        "valid_size",
        "train_size",
        "test_split",
        "val_split",
        "validation_split",
        "train_split",
        "test_ratio",
        "val_ratio",
        "train_ratio",
        "num_samples",
        "train_samples",
        "eval_samples",
        "test_samples",
        "predict_samples",
        "samples",
        "n_parameters",
        "num_params",
        "params",
        "parameters",
        "total_params",
        "workers",
        "num_workers",
        "instances",
        "images",
        # counts and settings of the run itself
        "episode",
        "episodes",
        "round",
        "rounds",
        "skipped",
        "mom",
        "betas",
        "epochs",
        "max_epochs",
        "num_epochs",
        "num_train_epochs",
        "max_steps",
        "total_steps",
        "num_steps",
        "train_steps",
        "eval_steps",
        "test_steps",
        "total",
        "min_delta",
        "n_updates",
        "nupdates",
        "serial_timesteps",
    )
)
"""Names before a number that are not metrics: times, sizes, versions, counts of the run itself."""
_UNIT = re.compile(r"\([\w/]{1,12}\)$")
"""The unit at the end of a name, as in ``memory(GiB)``."""
_TIME_SIZE_OR_COUNT = re.compile(
    r"(?:.{0,60}[_/.])?(?:time|times|timing|seconds|secs|duration|elapsed|eta|samples|tokens(?:_seen)?|count|counts|flos|mem"
    r"|(?:batch|data|reader|step)_cost)"
    r"|(?:time|timing|timers|memory)(?:_[a-z]{1,4})?/.{1,64}"
    r"|(?:.{0,60}/)?time_.{1,64}"
    r"|(?:.{0,60}[_/.])?mem(?:ory)?(?:_(?:active|alloc|allocated|free|inactive|max|peak|reserved|total|usage|used|[gm]i?b)){1,3}"
)
"""Names that end like those of times, sizes and counts: ``forward_time``, ``batch_cost``, ``num_tokens``."""
EPOCH_NAMES = frozenset({"epoch", "ep", "current_epoch", "train_epoch"})
STEP_NAMES = frozenset(
    {
        "step",
        "global_step",
        "iter",
        "iteration",
        "iterations",
        "num_updates",
        "trainer/global_step",
        "it",
        "_step",
        "steps",
        "update",
        "total_timesteps",
        "totalenvinteracts",
        "training_iteration",
    }
)

MEASURES = (
    r"loss(?:es)?|acc(?:uracy)?|accuracies|top[1-9]|f1|f1[ _-]?score|f[ _-]?score|auc|auroc|roc[ _-]?auc|pr[ _-]?auc"
    r"|precision|prec|recall|mae|mse|rmse|mape|smape|r2|r2[ _-]score|nll|logloss|mlogloss|cross[ _-]?entropy|perplexity"
    r"|ppl|bpc|bleu|sacrebleu|meteor|rouge(?:[ _-]?[12l]{1,4}(?:sum)?)?|exact[ _-]?match|mcc|matthews[ _-]correlation"
    r"|pearsonr?|spearmanr?|iou|miou|m?AP|map50|m?AP[ _@-]?\d{2}(?:[-:]\d{2})?|dice|psnr|ssim|lpips|fid|wer|cer"
    r"|err|error|error[ _-]rate|rewards?|return|score|ndcg|mrr|elbo|kld?|kl[ _-]div(?:ergence)?|grad(?:ient)?[ _-]norm"
    r"|gnorm|mfu"
)
"""Words that name a metric."""
SETTINGS = r"lr|learning[ _-]rate|entropy|momentum|norm|weight[ _-]decay|loss[ _-]scale"
"""Words of numbers that occur in lines of metrics, and in printed configurations too."""
RATES = (
    r"throughput|tps|wps|ups|fps|tflops"
    r"|(?:tokens?|tok|samples?|images?|imgs?|img|steps?|examples?|batch(?:es)?|it(?:er)?s?)"
    r"(?:/s(?:ec)?|[ _-]per[ _-]sec(?:ond)?)"
)
"""Words that name a speed."""
_MEASURE_NAME = re.compile(
    rf"(?:.{{0,60}}[_/\-.@' (])?(?i:{MEASURES})(?:[_/\-.@ ]?\d{{1,4}}|[_/@\-.][\w/.\-]{{1,40}}|\(\w{{1,4}}\))?"
)
_NAMED_MEASURE = re.compile(
    r"(?i:.{0,60}(?:loss|accuracy|_acc|^acc|crossentropy|perplexity)\w{0,4})|(?i:loss|acc)[A-Z_].{0,60}"
)
_SPLIT_NAME = re.compile(r"(?i:train(?:ing)?|val(?:id(?:ation)?)?|eval|test|dev)[_/\-.].{1,64}")
_OF_A_SETTING = re.compile(
    r"(?i:(?:.{0,60}[_/\-. ])?"
    r"(?:weights?|coef(?:f(?:icient)?)?|lambda|alpha|beta|gamma|factor|threshold|target|patience|scale|fn|func"
    r"|type|interval|freq(?:uency)?|every|steps?|size|ratio|split|frac(?:tion)?|samples?|seed|len(?:gth)?|id|idx|count|num"
    r"|runtime|batch|(?:data)?loader|dataset|data|batches|images|dir|file|path|workers|epochs?|limit|port|version|time|seconds|secs?|ms))"
)
"""Names of settings that contain a metric's word: ``loss_weight``, ``val_split``, ``eval_steps``."""

_DIGITS_OF_SHARES = 15
_CANONICAL = {
    "acc": "accuracy",
    "accuracy": "accuracy",
    "categorical_accuracy": "accuracy",
    "sparse_categorical_accuracy": "accuracy",
    "binary_accuracy": "accuracy",
    "acc@1": "accuracy",
    "acc1": "accuracy",
    "prec@1": "accuracy",
    "top1": "accuracy",
    "top1_acc": "accuracy",
    "accuracy_top1": "accuracy",
    "top_1_accuracy": "accuracy",
    "top_1_acc": "accuracy",
    "top_5_accuracy": "accuracy_top5",
    "top_5_acc": "accuracy_top5",
    "acc@5": "accuracy_top5",
    "acc5": "accuracy_top5",
    "prec@5": "accuracy_top5",
    "top5": "accuracy_top5",
    "top5_acc": "accuracy_top5",
    "loss": "loss",
    "total_loss": "loss",
    "average_loss": "loss",
    "avg_loss": "loss",
    "mean_loss": "loss",
    "lm_loss": "loss",
    "lm_loss_value": "loss",
    "avg_accuracy": "accuracy",
    "average_accuracy": "accuracy",
    "lr": "learning_rate",
    "base_lr": "learning_rate",
    "learning_rate": "learning_rate",
    "ppl": "perplexity",
    "lm_loss_ppl": "perplexity",
    "perplexity": "perplexity",
    "gnorm": "grad_norm",
    "grad_norm": "grad_norm",
}
_SPLITS = (
    ("training_", ""),
    ("train_", ""),
    ("learn_", ""),
    ("validation_", "val_"),
    ("valid_", "val_"),
    ("val_", "val_"),
    ("evaluation_", "val_"),
    ("eval_", "val_"),
    ("dev_", "val_"),
    ("test_", "test_"),
)


def canonical(name: str) -> str:
    """Return the general name of a metric: ``loss``, ``accuracy``, ``val_loss`` ...

    Args:
        name: as the program printed it, such as ``Train-accuracy``, ``eval_loss`` or ``Acc@1``.

    Returns:
        The general name. If it is not known, the printed name in lower case with underscores.

    Example:
        >>> canonical("Validation-accuracy")
        'val_accuracy'
    """
    plain = re.sub(r"[\s\-/.':]+", "_", name.strip().lower().replace("'s ", " ")).strip("_")
    split = ""
    for prefix, general in _SPLITS:
        if plain.startswith(prefix) and len(plain) > len(prefix):
            plain = plain[len(prefix) :]
            split = general
            break
    return split + _CANONICAL.get(plain, plain)


_BETTER_WHEN_HIGH = (
    "acc",
    "auc",
    "f1",
    "precision",
    "recall",
    "map",
    "iou",
    "dice",
    "bleu",
    "rouge",
    "reward",
    "score",
    "psnr",
    "ssim",
)
"""Beginnings of words in the names of metrics that a training raises."""
_BETTER_WHEN_LOW = ("loss", "error", "err", "mae", "mse", "rmse", "ppl", "perplexity", "wer", "cer", "nll", "fid")
"""Beginnings of words in the names of metrics that a training lowers."""


def better_value(name: str) -> Literal["max", "min"] | None:
    """Return whether a training raises or lowers a metric, by the words of its name; None if they do not say.

    Example:
        >>> better_value("val_accuracy")
        'max'
    """
    words = canonical(name).split("_")
    high = any(word.startswith(_BETTER_WHEN_HIGH) for word in words)
    low = any(word.startswith(_BETTER_WHEN_LOW) for word in words)
    if high == low:
        return None
    return "max" if high else "min"


@functools.lru_cache(maxsize=4096)
def is_metric(name: str) -> bool:
    """Return whether a printed name may be a metric, and not a time, a size, a version or a count of the run itself."""
    plain = re.sub(r"[\s\-]{1,64}", "_", _UNIT.sub("", name.strip().lower()))
    return plain not in _NOT_METRICS and not _TIME_SIZE_OR_COUNT.fullmatch(plain)


def names_a_measure(name: str) -> bool:
    """Return whether a name is that of a loss, an accuracy or another measure. Its line is then about training."""
    if not is_metric(name) or _OF_A_SETTING.fullmatch(name):
        return False
    return bool(_MEASURE_NAME.fullmatch(name) or _NAMED_MEASURE.fullmatch(name) or _SPLIT_NAME.fullmatch(name))


def share(value: float, unit: str | None) -> float:
    """Return a value unchanged, or as a fraction of 1 if its unit is a percent sign."""
    if unit is not None and unit.strip() == "%":
        return of_percent(value)
    return value


def of_percent(value: float) -> float:
    """Return a percentage as a fraction of 1, without the rounding error of the division: 98.24 becomes 0.9824."""
    return round(value / 100, _DIGITS_OF_SHARES)


def integer(value: float) -> int | None:
    """Return a step as an integer, or None if it is not one."""
    if math.isfinite(value) and value == int(value) and abs(value) < 2**62:
        return int(value)
    return None
