"""How training images are varied, and brought to the numbers that the checkpoint's own processor makes of a colour.

Evaluation uses the processor itself; only training has transforms of its own. Must not know files, models or runs.
"""

from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any

import torch
from PIL.Image import Image
from torchvision.transforms import InterpolationMode, v2

from tl_core.ml.augmentation import Augmentation, stream_seed
from tl_core.ml.preprocessing import measure_colours, preprocess, processor_size

# Part of the area that a random crop keeps, and its change of aspect: milder than ImageNet's 8–100 % (Szegedy et al.
# 2015), which on small sets and short trainings cuts the object away.
CROP_SCALE = (0.35, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
# Brightness, contrast and saturation change by up to this part: half of what is usual on ImageNet (Gross & Wilber
# 2016). The hue stays, because it may be what tells two classes apart.
COLOUR_CHANGE = 0.2
# Steps from no change to the greatest (30 degrees, 45 % of the width, …), the first included; and how many operations
# RandAugment takes at which step for a ResNet-50 (Cubuk et al. 2020, section 4.3).
STRENGTHS = 31
RAND_OPERATIONS, RAND_STRENGTH = 2, 9
_drawing = Lock()


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

    With the policy "none" the processor itself resizes and crops, so that training sees what evaluation sees. What is
    erased or uncovered takes the colour that the processor normalises to 0, on ImageNet's figures its mean colour.

    The policy "trivial" is TrivialAugment over RandAugment's operations, each at any of its strengths: the same idea as
    torchvision's TrivialAugmentWide, whose rotations by up to 135 degrees would make a 9 of a 6; here 30 is the most.

    Mixing (`Augmentation.mix`) is done to batches and not here. Raises ModelError for a processor that cannot be
    imitated.
    """

    def __init__(
        self, processor: Any, augmentation: Augmentation, seed: int, crop_scale: tuple[float, float] = CROP_SCALE
    ) -> None:
        neutral = _neutral_colour(processor)
        steps = [_AsEvaluated(processor)] if augmentation.policy == "none" else _crop(processor, crop_scale)
        match augmentation.policy:
            case "colour":
                steps.append(v2.ColorJitter(COLOUR_CHANGE, COLOUR_CHANGE, COLOUR_CHANGE))
            case "trivial":
                steps.append(v2.RandomChoice([_operations(1, strength, neutral) for strength in range(STRENGTHS)]))
            case "rand":
                steps.append(_operations(RAND_OPERATIONS, RAND_STRENGTH, neutral))
        if augmentation.mirror:
            steps.append(v2.RandomHorizontalFlip())
        if augmentation.erase:
            steps.append(v2.RandomErasing(augmentation.erase, value=neutral))
        self.steps = v2.Compose(steps)
        self.seed = seed

    def __call__(self, pictures: Iterable[Image], epoch: int, indices: Sequence[int]) -> list[torch.Tensor]:
        made = []
        # torchvision draws from the global generator, of which there is one for all threads.
        with _drawing, torch.random.fork_rng(devices=[]):
            for index, picture in zip(indices, pictures, strict=True):
                torch.default_generator.manual_seed(stream_seed(self.seed, epoch, [index]))
                made.append(self.steps(picture))
        return made


class _AsEvaluated:
    """PIL RGB -> (3, H, W) uint8: where the processor puts a picture's pixels, before it normalises them."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.normalisation = Normalisation(processor)

    def __call__(self, picture: Image) -> torch.Tensor:
        return self.normalisation.undo(preprocess(self.processor, [picture]))[0]


def _crop(processor: Any, scale: tuple[float, float]) -> list[Any]:
    interpolation = _interpolation(processor)
    crop = v2.RandomResizedCrop(processor_size(processor), scale, CROP_RATIO, interpolation, antialias=True)
    # The same pixels but for rounding: tensors know fewer ways to resize, and take half the time or less for a photo.
    if interpolation in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC):
        return [v2.PILToTensor(), crop]
    return [crop, v2.PILToTensor()]


def _operations(number: int, strength: int, fill: list[float]) -> v2.Transform:
    return v2.RandAugment(number, strength, STRENGTHS, InterpolationMode.BILINEAR, fill)


def _neutral_colour(processor: Any) -> list[float]:
    return Normalisation(processor).undo(torch.zeros(1, 3, 1, 1)).flatten().tolist()


def _interpolation(processor: Any) -> InterpolationMode:
    names = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers
    data = getattr(processor, "data_config", None)
    found = data["interpolation"] if data is not None else getattr(processor, "resample", 2)
    if isinstance(found, InterpolationMode):
        return found
    name = found if isinstance(found, str) else names[int(found if found is not None else 2)]
    return InterpolationMode(name)
