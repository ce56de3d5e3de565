"""XGBoost: ``xgboost.train`` with two evaluation sets."""

import numpy as np
import xgboost
from truth import Truth

truth = Truth("XGBoost", "xgboost-cpu", tolerance=5e-6)
rng = np.random.default_rng(0)
features = rng.normal(size=(400, 5))
labels = (features[:, 0] + rng.normal(size=400) > 0).astype(int)
train = xgboost.DMatrix(features[:300], labels[:300])
valid = xgboost.DMatrix(features[300:], labels[300:])
history: dict = {}
options = {"objective": "binary:logistic", "eval_metric": ["logloss", "auc"], "max_depth": 2, "nthread": 1}
sets = [(train, "train"), (valid, "eval")]
xgboost.train(options, train, 12, evals=sets, evals_result=history)
for step in range(12):
    for name in ("train", "eval"):
        for metric in ("logloss", "auc"):
            truth.add(f"{name}-{metric}", history[name][metric][step], step=step)
truth.save()
