"""Ultralytics: YOLO from its configuration, with random images and without pre-trained weights."""

from pathlib import Path

import numpy as np
from PIL import Image
from truth import Truth
from ultralytics import YOLO

truth = Truth("Ultralytics YOLO", "ultralytics", "torch", tolerance=5e-4)
rng = np.random.default_rng(0)
for part in ("train", "val"):
    Path(f"data/images/{part}").mkdir(parents=True)
    Path(f"data/labels/{part}").mkdir(parents=True)
    for number in range(8):
        pixels = rng.integers(0, 255, (64, 64, 3), dtype="uint8")
        Image.fromarray(pixels).save(f"data/images/{part}/{number}.png")
        Path(f"data/labels/{part}/{number}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
Path("data.yaml").write_text(f"path: {Path('data').resolve()}\ntrain: images/train\nval: images/val\nnames: [a, b]\n")


def record_losses(trainer):
    for name, value in trainer.label_loss_items(trainer.tloss, prefix="train").items():
        truth.add(name.removeprefix("train/"), value, epoch=trainer.epoch + 1)


validated = set()


def record_metrics(trainer):
    # After the last epoch, the best model is validated once more. That belongs to no epoch.
    epoch = min(trainer.epoch + 1, trainer.epochs)
    for name in ("precision(B)", "recall(B)", "mAP50(B)", "mAP50-95(B)"):
        truth.add(name, trainer.metrics[f"metrics/{name}"], epoch=None if epoch in validated else epoch)
    validated.add(epoch)


model = YOLO("yolov8n.yaml")
model.add_callback("on_train_epoch_end", record_losses)
model.add_callback("on_fit_epoch_end", record_metrics)
model.train(
    data="data.yaml", epochs=2, imgsz=64, batch=4, device="cpu", workers=0, plots=False, pretrained=False, amp=False
)
truth.save()
