"""Features on disk: one SQLite file per key, from the digest of an image's bytes to its float32 vector.

The key names everything else a vector depends on (backbone weights, preprocessing); whoever opens a store makes it.
SQLite in write-ahead mode gives what is needed: a batch is there whole or not at all, whenever the process is killed,
and several processes may read and write at once. The day each vector was last asked for is kept, so that those that
nobody asks for any more can make room. Must not know: backbones, images.
"""

import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from tl_core.errors import JobError
from tl_core.ml.eviction import DAY_OF_USE, FEATURES_WITH_USES, USES_TABLE, connect_existing, make_room

Vectors = NDArray[np.float32]

BUSY_SECONDS = 60  # how long to wait while another process writes its batch
RETRY_SECONDS = 0.05
QUERY_DIGESTS = 500  # digests asked for at a time; SQLite allows some thousands
STORED = np.dtype("<f4")
PAGE_BYTES = 16_384  # of SQLite's usual 4,096 a vector of 512 numbers would fill half and waste the rest
# The use of a vector is written down once a day: a row written for each one read would cost as much as reading it.
DAY_SECONDS = 86_400

BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}


class FeatureStore:
    """The vectors of one key, all of one length. Use as a context manager, from one thread."""

    def __init__(self, folder: Path, key: str, warn: Callable[[str], None], limit: int | None = None) -> None:
        """Open `folder`/`key`.sqlite, made where it is missing; `warn` hears, in a sentence, of a file set aside.

        `limit` is how many bytes all stores in `folder` may take together: when one that grew is closed, vectors that
        were used least recently make room, whichever key they are of. Raises JobError when the folder cannot be
        written.
        """
        self._limit = limit
        self._grew = False
        self.path = folder / f"{key}.sqlite"
        self._warn = warn
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JobError(
                f"the features folder {folder} cannot be made ({error.strerror}); choose another home"
            ) from error
        self._open()

    def __enter__(self) -> "FeatureStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()
        if self._grew and self._limit is not None:
            make_room(self.path.parent, self._limit)

    def get_many(self, digests: Sequence[str]) -> tuple[Vectors, list[str]]:
        """Vectors (N, D) in the order of `digests`, and the digests that are not stored: their rows are 0.

        Where none is stored, D is 0. Each missing digest is named once.
        """
        try:
            return self._find(digests)
        except _BrokenFileError:
            self._begin_again()
            return self._find(digests)

    def put_many(self, digests: Sequence[str], vectors: Vectors) -> None:
        """Store `vectors` (N, D), all of them or, if the process dies, none. What is already stored stays."""
        blobs = [vector.tobytes() for vector in np.ascontiguousarray(vectors, dtype=STORED)]
        rows = [(digest, blob, zlib.crc32(blob)) for digest, blob in zip(digests, blobs, strict=True)]
        try:
            self._write(rows)
        except _BrokenFileError:
            self._begin_again()
            self._write(rows)

    def _find(self, digests: Sequence[str]) -> tuple[Vectors, list[str]]:
        places: dict[str, list[int]] = {}
        for place, digest in enumerate(digests):
            places.setdefault(digest, []).append(place)
        vectors = np.zeros((len(digests), 0), dtype=np.float32)
        unused = []
        with self._errors_in_words():
            for digest, vector, day in self._read(list(places)):
                if vectors.shape[1] == 0:
                    vectors = np.zeros((len(digests), len(vector)), dtype=np.float32)
                vectors[places.pop(digest)] = vector
                if day < _today():
                    unused.append(digest)
            if unused:
                self._remember_use(unused)
        return vectors, list(places)

    def _remember_use(self, digests: Sequence[str]) -> None:
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO uses VALUES (?, ?)", [(d, _today()) for d in digests])

    def _read(self, digests: Sequence[str]) -> Iterator[tuple[str, Vectors, int]]:
        for asked in _portions(digests):
            columns = f"digest, vector, checksum, {DAY_OF_USE}"
            query = f"SELECT {columns} FROM {FEATURES_WITH_USES} WHERE digest IN ({_marks(asked)})"
            for digest, blob, checksum, day in self._connection.execute(query, asked):
                if zlib.crc32(blob) != checksum:  # SQLite does not notice damage inside a value
                    raise _BrokenFileError
                yield digest, np.frombuffer(blob, dtype=STORED), day

    def _write(self, rows: Sequence[tuple[str, bytes, int]]) -> None:
        used = [(digest, _today()) for digest, _, _ in rows]
        with self._errors_in_words(), self._connection:
            self._connection.executemany("INSERT OR IGNORE INTO features VALUES (?, ?, ?)", rows)
            self._connection.executemany("INSERT OR REPLACE INTO uses VALUES (?, ?)", used)
        self._grew = True

    def _open(self) -> None:
        try:
            self._connect()
        except _BrokenFileError:
            self._set_aside()
            self._connect()

    def _connect(self) -> None:
        with self._errors_in_words():
            self._connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS)
            self._file_number = self.path.stat().st_ino
            try:
                # Both only of effect on a new file. What is deleted can be given back to the disk.
                self._connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                self._connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                self._write_ahead()
                self._connection.execute(
                    "PRAGMA synchronous = NORMAL"
                )  # a power cut may cost the last batches, no more
                with self._connection:
                    self._connection.execute(
                        "CREATE TABLE IF NOT EXISTS features"
                        " (digest TEXT PRIMARY KEY, vector BLOB NOT NULL, checksum INTEGER NOT NULL)"
                    )
                    self._connection.execute(USES_TABLE)
            except sqlite3.Error:
                self._connection.close()
                raise

    def _write_ahead(self) -> None:
        """Switch on write-ahead mode. SQLite does not wait when two processes do so at once, so that we have to."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if _kind(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)

    def _begin_again(self) -> None:
        self.close()
        self._set_aside()
        self._connect()

    def _set_aside(self) -> None:
        """Rename the damaged file, unless another process did so and began a new one meanwhile."""
        if not self.path.exists() or self.path.stat().st_ino != self._file_number:
            return
        aside = next(
            name
            for number in range(1, 10_000)
            if not (name := self.path.with_name(f"{self.path.stem}.damaged-{number}.sqlite")).exists()
        )
        try:
            # The side files go first: they must not be taken for those of the file that is begun next.
            for ending in ("-wal", "-shm"):
                self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
            self.path.rename(aside)
        except OSError as error:
            raise JobError(f"{self.path} is damaged and cannot be moved ({error.strerror}); delete it") from error
        self._warn(
            f"the stored features {self.path.name} are damaged; they are kept as {aside.name} and computed again"
        )

    @contextmanager
    def _errors_in_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            kind = _kind(error)
            if kind in BROKEN:
                raise _BrokenFileError from error
            if kind == sqlite3.SQLITE_FULL:
                what = "the disk is full; make room, what was computed before is kept"
            elif kind == sqlite3.SQLITE_BUSY:
                what = f"another process has been writing to them for more than {BUSY_SECONDS} s; try again later"
            elif kind in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}:
                what = f"{error}; make the folder writable, make room, or choose another home"
            else:
                raise
            raise JobError(f"the features cannot be kept in {self.path}: {what}") from error


def missing_features(folder: Path, key: str, digests: Sequence[str]) -> list[str]:
    """Those of `digests` that have no vector under `key`, each once; a look that changes no store and counts as no use.

    Where there is no store, or none that can be read, all of them are.
    """
    distinct = list(dict.fromkeys(digests))
    stored: set[str] = set()
    with suppress(sqlite3.Error), closing(connect_existing(folder / f"{key}.sqlite", BUSY_SECONDS)) as connection:
        for asked in _portions(distinct):
            query = f"SELECT digest FROM features WHERE digest IN ({_marks(asked)})"
            stored.update(digest for (digest,) in connection.execute(query, asked))
    return [digest for digest in distinct if digest not in stored]


class _BrokenFileError(Exception):
    """The file is no database any more, or holds a vector that is not what was written."""


def _portions(digests: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(digests), QUERY_DIGESTS):
        yield digests[start : start + QUERY_DIGESTS]


def _marks(asked: Sequence[str]) -> str:
    return ",".join("?" * len(asked))


def _today() -> int:
    return int(time.time() // DAY_SECONDS)


def _kind(error: sqlite3.Error) -> int:
    """SQLite's primary result code (the low byte; the rest is its variant), 0 for an error that is not SQLite's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
