"""How training images are varied and normalised, read off the checkpoint's own processor.

Evaluation uses the processor itself; only training has transforms of its own. Must not know files, models or runs.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from PIL.Image import Image
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.functional import pil_to_tensor

from tl_core.errors import ModelError
from tl_core.ml.backbone import processor_size

# Part of the area that a random crop keeps, and its change of aspect: milder than ImageNet's 8–100 % (Szegedy et al.
# 2015), which on small sets and short trainings cuts the object away.
CROP_SCALE = (0.35, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)


class Normalisation:
    """(B, 3, H, W) uint8 -> float32 as the processor rescales and normalises."""

    def __init__(self, processor: Any) -> None:
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in _statistics(processor))
        self.scale = float(getattr(processor, "rescale_factor", None) or 1 / 255) / std
        self.shift = -mean / std

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.to(torch.float32).mul_(self.scale).add_(self.shift)


class TrainTransform:
    """PIL RGB -> (3, H, W) uint8 at the backbone's input size, each a function of (seed, epoch, index)."""

    def __init__(self, processor: Any, augment: str, seed: int) -> None:
        size = processor_size(processor)
        interpolation = _interpolation(processor)
        steps: list[Any] = []
        if augment == "none":
            steps.append(v2.Resize(size, interpolation=interpolation, antialias=True))
        else:
            steps.append(
                v2.RandomResizedCrop(
                    size, scale=CROP_SCALE, ratio=CROP_RATIO, interpolation=interpolation, antialias=True
                )
            )
        if augment == "crop-flip":
            steps.append(v2.RandomHorizontalFlip())
        self.steps = v2.Compose(steps)
        self.seed = seed

    def __call__(self, pictures: Iterable[Image], epoch: int, indices: Sequence[int]) -> list[torch.Tensor]:
        made = []
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            for index, picture in zip(indices, pictures, strict=True):
                torch.default_generator.manual_seed(_stream(self.seed, epoch, index))
                made.append(pil_to_tensor(self.steps(picture)))
        return made


def _stream(seed: int, epoch: int, index: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{epoch}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # torch wants a signed 64-bit number


def _statistics(processor: Any) -> tuple[list[float], list[float]]:
    data = getattr(processor, "data_config", None)
    if data is not None:
        return list(data["mean"]), list(data["std"])
    if not getattr(processor, "do_normalize", False):
        return [0.0] * 3, [1.0] * 3
    if processor.image_mean is None or processor.image_std is None:
        raise ModelError(f"{type(processor).__name__} normalises but has no mean and standard deviation")
    return list(processor.image_mean), list(processor.image_std)


def _interpolation(processor: Any) -> InterpolationMode:
    names = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers
    data = getattr(processor, "data_config", None)
    found = data["interpolation"] if data is not None else getattr(processor, "resample", 2)
    if isinstance(found, InterpolationMode):
        return found
    name = found if isinstance(found, str) else names[int(found if found is not None else 2)]
    return InterpolationMode(name)
