"""One file becomes one upright RGB picture, or a short reason why it cannot.

Every pixel is decoded, so that a truncated file is noticed; sizes are judged from the header, before decoding.
Must not know: labels, folders, models.
"""

import contextlib
import functools
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from tl_core.errors import DataError
from tl_core.images.wording import one_line

# The kinds of picture that are read, by Pillow's names, and their file name endings. Pillow knows many more and goes by
# the content; for some of them, such as EPS, it starts other programs.
IMAGE_KINDS = {
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm"),
    "AVIF": (".avif",),
}
# Of a 16-bit file that leaves the upper four bits empty: its values hold 12 bits or fewer and read as almost black.
DARK = "16-bit, dark"

_ORIENTATION_TAG = 0x0112
_UPRIGHT = 1
# How to turn a picture that EXIF says was taken with the camera held otherwise (EXIF 2.32, tag 0x0112).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_TURNS[tag] for tag in (5, 6, 7, 8)}
# The turns that bring to the left what was at the right or below in the file, and the same to the top.
_TO_THE_LEFT = {_TURNS[tag] for tag in (2, 3, 6, 7)}
_TO_THE_TOP = {_TURNS[tag] for tag in (3, 4, 7, 8)}
_REDUCIBLE = ("JPEG", "MPO")  # MPO is a JPEG with others after it, as some telephones write it
# Pillow warns above this many pixels (its MAX_IMAGE_PIXELS); only then can decoding itself warn.
_PILLOW_WARNS_ABOVE = 89_478_485
Side = TypeVar("Side", int, float)
_SNIFFED_BYTES = 1024
_TWELVE_BITS = 4095
_PIXELS_AT_ONCE = 1 << 20

# Warning filters and Pillow's pixel limit belong to the whole process: one thread at a time may bend them.
_pillow_is_ours = threading.RLock()
_NO_LOG = logging.NullHandler()


Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Decoded:
    """`image` is upright RGB; `mode` is Pillow's name for how the file stores colours.

    `special` says why `PIL.Image.open`, `exif_transpose`, `convert("RGB")` would give other pixels ("" if they give the
    same): "16-bit", DARK, "32-bit", "transparent", "unreadable EXIF". `size` is the upright (width, height) in the
    file, which `image` has unless less was asked for; `covered` is the part of `image` that the picture takes (left,
    top, right, bottom): all of it but where its last column or row would reach over the edge.
    """

    image: Image.Image
    mode: str
    special: str
    size: tuple[int, int]
    covered: Box


# From the upright (width, height) of a picture, those at which it is enough to decode it.
LeastSize = Callable[[int, int], tuple[int, int]]


def open_upright(source: Path | BinaryIO, max_pixels: int) -> Image.Image:
    """The first frame as an upright 8-bit RGB picture, transparent parts on white, 16 bits scaled to 8.

    Raises DataError with a short reason that starts with what the file is or lacks.
    """
    return decode(source, max_pixels).image


def read_picture(path: Path, max_pixels: int) -> Image.Image:
    """As `open_upright`. Raises DataError naming the file."""
    try:
        return open_upright(path, max_pixels)
    except DataError as failure:
        raise DataError(f"{path}: {failure.message}") from failure


def decode(source: Path | BinaryIO, max_pixels: int, least_size: LeastSize | None = None) -> Decoded:
    """As `open_upright`, with the mode found and whether a plain reading would differ.

    With `least_size`, a JPEG is decoded at a half, a quarter or an eighth of its size where that is no less.
    """
    if isinstance(source, Path):
        try:
            with source.open("rb") as stream:
                return decode(stream, max_pixels, least_size)
        except OSError as error:
            raise DataError(f"cannot be opened: {error.strerror or error}") from error
    try:
        with _pillow_kept_quiet(max_pixels):
            image = Image.open(source, formats=_readable_kinds())
    except UnidentifiedImageError as error:
        raise DataError(_what_it_is_instead(source)) from error
    except Image.DecompressionBombError as error:
        count = re.search(r"\d+", str(error))
        raise _too_large(f"{int(count[0]):,}" if count else "too many", max_pixels) from error
    # Pillow's readers raise whatever their parsing met, here and below: SyntaxError, struct.error, KeyError …
    except Exception as error:
        raise DataError(f"damaged: {_said(error)}") from error
    with image:
        width, height = image.size
        if width * height > max_pixels:
            raise _too_large(f"{width} × {height}", max_pixels)
        covered = (float(width), float(height))
        if least_size is not None and image.format in _REDUCIBLE:
            with _pillow_kept_quiet(max_pixels):
                covered = _reduce(image, least_size)
        try:
            large = width * height > _PILLOW_WARNS_ABOVE
            with _pillow_kept_quiet(max_pixels) if large else contextlib.nullcontext():
                image.load()
        except MemoryError as error:
            raise DataError(f"too large: there is not enough memory for its {width} × {height} pixels") from error
        except Exception as error:
            raise DataError(f"truncated or damaged: {_said(error)}") from error
        with _pillow_kept_quiet(max_pixels):
            turn, complaint = _turn(image)
        try:
            rgb, special = _to_rgb(image)
        except (OSError, ValueError) as error:  # such as a palette that Pillow cannot use
            raise DataError(f"its colours ({image.mode}) cannot be read: {_said(error)}") from error
        upright = rgb.transpose(turn) if turn is not None else rgb
        size = _turned((width, height), turn)
        return Decoded(
            upright, image.mode, special or complaint, size, _box(upright.size, _turned(covered, turn), turn)
        )


@contextlib.contextmanager
def _pillow_kept_quiet(max_pixels: int) -> Iterator[None]:
    """Our own pixel limit instead of Pillow's, and no warnings or log lines about oddities in headers."""
    logging.getLogger("PIL").addHandler(_NO_LOG)  # without any handler, its errors would be printed
    with _pillow_is_ours, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _turn(image: Image.Image) -> tuple[Image.Transpose | None, str]:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, _UPRIGHT)
    except Exception:  # a broken EXIF block costs the orientation, not the picture; a plain reading fails on it
        return None, "unreadable EXIF"
    return _TURNS.get(orientation), ""


def _turned(size: tuple[Side, Side], turn: Image.Transpose | None) -> tuple[Side, Side]:
    return (size[1], size[0]) if turn in _SIDEWAYS else size


def _box(size: tuple[int, int], covered: tuple[float, float], turn: Image.Transpose | None) -> Box:
    """Where the covered part of an upright picture is: what reaches over the edge was right and below in the file."""
    left = size[0] - covered[0] if turn in _TO_THE_LEFT else 0.0
    top = size[1] - covered[1] if turn in _TO_THE_TOP else 0.0
    return left, top, left + covered[0], top + covered[1]


def _reduce(image: Image.Image, least_size: LeastSize) -> tuple[float, float]:
    """Let Pillow decode less of a JPEG that is not decoded yet; (width, height) that its pixels cover, as stored."""
    width, height = image.size
    if image.mode not in ("RGB", "L"):
        return width, height
    turn, _ = _turn(image)
    drafted = image.draft(None, _turned(least_size(*_turned(image.size, turn)), turn))
    return (drafted[1][2], drafted[1][3]) if drafted is not None else (width, height)


def _to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return _from_wide_grey(image)
    if image.has_transparency_data:
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        least_alpha = rgba.getchannel("A").getextrema()[0]
        if least_alpha == 255:
            return rgba.convert("RGB"), ""
        white = Image.new("RGBA", rgba.size, "white")
        white.alpha_composite(rgba)
        return white.convert("RGB"), "transparent"
    return image if image.mode == "RGB" else image.convert("RGB"), ""


def _from_wide_grey(image: Image.Image) -> tuple[Image.Image, str]:
    """Grey of more than 8 bits, scaled to 8 by the range its format means.

    16-bit files use 0–65535. Files of 32-bit integers or floats do not say: 0–1 (floats), 0–255 and 0–65535 are taken
    for what they look like, anything else is stretched from its least to its greatest value.
    """
    if image.mode.startswith("I;16"):
        return _from_sixteen_bits(image)
    values = np.nan_to_num(np.asarray(image).astype(np.float32), copy=False, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        values = (values - low) * (255.0 / ((high - low) or 1.0))
    elif image.mode == "F" and high <= 1:
        values = values * 255.0
    elif high > 255:
        values = values / 257.0
    grey = Image.fromarray(np.round(values).astype(np.uint8))
    plain = image.convert("RGB").getchannel("R")
    return grey.convert("RGB"), "32-bit" if np.asarray(plain).tobytes() != np.asarray(grey).tobytes() else ""


def _from_sixteen_bits(image: Image.Image) -> tuple[Image.Image, str]:
    values = np.asarray(image)
    grey = np.empty(values.shape, dtype=np.uint8)
    rows = max(1, _PIXELS_AT_ONCE // values.shape[1])
    for start in range(0, len(values), rows):  # in strips: a wide copy of a large picture takes hundreds of megabytes
        part = slice(start, start + rows)
        grey[part] = (values[part].astype(np.uint32) + 128) // 257
    return Image.fromarray(grey).convert("RGB"), DARK if 0 < int(values.max()) <= _TWELVE_BITS else "16-bit"


def _too_large(found: str, max_pixels: int) -> DataError:
    return DataError(f"too large: {found} pixels; at most {max_pixels:,} are read (TL_MAX_PIXELS)")


def _said(error: Exception) -> str:
    return one_line(str(error) or type(error).__name__)


def _what_it_is_instead(stream: BinaryIO) -> str:
    """Why Pillow did not recognise a file, from its first bytes."""
    stream.seek(0)
    start = stream.read(_SNIFFED_BYTES)
    if not start:
        return "empty file"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*")):
        return "damaged: it begins like an image, but its header cannot be read"
    for name, found in {
        "a PostScript drawing; save it as PNG": start.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")),
        "a PDF document": start.startswith(b"%PDF"),
        "a zip archive": start.startswith(b"PK\x03\x04"),
        "an SVG drawing; save it as PNG": b"<svg" in text,
        "an HTML page": text.startswith((b"<!doctype html", b"<html", b"<head")),
        "a HEIC photo; save it as JPEG": start[4:12] in {b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc"},
        "an AVIF picture, which this Pillow cannot read; save it as JPEG": start[4:12] == b"ftypavif",
        "a video": start[4:8] == b"ftyp" or start.startswith(b"\x1aE\xdf\xa3") or start[8:12] == b"AVI ",
        "nothing but zero bytes": not start.strip(b"\0"),
        "text": _is_text(start),
    }.items():
        if found:
            return f"not an image: it is {name}"
    return "not an image, or of a kind that is not read; save it as JPEG or PNG"


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:  # else only the last character was cut in two
            return False
        text = start[: error.start].decode("utf-8")
    return not re.search(r"[\x00-\x08\x0e-\x1f]", text)


def readable_extensions() -> frozenset[str]:
    """File name endings, in lower case, of the kinds of picture that are read."""
    return frozenset(ending for kind in _readable_kinds() for ending in IMAGE_KINDS[kind])


@functools.cache
def _readable_kinds() -> tuple[str, ...]:
    """Some builds of Pillow lack a decoder."""
    optional = {"WEBP": "webp", "AVIF": "avif"}
    return tuple(kind for kind in IMAGE_KINDS if kind not in optional or features.check(optional[kind]))
