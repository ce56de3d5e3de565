"""A small module, and the values that a callback sees at the end of each epoch."""

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader, TensorDataset
from truth import Truth


class Module(lightning.LightningModule):
    """A linear classifier that logs to the progress bar."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 2)

    def _loss(self, batch):
        features, labels = batch
        scores = self.layer(features)
        accuracy = (scores.argmax(1) == labels).float().mean()
        return torch.nn.functional.cross_entropy(scores, labels), accuracy

    def training_step(self, batch, number):
        loss, _ = self._loss(batch)
        self.log("train_loss", loss, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, number):
        loss, accuracy = self._loss(batch)
        self.log("val_loss", loss, prog_bar=True)
        self.log("val_acc", accuracy, prog_bar=True)

    def test_step(self, batch, number):
        loss, accuracy = self._loss(batch)
        self.log("test_loss", loss)
        self.log("test_acc", accuracy)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05)


class Record(Callback):
    """Records the trainer's metrics at the end of an epoch."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_end(self, trainer, module):
        # The mean of train_loss is set by the trainer right before this call.
        names = ("val_loss", "val_acc", "train_loss")
        self.epochs.append({name: float(trainer.callback_metrics[name]) for name in names})


def train(family, tolerance, bar, *, only_last_epoch=False):
    """Train for three epochs, then test. Without a terminal, rich prints only the last epoch."""
    truth = Truth(family, "lightning", "torch", tolerance=tolerance)
    record = Record()
    lightning.seed_everything(0)
    features = torch.randn(320, 8)
    labels = (features[:, 0] > 0).long()
    data = TensorDataset(features, labels)
    loader = DataLoader(data, batch_size=16)
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        callbacks=[record, bar],
    )
    module = Module()
    trainer.fit(module, loader, loader)
    for epoch, values in enumerate(record.epochs):
        if only_last_epoch and epoch < 2:
            continue
        for name, value in values.items():
            truth.add(name, value, epoch=epoch)
    trainer.test(module, loader)
    for name in ("test_loss", "test_acc"):
        truth.add(name, trainer.callback_metrics[name])
    truth.save()
