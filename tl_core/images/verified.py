"""What verification found, remembered by path, size and time of change, so that an unchanged file is not decoded again.

A cache: it may be deleted or be damaged, and all that costs is time. Such trouble ends its use and is kept in
`trouble`, in words. Broken files are not remembered: they are few, and may be whole next time.
Must not know: how pictures are verified.
"""

import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import PIL

# To be raised whenever decoding, hashing or the table changes; another Pillow may read a file differently, too.
_LAYOUT = 5
VERSION = f"{_LAYOUT}, Pillow {PIL.__version__}"
FILE_NAME = "verified.sqlite"
_PATHS_PER_QUERY = 500
_WAIT_SECONDS = 10.0
# A table of another layout has another name, and nobody reads it.
_TABLE = f"verified_{_LAYOUT}"
_CREATE = f"""
CREATE TABLE IF NOT EXISTS {_TABLE} (
    path BLOB PRIMARY KEY, size INTEGER, changed_ns INTEGER, version TEXT,
    width INTEGER, height INTEGER, mode TEXT, digest TEXT, phash BLOB, grey BLOB, special TEXT
)"""

Stamp = tuple[int, int]  # size in bytes, time of change in nanoseconds


class Facts(NamedTuple):
    """What a file's content alone decides; the fields are those of `Picture`."""

    width: int
    height: int
    mode: str
    digest: str
    phash: int
    grey: bytes
    special: str


class VerifiedFiles:
    """The remembered results, as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.trouble = ""
        self._connection: sqlite3.Connection | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(folder / FILE_NAME, timeout=_WAIT_SECONDS)
            self._connection.execute(_CREATE)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def __enter__(self) -> "VerifiedFiles":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def recall(self, files: Sequence[tuple[Path, Stamp]]) -> dict[Path, Facts]:
        """What is known of these files as they are now."""
        known: dict[Path, Facts] = {}
        for start in range(0, len(files), _PATHS_PER_QUERY):
            asked = {_key(path): (path, stamp) for path, stamp in files[start : start + _PATHS_PER_QUERY]}
            for key, size, changed_ns, version, width, height, mode, digest, phash, grey, special in self._rows(
                list(asked)
            ):
                path, stamp = asked[key]
                if (size, changed_ns) == stamp and version == VERSION:
                    looks = int.from_bytes(phash, "big"), grey, special
                    known[path] = Facts(width, height, mode, digest, *looks)
        return known

    def remember(self, found: Iterable[tuple[Path, Stamp, Facts]]) -> None:
        """Keep these results, in one transaction."""
        rows = [
            (_key(path), *stamp, VERSION, *facts[:4], facts.phash.to_bytes(8, "big"), facts.grey, facts.special)
            for path, stamp, facts in found
        ]
        if self._connection is None or not rows:
            return
        try:
            with self._connection:
                marks = ", ".join("?" * len(rows[0]))
                self._connection.executemany(f"INSERT OR REPLACE INTO {_TABLE} VALUES ({marks})", rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def _rows(self, keys: list[bytes]) -> list[tuple[Any, ...]]:
        if self._connection is None:
            return []
        try:
            marks = ", ".join("?" * len(keys))
            return self._connection.execute(f"SELECT * FROM {_TABLE} WHERE path IN ({marks})", keys).fetchall()
        except sqlite3.Error as error:
            self._give_up(error)
            return []

    def _give_up(self, error: Exception) -> None:
        self.trouble = str(error)
        self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _key(path: Path) -> bytes:
    return os.fsencode(os.path.abspath(path))  # names need not be Unicode, text in sqlite must be
