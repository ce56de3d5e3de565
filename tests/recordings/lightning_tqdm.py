"""Lightning with its tqdm bars."""

from lightning.pytorch.callbacks import TQDMProgressBar
from lightning_common import train

train("Lightning, tqdm bars", 5.1e-4, TQDMProgressBar())
