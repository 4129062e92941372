"""Tables of labelled images: columns found or named, text read, rows with gaps, and which files they mean."""

import json
from pathlib import Path

import pytest
from tabled import folder_listed, image_files, in_bytes, labels, listed, parquet, reasons, table

from tl_core.errors import DataError
from tl_core.images.table_choice import Part
from tl_core.images.table_files import open_table
from tl_core.images.tables import list_table
from tl_core.settings import Settings


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
