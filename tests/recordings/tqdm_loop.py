"""tqdm: nested bars that are followed by numbers."""

import math

from tqdm import tqdm, trange
from truth import Truth

truth = Truth("tqdm, a bar an epoch", "tqdm", tolerance=5e-4)
for epoch in range(3):
    bar = trange(40, desc=f"Epoch {epoch}", mininterval=0)
    for step in bar:
        loss = math.exp(-(40 * epoch + step) / 50)
        bar.set_postfix(loss=f"{loss:.4f}")
    truth.add("loss", loss, epoch=epoch)
    tqdm.write(f"epoch {epoch}: val_loss={loss * 1.1:.4f} val_acc={1 - loss / 3:.2%}")
    truth.add("val_loss", loss * 1.1, epoch=epoch)
    truth.add("val_acc", 1 - loss / 3, epoch=epoch)
truth.save()
