"""How training images are varied, and brought to the numbers that the checkpoint's own processor makes of a colour.

Evaluation uses the processor itself; only training has transforms of its own. Must not know files, models or runs.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from PIL.Image import Image
from torchvision.transforms import InterpolationMode, v2

from tl_core.ml.preprocessing import measure_colours, preprocess, processor_size

# Part of the area that a random crop keeps, and its change of aspect: milder than ImageNet's 8–100 % (Szegedy et al.
# 2015), which on small sets and short trainings cuts the object away.
CROP_SCALE = (0.35, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)


class Normalisation:
    """(B, 3, H, W) uint8 RGB -> float32 as the processor rescales, normalises and orders the channels.

    Raises ModelError for a processor that does anything else to colours.
    """

    def __init__(self, processor: Any) -> None:
        colours = measure_colours(processor)
        self.order = colours.order
        self.scale, self.shift = colours.scale.view(1, -1, 1, 1), colours.shift.view(1, -1, 1, 1)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        ordered = pixels if self.order == [0, 1, 2] else pixels[:, self.order]
        return ordered.to(torch.float32).mul_(self.scale).add_(self.shift)

    def undo(self, normalised: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float32 as the processor makes them -> uint8 RGB, to the nearest grey level."""
        pixels = torch.empty_like(normalised)
        pixels[:, self.order] = (normalised - self.shift) / self.scale
        return pixels.round_().clamp_(0, 255).to(torch.uint8)


class TrainTransform:
    """PIL RGB -> (3, H, W) uint8 at the backbone's input size, each a function of (seed, epoch, index).

    With `augment="none"` the processor itself resizes and crops, so that training sees what evaluation sees. Raises
    ModelError for a processor that cannot be imitated.
    """

    def __init__(self, processor: Any, augment: str, seed: int) -> None:
        steps: list[Any] = []
        if augment == "none":
            steps.append(_AsEvaluated(processor))
        else:
            size, interpolation = processor_size(processor), _interpolation(processor)
            steps.append(v2.RandomResizedCrop(size, CROP_SCALE, CROP_RATIO, interpolation, antialias=True))
            steps.append(v2.PILToTensor())
        if augment == "crop-flip":
            steps.append(v2.RandomHorizontalFlip())
        self.steps = v2.Compose(steps)
        self.seed = seed

    def __call__(self, pictures: Iterable[Image], epoch: int, indices: Sequence[int]) -> list[torch.Tensor]:
        made = []
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            for index, picture in zip(indices, pictures, strict=True):
                torch.default_generator.manual_seed(_stream(self.seed, epoch, index))
                made.append(self.steps(picture))
        return made


class _AsEvaluated:
    """PIL RGB -> (3, H, W) uint8: where the processor puts a picture's pixels, before it normalises them."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.normalisation = Normalisation(processor)

    def __call__(self, picture: Image) -> torch.Tensor:
        return self.normalisation.undo(preprocess(self.processor, [picture]))[0]


def _stream(seed: int, epoch: int, index: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{epoch}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # torch wants a signed 64-bit number


def _interpolation(processor: Any) -> InterpolationMode:
    names = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers
    data = getattr(processor, "data_config", None)
    found = data["interpolation"] if data is not None else getattr(processor, "resample", 2)
    if isinstance(found, InterpolationMode):
        return found
    name = found if isinstance(found, str) else names[int(found if found is not None else 2)]
    return InterpolationMode(name)
