"""Room for features: what was used least recently goes, row by row, over all stores of a folder.

Rows are deleted as SQLite deletes them, under whoever else has the store open: a run that reads or writes meanwhile
finds rows or does not, and computes what it does not find. Must not know: what the vectors are.
"""

import contextlib
import math
import sqlite3
from dataclasses import dataclass
from pathlib import Path

# Evicted until this part of the limit is left, so that the next batches do not begin it again.
KEPT_SHARE = 0.9
_PATIENCE_SECONDS = 1.0  # for a store that another process writes to: it is passed over

USES_TABLE = "CREATE TABLE IF NOT EXISTS uses (digest TEXT PRIMARY KEY, day INTEGER NOT NULL) WITHOUT ROWID"
# Stores of before there was such a table have vectors of which no use is known: they count as the oldest.
DAY_OF_USE = "COALESCE(day, 0)"
FEATURES_WITH_USES = "features LEFT JOIN uses USING (digest)"


@dataclass(frozen=True, order=True)
class _Rows:
    """Rows of one store that were used last on the same day; the smallest goes first."""

    day: int
    live: bool  # another process has the store open: of equal days its rows go last
    written: float  # when the store was last written to, in seconds
    store: Path
    count: int
    bytes_each: float
    whole: bool  # the store is of an older layout, which gives nothing back until all of it is written anew


def make_room(folder: Path, limit: int) -> int:
    """Delete the least recently used rows of the stores in `folder` where all files take more than `limit` bytes.

    The number of rows deleted. What cannot be had now, being in use or damaged, is left for the next time; files that
    were set aside as damaged go first.
    """
    if sum(_size_of(file) for file in folder.iterdir()) <= limit:
        return 0
    for aside in folder.glob("*.damaged-*.sqlite"):
        with contextlib.suppress(OSError):
            aside.unlink()
    stores = list(folder.glob("*.sqlite"))
    groups = [rows for store in stores for rows in _rows_of(store)]
    sizes = {store: _bytes_of(store) for store in stores}
    if sum(sizes.values()) <= limit:  # the rest was what stores that are open had not put in their place yet
        return 0
    deleted = 0
    for rows in sorted(groups):
        left = rows.count
        while left and (excess := sum(sizes.values()) - KEPT_SHARE * limit) > 0:
            count = left if rows.whole else min(left, math.ceil(excess / rows.bytes_each))
            try:
                deleted += _delete(rows, count)
            except sqlite3.Error:  # in use
                break
            left -= count
            sizes[rows.store] = _bytes_of(rows.store)
    return deleted


def _size_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # a side file that its process has just removed
        return 0


def _log_of(store: Path) -> Path:
    """What was written to a store that is open, and is not in its place yet."""
    return store.with_name(store.name + "-wal")


def _bytes_of(store: Path) -> int:
    """What a store takes once nobody has it open: neither its log nor its free pages."""
    try:
        with _connect(store) as connection:
            pages = _number(connection, "page_count") - _number(connection, "freelist_count")
            return pages * _number(connection, "page_size")
    except sqlite3.Error:
        return _size_of(store) + _size_of(_log_of(store))


def _rows_of(store: Path) -> list[_Rows]:
    """The rows of a store by the day of their last use, after what it need not take was given back."""
    log = _log_of(store)
    live = _size_of(log) > 0
    with contextlib.suppress(sqlite3.Error, OSError):
        written = max(file.stat().st_mtime for file in (store, log) if file.exists())
        with _connect(store) as connection:
            with connection:
                connection.execute("BEGIN")
                connection.execute(USES_TABLE)
                query = f"SELECT {DAY_OF_USE}, COUNT(*) FROM {FEATURES_WITH_USES} GROUP BY 1"
                days = connection.execute(query).fetchall()
            whole = _number(connection, "auto_vacuum") == 0
            if not whole:
                with contextlib.suppress(sqlite3.Error):  # in use
                    _give_back(connection)
        each = _bytes_of(store) / max(1, sum(count for _, count in days))
        return [_Rows(day, live, written, store, count, each, whole) for day, count in days]
    return []


def _delete(rows: _Rows, count: int) -> int:
    """Delete `count` of the rows, those that were stored first."""
    with _connect(rows.store) as connection:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            chosen = f"SELECT digest FROM {FEATURES_WITH_USES} WHERE {DAY_OF_USE} = ? ORDER BY features.rowid LIMIT ?"
            deleted = connection.execute(f"DELETE FROM features WHERE digest IN ({chosen})", (rows.day, count)).rowcount
            of_none = "day = ? AND digest NOT IN (SELECT digest FROM features)"
            connection.execute(f"DELETE FROM uses WHERE {of_none}", (rows.day,))
        with contextlib.suppress(sqlite3.Error):  # in use, or the disk is full: the next rows take the free pages
            if rows.whole:
                connection.executescript("PRAGMA auto_vacuum = INCREMENTAL; VACUUM;")
            _give_back(connection)
    return deleted


def _give_back(connection: sqlite3.Connection) -> None:
    """Shorten the file by its free pages, and its log to nothing."""
    # As a script: `execute` would take the first step of it, which gives back a single page.
    connection.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE);")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    (value,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(value)


def connect_existing(store: Path, patience: float) -> sqlite3.Connection:
    """A connection to a store that waits so many seconds for others.

    Raises sqlite3.Error for one that does not exist: one that was moved away meanwhile is not begun anew.
    """
    return sqlite3.connect(f"{store.absolute().as_uri()}?mode=rw", uri=True, timeout=patience)


def _connect(store: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(connect_existing(store, _PATIENCE_SECONDS))
