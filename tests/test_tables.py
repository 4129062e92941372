"""Tables of labelled images: columns found or named, rows with gaps, images kept inside."""

import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import picture

from tl_core.errors import DataError
from tl_core.images import tables
from tl_core.images.listing import Listing, walk
from tl_core.images.table_choice import Part, table_parts
from tl_core.images.table_files import open_table
from tl_core.images.tables import list_table
from tl_core.settings import Settings


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    picture(0.5, seed, (8, 8)).save(stream, "PNG")
    return stream.getvalue()


def image_files(folder: Path, names: Sequence[str]) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(seed))


def table(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def parquet(path: Path, columns: dict[str, Any], classes: list[str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = pa.table(columns)
    if classes is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(made, path, row_group_size=2)
    return path


def in_bytes(count: int, first: int = 0) -> pa.Array:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    return pa.array([{"bytes": png(first + n), "path": f"{n}.png"} for n in range(count)], type=kind)


def listed(path: Path, settings: Settings, image_column: str | None = None, label_column: str | None = None) -> Listing:
    return list_table([Part(path)], path.parent, settings, image_column, label_column)


def folder_listed(root: Path, settings: Settings) -> Listing:
    tree = walk(root, settings)
    return list_table(table_parts(tree), root, settings, tree=tree)


def labels(listing: Listing) -> dict[str, str]:
    return {file.name: file.label for file in listing.files}


def reasons(listing: Listing) -> dict[str, str]:
    return {skipped.name: skipped.reason for skipped in listing.skipped}


@pytest.mark.parametrize(
    "header", ["image,label", "filename,class", "Image Path,Category", "file_name,target", "LABEL_NAME?,img"]
)
def test_columns_are_found_by_their_names(tmp_path: Path, settings: Settings, header: str) -> None:
    image_files(tmp_path, ["a.png", "b.png"])
    rows = ["a.png,cat", "b.png,dog"] if not header.endswith("img") else ["cat,a.png", "dog,b.png"]
    path = table(tmp_path / "t.csv", "\n".join([header, *rows]))
    assert labels(listed(path, settings)) == {"a.png": "cat", "b.png": "dog"}


def test_columns_are_found_by_their_content(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path, ["a.png", "b.png"])
    path = table(tmp_path / "t.csv", "写真,分類\na.png,猫\nb.png,犬\n")
    listing = listed(path, settings)
    assert labels(listing) == {"a.png": "猫", "b.png": "犬"}
    assert "Images are taken from the column '写真', labels from '分類'." in listing.notes


@pytest.mark.parametrize(
    "header",
    ["Datei;Klasse", "Bild;Etikett", "fichier;classe", "Image;Étiquette", "archivo;clase", "imagen;etiqueta"],
)
def test_german_french_and_spanish_headers_are_known(tmp_path: Path, settings: Settings, header: str) -> None:
    path = table(tmp_path / "t.csv", f"ort;{header};zahl\nwest;a;cat;1\neast;b;dog;2\n")
    image_files(tmp_path, ["found/a.png", "found/b.png"])
    assert labels(listed(path, settings)) == {"a": "cat", "b": "dog"}


@pytest.mark.parametrize("remark", ["x", ""])
@pytest.mark.parametrize("header", ["Datei;Klasse;Bemerkung", "Datei;分類;Bemerkung", "Datei;Art;Tag"])
def test_a_column_of_one_value_is_not_the_label(tmp_path: Path, settings: Settings, header: str, remark: str) -> None:
    image_files(tmp_path, ["a.png", "b.png"])
    path = table(tmp_path / "t.csv", f"{header}\na.png;Hund;{remark}\nb.png;Katze;x\n")
    if header.endswith("Tag"):  # it is called as labels are: rather a question than a guess
        with pytest.raises(DataError, match=r"clearly the label; .*in all rows it is not 'Tag'; name it with"):
            listed(path, settings)
        assert labels(listed(path, settings, label_column="Art")) == {"a.png": "Hund", "b.png": "Katze"}
    else:
        assert labels(listed(path, settings)) == {"a.png": "Hund", "b.png": "Katze"}


def test_a_label_that_is_the_same_in_each_shard_is_still_the_label(tmp_path: Path, settings: Settings) -> None:
    for number, name in enumerate(["cat", "dog"]):
        content = {"image": in_bytes(2, 2 * number), "art": [name] * 2, "source": ["mine"] * 2}
        parquet(tmp_path / f"d/{number}.parquet", content)
    assert {file.label for file in folder_listed(tmp_path / "d", settings).files} == {"cat", "dog"}


def test_a_column_that_names_files_wins_over_one_that_only_sounds_like_it(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path, ["a.png", "b.png"])
    path = table(tmp_path / "t.csv", "image,where,label\nfirst,a.png,cat\nsecond,b.png,dog\n")
    assert labels(listed(path, settings)) == {"a.png": "cat", "b.png": "dog"}


def test_columns_can_be_named(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path, ["a.png", "b.png", "c.png"])
    path = table(tmp_path / "t.csv", "image,label,thumb,kind\na.png,cat,c.png,big\nb.png,dog,c.png,small\n")
    listing = listed(path, settings, image_column="thumb", label_column="kind")
    assert [(file.name, file.label) for file in listing.files] == [("c.png", "big"), ("c.png", "small")]


def test_an_unknown_column_is_answered_with_the_nearest_and_all(tmp_path: Path, settings: Settings) -> None:
    path = table(tmp_path / "t.csv", "image,species\na.png,cat\n")
    with pytest.raises(DataError, match=r"no column 'specis' .*did you mean 'species'\?.*are 'image', 'species'"):
        listed(path, settings, label_column="specis")


def test_without_a_clear_label_column_the_columns_are_listed(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path, ["a.png"])
    path = table(tmp_path / "t.csv", "image,width,colour\na.png,3,red\n")
    with pytest.raises(DataError, match=r"no column that is clearly the label; its columns are 'image', 'width'"):
        listed(path, settings)


def test_without_an_image_column_the_columns_are_listed(tmp_path: Path, settings: Settings) -> None:
    path = table(tmp_path / "t.csv", "petal,species\n3,setosa\n")
    with pytest.raises(DataError, match="no column with images: none holds bytes or names a file"):
        listed(path, settings)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "image;label\na.png;cat\nb.png;dog"),
        ("t.tsv", "image\tlabel\na.png\tcat\r\nb.png\tdog\r\n"),
        ("t.csv", "image, label\na.png, cat\nb.png, dog"),
        ("t.csv", 'image|label\n"a.png"|cat\n\nb.png|dog'),
        ("t.csv", "\ufeffimage,label\na.png,cat\nb.png,dog"),
        ("t.csv", "a.png,cat\nb.png,dog\n"),
        ("t.csv", ",image,label\n0,a.png,cat\n1,b.png,dog\n"),
        ("t.csv", "image,label\n./a.png,cat\n.\\b.png,dog\n"),
        ("t.jsonl", '{"image": "a.png", "label": "cat"}\n\n{"image": "b.png", "label": "dog"}\n'),
        ("t.ndjson", '{"label": "cat", "image": "a.png"}\n{"image": "b.png", "label": "dog", "more": [1]}\n'),
    ],
)
def test_the_usual_ways_of_writing_a_table_are_read(tmp_path: Path, settings: Settings, name: str, text: str) -> None:
    image_files(tmp_path, ["a.png", "b.png"])
    files = listed(table(tmp_path / name, text), settings).files
    assert [(file.path.name.replace(".\\", ""), file.label) for file in files] == [("a.png", "cat"), ("b.png", "dog")]


@pytest.mark.parametrize(("encoding", "noted"), [("utf-8", False), ("utf-16", False), ("cp1252", True)])
def test_encodings_are_told_apart(tmp_path: Path, settings: Settings, encoding: str, noted: bool) -> None:
    image_files(tmp_path, ["a.png", "b.png"])
    path = table(tmp_path / "t.csv", "image,label\na.png,Käfer\nb.png,Brötchen\n".encode(encoding))
    listing = listed(path, settings)
    assert set(labels(listing).values()) == {"Käfer", "Brötchen"}
    assert any("cp1252" in note for note in listing.notes) == noted


@pytest.mark.parametrize(
    "content",
    [
        b"\x00\x01\x02binary\x00",
        bytes(range(256)),
        "image,label\na.png,犬、猫".encode("shift-jis"),
        b"\xff\xfei\0m\0\0\xd8",
    ],
)
def test_what_cannot_be_text_is_refused(tmp_path: Path, settings: Settings, content: bytes) -> None:
    path = table(tmp_path / "t.csv", content)
    with pytest.raises(DataError, match=r"cannot be read as text.*save the table as CSV in UTF-8"):
        listed(path, settings)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "", "has no rows"),
        ("t.csv", "image,label\n", "has no rows"),
        ("t.jsonl", '{"image": "a.png", "label": "cat"}\n{"image": \n', "line 2, is not JSON"),
        ("t.jsonl", '["a.png", "cat"]\n', "line 1, holds .*must hold one JSON object"),
        ("t.csv", 'image,label\n"a.png,' + "x" * 200_000, "cannot be read as a table from line 2 on: field larger"),
        ("t.parquet", "PAR1 not really", "is not a parquet file"),
        ("t.csv", "image,label\na.png,cat\nb.png,dog\n", "no row of .*t.csv gives an image .column 'image'."),
    ],
)
def test_a_broken_table_is_explained(tmp_path: Path, settings: Settings, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        listed(table(tmp_path / name, text), settings)


def test_rows_with_gaps_are_left_out_with_a_reason(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path, ["a.png", "b.png", "c.png"])
    path = table(tmp_path / "t.csv", "image,label\na.png,cat\nb.png,\ngone.png,dog\n,dog\nc.png,dog\n")
    listing = listed(path, settings)
    assert labels(listing) == {"a.png": "cat", "c.png": "dog"}
    assert reasons(listing) == {
        "b.png": "no label (row 2 of t.csv)",
        "gone.png": "no such file (row 3 of t.csv)",
        "t.csv#4": "no image in this row",
    }


@pytest.mark.parametrize(
    "label", ["日本語", "a/b", "train station", "🐱", "x" * 200, "None", "null", "nan", "0", "1e3"]
)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_labels_come_through_unchanged(tmp_path: Path, settings: Settings, kind: str, label: str) -> None:
    image_files(tmp_path, ["a.png", "b.png"])
    path = tmp_path / f"t.{kind}"
    if kind == "csv":
        table(path, f'image,label\na.png,"{label}"\nb.png,dog\n')
    elif kind == "jsonl":
        table(path, "\n".join(json.dumps({"image": n, "label": t}) for n, t in [("a.png", label), ("b.png", "dog")]))
    else:
        parquet(path, {"image": ["a.png", "b.png"], "label": [label, "dog"]})
    assert labels(listed(path, settings)) == {"a.png": label, "b.png": "dog"}


def test_numbers_are_labels_too(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path, ["a.png", "b.png", "c.png"])
    path = parquet(tmp_path / "t.parquet", {"image": ["a.png", "b.png", "c.png"], "label": [1.0, None, 2.5]})
    listing = listed(path, settings)
    assert labels(listing) == {"a.png": "1", "c.png": "2.5"}
    assert reasons(listing) == {"b.png": "no label (row 2 of t.parquet)"}


def test_several_labels_for_one_image_are_refused(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path, ["a.png"])
    path = table(tmp_path / "t.jsonl", '{"image": "a.png", "label": ["cat", "dog"]}\n')
    with pytest.raises(DataError, match="holds several labels for one image; exactly one is needed"):
        listed(path, settings, label_column="label")


def test_a_split_column_divides(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path, ["a.png", "b.png", "c.png"])
    path = table(tmp_path / "t.csv", "image,label,split\na.png,cat,Train\nb.png,dog,valid\nc.png,dog,TEST\n")
    assert [file.split for file in listed(path, settings).files] == ["train", "validation", "test"]


def test_a_column_called_split_with_other_values_does_not_divide(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path, ["a.png", "b.png"])
    path = table(tmp_path / "t.csv", "image,label,split\na.png,cat,left\nb.png,dog,right\n")
    assert [file.split for file in listed(path, settings).files] == [None, None]


def test_one_file_may_stand_under_two_labels(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path, ["a.png"])
    path = table(tmp_path / "t.csv", "image,label\na.png,cat\na.png,dog\n")
    assert [file.label for file in listed(path, settings).files] == ["cat", "dog"]


def test_paths_lead_outside_only_where_that_is_allowed(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path, ["d/a.png", "secret.png"])
    outside = tmp_path / "secret.png"
    path = table(tmp_path / "d/t.csv", f"image,label\na.png,cat\n../secret.png,dog\n{outside},dog\n")
    assert len(listed(path, settings).files) == 3
    confined = list_table([Part(path)], path.parent, settings, within=path.parent)
    assert labels(confined) == {"a.png": "cat"}
    assert len(confined.skipped) == 2


# Images kept inside the table


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


# Tables in folders


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


def test_a_table_named_directly_finds_files_by_name_as_its_folder_would(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path / "d", ["images/a.png", "images/b.png"])
    path = table(tmp_path / "d/train.csv", "id,breed\na,beagle\nb,pug\n")
    assert labels(listed(path, settings)) == {"a": "beagle", "b": "pug"}


def test_files_found_by_name_stay_inside_where_that_is_asked(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path, ["d/images/a.png", "secret.png"])
    (tmp_path / "d/images/b.png").symlink_to(tmp_path / "secret.png")
    path = table(tmp_path / "d/t.csv", "id,label\na,cat\nb,dog\n")
    assert len(listed(path, settings).files) == 2
    assert labels(list_table([Part(path)], path.parent, settings, within=path.parent)) == {"a": "cat"}


def test_the_header_tells_nothing_of_files_outside(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path, ["d/a.png", "secret.png"])
    path = table(tmp_path / "d/t.csv", f"{tmp_path / 'secret.png'},label\na.png,cat\n")
    assert len(open_table(path).kinds) == 2 and "label" not in open_table(path).kinds
    assert "label" in open_table(path, within=path.parent).kinds


@pytest.mark.parametrize(
    ("values", "splits", "note"),
    [
        (["train", "", "test", "train"], ["train", None, "test", "train"], None),
        (["train", "extra", "test", "train"], ["train", None, "test", "train"], "'extra' (1 row) names no known part"),
        (["0", "1", "2", "3"], [None] * 4, "The column 'split' divides nothing"),
    ],
)
def test_a_few_odd_values_do_not_cost_the_given_division(
    tmp_path: Path, settings: Settings, values: list[str], splits: list[str | None], note: str | None
) -> None:
    image_files(tmp_path, ["0.png", "1.png", "2.png", "3.png"])
    rows = [f"{number}.png,{'ab'[number % 2]},{value}" for number, value in enumerate(values)]
    listing = listed(table(tmp_path / "t.csv", "\n".join(["image,label,split", *rows])), settings)
    assert [file.split for file in listing.files] == splits
    assert any(note in said for said in listing.notes) if note else len(listing.notes) == 1


def test_the_split_column_is_judged_by_all_shards(tmp_path: Path, settings: Settings) -> None:
    for number, words in enumerate((["train", "test"], ["x", "y", "z"])):
        content = {"image": in_bytes(len(words), 3 * number), "label": [*"abc"][: len(words)], "split": words}
        parquet(tmp_path / f"d/{number}.parquet", content)
    listing = folder_listed(tmp_path / "d", settings)
    assert {file.split for file in listing.files} == {None}
    assert any("divides nothing" in note for note in listing.notes)


def test_blanks_around_a_label_do_not_count(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path, ["a.png", "b.png"])
    path = table(tmp_path / "t.csv", "image,label\na.png,cat \nb.png,cat\n")
    assert set(labels(listed(path, settings)).values()) == {"cat"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('image,label\na.png,cat\nb.png,"dog\nc.png,cat\n', "from line 3 on: unexpected end of data; look for"),
        ('image,label\na.png,cat\nb.png,"dog\nc.png,"cat"\n', "from line 3 on"),
        ('image,label\na.png,cat\nb.png,"dog\nc.png,cat"\n', "has a label of several lines, 'dog c.png,cat'"),
        ("image,label,label\na.png,cat,dog\n", "several columns called 'label'; give each a name"),
        ("file,x,y,animal\na.png,1,2,cat\nb.png,2,3,dog\n", "no column that is clearly the label"),
    ],
)
def test_what_would_give_wrong_labels_is_refused(tmp_path: Path, settings: Settings, text: str, message: str) -> None:
    image_files(tmp_path, ["a.png", "b.png", "c.png"])
    with pytest.raises(DataError, match=message):
        listed(table(tmp_path / "t.csv", text), settings)


def test_measurements_as_labels_are_told(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path, ["a.png", "b.png"])
    listing = listed(table(tmp_path / "t.csv", "image,target\na.png,0.25\nb.png,1.5\n"), settings)
    assert any("numbers with decimals, such as 0.25" in note for note in listing.notes)
    assert len(listed(table(tmp_path / "u.csv", "image,target\na.png,1.0\nb.png,2.0\n"), settings).notes) == 1


def test_a_row_that_stands_twice_is_one_image(tmp_path: Path, settings: Settings) -> None:
    image_files(tmp_path, ["a.png", "b.png"])
    listing = listed(table(tmp_path / "t.csv", "image,label\na.png,cat\nb.png,dog\na.png,cat\n"), settings)
    assert len(listing.files) == 2
    assert reasons(listing) == {"a.png": "listed already, with this label (row 3 of t.csv)"}


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
