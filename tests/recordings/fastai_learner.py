"""fastai: ``fit``, whose recorder prints a table."""

import torch
from fastai.callback.progress import ProgressCallback  # noqa: F401 - prints the table, as in fastai.vision.all
from fastai.data.all import DataLoaders
from fastai.learner import Learner
from fastai.metrics import accuracy
from torch.utils.data import TensorDataset
from truth import Truth

truth = Truth("fastai", "fastai", "fastprogress", "torch", tolerance=5e-7)
torch.manual_seed(0)
features = torch.randn(320, 8)
labels = (features[:, 0] > 0).long()
data = TensorDataset(features, labels)
loaders = DataLoaders.from_dsets(data, data, bs=32, num_workers=0)
learner = Learner(loaders, torch.nn.Linear(8, 2), loss_func=torch.nn.CrossEntropyLoss(), metrics=accuracy)
learner.fit(4, lr=0.01)
for epoch, values in enumerate(learner.recorder.values):
    for name, value in zip(("train_loss", "valid_loss", "accuracy"), values, strict=True):
        truth.add(name, value, epoch=epoch)
truth.save()
