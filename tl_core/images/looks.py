"""What a picture looks like, in a few bytes: a perceptual hash and a small grey copy.

Must not know: files, labels; how look-alikes are searched.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tl_core.images.collection import GREY_SIDE

# A picture is decoded with a shorter side of at least so many pixels where it has them. Looks need an eighth of that;
# it is enough, too, for a backbone whose pictures are resized to 256 pixels or fewer, so that one decode does for both.
LEAST_SIDE = 512
_SIDE = 32
_KEPT = 8
_FLAT = 1e-3  # a DCT coefficient below this many grey levels is rounding, not a pattern


def _cosines() -> NDArray[np.float64]:
    """Rows 1 to 8 of the orthonormal DCT-II of 32 values."""
    frequency = np.arange(1, _KEPT + 1)[:, None]
    place = np.arange(_SIDE)[None, :]
    cosines: NDArray[np.float64] = np.cos(np.pi * (2 * place + 1) * frequency / (2 * _SIDE))
    return cosines * math.sqrt(2 / _SIDE)


_DCT = _cosines()
_BIT_VALUES = (1 << np.arange(_KEPT * _KEPT, dtype=np.uint64))[::-1]


def least_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) at which it is enough to decode a picture that has so much: a decoder may leave out the rest."""
    least = LEAST_SIDE / min(width, height)
    return (width, height) if least >= 1 else (math.ceil(width * least), math.ceil(height * least))


def describe_looks(rgb: Image.Image, covered: tuple[float, float, float, float] | None = None) -> tuple[int, bytes]:
    """The 64-bit perceptual hash of a picture and its GREY_SIDE × GREY_SIDE grey values (uint8, row by row).

    `covered` is the part of `rgb` that the picture takes (left, top, right, bottom), None for all of it.

    The hash is the DCT based one of C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions
    (2010): 32 × 32 grey values, their DCT, its 8 × 8 lowest frequencies but the constant ones, each against their
    median. Reduction is by Pillow's Hamming filter (its box filter weighs areas unevenly at uneven ratios), in place of
    a mean filter and a plain reduction.
    """
    if rgb.width > 2 * _SIDE and rgb.height > 2 * _SIDE:
        rgb, covered = rgb.resize((_SIDE, _SIDE), Image.Resampling.HAMMING, covered, reducing_gap=2.0), None
    small = rgb.convert("L").resize((_SIDE, _SIDE), Image.Resampling.HAMMING, covered)
    grey = np.asarray(small, dtype=np.float64)
    coefficients = (_DCT @ grey @ _DCT.T).ravel()
    coefficients[np.abs(coefficients) < _FLAT] = 0.0
    middle = np.sort(coefficients)[_KEPT * _KEPT // 2 - 1 : _KEPT * _KEPT // 2 + 1].mean()
    phash = int(_BIT_VALUES[coefficients > middle].sum())
    step = _SIDE // GREY_SIDE
    means = grey.reshape(GREY_SIDE, step, GREY_SIDE, step).mean(axis=(1, 3))
    return phash, np.round(means).astype(np.uint8).tobytes()
