"""Verification: every listed file is opened, decoded to its last row and described, once.

Threads suffice: Pillow lets go of Python's lock while it decodes. A JPEG is decoded at a part of its size, to its last
row all the same. What else wants the pixels may look on (`Onlooker`), so that nothing is decoded twice. Must not know:
where the list came from, what an onlooker makes of pictures.
"""

import errno
import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from tl_core.errors import DataError
from tl_core.files import writing_to_home
from tl_core.images.collection import Listed, Picture, Skipped
from tl_core.images.decode import Decoded, decode
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


class Onlooker(Protocol):
    """What else is made of pictures while they are decoded: `portion` of them at a time, in `workers` threads."""

    portion: int
    workers: int

    def threads(self) -> AbstractContextManager[Executor]:
        """The threads to decode and compute in."""

    def place(self, decoded: Decoded) -> Any:
        """What `compute` needs of a picture, None where there is nothing to compute; in any of the threads."""

    def compute(self, placed: dict[str, Any]) -> Any:
        """What is made of pictures, by digest; in any of the threads."""

    def keep(self, computed: Any) -> None:
        """Take what was made, in the thread that called `verify`."""


# Of all files, and how many of them are to be decoded: who looks on meanwhile, if anybody does.
Invitation = Callable[[Sequence[Listed], int], AbstractContextManager[Onlooker | None]]


def verify(
    listed: Sequence[Listed],
    settings: Settings,
    progress: Progress | None = None,
    invite: Invitation | None = None,
) -> tuple[list[Picture], list[Skipped], list[str]]:
    """Decode and describe each file: the pictures, the files left out with reasons, and notes; the order is kept.

    What is known of an unchanged file is taken from `settings.cache_dir`. Files of more than `settings.max_pixels`
    pixels are left out undecoded. `progress(done, total)` is called from the calling thread, and `invite` where files
    have to be decoded. Raises JobError where `settings.home` cannot be written, and what an onlooker raises.
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
        fresh: list[tuple[Path, Stamp, Facts]] = []
        invited = invite(listed, len(todo)) if invite is not None and todo else nullcontext()
        try:
            with invited as onlooker:
                if progress is not None:
                    progress(len(results), len(listed))
                for index, outcome in _in_threads([(index, listed[index].path) for index in todo], settings, onlooker):
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


def _in_threads(
    files: list[tuple[int, Path]], settings: Settings, onlooker: Onlooker | None
) -> Iterator[tuple[int, Facts | str]]:
    """Facts, or why there are none, for each numbered file, in order."""
    size, workers = (_PORTION, settings.workers) if onlooker is None else (onlooker.portion, onlooker.workers)
    portions = (files[start : start + size] for start in range(0, len(files), size))
    with ThreadPoolExecutor(workers, "verify") if onlooker is None else onlooker.threads() as threads:
        under_way: deque[Future[Examined]] = deque()
        try:
            for portion in islice(portions, workers * _PORTIONS_AHEAD):
                under_way.append(threads.submit(_examine_portion, portion, settings.max_pixels, onlooker))
            while under_way:
                found, computed = under_way.popleft().result()
                if onlooker is not None:
                    onlooker.keep(computed)
                yield from found
                for portion in islice(portions, 1):
                    under_way.append(threads.submit(_examine_portion, portion, settings.max_pixels, onlooker))
        finally:
            threads.shutdown(cancel_futures=True)


# Facts of numbered files, or why there are none; and what an onlooker has made of them.
Examined = tuple[list[tuple[int, Facts | str]], Any]


def _examine_portion(files: list[tuple[int, Path]], max_pixels: int, onlooker: Onlooker | None) -> Examined:
    found: list[tuple[int, Facts | str]] = []
    placed: dict[str, Any] = {}
    for index, path in files:
        facts, decoded = _examine(path, max_pixels)
        found.append((index, facts))
        if onlooker is not None and decoded is not None and isinstance(facts, Facts):
            placed[facts.digest] = onlooker.place(decoded)
    return found, onlooker.compute(placed) if onlooker is not None else None


def _examine(path: Path, max_pixels: int) -> tuple[Facts | str, Decoded | None]:
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
        return error.message, None
    except OSError as error:
        return f"cannot be opened: {error.strerror or error}", None
    phash, grey = describe_looks(decoded.image, decoded.covered)
    return Facts(*decoded.size, decoded.mode, digest, phash, grey, decoded.special), decoded
