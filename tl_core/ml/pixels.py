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
from tl_core.images.decode import decode, read_picture
from tl_core.ml.imitation import Reduced, imitate
from tl_core.ml.preprocessing import preprocess

# To be raised with every change of the pixels that come out, so that features of other pixels are not taken for these.
VERSION = "reduced-1"


class PixelReader:
    """Reads files for one processor: `read` one at a time, in any thread, then `batch` what was read."""

    def __init__(self, processor: Any, max_pixels: int, *, mirrored: bool = False, exact: bool = False) -> None:
        """With `mirrored`, of the mirror images; with `exact`, decoded whole and by the processor itself."""
        self._processor = processor
        self._imitation = None if exact else imitate(processor)
        self._max_pixels = max_pixels
        self._mirrored = mirrored

    def read(self, path: Path) -> torch.Tensor:
        """One picture, for `batch`. Raises DataError naming the file, ModelError."""
        if self._imitation is None:
            whole = read_picture(path, self._max_pixels)
            return preprocess(self._processor, [ImageOps.mirror(whole) if self._mirrored else whole])[0]
        try:
            decoded = decode(path, self._max_pixels, self._imitation.least_size)
        except DataError as failure:
            raise DataError(f"{path}: {failure.message}") from failure
        if not self._mirrored:
            return self._imitation.place(decoded.image, Reduced(decoded.size, decoded.covered))
        left, top, right, bottom = decoded.covered
        across = decoded.image.width
        return self._imitation.place(
            ImageOps.mirror(decoded.image), Reduced(decoded.size, (across - right, top, across - left, bottom))
        )

    def batch(self, read: Sequence[torch.Tensor]) -> torch.Tensor:
        """(B, 3, H, W) float32, as the processor makes them."""
        return torch.stack(list(read)) if self._imitation is None else self._imitation.finish(read)
