"""Which files of a folder belong to which class and split."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tl_core.errors import DataError
from tl_core.images.listing import Listing, list_folder, walk
from tl_core.settings import Settings


def touch(root: Path, names: Iterable[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def listed(root: Path, settings: Settings) -> Listing:
    return list_folder(walk(root, settings), "photos")


def labels(listing: Listing) -> dict[str, tuple[str, str | None]]:
    return {file.name: (file.label, file.split) for file in listing.files}


def reasons(listing: Listing) -> dict[str, str]:
    return {skipped.name: skipped.reason for skipped in listing.skipped}


def test_folders_are_classes_whatever_the_case_of_endings(tmp_path: Path, settings: Settings) -> None:
    listing = listed(touch(tmp_path / "d", ["cats/1.JPG", "cats/2.png", "dogs/1.Jpeg", "dogs/2.WEBP"]), settings)
    assert labels(listing) == {
        "cats/1.JPG": ("cats", None),
        "cats/2.png": ("cats", None),
        "dogs/1.Jpeg": ("dogs", None),
        "dogs/2.WEBP": ("dogs", None),
    }
    assert listing.skipped == []
    assert listing.files[0].path == tmp_path / "d/cats/1.JPG"


def test_deeper_images_belong_to_the_class_above_them(tmp_path: Path, settings: Settings) -> None:
    listing = listed(touch(tmp_path / "d", ["cats/a/b/1.png", "cats/2.png", "dogs/x/1.png"]), settings)
    assert {label for label, _ in labels(listing).values()} == {"cats", "dogs"}


def test_files_come_in_natural_order(tmp_path: Path, settings: Settings) -> None:
    listing = listed(touch(tmp_path / "d", ["b/10.png", "b/9.png", "a/1.png"]), settings)
    assert [file.name for file in listing.files] == ["a/1.png", "b/9.png", "b/10.png"]


@pytest.mark.parametrize("wrapping", ["dataset", "my data/dataset", "train"])
def test_a_single_wrapping_folder_is_entered(tmp_path: Path, settings: Settings, wrapping: str) -> None:
    root = touch(tmp_path / "d", ["LICENSE", "readme.txt", f"{wrapping}/cats/1.png", f"{wrapping}/dogs/1.png"])
    listing = listed(root, settings)
    assert {label for label, _ in labels(listing).values()} == {"cats", "dogs"}
    assert {split for _, split in labels(listing).values()} == {None}
    assert reasons(listing) == {"LICENSE": "not an image", "readme.txt": "not an image"}


@pytest.mark.parametrize("wrapping", ["photos", "export/photos", "export/2024/photos"])
def test_loose_pictures_in_a_wrapping_folder_are_left_out(tmp_path: Path, settings: Settings, wrapping: str) -> None:
    loose = {f"{wrapping.partition('/')[0]}/cover.jpg", f"{wrapping}/loose.jpg"}
    names = [f"{wrapping}/{label}/{number}.png" for label in ("cats", "dogs") for number in (1, 2)]
    listing = listed(touch(tmp_path / "d", [*loose, *names]), settings)
    assert labels(listing) == {name: (name.split("/")[-2], None) for name in names}
    assert reasons(listing) == dict.fromkeys(loose, "it lies beside the class folders, so it has no class")
    assert not any(skipped.expected for skipped in listing.skipped)


def test_loose_pictures_beside_wrapped_split_folders_are_left_out(tmp_path: Path, settings: Settings) -> None:
    names = [f"photos/{split}/{label}/1.png" for split in ("train", "test") for label in ("cats", "dogs")]
    listing = listed(touch(tmp_path / "d", ["photos/loose.jpg", *names]), settings)
    assert labels(listing)["photos/test/cats/1.png"] == ("cats", "test")
    assert set(reasons(listing)) == {"photos/loose.jpg"}


@pytest.mark.parametrize(
    "names",
    [
        ["cats/1.png", "cats/2.png", "cats/indoors/3.png", "cats/outdoors/4.png"],  # not most of them lie deeper
        ["cats/1.png", "cats/deep/2.png", "cats/deep/3.png"],
        ["cats/1.png", "cats/train/2.png", "cats/test/3.png"],
    ],
)
def test_a_single_class_is_no_wrapping_folder(tmp_path: Path, settings: Settings, names: list[str]) -> None:
    with pytest.raises(DataError, match="holds only one class, 'cats'"):
        listed(touch(tmp_path / "d", names), settings)


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("Training", "VALID", "Testing"), ("train", "dev", "test")],
)
@pytest.mark.parametrize("wrapping", ["", "dataset/"])
def test_split_folders_are_splits(
    tmp_path: Path, settings: Settings, wrapping: str, train: str, validation: str, test: str
) -> None:
    names = [f"{wrapping}{split}/{label}/1.png" for split in (train, validation, test) for label in ("cats", "dogs")]
    listing = listed(touch(tmp_path / "d", names), settings)
    assert labels(listing)[f"{wrapping}{train}/cats/1.png"] == ("cats", "train")
    assert labels(listing)[f"{wrapping}{validation}/dogs/1.png"] == ("dogs", "validation")
    assert labels(listing)[f"{wrapping}{test}/dogs/1.png"] == ("dogs", "test")
    assert len(listing.files) == 6


def test_folders_named_like_splits_beside_others_are_classes(tmp_path: Path, settings: Settings) -> None:
    listing = listed(touch(tmp_path / "d", ["train station/1.png", "test/1.png", "dog/1.png"]), settings)
    assert {label for label, _ in labels(listing).values()} == {"train station", "test", "dog"}
    assert {split for _, split in labels(listing).values()} == {None}


def test_a_class_named_test_may_hold_folders(tmp_path: Path, settings: Settings) -> None:
    listing = listed(touch(tmp_path / "d", ["test/monday/1.png", "test/tuesday/1.png", "dog/1.png"]), settings)
    assert {label for label, _ in labels(listing).values()} == {"test", "dog"}


def test_other_folders_beside_real_splits_are_left_out(tmp_path: Path, settings: Settings) -> None:
    names = ["train/cats/1.png", "train/dogs/1.png", "test/cats/1.png", "test/dogs/1.png", "previews/1.png"]
    listing = listed(touch(tmp_path / "d", names), settings)
    assert len(listing.files) == 4
    assert reasons(listing) == {"previews/1.png": "in none of the train, validation and test folders"}


def test_unlabelled_test_images_are_left_out(tmp_path: Path, settings: Settings) -> None:
    listing = listed(touch(tmp_path / "d", ["train/cats/1.png", "train/dogs/1.png", "test/1.png"]), settings)
    assert labels(listing) == {"train/cats/1.png": ("cats", "train"), "train/dogs/1.png": ("dogs", "train")}
    assert reasons(listing) == {"test/1.png": "it lies directly in 'test', so it has no class"}


def test_hidden_files_and_clutter_are_passed_over_in_silence(tmp_path: Path, settings: Settings) -> None:
    clutter = [".git/1.png", ".DS_Store", "cats/._1.png", "__MACOSX/cats/1.png", "cats/Thumbs.db", "Desktop.ini"]
    listing = listed(touch(tmp_path / "d", ["cats/1.png", "dogs/1.png", *clutter]), settings)
    assert len(listing.files) == 2
    assert listing.skipped == []


def test_what_is_not_used_is_listed_with_its_reason(tmp_path: Path, settings: Settings) -> None:
    others = ["cats/notes.txt", "stray.png", "labels.csv", "dogs/a.heic"]
    listing = listed(touch(tmp_path / "d", ["cats/1.png", "dogs/1.png", *others]), settings)
    assert reasons(listing) == {
        "cats/notes.txt": "not an image",
        "stray.png": "it lies beside the class folders, so it has no class",
        "labels.csv": "a table; the class folders were used instead",
        "dogs/a.heic": "a HEIC photo, which cannot be read; save it as JPEG",
    }


def test_files_without_an_ending_are_left_to_the_decoder(tmp_path: Path, settings: Settings) -> None:
    listing = listed(touch(tmp_path / "d", ["cats/1", "dogs/1"]), settings)
    assert set(labels(listing)) == {"cats/1", "dogs/1"}


def test_a_class_folder_without_images_is_mentioned(tmp_path: Path, settings: Settings) -> None:
    root = touch(tmp_path / "d", ["cats/1.png", "dogs/1.png"])
    (root / "fish").mkdir()
    assert listed(root, settings).notes == ["Folders without images were passed over: 'fish'."]


@pytest.mark.parametrize("label", ["日本語", "train station", "🐱", "None", "null", "x" * 200, "a.b", " spaced "])
def test_labels_come_through_unchanged(tmp_path: Path, settings: Settings, label: str) -> None:
    listing = listed(touch(tmp_path / "d", [f"{label}/1.png", "other/1.png"]), settings)
    assert {file.label for file in listing.files} == {label, "other"}


def test_a_name_that_is_not_unicode_becomes_printable(tmp_path: Path, settings: Settings) -> None:
    root = touch(tmp_path / "d", ["cats/1.png", "dogs/1.png"])
    odd = os.fsencode(root / "cats") + b"/caf\xe9.png"
    with open(odd, "wb"):
        pass
    listing = listed(root, settings)
    (file,) = [file for file in listing.files if file.name.startswith("cats/caf")]
    assert file.name.encode("utf-8").decode() == "cats/caf\ufffd.png"
    assert os.fsencode(file.path) == odd


def test_linked_folders_are_not_followed_and_loops_do_no_harm(tmp_path: Path, settings: Settings) -> None:
    root = touch(tmp_path / "d", ["cats/1.png", "dogs/1.png"])
    outside = touch(tmp_path / "outside", ["1.png"])
    (root / "fish").symlink_to(outside)
    (root / "cats" / "loop").symlink_to(root)
    (root / "cats" / "self.png").symlink_to(root / "cats" / "self.png")
    (root / "cats" / "linked.png").symlink_to(outside / "1.png")
    os.mkfifo(root / "dogs" / "pipe.png")
    listing = listed(root, settings)
    assert set(labels(listing)) == {"cats/1.png", "cats/linked.png", "dogs/1.png"}
    assert reasons(listing) == {
        "fish": "a link to a folder; links are not followed",
        "cats/loop": "a link to a folder; links are not followed",
        "cats/self.png": "not an image: a broken link, a device or a pipe",
        "dogs/pipe.png": "not an image: a broken link, a device or a pipe",
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"photos holds no images: it is empty; put images into one folder for each class, such as cat/1.jpg"),
        (["a.txt", "b/c.txt"], r"holds no images, but 2 other files, such as a.txt"),
        (["a.txt"], r"holds no images, but 1 other file, such as a.txt"),
        (["1.png"], r"the 1 image of photos lies directly in the folder, so it has no class: put "),
        (["cats/1.png", "cats/2.png"], r"holds only one class, 'cats'; two are needed"),
        (["train/cats/1.png", "test/cats/1.png"], r"holds only one class, 'cats'; two are needed"),
        (
            ["1.png", "2.png"],
            r"the 2 images of photos lie directly in the folder, so they have no class: put .*labels.csv",
        ),
        (
            ["train/1.png", "test/2.png"],
            r"the 2 images of photos lie in folders named like splits, without class folders",
        ),
    ],
)
def test_a_folder_that_is_not_arranged_as_classes_is_explained(
    tmp_path: Path, settings: Settings, names: list[str], message: str
) -> None:
    root = tmp_path / "d"
    root.mkdir()
    with pytest.raises(DataError, match=message):
        listed(touch(root, names), settings)


def test_too_many_files_are_refused(tmp_path: Path, settings: Settings) -> None:
    root = touch(tmp_path / "d", [f"{label}/{number}.png" for label in "ab" for number in range(6)])
    with pytest.raises(DataError, match=r"holds more than 10 files; .*set TL_MAX_FILES to allow more"):
        walk(root, replace(settings, max_files=10))


def test_many_classes_are_no_matter(tmp_path: Path, settings: Settings) -> None:
    listing = listed(touch(tmp_path / "d", [f"{number}/{n}.png" for number in range(500) for n in range(2)]), settings)
    assert len({file.label for file in listing.files}) == 500


def test_a_division_inside_class_folders_is_said_not_to_be_used(tmp_path: Path, settings: Settings) -> None:
    names = [f"{label}/{split}/1.png" for label in ("cats", "dogs") for split in ("train", "test")]
    listing = listed(touch(tmp_path / "d", names), settings)
    assert {file.split for file in listing.files} == {None}
    assert len(listing.notes) == 1
    assert "2 class folders hold folders named like train and test ('cats', 'dogs')" in listing.notes[0]
    assert listed(touch(tmp_path / "e", ["cats/indoors/1.png", "dogs/1.png"]), settings).notes == []


def test_a_table_that_is_not_used_is_said(tmp_path: Path, settings: Settings) -> None:
    listing = listed(touch(tmp_path / "d", ["cats/1.png", "dogs/1.png", "labels.csv"]), settings)
    assert "not the labels in 'labels.csv'" in listing.notes[0]


def test_only_what_claimed_to_be_an_image_is_unexpectedly_left_out(tmp_path: Path, settings: Settings) -> None:
    root = touch(tmp_path / "d", ["cats/1.png", "dogs/1.png", "a.txt", "labels.csv", "stray.png", "x.heic"])
    assert {s.name for s in listed(root, settings).skipped if not s.expected} == {"stray.png", "x.heic"}
