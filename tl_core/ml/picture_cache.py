"""Training pictures read once and kept, reduced to what a training transform can use.

Every epoch would otherwise decode every file again, and decoding a 12-megapixel photograph costs more than training on
it. What a training sees is the reduced picture, whether it is kept or read again: a function of the file and the target
size alone. So the cache may be cut off, full or gone, and all that costs is time. Must not know: labels, models, runs.
"""

import contextlib
import os
import secrets
import shutil
import warnings
import zlib
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from tl_core.errors import DataError
from tl_core.images.collection import Picture
from tl_core.images.decode import open_upright

# Sides of the target that the short side of a reduced picture has: a crop of 35 % of the area of a square, at 3 : 4,
# is 1 / 1.95 of it wide, and so never smaller than the target.
KEPT_SIDES = 2
# How much finer than asked a cheap first reduction may leave a picture; from 3 on the result is told from an exact one
# only by measuring (Pillow's documentation of `reducing_gap`).
REDUCING_GAP = 3.0
# Of the free disk, so that checkpoints, which are written meanwhile, find room.
MAX_SHARE_OF_FREE = 0.25
MAX_BYTES = 8 * 1024**3

_TOKEN_BYTES = 16
_MARK_BYTES = 4
_NOTHING = bytes(_MARK_BYTES)  # what is read where nothing was written


def reduced_size(width: int, height: int, target: tuple[int, int]) -> tuple[int, int]:
    """(width, height) at which a picture is kept for a `target` of (height, width); never more than it has."""
    least, short = KEPT_SIDES * max(target), min(width, height)
    if short <= least:
        return width, height
    return max(least, round(width * least / short)), max(least, round(height * least / short))


def read_reduced(path: Path, target: tuple[int, int], max_pixels: int) -> Image.Image:
    """The file as an upright RGB picture of `reduced_size`. Raises DataError naming the file."""
    drafted = _read_drafted(path, target, max_pixels)
    if drafted is not None:
        return drafted
    try:
        picture = open_upright(path, max_pixels)
    except DataError as failure:
        raise DataError(f"{path}: {failure.message}") from failure
    size = reduced_size(*picture.size, target)
    if picture.size == size:
        return picture
    return picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=REDUCING_GAP)


class PictureCache:
    """Reduced pictures of one training, shared by all processes that read for it. One thread in each may ask.

    They lie in a file of one slot per picture, pixels and then their checksum, which says that they are there. It is
    read and written, not mapped: writing to mapped memory on a full disk kills a process, writing to a file raises an
    error. Processes share what is kept through the system's page cache; one that is forked or sent this object opens
    the file for itself, so that no two share a position in it.
    """

    def __init__(self, path: Path, pictures: Sequence[Picture], target: tuple[int, int], max_pixels: int) -> None:
        """Begin an empty cache for `pictures` at `path`, in place of what a killed process left there.

        `target` is (height, width) of what the training transform makes. `kept` is how many of the pictures, the first
        ones, have a slot: fewer than all where the disk has little room, none where `path` cannot be written. `trouble`
        then says so in a sentence.
        """
        self.path, self.target, self.max_pixels = path, target, max_pixels
        self._files = [os.fspath(picture.path) for picture in pictures]
        self._sizes = np.array([reduced_size(p.width, p.height, target) for p in pictures], np.int64).reshape(-1, 2)
        self._ends = _TOKEN_BYTES + np.cumsum(3 * self._sizes.prod(axis=1) + _MARK_BYTES)
        self._token = secrets.token_bytes(_TOKEN_BYTES)
        self._creator = os.getpid()
        self._stream: FileIO | None = None
        self._stream_of = 0  # the process that opened it
        self._length = 0  # of the whole file, which is cut to nothing when the cache is given up
        self.kept = 0
        self.trouble = ""
        self._create()

    def __len__(self) -> int:
        return len(self._files)

    def __enter__(self) -> "PictureCache":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_stream": None, "_stream_of": 0, "_creator": 0}

    def get(self, indices: Sequence[int]) -> list[Image.Image]:
        """The reduced pictures of these places, kept or read. Raises DataError naming a file that cannot be read."""
        found = []
        for index in indices:
            picture = self._recall(index)
            if picture is None:
                picture = read_reduced(Path(self._files[index]), self.target, self.max_pixels)
                self._remember(index, picture)
            found.append(picture)
        return found

    def close(self) -> None:
        """Remove the file, in the process that made it; elsewhere only let go of it."""
        if self._stream is not None and self._stream_of == os.getpid():
            self._stream.close()
        made, self._stream, self._length, self.kept = self._length, None, 0, 0
        if not made or os.getpid() != self._creator:
            return
        try:
            if self.path.stat().st_size != made:
                self.trouble = "the disk was full or failing: reduced pictures were read anew in each pass"
            self.path.unlink()
        except OSError as error:
            self.trouble = f"the file of reduced pictures cannot be removed: {error}"

    def _slot(self, index: int) -> tuple[int, int]:
        """Where the slot of a picture begins and ends."""
        return int(self._ends[index - 1]) if index else _TOKEN_BYTES, int(self._ends[index])

    def _create(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
            room = min(MAX_BYTES, int(MAX_SHARE_OF_FREE * shutil.disk_usage(self.path.parent).free))
            kept = int(np.searchsorted(self._ends, room, side="right"))
            length = int(self._ends[kept - 1]) if kept else _TOKEN_BYTES
            with FileIO(self.path, "x") as stream:
                stream.write(self._token)
                stream.truncate(length)  # no room is taken before it is written to
        except OSError as error:
            self.trouble = f"reduced pictures are not kept, and read anew in each pass: {error}"
            with contextlib.suppress(OSError):  # it could not be made, or not as long as it must be
                self.path.unlink()
            return
        self.kept, self._length = kept, length
        if kept < len(self):
            self.trouble = (
                f"{kept:,} of {len(self):,} reduced pictures find room on the disk; the others are read anew in each "
                "pass"
            )

    def _open(self) -> FileIO | None:
        """The file as this process has it open; None where it is gone, or belongs to another training."""
        if self._stream_of != os.getpid():
            if self._stream is not None:  # a parent's, whose own stays open
                self._stream.close()
            self._stream, self._stream_of = None, os.getpid()
            try:
                stream = FileIO(self.path, "r+")
            except OSError:
                return None
            if stream.read(_TOKEN_BYTES) == self._token:
                self._stream = stream
            else:
                stream.close()
        return self._stream

    def _recall(self, index: int) -> Image.Image | None:
        stream = self._open() if index < self.kept else None
        if stream is None:
            return None
        start, end = self._slot(index)
        try:
            stream.seek(start)
            slot = stream.read(end - start)
        except OSError:
            self._give_up(stream)
            return None
        pixels, mark = memoryview(slot)[:-_MARK_BYTES], slot[-_MARK_BYTES:]
        if len(slot) < end - start or mark == _NOTHING or mark != _mark(pixels):
            return None
        width, height = self._sizes[index]
        return Image.frombytes("RGB", (int(width), int(height)), pixels)

    def _remember(self, index: int, picture: Image.Image) -> None:
        stream = self._open() if index < self.kept else None
        if stream is None or picture.size != tuple(self._sizes[index]):  # a file that was changed after the listing
            return
        pixels = picture.tobytes()
        slot = pixels + _mark(pixels)
        try:
            if not self._was_given_up(stream):
                stream.seek(self._slot(index)[0])
                if stream.write(slot) == len(slot):
                    return
        except OSError:
            pass
        self._give_up(stream)

    def _was_given_up(self, stream: FileIO) -> bool:
        return os.fstat(stream.fileno()).st_size != self._length

    def _give_up(self, stream: FileIO) -> None:
        """Hand the room on the disk back, for it is full or failing and checkpoints need it more."""
        self.kept = 0
        with contextlib.suppress(OSError):  # then the room is handed back when the file is removed
            stream.truncate(0)


def _read_drafted(path: Path, target: tuple[int, int], max_pixels: int) -> Image.Image | None:
    """A large JPEG, decoded at a half, a quarter or an eighth of its size and then reduced to what is wanted.

    That takes half the time and a fraction of the memory. None for any other file and for all that is odd about one:
    `open_upright` then reads it, or says why it cannot be read.
    """
    least = KEPT_SIDES * max(target)
    try:
        with warnings.catch_warnings(action="error"), Image.open(path, formats=("JPEG",)) as image:
            width, height = image.size
            if min(width, height) < 2 * least or width * height > max_pixels or image.mode not in ("RGB", "L"):
                return None
            drafted = image.draft(None, (least, least))
            if drafted is None:
                return None
            covered = drafted[1]  # of the smaller picture, whose last column and row may reach over the edge
            size = reduced_size(width, height, target)
            reduced = image.resize(size, Image.Resampling.BICUBIC, box=covered)
            return ImageOps.exif_transpose(reduced).convert("RGB")
    except Exception:  # Pillow's readers raise whatever their parsing met, and it is open_upright that puts it in words
        return None


def _mark(pixels: bytes | memoryview) -> bytes:
    return zlib.crc32(pixels).to_bytes(_MARK_BYTES, "little")
