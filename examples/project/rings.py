"""The data of train.py."""

import numpy as np


def make_rings(points: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features of noisy points on two rings, and the ring of each point."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, points)
    radius = 1 + labels + 0.25 * random.standard_normal(points)
    angle = random.uniform(0, 2 * np.pi, points)
    x = radius * np.cos(angle)
    y = radius * np.sin(angle)
    return np.stack([np.ones(points), x, y, x * y, x**2 + y**2], axis=1), labels
