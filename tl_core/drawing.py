"""Letters, colours and sizes of the pictures that are published beside a card.

Drawn with Pillow and the font that it brings along, which every computer has. Light, whatever the page around them
is; in colours that stay apart for who cannot tell red from green. Must not know what is drawn.
"""

import io
import math
from functools import cache

from PIL import Image, ImageDraw, ImageFont

# Pixels. A card shows a picture about 750 wide, so that letters of 20 are still read in one of 1,400.
MARGIN, GAP = 24, 10
SMALL, NORMAL, LARGE = 16, 20, 26
NAME_WIDTH = 280

BACKGROUND, INK, QUIET, LINES = "#ffffff", "#1a1a1a", "#5c5c5c", "#dddddd"


def name_class(label: str, number: int, size: int = NORMAL) -> str:
    """What stands for a class: its label where the font, `size` pixels high, has every letter of it, else its number.

    A label of more than NAME_WIDTH pixels is cut, and its number tells it from others that begin as it does.
    """
    name = " ".join(label.split())
    if not name or not all(has_letter(letter) for letter in name):
        return f"#{number}"
    if width_of(name, size) <= NAME_WIDTH:
        return name
    cut = (f"{name[:letters]}… #{number}" for letters in range(NAME_WIDTH // 3, -1, -1))  # no letter is narrower
    return next(each for each in cut if width_of(each, size) <= NAME_WIDTH)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    loaded = ImageFont.load_default(size)
    assert isinstance(loaded, ImageFont.FreeTypeFont), "Pillow is built with FreeType"
    return loaded


@cache
def has_letter(letter: str) -> bool:
    """Whether the font has a letter; what it lacks it draws as an empty box."""
    drawn, lacking = (font(NORMAL).getmask(each) for each in (letter, "\uffff"))
    return (drawn.size, bytes(drawn)) != (lacking.size, bytes(lacking))


def width_of(text: str, size: int) -> int:
    """In pixels."""
    return math.ceil(font(size).getlength(text))


def write_upwards(picture: Image.Image, text: str, corner: tuple[int, int], ink: str, size: int) -> None:
    """Text turned by a quarter, read from below; `corner` is the left lower one."""
    strip = Image.new("RGB", (width_of(text, size), size + 4), BACKGROUND)
    ImageDraw.Draw(strip).text((0, 0), text, ink, font(size))
    turned = strip.transpose(Image.Transpose.ROTATE_90)
    picture.paste(turned, (corner[0], corner[1] - turned.height))


def as_png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()
