"""Lightning with rich's bars, as they are printed without a terminal."""

from lightning.pytorch.callbacks import RichProgressBar
from lightning_common import train

train("Lightning, rich bars", 5.1e-4, RichProgressBar(), only_last_epoch=True)
