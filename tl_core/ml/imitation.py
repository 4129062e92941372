"""A processor's own answer, had sooner: one resize and one crop of grey levels, normalised a whole batch at a time.

What a processor does is asked with pictures that tell (`_measure_shape`) and the imitation is used only where it gives
the processor's own answer, to one grey level, on pictures of many shapes. Must not know files, models or runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from tl_core.errors import ModelError
from tl_core.ml.preprocessing import preprocess, processor_size
from tl_core.ml.transforms import Normalisation

# A picture decoded at a reduced size keeps this many pixels for each that the processor leaves of it, along each side:
# the result then differs from that of a full decode by 0.3 of 255 grey levels in the mean, instead of 1.0.
FINER = 2
# What one answer may miss the other by: a whole grey level, as two ways to resize round differently.
TOLERANCE = 1.0
# (width, height) of the pictures that a processor's sizes are read off, and of those that the imitation is judged by,
# in parts of what the processor makes: wide, high, nearly square, smaller, much larger.
_ASKED = ((2.0, 2.0), (3.0, 2.0))
_JUDGED = ((1.53, 1.0), (1.0, 1.37), (1.04, 1.0), (0.61, 0.47), (0.31, 1.29), (3.37, 2.23), (1.3, 4.1))
_FLOAT_ERROR = 1e-3  # grey levels
_REACH = 254  # grey levels that a ramp goes through
_EDGE = 4  # output pixels at each edge that a ramp is not read at, where resizing has only one side to look at

Method = Literal["bilinear", "bicubic", "nearest-exact", "nearest"] | Image.Resampling
# torch's own ways first: they take half as long as Pillow's.
_METHODS: tuple[Method, ...] = ("bilinear", "bicubic", "nearest-exact", "nearest", *Image.Resampling)
_IN_PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest-exact": Image.Resampling.NEAREST,
    "nearest": Image.Resampling.NEAREST,
}
_ROUNDINGS: tuple[Callable[[float], int], ...] = (int, round)


@dataclass(frozen=True)
class Reduced:
    """The (width, height) of a picture that was decoded smaller, and which part of the smaller one it covers."""

    size: tuple[int, int]
    covered: tuple[float, float, float, float]


@dataclass(frozen=True)
class Shape:
    """Where a processor puts a picture: resized, then cut at the centre to `made`; all are (width, height) in pixels.

    `resized` is the size before the cut; with `keeps_aspect` its shorter side, from which the longer one follows.
    """

    made: tuple[int, int]
    resized: tuple[int, int]
    keeps_aspect: bool
    method: Method
    round_side: Callable[[float], int] = int
    round_offset: Callable[[float], int] = int

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) that a picture has before the cut."""
        if not self.keeps_aspect:
            return self.resized
        short = self.resized[0]
        if width <= height:
            return short, self.round_side(short * height / width)
        return self.round_side(short * width / height), short

    def place(self, picture: Image.Image, reduced: Reduced | None = None) -> torch.Tensor:
        """(H, W, 3) uint8 of an RGB picture, which may have been decoded smaller than it is."""
        width, height = self.resized_size(*(picture.size if reduced is None else reduced.size))
        across, down = self.made
        left, top = self.round_offset((width - across) / 2), self.round_offset((height - down) / 2)
        resized = _resize(picture, (width, height), self.method, None if reduced is None else reduced.covered)
        return resized[top : top + down, left : left + across].contiguous()


class Imitation:
    """Pictures as a processor makes them, in two steps: `place` for one, in any thread; `finish` for a batch."""

    def __init__(self, shape: Shape, normalisation: Normalisation) -> None:
        self.shape = shape
        self._normalisation = normalisation

    def least_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) at which it is enough to decode a picture of this size."""
        across, down = self.shape.resized_size(width, height)
        return FINER * across, FINER * down

    def place(self, picture: Image.Image, reduced: Reduced | None = None) -> torch.Tensor:
        """(H, W, 3) uint8 of an RGB picture, which may have been decoded smaller than it is."""
        return self.shape.place(picture, reduced)

    def finish(self, placed: Sequence[torch.Tensor]) -> torch.Tensor:
        """(B, 3, H, W) float32, in the channels-last layout."""
        return self._normalisation(torch.stack(list(placed)).permute(0, 3, 1, 2))


def imitate(processor: Any) -> Imitation | None:
    """The imitation of a processor; None where none was shown to give its answers."""
    try:
        normalisation = Normalisation(processor)
        height, width = processor_size(processor)
        shape = _find_shape((width, height), processor, normalisation)
    except ModelError:  # it does more than can be imitated, or refuses a picture of a shape that is asked about
        return None
    return None if shape is None else Imitation(shape, normalisation)


def _find_shape(made: tuple[int, int], processor: Any, normalisation: Normalisation) -> Shape | None:
    """The shape that gives the processor's answers."""
    measured = _measure_shape(made, processor, normalisation)
    if measured is None:
        return None
    judged = [_noise(_scaled(made, parts), seed) for seed, parts in enumerate(_JUDGED)]
    answers = [_grey_levels(processor, normalisation, picture) for picture in judged]
    for method in _METHODS:
        for round_side in _ROUNDINGS if measured.keeps_aspect else _ROUNDINGS[:1]:
            for round_offset in _ROUNDINGS:
                shape = replace(measured, method=method, round_side=round_side, round_offset=round_offset)
                if all(_alike(shape, picture, answer) for picture, answer in zip(judged, answers, strict=True)):
                    return shape
    return None


def _measure_shape(made: tuple[int, int], processor: Any, normalisation: Normalisation) -> Shape | None:
    """How large a processor makes pictures before it cuts them, read off ramps of grey: their slope in its answers.

    None where that is smaller than what it makes, or of another aspect than any picture or output has.
    """
    (square, wide), found = [_scaled((max(made), max(made)), parts) for parts in _ASKED], []
    for size in (square, wide):
        answers = [_grey_levels(processor, normalisation, ramp) for ramp in _ramps(size)]
        slopes = (answers[0].mean(dim=(0, 2)), answers[1].mean(dim=(1, 2)))
        sides = [_side(slope) for slope in slopes]
        if any(side is None or side < least for side, least in zip(sides, made, strict=True)):
            return None
        found.append((int(sides[0] or 0), int(sides[1] or 0)))
    of_square, of_wide = found
    if of_square == of_wide:
        return Shape(made, of_square, False, "bilinear")
    if of_square[0] == of_square[1] == of_wide[1]:
        return Shape(made, of_square, True, "bilinear")
    return None


def _side(values: torch.Tensor) -> int | None:
    """Pixels over which a ramp of `_REACH` grey levels goes, of which these are some, in order."""
    inner = values[_EDGE:-_EDGE].double()
    places = torch.arange(len(inner), dtype=torch.float64)
    places -= places.mean()
    slope = float((places * inner).sum() / places.square().sum())
    return round(_REACH / slope) if slope > 0 else None


def _ramps(size: tuple[int, int]) -> list[Image.Image]:
    """Grey that rises across, and down; and by a level along the other side, so that rounding evens out."""
    width, height = size
    across = ((np.arange(width) + 0.5) / width)[None, :]
    down = ((np.arange(height) + 0.5) / height)[:, None]
    ramps = _REACH * across + down, across + _REACH * down
    return [Image.fromarray(ramp.astype(np.uint8)).convert("RGB") for ramp in ramps]


def _noise(size: tuple[int, int], seed: int) -> Image.Image:
    """Coarse and fine structure up to black and white, so that a shift shows as well as a filter that overshoots."""
    width, height = size
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    fine = random.integers(-128, 129, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse, dtype=np.int16) + fine, 0, 255).astype(np.uint8))


def _scaled(size: tuple[int, int], parts: tuple[float, float]) -> tuple[int, int]:
    return max(1, round(size[0] * parts[0])), max(1, round(size[1] * parts[1]))


def _grey_levels(processor: Any, normalisation: Normalisation, picture: Image.Image) -> torch.Tensor:
    """(H, W, 3): the processor's answer before it rescaled and normalised it."""
    return normalisation.undo(preprocess(processor, [picture]))[0].permute(1, 2, 0).float()


def _alike(shape: Shape, picture: Image.Image, answer: torch.Tensor) -> bool:
    placed = shape.place(picture)
    return placed.shape == answer.shape and bool((placed - answer).abs().max() <= TOLERANCE + _FLOAT_ERROR)


def _resize(
    picture: Image.Image, size: tuple[int, int], method: Method, covered: tuple[float, float, float, float] | None
) -> torch.Tensor:
    """(H, W, 3) uint8 of the part that is covered; `size` is (width, height)."""
    partly = covered is not None and covered != (0, 0, *picture.size)
    if partly or isinstance(method, Image.Resampling):  # torch knows no part of a pixel
        way = method if isinstance(method, Image.Resampling) else _IN_PILLOW[method]
        return torch.from_numpy(np.array(picture.resize(size, way, covered)))
    pixels = torch.from_numpy(np.array(picture))
    if picture.size == size:
        return pixels
    smooth = method in ("bilinear", "bicubic")
    resized = torch.nn.functional.interpolate(
        pixels.permute(2, 0, 1).unsqueeze(0), (size[1], size[0]), mode=method, antialias=smooth
    )
    return resized[0].permute(1, 2, 0)
