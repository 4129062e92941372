"""From what a person names to a verified collection, or to one sentence that says what is wrong."""

import unicodedata
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import make_folder, picture
from PIL import Image

from tl_core.errors import DataError
from tl_core.images.collection import Collection
from tl_core.images.intake import open_collection
from tl_core.settings import Settings


def zipped(folder: Path, archive: Path, wrapping: str = "") -> Path:
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(folder.rglob("*")):
            opened.write(path, wrapping + path.relative_to(folder).as_posix())
    return archive


def shape(collection: Collection) -> dict[str, int]:
    return {name: sum(picture.label == name for picture in collection.pictures) for name in collection.classes}


@pytest.mark.parametrize("form", ["folder", "zip", "wrapped zip", "zip by another name", "table"])
def test_every_form_gives_the_same_collection(tmp_path: Path, settings: Settings, form: str) -> None:
    root = make_folder(tmp_path / "d", {"2": 3, "10": 2})
    match form:
        case "zip":
            root = zipped(root, tmp_path / "d.ZIP")
        case "wrapped zip":
            root = zipped(root, tmp_path / "d.zip", "photos/of me/")
        case "zip by another name":
            root = zipped(root, tmp_path / "upload")
        case "table":
            rows = [f"{path.relative_to(root).as_posix()},{path.parent.name}" for path in sorted(root.glob("*/*"))]
            root = root / "list.csv"
            root.write_text("\n".join(["file,label", *rows]))
    collection = open_collection(str(root), settings)
    assert collection.source == str(root)
    assert list(shape(collection).items()) == [("2", 3), ("10", 2)]
    assert collection.skipped == []
    assert collection.given_splits == ()


@pytest.mark.parametrize("name", ["digits", "shapes"])
def test_samples_open_without_a_word(settings: Settings, name: str) -> None:
    collection = open_collection(f"sample:{name}", settings)
    assert (collection.source, collection.skipped, collection.notes) == (f"sample:{name}", [], [])
    assert len(collection.pictures) == {"digits": 1797, "shapes": 360}[name]


def test_given_splits_are_kept(tmp_path: Path, settings: Settings) -> None:
    for split in ("train", "val"):
        make_folder(tmp_path / "d" / split, {"cat": 2, "dog": 2})
    collection = open_collection(str(tmp_path / "d"), settings)
    assert collection.given_splits == ("train", "validation")


def test_a_lone_split_divides_nothing(tmp_path: Path, settings: Settings) -> None:
    make_folder(tmp_path / "d" / "train", {"cat": 2, "dog": 2})
    picture(0.5, 1).save(tmp_path / "d" / "train" / "stray.png")
    (tmp_path / "d" / "test").mkdir()
    collection = open_collection(str(tmp_path / "d"), settings)
    assert collection.given_splits == ()
    assert [skipped.name for skipped in collection.skipped] == ["train/stray.png"]


def test_a_class_that_only_the_test_part_has_is_left_out(tmp_path: Path, settings: Settings) -> None:
    make_folder(tmp_path / "d" / "train", {"cat": 2, "dog": 2})
    make_folder(tmp_path / "d" / "test", {"cat": 1, "dog": 1, "fish": 1})
    collection = open_collection(str(tmp_path / "d"), settings)
    assert collection.classes == ["cat", "dog"]
    assert [(s.name, s.reason) for s in collection.skipped] == [
        ("test/fish/000.png", "its class 'fish' has no image in the train part")
    ]


def test_broken_files_among_good_ones_are_listed_and_left_out(tmp_path: Path, settings: Settings) -> None:
    root = make_folder(tmp_path / "d", {"cat": 4, "dog": 4})
    (root / "cat/000.png").write_bytes(b"")
    (root / "cat/notes.txt").write_text("x")
    collection = open_collection(str(root), settings)
    assert shape(collection) == {"cat": 3, "dog": 4}
    assert {s.name: s.reason for s in collection.skipped} == {
        "cat/notes.txt": "not an image",
        "cat/000.png": "empty file",
    }


def test_only_broken_images_are_an_error_with_reasons(tmp_path: Path, settings: Settings) -> None:
    root = make_folder(tmp_path / "d", {"cat": 8, "dog": 8})
    for path in root.glob("*/*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 16 images of .* can be read") as caught:
        open_collection(str(root), settings)
    assert caught.value.details[0] == "cat/000.png: empty file"
    assert len(caught.value.details) == 10


def test_one_class_left_after_broken_files_is_an_error(tmp_path: Path, settings: Settings) -> None:
    root = make_folder(tmp_path / "d", {"cat": 2, "dog": 1})
    (root / "dog/000.png").write_bytes(b"")
    with pytest.raises(DataError, match="only one class with images that can be read, 'cat'") as caught:
        open_collection(str(root), settings)
    assert caught.value.details == ("dog/000.png: empty file",)


def test_gigapixel_images_are_left_out_undecoded(tmp_path: Path, settings: Settings) -> None:
    root = make_folder(tmp_path / "d", {"cat": 2, "dog": 2})
    picture(0.1, 1, (300, 300)).save(root / "cat/big.png")
    collection = open_collection(str(root), replace(settings, max_pixels=50_000))
    assert [s.reason for s in collection.skipped] == [
        "too large: 300 × 300 pixels; at most 50,000 are read (TL_MAX_PIXELS)"
    ]


def test_two_spellings_of_one_name_are_one_class(tmp_path: Path, settings: Settings) -> None:
    composed, decomposed = unicodedata.normalize("NFC", "Käfer"), unicodedata.normalize("NFD", "Käfer")
    root = make_folder(tmp_path / "d", {composed: 1, decomposed: 2, "dog": 1})
    collection = open_collection(str(root), settings)
    assert shape(collection) == {decomposed: 3, "dog": 1}
    assert len(collection.notes) == 1
    assert "written in 2 ways" in collection.notes[0]


def test_a_decomposed_name_alone_stays_as_it_is(tmp_path: Path, settings: Settings) -> None:
    name = unicodedata.normalize("NFD", "Käfer")
    assert open_collection(str(make_folder(tmp_path / "d", {name: 1, "dog": 1})), settings).classes[1] == name


def test_a_table_beside_class_folders_is_not_used(tmp_path: Path, settings: Settings) -> None:
    make_folder(tmp_path / "d" / "photos", {"cat": 1, "dog": 1})
    (tmp_path / "d" / "weather.csv").write_text("day,rain\n1,2\n")
    collection = open_collection(str(tmp_path / "d"), settings)
    assert shape(collection) == {"cat": 1, "dog": 1}
    assert [(s.name, s.reason) for s in collection.skipped] == [
        ("weather.csv", "a table; the class folders were used instead")
    ]


def test_a_table_in_a_zip_cannot_reach_outside(tmp_path: Path, settings: Settings) -> None:
    root = make_folder(tmp_path / "d", {"all": 2})
    picture(0.9, 5).save(tmp_path / "secret.png")
    rows = ["file,label", "all/000.png,cat", "all/001.jpg,dog", f"{tmp_path / 'secret.png'},dog"]
    (root / "labels.csv").write_text("\n".join(rows))
    collection = open_collection(str(zipped(root, tmp_path / "d.zip")), settings)
    assert shape(collection) == {"cat": 1, "dog": 1}
    assert len(collection.skipped) == 1


def test_columns_are_passed_on_and_refused_where_there_is_no_table(tmp_path: Path, settings: Settings) -> None:
    root = make_folder(tmp_path / "d", {"x": 1, "y": 1})
    (root / "t.csv").write_text("image,label,size\nx/000.png,a,big\ny/000.png,a,small\n")
    assert open_collection(str(root / "t.csv"), settings, label_column="size").classes == ["big", "small"]
    assert open_collection(str(root), settings, label_column="size").classes == ["big", "small"]
    (root / "t.csv").unlink()
    with pytest.raises(DataError, match="holds no table; columns can only be named for one"):
        open_collection(str(root), settings, label_column="size")


def test_a_table_with_one_class_is_refused_before_anything_is_decoded(tmp_path: Path, settings: Settings) -> None:
    root = make_folder(tmp_path / "d", {"x": 2})
    (root / "t.csv").write_text("image,label\nx/000.png,a\nx/001.jpg,a\n")
    with pytest.raises(DataError, match="holds only one class, 'a'"):
        open_collection(str(root), settings)
    assert not settings.home.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flowrs", r"there is no .*flowrs; did you mean '.*flowers'\?"),
        ("nothing like it", r"there is no .*nothing like it; give a folder, a zip archive, a table or sample:digits"),
        ("x" * 5000, "there is no x"),
        ("", "no data was named"),
        ("~nobody-of-this-name/photos", "there is no ~nobody"),
        ("one.png", "is one image; give the folder"),
        ("model.tar.gz", "is neither a folder, a zip archive nor a table"),
        ("fake.zip", "is not a zip archive that can be read"),
        ("sample:digts", r"there is no sample 'digts' \(did you mean sample:digits\?\); the samples are"),
    ],
)
def test_what_is_not_data_is_explained(tmp_path: Path, settings: Settings, name: str, message: str) -> None:
    (tmp_path / "flowers").mkdir()
    picture(0.1, 1).save(tmp_path / "one.png")
    (tmp_path / "model.tar.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "fake.zip").write_bytes(b"no")
    given = name if not name or name.startswith(("sample:", "xx", "~")) else str(tmp_path / name)
    with pytest.raises(DataError, match=message):
        open_collection(given, settings)
    assert not settings.home.exists()


def test_progress_is_reported(tmp_path: Path, settings: Settings) -> None:
    calls: list[tuple[int, int]] = []
    root = make_folder(tmp_path / "d", {"cat": 2, "dog": 2})
    open_collection(str(root), settings, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (4, 4)


def test_a_thousand_classes_of_five(tmp_path: Path, settings: Settings) -> None:
    root = tmp_path / "d"
    for number in range(1000):
        (root / str(number)).mkdir(parents=True)
    content = picture(0.1, 1, (8, 8))
    content.save(tmp_path / "one.png")
    for number in range(5000):
        (root / str(number // 5) / f"{number}.png").write_bytes((tmp_path / "one.png").read_bytes())
    collection = open_collection(str(root), settings)
    assert (len(collection.classes), len(collection.pictures)) == (1000, 5000)
    assert collection.classes[:3] == ["0", "1", "2"]


def test_a_table_beats_the_folders_whose_images_it_labels(tmp_path: Path, settings: Settings) -> None:
    root = make_folder(tmp_path / "d", {"batch0": 2, "batch1": 2})
    rows = [
        f"{path.relative_to(root).as_posix()},{'cat' if '000' in path.name else 'dog'}" for path in root.glob("*/*")
    ]
    (root / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    collection = open_collection(str(root), settings)
    assert shape(collection) == {"cat": 2, "dog": 2}
    assert any("('batch0', 'batch1') count for nothing" in note for note in collection.notes)


def test_a_device_is_called_one(settings: Settings) -> None:
    with pytest.raises(DataError, match="/dev/null is a device or a pipe"):
        open_collection("/dev/null", settings)


def test_classes_that_differ_in_blanks_are_one_and_in_capitals_are_told(tmp_path: Path, settings: Settings) -> None:
    root = make_folder(tmp_path / "d", {"big cat": 2, "big  cat ": 1, "Dog": 1, "dog": 1})
    collection = open_collection(str(root), settings)
    assert shape(collection) == {"big cat": 3, "Dog": 1, "dog": 1}
    assert any("'Dog', 'dog' differ only in capital letters" in note for note in collection.notes)


def test_dark_sixteen_bit_images_are_told(tmp_path: Path, settings: Settings) -> None:
    root = make_folder(tmp_path / "d", {"cat": 2, "dog": 2})
    Image.fromarray(np.full((8, 8), 4000, dtype=np.uint16)).save(root / "cat/x-ray.png")
    (note,) = open_collection(str(root), settings).notes
    assert note.startswith("1 16-bit image uses 12 bits or fewer (such as 'cat/x-ray.png')")


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_archives_inside_are_opened(tmp_path: Path, settings: Settings, form: str) -> None:
    (tmp_path / "packed").mkdir()
    for seed, split in enumerate(("train", "test")):
        folder = make_folder(tmp_path / split, {"cat": 2, "dog": 2}, seed=seed)
        zipped(folder, tmp_path / "packed" / f"{split}.zip", f"{split}/")
    data = zipped(tmp_path / "packed", tmp_path / "all.zip") if form == "zip" else tmp_path / "packed"
    told: list[tuple[int, int]] = []
    collection = open_collection(str(data), settings, unpacking=lambda done, total: told.append((done, total)))
    assert (shape(collection), collection.given_splits) == ({"cat": 4, "dog": 4}, ("train", "test"))
    assert told[-1][0] == told[-1][1] > 0
    assert "train/cat/000.png" in {picture.name for picture in collection.pictures}


def test_what_was_unpacked_for_a_refused_collection_is_removed(tmp_path: Path, settings: Settings) -> None:
    archive = zipped(make_folder(tmp_path / "one", {"cat": 2}), tmp_path / "one.zip")
    table = pa.table({"image": [b"no image", b"none either"], "label": ["cat", "dog"]})
    pq.write_table(table, tmp_path / "t.parquet")
    for data in (archive, tmp_path / "t.parquet"):
        with pytest.raises(DataError):
            open_collection(str(data), settings)
        assert list(settings.data_dir.iterdir()) == []


def test_what_an_earlier_success_unpacked_is_kept_when_another_request_fails(
    tmp_path: Path, settings: Settings
) -> None:
    archive = zipped(make_folder(tmp_path / "d", {"cat": 2, "dog": 2}), tmp_path / "d.zip")
    open_collection(str(archive), settings)
    with pytest.raises(DataError, match="holds no table"):
        open_collection(str(archive), settings, label_column="x")
    assert len(list(settings.data_dir.iterdir())) == 1


@pytest.mark.parametrize("form", ["folder", "zip", "zip in a zip"])
def test_a_loose_picture_in_a_wrapping_folder_is_left_out(tmp_path: Path, settings: Settings, form: str) -> None:
    root = tmp_path / "w"
    make_folder(root / "photos", {"cat": 2, "dog": 2})
    picture(0.5, 1).save(root / "photos/loose.jpg")
    if form != "folder":
        root = zipped(root, tmp_path / "export.zip")
    if form == "zip in a zip":
        (tmp_path / "mail").mkdir()
        root = zipped(root.rename(tmp_path / "mail/export.zip").parent, tmp_path / "mail.zip")
    collection = open_collection(str(root), settings)
    assert shape(collection) == {"cat": 2, "dog": 2}
    assert [Path(skipped.name).name for skipped in collection.skipped] == ["loose.jpg"]


def test_images_are_known_again_by_content_class_and_split(tmp_path: Path, settings: Settings) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 3, "b": 2})
    first = open_collection(str(photos), settings).fingerprint
    (photos / "a").rename(photos / "c")
    assert open_collection(str(photos), settings).fingerprint != first
    (photos / "c").rename(photos / "a")
    one = sorted((photos / "a").iterdir())[0]
    one.rename(photos / "a" / f"renamed{one.suffix}")
    moved = photos.rename(tmp_path / "elsewhere")
    assert open_collection(str(moved), settings).fingerprint == first
    (moved / "a" / f"renamed{one.suffix}").unlink()
    assert open_collection(str(moved), settings).fingerprint != first
