"""Makes pictures for tests: small, all different from one another, and learnable by the colour of their class."""

import colorsys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def picture(hue: float, seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    """Random blobs, `size` = (width, height), tinted with a hue of 0 to 1; another seed gives another picture."""
    random = np.random.default_rng(seed)
    tint = np.array(colorsys.hsv_to_rgb(hue, 0.8, 1.0))
    blobs = random.uniform(0.25, 1.0, (5, 5, 1)) * tint + random.uniform(-0.1, 0.1, (5, 5, 3))
    small = Image.fromarray((255 * np.clip(blobs, 0, 1)).astype(np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def make_folder(root: Path, counts: Mapping[str, int], size: tuple[int, int] = (32, 32), seed: int = 0) -> Path:
    """Class folders below `root` with so many pictures each, PNG and JPEG in turn; returns `root`."""
    for position, (label, count) in enumerate(counts.items()):
        folder = root / label
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            drawn = picture(position / len(counts), 1_000_000 * seed + 1_000 * position + number, size)
            drawn.save(folder / (f"{number:03}.png" if number % 2 == 0 else f"{number:03}.jpg"))
    return root
