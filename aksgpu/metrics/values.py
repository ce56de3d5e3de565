"""Numbers and names as training programs print them: which names are metrics, and what each is called in general."""

from __future__ import annotations

import math
import re

NUMBER = r"[-+]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][-+]?\d{1,4})?(?![\d.]*\d)|[-+]?(?i:nan|inf(?:inity)?)\b"
"""A pattern for one number. Every repetition is bounded, so that no input makes it slow."""
NAME = r"[A-Za-z][\w@/.\-]{0,63}"
"""A pattern for a metric's name in ``name=value``."""

PAIR = re.compile(
    rf"(?<![\w@/.\-])(?P<name>{NAME})(?P<sign>\s?[=:]\s{{0,3}})(?P<value>{NUMBER})(?P<unit>\s?%|ms\b|s\b|[KMG]?i?B\b)?"
)
"""``name=value`` or ``name: value``, with a unit where one follows."""

_NOT_METRICS = frozenset(
    """
    eta elapsed remaining time data_time data wall train_wall total_time runtime train_runtime eval_runtime
    test_runtime predict_runtime timestamp ts date datetime _timestamp _runtime clock duration secs seconds
    v_num version pid port seed rank local_rank world_size node gpu device gpu_mem memory mem max_mem gpu_memory
    size batch batch_size bsz wpb global_batch_size num_samples train_samples eval_samples samples n_parameters
    num_params params parameters total_params workers num_workers instances images skipped mom betas
    epochs max_epochs num_epochs max_steps total_steps num_steps total
    """.split()
)
"""Names that are followed by a number and are no metric: times, sizes, versions, counts of the run itself."""
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
    }
)

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
    "acc@5": "accuracy_top5",
    "acc5": "accuracy_top5",
    "prec@5": "accuracy_top5",
    "top5": "accuracy_top5",
    "loss": "loss",
    "total_loss": "loss",
    "lm_loss": "loss",
    "lr": "learning_rate",
    "learning_rate": "learning_rate",
    "ppl": "perplexity",
    "perplexity": "perplexity",
    "gnorm": "grad_norm",
    "grad_norm": "grad_norm",
}
_SPLITS = (
    ("training_", ""),
    ("train_", ""),
    ("validation_", "val_"),
    ("valid_", "val_"),
    ("val_", "val_"),
    ("eval_", "val_"),
    ("dev_", "val_"),
    ("test_", "test_"),
)


def canonical(name: str) -> str:
    """Return the general name of a metric: ``loss``, ``accuracy``, ``val_loss`` ...

    Args:
        name: as the program printed it, such as ``Train-accuracy``, ``eval_loss`` or ``Acc@1``.

    Returns:
        The general name; where none is known, the printed one in lower case with underscores.

    Example:
        >>> canonical("Validation-accuracy")
        'val_accuracy'
    """
    plain = re.sub(r"[\s\-/.']+", "_", name.strip().lower()).strip("_")
    split = ""
    for prefix, general in _SPLITS:
        if plain.startswith(prefix) and len(plain) > len(prefix):
            plain = plain[len(prefix) :]
            split = general
            break
    return split + _CANONICAL.get(plain, plain)


def is_metric(name: str) -> bool:
    """Return whether a printed name may be a metric's: not a time, a size, a version or a count of the run itself."""
    return re.sub(r"[\s\-]+", "_", name.strip().lower()) not in _NOT_METRICS


def number(text: str) -> float:
    """Return the value of a number that matched :data:`NUMBER`."""
    return float(text)


def share(value: float, unit: str | None) -> float:
    """Return a value as it is, or a percentage as a share of 1 where the percent sign was seen."""
    if unit is not None and unit.strip() == "%":
        return value / 100
    return value


def integer(value: float) -> int | None:
    """Return a step as an integer, or None where it is none."""
    if math.isfinite(value) and value == int(value) and abs(value) < 2**62:
        return int(value)
    return None
