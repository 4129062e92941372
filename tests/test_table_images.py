"""Images kept inside a table, and tables of several shards: unpacked once, whole or not at all."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tabled import folder_listed, image_files, in_bytes, labels, listed, parquet, png, reasons

from tl_core.errors import DataError
from tl_core.images import tables
from tl_core.settings import Settings


def test_bytes_are_unpacked_once_and_classes_read_from_the_schema(tmp_path: Path, settings: Settings) -> None:
    path = parquet(tmp_path / "d/t.parquet", {"image": in_bytes(4), "label": [1, 0, 1, -1]}, ["None", "日本語"])
    listing = listed(path, settings)
    assert labels(listing) == {"t.parquet#1": "日本語", "t.parquet#2": "None", "t.parquet#3": "日本語"}
    assert reasons(listing) == {"t.parquet#4": "no label (row 4 of t.parquet)"}
    assert [file.path.read_bytes() for file in listing.files] == [png(0), png(1), png(2)]
    assert listing.files[0].path.is_relative_to(settings.data_dir)
    assert listing.files[0].path.suffix == ".png"
    listing.files[0].path.write_bytes(b"mark")
    assert listed(path, settings).files[0].path.read_bytes() == b"mark"


def test_plain_bytes_work_and_rows_may_lack_them(tmp_path: Path, settings: Settings) -> None:
    path = parquet(tmp_path / "t.parquet", {"content": [png(0), None, png(2)], "species": ["a", "b", "b"]})
    listing = listed(path, settings)
    assert labels(listing) == {"t.parquet#1": "a", "t.parquet#3": "b"}
    assert reasons(listing) == {"t.parquet#2": "no image in this row"}


def test_another_label_column_needs_no_second_unpacking(tmp_path: Path, settings: Settings) -> None:
    path = parquet(tmp_path / "t.parquet", {"image": in_bytes(2), "label": ["a", "b"], "colour": ["red", "blue"]})
    first = listed(path, settings)
    second = listed(path, settings, label_column="colour")
    assert [file.path for file in first.files] == [file.path for file in second.files]
    assert [file.label for file in second.files] == ["red", "blue"]


def test_images_stored_as_paths_are_looked_up(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path, ["a.png"])
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    images = pa.array([{"bytes": None, "path": "a.png"}, {"bytes": png(1), "path": None}, None], type=kind)
    listing = listed(parquet(tmp_path / "t.parquet", {"image": images, "label": ["x", "y", "y"]}), settings)
    assert labels(listing) == {"a.png": "x", "t.parquet#2": "y"}
    assert reasons(listing) == {"t.parquet#3": "no image in this row"}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train-00000-of-00002.parquet", "test-00000-of-00001.parquet"),
        ("default/train/0000.parquet", "default/test/0000.parquet"),
        ("data/train.parquet", "data/TEST_1.parquet"),
        ("flowers-train-0.parquet", "flowers-test-0.parquet"),
    ],
)
def test_shards_are_one_table_with_splits_by_name(tmp_path: Path, settings: Settings, train: str, test: str) -> None:
    root = tmp_path / "d"
    parquet(root / train, {"image": in_bytes(2), "label": [0, 1]}, ["cat", "dog"])
    parquet(
        root / train.replace("0.", "1.").replace("00000-of", "00001-of"),
        {"image": in_bytes(2, 2), "label": [0, 1]},
        ["cat", "dog"],
    )
    parquet(root / test, {"image": in_bytes(1, 4), "label": [1]}, ["cat", "dog"])
    listing = folder_listed(root, settings)
    assert [(file.label, file.split) for file in listing.files][-1] == ("dog", "test")
    assert {file.split for file in listing.files[:-1]} == {"train"}
    assert f"{test}#1" in labels(listing)
    assert listing.files[-1].path.read_bytes() == png(4)


def test_shards_of_different_tables_are_not_mixed(tmp_path: Path, settings: Settings) -> None:
    root = tmp_path / "d"
    parquet(root / "train-0.parquet", {"image": in_bytes(1), "label": [0]}, ["cat", "dog"])
    parquet(root / "train-1.parquet", {"image": in_bytes(1), "label": [0]}, ["red", "blue"])
    with pytest.raises(DataError, match="do not belong to one table"):
        folder_listed(root, settings)


def test_a_shard_without_a_split_beside_others_is_left_out(tmp_path: Path, settings: Settings) -> None:
    root = tmp_path / "d"
    for name in ("train-0.parquet", "extra.parquet", "test-0.parquet"):
        parquet(root / name, {"image": in_bytes(2), "label": [0, 1]}, ["cat", "dog"])
    listing = folder_listed(root, settings)
    assert {file.split for file in listing.files} == {"train", "test"}
    assert "extra.parquet was left out" in listing.notes[0]


def test_a_damaged_shard_is_named_and_nothing_is_left(tmp_path: Path, settings: Settings) -> None:
    path = parquet(tmp_path / "d/t.parquet", {"image": in_bytes(40), "label": [0, 1] * 20}, ["cat", "dog"])
    content = bytearray(path.read_bytes())
    content[100:600] = bytes(500)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.parquet is damaged"):
        listed(path, settings)
    assert list(settings.data_dir.iterdir()) == []


def test_limits_hold_for_tables(tmp_path: Path, settings: Settings) -> None:
    path = parquet(tmp_path / "t.parquet", {"image": in_bytes(4), "label": ["a", "b"] * 2})
    with pytest.raises(DataError, match=r"4 rows; at most 3 are taken \(set TL_MAX_FILES to allow more\)"):
        listed(path, replace(settings, max_files=3))
    with pytest.raises(DataError, match="take more than 300 bytes"):
        listed(path, replace(settings, max_unpacked_bytes=300))
    assert list(settings.data_dir.iterdir()) == []


def test_the_split_column_is_judged_by_all_shards(tmp_path: Path, settings: Settings) -> None:
    for number, words in enumerate((["train", "test"], ["x", "y", "z"])):
        content = {"image": in_bytes(len(words), 3 * number), "label": [*"abc"][: len(words)], "split": words}
        parquet(tmp_path / f"d/{number}.parquet", content)
    listing = folder_listed(tmp_path / "d", settings)
    assert {file.split for file in listing.files} == {None}
    assert any("divides nothing" in note for note in listing.notes)


def test_parquet_columns_of_one_name_are_refused(tmp_path: Path, settings: Settings) -> None:
    made = pa.Table.from_arrays([in_bytes(2), pa.array(["a", "b"]), pa.array(["c", "d"])], ["image", "label", "label"])
    pq.write_table(made, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="several columns called 'label'"):
        listed(tmp_path / "t.parquet", settings)
    assert not settings.home.exists()


def test_parquet_text_that_is_not_utf8_is_refused_before_unpacking(tmp_path: Path, settings: Settings) -> None:
    words = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a\xff", b"b"]).buffers())
    parquet(tmp_path / "t.parquet", {"image": in_bytes(2), "label": words})
    with pytest.raises(DataError, match="holds text that is not UTF-8"):
        listed(tmp_path / "t.parquet", settings)
    assert not settings.home.exists()


def test_parquet_views_are_text_and_bytes(tmp_path: Path, settings: Settings) -> None:
    content = pa.array([png(0), png(1)], type=pa.binary_view())
    path = parquet(tmp_path / "t.parquet", {"image": content, "label": pa.array(["a", "b"], type=pa.string_view())})
    assert labels(listed(path, settings)) == {"t.parquet#1": "a", "t.parquet#2": "b"}


def test_the_disk_is_looked_at_again_while_a_table_is_unpacked(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet(tmp_path / "t.parquet", {"image": in_bytes(4), "label": ["a", "b"] * 2})
    free = iter([10**12, 10**12, 0])
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=next(free)))
    monkeypatch.setattr(tables, "_ROOM_CHECKED_EVERY", 1)
    with pytest.raises(DataError, match="make room or set TL_HOME"):
        listed(path, settings)
    assert list(settings.data_dir.iterdir()) == []
