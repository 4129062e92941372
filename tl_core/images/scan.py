"""Verification: every listed file is opened, decoded to its last row and described, once.

Threads suffice: Pillow lets go of Python's lock while it decodes. A JPEG is decoded at a part of its size, to its last
row all the same. Must not know: where the list came from.
"""

import errno
import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from tl_core.errors import DataError
from tl_core.files import writing_to_home
from tl_core.images.collection import Listed, Picture, Skipped
from tl_core.images.decode import decode
from tl_core.images.looks import describe_looks, least_size
from tl_core.images.verified import FILE_NAME, Facts, Stamp, VerifiedFiles
from tl_core.settings import Settings

Progress = Callable[[int, int], None]

# Files go to the threads in portions, for handing one over costs as much as decoding a tiny picture …
_PORTION = 16
# … and this many portions are under way for each thread, so that none waits and the list is not held in memory twice.
_PORTIONS_AHEAD = 4
# Results are remembered in transactions of this many: each costs a flush to the disk.
_TRANSACTION = 2000
# Files up to this size are read at once; of larger ones the digest is taken in pieces and the decoder reads again.
_READ_WHOLE_BYTES = 64 * 1024**2
_DIGEST_BYTES = 16


def verify(
    listed: Sequence[Listed], settings: Settings, progress: Progress | None = None
) -> tuple[list[Picture], list[Skipped], list[str]]:
    """Decode and describe each file: the pictures, the files left out with reasons, and notes; the order is kept.

    What is known of an unchanged file is taken from `settings.cache_dir`. Files of more than `settings.max_pixels`
    pixels are left out undecoded. `progress(done, total)` is called from the calling thread. Raises JobError where
    `settings.home` cannot be written.
    """
    with writing_to_home(settings):
        settings.cache_dir.mkdir(parents=True, exist_ok=True)
        if not os.access(settings.cache_dir, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    results: dict[int, Picture | Skipped] = {}
    stamps: dict[int, Stamp] = {}
    for index, file in enumerate(listed):
        try:
            stat = file.path.stat()
            stamps[index] = (stat.st_size, stat.st_mtime_ns)
        except OSError as error:
            results[index] = Skipped(file.name, f"cannot be opened: {error.strerror or error}")
    with VerifiedFiles(settings.cache_dir) as cache:
        known = cache.recall([(listed[index].path, stamp) for index, stamp in stamps.items()])
        for index in stamps:
            facts = known.get(listed[index].path)
            if facts is not None and facts.width * facts.height <= settings.max_pixels:
                results[index] = _picture(listed[index], facts)
        todo = [index for index in stamps if index not in results]
        if progress is not None:
            progress(len(results), len(listed))
        fresh: list[tuple[Path, Stamp, Facts]] = []
        try:
            for index, outcome in _in_threads([(index, listed[index].path) for index in todo], settings):
                file = listed[index]
                if isinstance(outcome, Facts):
                    results[index] = _picture(file, outcome)
                    fresh.append((file.path, stamps[index], outcome))
                else:
                    results[index] = Skipped(file.name, outcome)
                if len(fresh) >= _TRANSACTION:
                    cache.remember(fresh)
                    fresh.clear()
                if progress is not None:
                    progress(len(results), len(listed))
        finally:  # also when interrupted: what is done need not be done again
            cache.remember(fresh)
    in_order = [results[index] for index in range(len(listed))]
    notes = []
    if cache.trouble:
        notes.append(
            f"What is known of checked files could not be kept ({cache.trouble}): everything works, but they will all "
            f"be checked again next time. If it stays so, delete {settings.cache_dir / FILE_NAME}."
        )
    pictures = [result for result in in_order if isinstance(result, Picture)]
    return pictures, [result for result in in_order if isinstance(result, Skipped)], notes


def _picture(file: Listed, facts: Facts) -> Picture:
    return Picture(file.path, file.name, file.label, file.split, **facts._asdict())


def _in_threads(files: list[tuple[int, Path]], settings: Settings) -> Iterator[tuple[int, Facts | str]]:
    """Facts, or why there are none, for each numbered file, in order."""
    portions = (files[start : start + _PORTION] for start in range(0, len(files), _PORTION))
    threads = ThreadPoolExecutor(settings.workers, thread_name_prefix="verify")
    try:
        under_way: deque[Future[list[tuple[int, Facts | str]]]] = deque()
        for portion in islice(portions, settings.workers * _PORTIONS_AHEAD):
            under_way.append(threads.submit(_examine_portion, portion, settings.max_pixels))
        while under_way:
            yield from under_way.popleft().result()
            for portion in islice(portions, 1):
                under_way.append(threads.submit(_examine_portion, portion, settings.max_pixels))
    finally:
        threads.shutdown(cancel_futures=True)


def _examine_portion(files: list[tuple[int, Path]], max_pixels: int) -> list[tuple[int, Facts | str]]:
    return [(index, _examine(path, max_pixels)) for index, path in files]


def _examine(path: Path, max_pixels: int) -> Facts | str:
    try:
        with path.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size <= _READ_WHOLE_BYTES:
                content = stream.read()
                digest = hashlib.blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()
                decoded = decode(io.BytesIO(content), max_pixels, least_size)
            else:
                stream.seek(0)
                digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=_DIGEST_BYTES)).hexdigest()
                stream.seek(0)
                decoded = decode(stream, max_pixels, least_size)
    except DataError as error:
        return error.message
    except OSError as error:
        return f"cannot be opened: {error.strerror or error}"
    phash, grey = describe_looks(decoded.image, decoded.covered)
    return Facts(*decoded.size, decoded.mode, digest, phash, grey, decoded.special)
