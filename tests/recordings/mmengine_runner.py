"""MMEngine: its Runner with a small model."""

import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import TensorDataset
from truth import Truth

truth = Truth("MMEngine", "mmengine", "torch", tolerance=5e-5)


class Model(BaseModel):
    """A linear classifier."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 2)

    def forward(self, inputs, data_samples=None, mode="tensor"):
        features = torch.stack(list(inputs)) if not isinstance(inputs, torch.Tensor) else inputs
        labels = torch.as_tensor(data_samples)
        scores = self.layer(features)
        if mode == "loss":
            return {"loss": torch.nn.functional.cross_entropy(scores, labels)}
        return scores, labels


class Accuracy(BaseMetric):
    """The fraction of correct predictions."""

    def process(self, data_batch, data_samples):
        scores, labels = data_samples
        self.results.append({"all": len(labels), "right": int((scores.argmax(1) == labels).sum())})

    def compute_metrics(self, results):
        return {"accuracy": sum(each["right"] for each in results) / sum(each["all"] for each in results)}


class Record(Hook):
    """Records the values that the logger hook is about to print."""

    priority = "VERY_LOW"

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if (batch_idx + 1) % 5 == 0:
            scalars = runner.log_processor.get_log_after_iter(runner, batch_idx, "train")[0]
            truth.add(
                "loss",
                scalars["train/loss"] if "train/loss" in scalars else scalars["loss"],
                epoch=runner.epoch + 1,
                step=batch_idx + 1,
            )

    def after_val_epoch(self, runner, metrics=None):
        truth.add("val_accuracy", metrics["accuracy"], epoch=runner.epoch)


torch.manual_seed(0)
features = torch.randn(320, 8)
labels = (features[:, 0] > 0).long()
loader = {
    "dataset": TensorDataset(features, labels),
    "batch_size": 16,
    "num_workers": 0,
    "sampler": {"type": "DefaultSampler", "shuffle": False},
    "collate_fn": {"type": "default_collate"},
}
runner = Runner(
    Model(),
    "work",
    train_dataloader=loader,
    train_cfg={"by_epoch": True, "max_epochs": 2},
    optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.05}},
    val_dataloader=dict(loader),
    val_cfg={},
    val_evaluator=[Accuracy()],
    default_hooks={"logger": {"type": "LoggerHook", "interval": 5}},
    custom_hooks=[Record()],
)
runner.train()
truth.save()
