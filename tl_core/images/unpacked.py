"""Folders made from a container (an archive, a table, a sample): whole or not there at all, and made once.

A folder is filled under a temporary name beside its final one and then renamed, so that neither a kill halfway nor a
second process at the same moment can leave something half-used. Must not know: what fills the folder.
"""

import contextlib
import errno
import hashlib
import json
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tl_core.errors import DataError

# What a killed process left behind is removed by the next one that makes the same folder, but never while another
# might still be writing there.
ABANDONED_AFTER_SECONDS = 24 * 3600
_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}


@dataclass
class Unpacking:
    """One request's unpacking: who is told of it, and the folders made for it, should it be refused in the end.

    `progress` receives (bytes written, bytes expected).
    """

    progress: Callable[[int, int], None] | None = None
    made: list[Path] = field(default_factory=list)

    def tell(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, max(done, total))

    def take_back(self) -> None:
        for folder in self.made:
            shutil.rmtree(folder, ignore_errors=True)
        self.made.clear()


def fingerprint(paths: Sequence[Path]) -> list[tuple[str, int, int]]:
    """What identifies files without reading them: absolute path, size in bytes, time of change in nanoseconds."""
    found = []
    for path in paths:
        stat = path.stat()
        found.append((str(path.absolute()), stat.st_size, stat.st_mtime_ns))
    return found


def make_once(
    data_dir: Path, title: str, identity: object, fill: Callable[[Path], None], unpacking: Unpacking | None = None
) -> Path:
    """The folder below `data_dir` that `fill` made for this `identity` (any value JSON can hold), now or earlier.

    `data_dir` lies in the home folder; `title` only makes the folder's name readable. A folder made now is noted in
    `unpacking`. Raises DataError for a full disk or a home folder that cannot be written.
    """
    key = hashlib.blake2b(json.dumps(identity).encode(), digest_size=8).hexdigest()
    name = f"{re.sub(r'[^A-Za-z0-9_-]+', '-', title)[:40].strip('-') or 'data'}-{key}"
    final = data_dir / name
    partial = data_dir / f".{name}.{secrets.token_hex(4)}.partial"
    with explained_storage_errors(data_dir.parent):
        if final.is_dir():
            return final
        data_dir.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(data_dir, name)
        partial.mkdir()
    try:
        with explained_storage_errors(data_dir.parent, filling=partial):
            fill(partial)
        with contextlib.suppress(OSError):  # another process was first: its folder is as good
            partial.rename(final)
            if unpacking is not None:
                unpacking.made.append(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if not final.is_dir():
        raise DataError(f"the folder {final} could not be put in place; remove what is in its way and try again")
    return final


def require_room(data_dir: Path, needed: int, spare: int) -> None:
    """Raise DataError unless `needed` bytes fit on the disk of `data_dir` with `spare` bytes left over."""
    place = data_dir.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed + spare:
        raise DataError(
            f"the disk that holds {data_dir} has {_megabytes(free)} free; unpacking needs {_megabytes(needed)} and "
            f"{_megabytes(spare)} to spare; make room or set TL_HOME to a folder on another disk"
        )


@contextlib.contextmanager
def explained_storage_errors(home: Path, filling: Path | None = None) -> Iterator[None]:
    """Turn the system's errors about writing below the home folder into a DataError that names it.

    While a folder is being filled, errors can also be those of what it is filled from: they pass through.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DataError(
                f"the disk that holds {home} is full; make room or set TL_HOME to a folder on another disk"
            ) from error
        if filling is not None and not _is_refused(error, filling):
            raise
        reason = (error.strerror or str(error)).lower()
        raise DataError(
            f"the home folder {home} cannot be written to ({reason}); set TL_HOME to a folder that can be"
        ) from error


def _is_refused(error: OSError, folder: Path) -> bool:
    """Whether the system refused to write below `folder`; errors of writing into an open file name none."""
    below = error.filename is None or Path(str(error.filename)).is_relative_to(folder)
    return below and error.errno in _REFUSED


def _remove_abandoned(data_dir: Path, name: str) -> None:
    for partial in data_dir.glob(f".{name}.*.partial"):
        with contextlib.suppress(OSError):  # gone already, or not ours
            if time.time() - partial.stat().st_mtime > ABANDONED_AFTER_SECONDS:
                shutil.rmtree(partial, ignore_errors=True)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
