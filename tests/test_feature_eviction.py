"""Features make room: the least recently used go first, over all keys, and nobody who works meanwhile is hurt."""

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tl_core.ml import feature_store
from tl_core.ml.eviction import make_room
from tl_core.ml.feature_store import FeatureStore, missing_features
from tl_core.settings import Settings, read_settings

WIDTH = 512
ROW = 4 * WIDTH


def no_warning(message: str) -> None:
    raise AssertionError(message)


def digests(name: str, count: int) -> list[str]:
    return [f"{name}-{number}" for number in range(count)]


@pytest.fixture
def on_day(monkeypatch: pytest.MonkeyPatch):
    def turn_to(day: int) -> None:
        monkeypatch.setattr(time, "time", lambda: float(day * feature_store.DAY_SECONDS))

    return turn_to


def put(folder: Path, key: str, names: list[str], limit: int | None = None) -> None:
    with FeatureStore(folder, key, no_warning, limit) as store:
        store.put_many(names, np.ones((len(names), WIDTH), dtype=np.float32))


def stored(folder: Path, key: str, names: list[str]) -> int:
    with FeatureStore(folder, key, no_warning) as store:
        return len(names) - len(store.get_many(names)[1])


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def test_the_oldest_rows_of_all_keys_go_first(tmp_path: Path, on_day) -> None:
    for day, key in enumerate(["first", "second", "third"], start=1):
        on_day(day)
        put(tmp_path, key, digests(key, 1000))
    assert make_room(tmp_path, 4500 * ROW) == 0
    assert make_room(tmp_path, 2250 * ROW)
    left = [stored(tmp_path, key, digests(key, 1000)) for key in ("first", "second", "third")]
    assert left[0] == 0 and 0 < left[1] <= 1000 and left[2] == 1000
    assert size_of(tmp_path) <= 2250 * ROW


def test_what_is_asked_for_again_stays(tmp_path: Path, on_day) -> None:
    on_day(1)
    put(tmp_path, "key", digests("old", 200))
    on_day(2)
    put(tmp_path, "key", digests("new", 200))
    on_day(3)
    assert stored(tmp_path, "key", digests("old", 200)) == 200
    make_room(tmp_path, 330 * ROW)
    assert stored(tmp_path, "key", digests("old", 200)) == 200
    assert stored(tmp_path, "key", digests("new", 200)) < 150


def put_as_before_uses_were_known(folder: Path, key: str, names: list[str]) -> None:
    """A store as it was made before there was a table of uses; nothing that is deleted shortens its file."""
    with sqlite3.connect(folder / f"{key}.sqlite") as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE features (digest TEXT PRIMARY KEY, vector BLOB NOT NULL, checksum INTEGER)")
        connection.executemany("INSERT INTO features VALUES (?, ?, 0)", [(name, bytes(ROW)) for name in names])
    connection.close()


def test_stores_of_before_uses_were_known_go_first_and_leave_the_room_to_others(tmp_path: Path, on_day) -> None:
    put_as_before_uses_were_known(tmp_path, "before", digests("x", 500))
    on_day(1)
    put(tmp_path, "key", digests("a", 100), limit=300 * ROW)
    assert stored(tmp_path, "key", digests("a", 100)) == 100
    assert size_of(tmp_path) <= 300 * ROW
    put(tmp_path, "key", digests("b", 100), limit=300 * ROW)
    assert stored(tmp_path, "key", digests("b", 100)) == 100


def test_rows_without_a_use_in_a_store_that_was_opened_since_go_first(tmp_path: Path, on_day) -> None:
    put_as_before_uses_were_known(tmp_path, "key", digests("x", 500))
    on_day(1)
    put(tmp_path, "key", digests("a", 100), limit=300 * ROW)
    assert missing_features(tmp_path, "key", [*digests("x", 500), *digests("a", 100)]) == digests("x", 500)
    assert size_of(tmp_path) <= 300 * ROW


def test_a_store_that_is_open_and_written_is_measured_with_its_log_and_outlives_others(tmp_path: Path) -> None:
    """Its rows are not in their place in the file yet, which is next to nothing long."""
    names = digests("a", 3000)
    with FeatureStore(tmp_path, "a-is-open", no_warning) as store:
        store.put_many(names, np.ones((len(names), WIDTH), dtype=np.float32))
        put(tmp_path, "b-is-closed", digests("b", 800))
        make_room(tmp_path, 4000 * ROW)
        left = 800 - len(missing_features(tmp_path, "b-is-closed", digests("b", 800)))
        assert 0 < left < 800
        assert store.get_many(names)[1] == []
        make_room(tmp_path, 2500 * ROW)
        assert 1500 < 3000 - len(missing_features(tmp_path, "a-is-open", names)) < 3000
    assert size_of(tmp_path) <= 2500 * ROW


def test_of_rows_used_on_one_day_those_stored_first_go_first(tmp_path: Path) -> None:
    names = [f"{number * 7919 % 1000:03}" for number in range(1000)]
    put(tmp_path, "key", names)
    deleted = make_room(tmp_path, 800 * ROW)
    assert 0 < deleted < 1000
    assert missing_features(tmp_path, "key", names) == names[:deleted]


def test_a_look_at_what_is_missing_is_no_use_and_writes_nothing(tmp_path: Path, on_day) -> None:
    on_day(1)
    put(tmp_path, "key", digests("a", 700))
    on_day(2)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert missing_features(tmp_path, "key", [*digests("a", 700), "x", "y", "x"]) == ["x", "y"]
    assert missing_features(tmp_path, "none", ["x", "x"]) == ["x"]
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before
    (tmp_path / "broken.sqlite").write_bytes(b"no database" * 1000)
    assert missing_features(tmp_path, "broken", ["x"]) == ["x"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_second_reading_on_the_same_day_writes_nothing(tmp_path: Path, on_day) -> None:
    on_day(1)
    put(tmp_path, "key", digests("a", 50))
    on_day(2)
    with FeatureStore(tmp_path, "key", no_warning) as store:
        store.get_many(digests("a", 50))
        written = store._connection.total_changes
        assert written == 50
        store.get_many(digests("a", 50))
        assert store._connection.total_changes == written


def test_a_store_that_grew_keeps_to_the_limit_when_it_is_closed(tmp_path: Path, on_day) -> None:
    for day in range(1, 8):
        on_day(day)
        put(tmp_path, "key", digests(f"day{day}", 100), limit=300 * ROW)
        assert size_of(tmp_path) <= 320 * ROW
    assert stored(tmp_path, "key", digests("day7", 100)) == 100
    assert stored(tmp_path, "key", digests("day1", 100)) == 0


def test_files_set_aside_as_damaged_go_before_any_features(tmp_path: Path) -> None:
    put(tmp_path, "key", digests("a", 100))
    (tmp_path / "key.damaged-1.sqlite").write_bytes(bytes(300 * ROW))
    assert make_room(tmp_path, 250 * ROW) == 0
    assert not (tmp_path / "key.damaged-1.sqlite").exists()
    assert stored(tmp_path, "key", digests("a", 100)) == 100


def test_a_damaged_store_and_one_that_is_being_written_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "broken.sqlite").write_bytes(b"no database" * 1000)
    put(tmp_path, "other", digests("b", 100))
    with FeatureStore(tmp_path, "key", no_warning) as store:
        store.put_many(digests("a", 100), np.ones((100, WIDTH), dtype=np.float32))
        store._connection.execute("BEGIN IMMEDIATE")
        make_room(tmp_path, 110 * ROW)
        store._connection.rollback()
        assert store.get_many(digests("a", 100))[1] == []
    assert stored(tmp_path, "other", digests("b", 100)) < 100


WRITER = """
import sys, numpy
from pathlib import Path
from tl_core.ml.feature_store import FeatureStore, missing_features
for round in range(12):
    names = [f"{sys.argv[2]}-{round}-{row}" for row in range(40)]
    with FeatureStore(Path(sys.argv[1]), sys.argv[3], sys.exit, 300_000) as store:
        for start in range(0, 40, 8):
            store.put_many(names[start : start + 8], numpy.full((8, 256), round, numpy.float32))
            found, missing = store.get_many(names)
            places = [place for place, name in enumerate(names) if name not in missing]
            assert (found[places] == round).all()
"""


def test_processes_that_write_and_evict_at_once_hurt_nobody(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name, key])
        for name, key in (("x", "key"), ("y", "key"), ("z", "other"))
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert size_of(tmp_path) < 1_500_000


def test_the_limit_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings().features_bytes == Settings(home=Path()).features_bytes
    monkeypatch.setenv("TL_FEATURES_BYTES", "123456")
    assert read_settings().features_bytes == 123456
