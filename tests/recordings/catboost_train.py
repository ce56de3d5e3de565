"""CatBoost: ``fit`` with an evaluation set."""

import numpy as np
from catboost import CatBoostClassifier
from truth import Truth

truth = Truth("CatBoost", "catboost", tolerance=5e-8)
rng = np.random.default_rng(0)
features = rng.normal(size=(400, 5))
labels = (features[:, 0] + rng.normal(size=400) > 0).astype(int)
model = CatBoostClassifier(iterations=15, depth=2, thread_count=1, random_seed=0, allow_writing_files=False)
model.fit(features[:300], labels[:300], eval_set=(features[300:], labels[300:]))
history = model.get_evals_result()
for step in range(15):
    truth.add("learn", history["learn"]["Logloss"][step], step=step)
    truth.add("test", history["validation"]["Logloss"][step], step=step)
truth.save()
