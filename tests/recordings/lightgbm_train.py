"""LightGBM: ``lightgbm.train`` with the callback that logs each round, and early stopping."""

import lightgbm
import numpy as np
from truth import Truth

truth = Truth("LightGBM", "lightgbm", tolerance=5e-6)
rng = np.random.default_rng(0)
features = rng.normal(size=(400, 5))
labels = (features[:, 0] + rng.normal(size=400) > 0).astype(int)
train = lightgbm.Dataset(features[:300], labels[:300])
valid = lightgbm.Dataset(features[300:], labels[300:], reference=train)
history: dict = {}
lightgbm.train(
    {"objective": "binary", "metric": ["binary_logloss", "auc"], "num_leaves": 4, "num_threads": 1},
    train,
    40,
    valid_sets=[train, valid],
    valid_names=["training", "valid_1"],
    callbacks=[lightgbm.log_evaluation(1), lightgbm.record_evaluation(history), lightgbm.early_stopping(5)],
)
rounds = len(history["valid_1"]["auc"])
for step in range(rounds):
    for name in ("training", "valid_1"):
        for metric in ("binary_logloss", "auc"):
            truth.add(f"{name} {metric}", history[name][metric][step], step=step + 1)
truth.save()
