"""Accelerate: a loop like those in its examples, which prints the metrics of an epoch as a dict."""

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset
from truth import Truth

truth = Truth("Accelerate", "accelerate", "torch", tolerance=1e-12)
torch.manual_seed(0)
accelerator = Accelerator(cpu=True)
features = torch.randn(320, 8)
labels = (features[:, 0] > 0).long()
model = torch.nn.Linear(8, 2)
optimizer = torch.optim.SGD(model.parameters(), 0.05)
loader = DataLoader(TensorDataset(features, labels), batch_size=32)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
for epoch in range(4):
    total = 0.0
    right = 0
    for batch, answers in loader:
        scores = model(batch)
        loss = torch.nn.functional.cross_entropy(scores, answers)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item()
        right += int((scores.argmax(1) == answers).sum())
    metric = {"accuracy": right / 320, "train_loss": total / len(loader)}
    accelerator.print(f"epoch {epoch}:", metric)
    for name, value in metric.items():
        truth.add(name, value, epoch=epoch)
truth.save()
