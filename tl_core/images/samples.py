"""Data that is there from the first minute: real handwritten digits and drawn shapes, written once as class folders.

Must not know: how folders of images are read.
"""

import difflib
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tl_core.errors import DataError
from tl_core.images.unpacked import make_once
from tl_core.settings import Settings

if TYPE_CHECKING:
    from PIL import Image

SAMPLE_PREFIX = "sample:"

_DIGITS_ENLARGED = 4
_SHAPE_SIDE = 96
_DRAWINGS_PER_SHAPE = 60
_SHAPES_SEED = 20
# Drawn larger, then reduced: Pillow's drawing has hard edges.
_OVERSAMPLING = 3
_NOISE = 20  # grey levels up and down
_LEAST_CONTRAST = 120.0  # distance in RGB, of 442 from black to white

Outline = list[tuple[float, float]]
Colour = tuple[int, int, int]


def sample_folder(name: str, settings: Settings) -> Path:
    """The folder of class folders of a sample, made when first asked for. Raises DataError for an unknown name."""
    makers: dict[str, tuple[str, Callable[[Path], None]]] = {
        "digits": ("1", _write_digits),
        "shapes": ("1", _write_shapes),
    }
    if name not in makers:
        near = difflib.get_close_matches(name, makers, n=1)
        hint = f" (did you mean {SAMPLE_PREFIX}{near[0]}?)" if near else ""
        known = " and ".join(SAMPLE_PREFIX + maker for maker in makers)
        raise DataError(f"there is no sample {name!r}{hint}; the samples are {known}")
    version, write = makers[name]
    return make_once(settings.data_dir, f"sample-{name}", [name, version], write)


def _write_digits(folder: Path) -> None:
    """White on black, 17 grey levels, enlarged fourfold by bicubic interpolation, for a backbone that halves what it
    sees five times would be left with nothing of eight pixels. The pixels are those of Alpaydin and Kaynak, Optical
    Recognition of Handwritten Digits (UCI, 1998), as scikit-learn carries them; enlarging adds nothing to them.
    """
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label in range(10):
        (folder / str(label)).mkdir()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        grey = Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8))
        side = image.shape[0] * _DIGITS_ENLARGED
        grey.resize((side, side), Image.Resampling.BICUBIC).save(folder / str(label) / f"{number:04}.png")


def _write_shapes(folder: Path) -> None:
    for label, outlines in _outlines().items():
        (folder / label).mkdir()
        for number in range(_DRAWINGS_PER_SHAPE):
            rng = random.Random(f"{_SHAPES_SEED} {label} {number}")  # each drawing is the same whatever else is drawn
            _draw(outlines, rng).save(folder / label / f"{number:02}.png")


def _outlines() -> dict[str, list[Outline]]:
    """Each shape as closed outlines around (0, 0) with radius 1; what a second one encloses is cut out again."""
    cross = [(-0.3, 1.0), (-0.3, 0.3), (-1.0, 0.3), (-1.0, -0.3), (-0.3, -0.3), (-0.3, -1.0)]
    return {
        "circle": [_on_circle(72)],
        "cross": [cross + [(-x, -y) for x, y in cross]],
        "ring": [_on_circle(72), _on_circle(72, 0.6)],
        "square": [_on_circle(4)],
        "star": [[point for pair in zip(_on_circle(5), _on_circle(5, 0.45, 0.5), strict=True) for point in pair]],
        "triangle": [_on_circle(3)],
    }


def _on_circle(count: int, radius: float = 1.0, shift: float = 0.0) -> Outline:
    angles = [2 * math.pi * (place + shift) / count for place in range(count)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


def _draw(outlines: list[Outline], rng: random.Random) -> "Image.Image":
    """A shape of any place, size, turn and colour on a shaded background with stray lines, under noise."""
    import numpy as np
    from PIL import Image, ImageDraw

    side = _SHAPE_SIDE * _OVERSAMPLING
    paper, shade, ink = _colours(rng)
    gradient = Image.linear_gradient("L").rotate(rng.uniform(0, 360), fillcolor=128).resize((side, side))
    picture = Image.composite(Image.new("RGB", (side, side), paper), Image.new("RGB", (side, side), shade), gradient)
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.randrange(4)):
        ends = [rng.uniform(0, side) for _ in range(4)]
        draw.line(ends, fill=tuple(rng.randrange(256) for _ in range(3)), width=rng.randrange(2, 7))
    radius, turn = rng.uniform(0.2, 0.42) * side, rng.uniform(0, 2 * math.pi)
    across, down = (rng.uniform(radius, side - radius) for _ in range(2))
    stretch = rng.uniform(0.85, 1.0)
    mask = Image.new("L", (side, side), 0)
    for number, outline in enumerate(outlines):
        corners = [
            (
                across + radius * (x * math.cos(turn) - y * stretch * math.sin(turn)),
                down + radius * (x * math.sin(turn) + y * stretch * math.cos(turn)),
            )
            for x, y in outline
        ]
        ImageDraw.Draw(mask).polygon(corners, fill=0 if number else 255)
    picture.paste(ink, (0, 0), mask)
    pixels = np.asarray(picture.resize((_SHAPE_SIDE, _SHAPE_SIDE), Image.Resampling.BOX), dtype=np.int16)
    noise = np.frombuffer(rng.randbytes(pixels.size), dtype=np.uint8).reshape(pixels.shape) % (2 * _NOISE + 1)
    return Image.fromarray(np.clip(pixels + noise.astype(np.int16) - _NOISE, 0, 255).astype(np.uint8))


def _colours(rng: random.Random) -> tuple[Colour, Colour, Colour]:
    """Two background colours, and one that is told from both."""
    while True:
        paper, shade, ink = ((rng.randrange(256), rng.randrange(256), rng.randrange(256)) for _ in range(3))
        if min(math.dist(paper, ink), math.dist(shade, ink)) > _LEAST_CONTRAST:
            return paper, shade, ink
