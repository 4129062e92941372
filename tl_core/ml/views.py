"""Varied versions of pictures for a backbone that does not train: more for a head to learn from, where there are few.

What version `number` of a picture looks like follows from its content and that number alone, so that its features hold
for every run. Must not know backbones, heads or runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from tl_core.images.collection import Picture
from tl_core.ml.augmentation import Augmentation
from tl_core.ml.picture_cache import read_reduced
from tl_core.ml.transforms import Normalisation, TrainTransform

# Part of the area that a version keeps. Handwritten digits are recognised less often by a head that learnt from such
# small parts as a training sees (35 %) than by one that saw none.
VIEW_SCALE = (0.7, 1.0)
# To be raised with every change of the pixels that come out, so that features of other pixels are not taken for these.
VERSION = "views-1"
_DIGEST_BITS = 60


@dataclass(frozen=True)
class View:
    """Version `number` of a picture, from 1; `digest` names its content, as a picture's own does."""

    picture: Picture
    number: int

    @property
    def name(self) -> str:
        return self.picture.name

    @property
    def digest(self) -> str:
        return f"{self.picture.digest}-{self.number}"

    @property
    def path(self) -> Path:
        return self.picture.path


def views_of(pictures: Sequence[Picture], number: int) -> list[View]:
    """So many versions of each picture, picture by picture."""
    return [View(picture, place) for picture in pictures for place in range(1, number + 1)]


class ViewReader:
    """Reads files for one backbone: `read` one at a time, in any thread, then `vary` what was read."""

    def __init__(self, processor: Any, size: tuple[int, int], max_pixels: int, *, mirror: bool) -> None:
        """`size` is (height, width) of the backbone's input. With `mirror` half of the versions are left for right."""
        self._size = size
        self._max_pixels = max_pixels
        self._normalise = Normalisation(processor)
        self._vary = TrainTransform(processor, Augmentation(policy="crop", mirror=mirror), 0, VIEW_SCALE)

    def read(self, view: View) -> tuple[View, Image]:
        """Raises DataError naming the file."""
        return view, read_reduced(view.path, self._size, self._max_pixels)

    def vary(self, read: Sequence[tuple[View, Image]]) -> torch.Tensor:
        """(B, 3, H, W) float32, as the processor makes colours."""
        made = []
        for view, image in read:
            content = int(view.picture.digest, 16) >> max(0, 4 * len(view.picture.digest) - _DIGEST_BITS)
            made += self._vary([image], view.number, [content])
        return self._normalise(torch.stack(made))
