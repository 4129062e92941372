"""Tables in folders: which one is meant, and when class folders count more."""

from pathlib import Path

import pytest
from tabled import folder_listed, image_files, labels, table

from tl_core.errors import DataError
from tl_core.images.listing import walk
from tl_core.images.table_choice import table_parts
from tl_core.settings import Settings


@pytest.mark.parametrize("name", ["metadata.csv", "labels.csv", "anything.jsonl", "annotations.tsv"])
def test_a_table_labels_the_images_beside_it(tmp_path: Path, settings: Settings, name: str) -> None:
    image_files(tmp_path / "d", ["a.png", "images/b.png"])
    if name.endswith("jsonl"):
        text = '{"file_name": "a.png", "label": "cat"}\n{"file_name": "images/b.png", "label": "dog"}'
    else:
        text = "file_name,label\na.png,cat\nimages/b.png,dog\n".replace(",", "\t" if name.endswith("tsv") else ",")
    table(tmp_path / "d" / name, text)
    assert labels(folder_listed(tmp_path / "d", settings)) == {"a.png": "cat", "images/b.png": "dog"}


@pytest.mark.parametrize(
    ("one", "other"),
    [("batch0/a.png", "./batch1/b.png"), ("batch0\\a.png", "batch1\\b.png"), ("a.png", "b.png"), ("a", "b")],
)
def test_a_table_that_labels_the_images_in_folders_comes_before_them(
    tmp_path: Path, settings: Settings, one: str, other: str
) -> None:
    image_files(tmp_path / "d", ["batch0/a.png", "batch1/b.png", "batch1/c.png"])
    table(tmp_path / "d/weather.csv", "day,rain\n1,2\n")
    table(tmp_path / "d/HAM_metadata.csv", f"lesion,image_id,dx,age\n1,{one},nv,40\n1,{other},mel,30\n")
    assert [part.path.name for part in table_parts(walk(tmp_path / "d", settings))] == ["HAM_metadata.csv"]
    assert set(labels(folder_listed(tmp_path / "d", settings)).values()) == {"nv", "mel"}


@pytest.mark.parametrize(
    "text",
    [
        "file,md5\ncat/a.png,1\ndog/b.png,2\n",  # no labels
        "file,label\ncat/a.png,red\nelsewhere.png,blue\n",  # of half of them only
        'file,label\n"cat/a.png,red\n',  # broken
    ],
)
def test_class_folders_come_before_any_other_table(tmp_path: Path, settings: Settings, text: str) -> None:
    image_files(tmp_path / "d", ["cat/a.png", "dog/b.png"])
    table(tmp_path / "d/labels.csv", text)
    assert table_parts(walk(tmp_path / "d", settings)) == []
    assert len(table_parts(walk(tmp_path / "d", settings), wanted=True)) == 1


def test_split_folders_come_before_a_table(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path / "d", ["train/cat/a.png", "train/dog/b.png", "test/cat/c.png", "test/dog/e.png"])
    table(tmp_path / "d/labels.csv", "file,label\na.png,cat\nb.png,dog\nc.png,cat\ne.png,dog\n")
    assert table_parts(walk(tmp_path / "d", settings)) == []


def test_each_split_may_have_its_own_table(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path / "d", ["train/a.png", "test/b.png"])
    table(tmp_path / "d/train/metadata.csv", "file_name,label\na.png,cat\n")
    table(tmp_path / "d/test/metadata.csv", "file_name,label\nb.png,dog\n")
    files = folder_listed(tmp_path / "d", settings).files
    assert [(file.path.name, file.label, file.split) for file in files] == [
        ("a.png", "cat", "train"),
        ("b.png", "dog", "test"),
    ]


def test_a_test_table_without_labels_is_left_out(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path / "d", ["train/a.png", "train/b.png", "test/c.png"])
    table(tmp_path / "d/train.csv", "id,breed\na,beagle\nb,pug\n")
    table(tmp_path / "d/test.csv", "id\nc\n")
    listing = folder_listed(tmp_path / "d", settings)
    assert labels(listing) == {"a": "beagle", "b": "pug"}
    assert "test.csv was left out: its columns or classes are not those of train.csv." in listing.notes
    assert "The files of column 'id' were found by their names in the folders beside the table." in listing.notes


def test_several_tables_have_to_be_told_apart_by_the_person(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path / "d", ["a.png"])
    for name in ("one.csv", "two.csv"):
        table(tmp_path / "d" / name, "file,label\na.png,cat\n")
    with pytest.raises(DataError, match=r"holds several tables: one.csv, two.csv; name the one to use"):
        table_parts(walk(tmp_path / "d", settings))
