"""Small copies of pictures to look at, kept in the cache folder, and four of them as one.

A cache: it may be deleted or be damaged, and all that costs is time. Must not know: what the pictures are for.
"""

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from tl_core.images.decode import open_upright
from tl_core.settings import Settings

# Copies lie in 256 folders by the first two letters of the digest, which spreads them evenly; a folder keeps so many.
# In all that is 32,768 copies, of about 6 KB each at 160 pixels.
KEPT_PER_FOLDER = 128
_QUALITY = 85
_JPEG_START = b"\xff\xd8\xff"
_NOTHING_TO_SHOW = (128, 128, 128)


def thumbnail(path: Path, digest: str, side: int, settings: Settings) -> Image.Image:
    """The upright RGB picture, shrunk to fit `side` × `side` pixels; smaller ones stay as they are.

    `digest` is that of the file (`Picture.digest`). Raises DataError when it cannot be read.
    """
    kept = settings.cache_dir / "thumbnails" / digest[:2] / f"{digest}-{side}.jpg"
    # What is not there, or damaged, is made anew.
    with contextlib.suppress(OSError), Image.open(kept, formats=("JPEG",)) as image:
        return image.convert("RGB")
    small = _shrunk_jpeg(path, side, settings.max_pixels)
    if small is None:
        small = open_upright(path, settings.max_pixels)
        small.thumbnail((side, side))
    _keep(small, kept)
    return small


def mosaic(images: Sequence[Image.Image], side: int) -> Image.Image:
    """The first four pictures as a square of 2 × 2, each cut to a square; fewer than four: the first one alone."""
    if len(images) < 4:
        return ImageOps.fit(images[0], (side, side)) if images else Image.new("RGB", (side, side), _NOTHING_TO_SHOW)
    whole = Image.new("RGB", (side, side), _NOTHING_TO_SHOW)
    half = side // 2
    for place, image in enumerate(images[:4]):
        right, down = place % 2, place // 2
        size = (side - half if right else half, side - half if down else half)
        whole.paste(ImageOps.fit(image, size), (right * half, down * half))
    return whole


def _shrunk_jpeg(path: Path, side: int, max_pixels: int) -> Image.Image | None:
    """JPEG can be decoded at a half, quarter or eighth of its size, in a fraction of the time; None where it cannot."""
    try:
        with path.open("rb") as stream:
            if stream.read(3) != _JPEG_START:
                return None
            stream.seek(0)
            with JpegImageFile(stream) as image:  # not Image.open: it judges sizes by a limit that is not ours
                if image.width * image.height > max_pixels:
                    return None
                image.draft(None, (2 * side, 2 * side))  # twice: what follows has something to smooth
                upright = ImageOps.exif_transpose(image).convert("RGB")
    # Pillow's readers raise whatever their parsing met; the careful way says what is wrong, or reads it all the same.
    except Exception:
        return None
    upright.thumbnail((side, side))
    return upright


def _keep(image: Image.Image, place: Path) -> None:
    partial = place.with_name(f".{secrets.token_hex(4)}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _make_room(place.parent)
        image.save(partial, "JPEG", quality=_QUALITY)
        os.replace(partial, place)
    except OSError:  # a full disk, a folder that cannot be written: what is made anew each time is only slower
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _make_room(folder: Path) -> None:
    """Delete the older half of a full folder."""
    copies = [entry.path for entry in os.scandir(folder)]
    if len(copies) >= KEPT_PER_FOLDER:
        for path in sorted(copies, key=os.path.getmtime)[: len(copies) // 2]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
