"""From a file to what a frozen backbone is shown: decoded no larger than it has to be, preprocessed in the quick way.

`predict` decodes everything and asks the checkpoint's own processor; how little the two differ is shown by the parity
check of each run. Must not know backbones, features or runs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import ImageOps

from tl_core.errors import DataError
from tl_core.images.decode import Decoded, decode, read_picture
from tl_core.images.looks import least_size
from tl_core.ml.imitation import Reduced, imitate
from tl_core.ml.preprocessing import preprocess

# To be raised with every change of the pixels that come out, so that features of other pixels are not taken for these.
VERSION = "reduced-2"


class PixelReader:
    """Reads files for one processor: `read` one at a time, in any thread, then `batch` what was read."""

    def __init__(self, processor: Any, max_pixels: int, *, mirrored: bool = False, exact: bool = False) -> None:
        """With `mirrored`, of the mirror images; with `exact`, decoded whole and by the processor itself."""
        self._processor = processor
        self._imitation = None if exact else imitate(processor)
        self._max_pixels = max_pixels
        self._mirrored = mirrored

    @property
    def imitates(self) -> bool:
        """Whether it takes pictures that others have decoded."""
        return self._imitation is not None and not self._mirrored

    def read(self, path: Path) -> torch.Tensor:
        """One picture, for `batch`. Raises DataError naming the file, ModelError."""
        if self._imitation is None:
            whole = read_picture(path, self._max_pixels)
            return preprocess(self._processor, [ImageOps.mirror(whole) if self._mirrored else whole])[0]
        try:
            decoded = decode(path, self._max_pixels, self._least_size)
        except DataError as failure:
            raise DataError(f"{path}: {failure.message}") from failure
        if not self._mirrored:
            return self._imitation.place(decoded.image, Reduced(decoded.size, decoded.covered))
        left, top, right, bottom = decoded.covered
        across = decoded.image.width
        return self._imitation.place(
            ImageOps.mirror(decoded.image), Reduced(decoded.size, (across - right, top, across - left, bottom))
        )

    def take(self, decoded: Decoded) -> torch.Tensor | None:
        """As `read`, of a picture that verification has decoded; None where more has to be decoded."""
        if self._imitation is None or self._mirrored:
            return None
        left, top, right, bottom = decoded.covered  # as wide as the decoder judges a size by, which is rounded up
        needed = zip(self._imitation.least_size(*decoded.size), decoded.size, (right - left, bottom - top), strict=True)
        if any(got < min(least, whole) for least, whole, got in needed):
            return None
        return self._imitation.place(decoded.image, Reduced(decoded.size, decoded.covered))

    def _least_size(self, width: int, height: int) -> tuple[int, int]:
        """Never less than verification decodes: features are then the same whoever has decoded the picture."""
        assert self._imitation is not None
        across, down = self._imitation.least_size(width, height)
        others_across, others_down = least_size(width, height)
        return max(across, others_across), max(down, others_down)

    def batch(self, read: Sequence[torch.Tensor]) -> torch.Tensor:
        """(B, 3, H, W) float32, as the processor makes them."""
        return torch.stack(list(read)) if self._imitation is None else self._imitation.finish(read)
