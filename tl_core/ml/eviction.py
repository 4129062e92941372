"""Room for features: what was used least recently goes, row by row, over all stores of a folder.

Rows are deleted as SQLite deletes them, under whoever else has the store open: a run that reads or writes meanwhile
finds rows or does not, and computes what it does not find. Must not know: what the vectors are.
"""

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

# Evicted until this part of the limit is left, so that the next batches do not begin it again.
KEPT_SHARE = 0.9
_PATIENCE_SECONDS = 1.0  # for a store that another process writes to: it is passed over


@dataclass(frozen=True)
class _Rows:
    """Rows of one store that were used last on the same day, and about what one of them takes on the disk."""

    day: int
    store: Path
    count: int
    bytes_each: float


def make_room(folder: Path, limit: int) -> int:
    """Delete the least recently used rows of the stores in `folder` where all files take more than `limit` bytes.

    The number of rows deleted. What cannot be had now, being in use or damaged, is left for the next time; files that
    were set aside as damaged go first.
    """
    excess = _size_of(folder) - limit
    if excess <= 0:
        return 0
    excess += int((1 - KEPT_SHARE) * limit)
    for aside in folder.glob("*.damaged-*.sqlite"):
        with contextlib.suppress(OSError):
            excess -= aside.stat().st_size
            aside.unlink()
    deleted = 0
    for rows in sorted(_all_rows(folder), key=lambda rows: (rows.day, rows.store.name)):
        if excess <= 0:
            break
        count = min(rows.count, -int(-excess // rows.bytes_each))
        with contextlib.suppress(sqlite3.Error):
            deleted += _delete(rows, count)
            excess -= int(count * rows.bytes_each)
    return deleted


def _size_of(folder: Path) -> int:
    total = 0
    for file in folder.iterdir():
        with contextlib.suppress(OSError):  # a side file that its process has just removed
            total += file.stat().st_size
    return total


def _all_rows(folder: Path) -> list[_Rows]:
    found = []
    for store in folder.glob("*.sqlite"):
        with contextlib.suppress(sqlite3.Error, OSError), _connect(store) as connection:
            days = connection.execute("SELECT day, COUNT(*) FROM uses GROUP BY day").fetchall()
            total = sum(count for _, count in days)
            each = store.stat().st_size / total if total else 0.0
            found += [_Rows(day, store, count, each) for day, count in days]
    return found


def _delete(rows: _Rows, count: int) -> int:
    with _connect(rows.store) as connection:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            chosen = "SELECT digest FROM uses WHERE day = ? LIMIT ?"
            connection.execute(f"DELETE FROM features WHERE digest IN ({chosen})", (rows.day, count))
            deleted = connection.execute(f"DELETE FROM uses WHERE digest IN ({chosen})", (rows.day, count)).rowcount
        # As a script: `execute` would take the first step of it, which gives back a single page.
        connection.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE);")
    return deleted


def _connect(store: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(store, timeout=_PATIENCE_SECONDS))
