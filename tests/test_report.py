"""The report: its figures, its warnings with what to do, and few lines on a terminal whatever the size."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tl_core.images.collection import TEST, TRAIN, VALIDATION, Collection, Picture, Skipped
from tl_core.images.duplicates import find_duplicates
from tl_core.images.report import Report, make_report, render
from tl_core.images.splits import divide


def made(
    name: str,
    label: str,
    seed: int,
    split: str | None = None,
    size: tuple[int, int] = (100, 80),
    digest: str | None = None,
) -> Picture:
    """Another seed gives another picture; the same seed with another digest gives a near-duplicate."""
    noise = np.random.default_rng(seed)
    phash, grey = int(noise.integers(2**63)), noise.integers(0, 256, 256, dtype=np.uint8).tobytes()
    return Picture(Path(name), name, label, split, *size, "RGB", digest or name, phash, grey)


def collected(counts: Mapping[str, int], split: str | None = None, first_seed: int = 0) -> list[Picture]:
    pictures: list[Picture] = []
    for label, count in counts.items():
        for number in range(count):
            name = f"{split + '/' if split else ''}{label}/{number:03}.png"
            pictures.append(made(name, label, first_seed + len(pictures), split))
    return pictures


def report_on(pictures: Sequence[Picture], skipped: Sequence[Skipped] = (), notes: Sequence[str] = ()) -> Report:
    collection = Collection("my data", list(pictures), list(skipped), list(notes))
    duplicates = find_duplicates(collection.pictures)
    return make_report(collection, duplicates, divide(collection, duplicates.groups, 0))


def warned(report: Report, words: str) -> bool:
    return any(words in warning for warning in report.warnings)


def test_a_sound_collection_gives_figures_and_no_warning() -> None:
    pictures = collected({"10": 120, "9": 100})
    pictures[0] = made("10/000.png", "10", 0, size=(300, 60))
    report = report_on(pictures, notes=["Read from a table."])
    assert report.to_json() == {
        "source": "my data",
        "images": 220,
        "classes": {"9": 100, "10": 120},
        "skipped": [],
        "sizes": {
            "width": {"min": 100, "median": 100, "max": 300},
            "height": {"min": 60, "median": 80, "max": 80},
        },
        "balance": {"largest": "10", "smallest": "9", "ratio": 1.2},
        "duplicates": {
            "exact": {"groups": 0, "images": 0, "largest": 0, "files": []},
            "near": {"groups": 0, "images": 0, "largest": 0, "files": []},
            "conflicting": 0,
            "conflicts": [],
        },
        "leakage": {"images": 0, "exact": [], "near": [], "more": 0},
        "splits": {"train": 154, "validation": 33, "test": 33, "reported": "test", "given": False, "folds": False},
        "recommendation": report.recommendation,
        "warnings": [],
        "notes": ["Read from a table."],
    }
    assert list(report.classes) == ["9", "10"]
    assert report.recommendation["strategy"] == "frozen"


def test_the_answer_is_json_with_names_in_any_language() -> None:
    pictures = [*collected({"日本語": 120, "🌱 seedling": 120}), made("日本語/twin.png", "日本語", 3)]
    answer = report_on(pictures).to_json()
    assert json.loads(json.dumps(answer)) == answer


@pytest.mark.parametrize(
    ("count", "words"), [(3, "about 3 images per class"), (300, "about 300 images"), (3000, "about 3,000 images")]
)
def test_the_reason_names_the_images_per_class(count: int, words: str) -> None:
    report = report_on(collected({"a": count, "b": count}))
    assert words in report.recommendation["reason"]
    assert report.recommendation["strategy"] == "frozen"


def test_small_and_uneven_classes_are_warned_of() -> None:
    report = report_on(collected({"many": 250, "few": 9, "enough": 30, "one": 1, "single": 1}))
    assert warned(report, "2 classes have a single image ('one', 'single')")
    assert warned(report, "1 class has fewer than 10 images ('few')")
    assert warned(report, "250 images of 'many', 1 of 'one'")
    assert not warned(report, "There are only")
    assert not warned(report_on(collected({"a": 250, "b": 25})), "unbalanced")


def test_few_images_in_all_are_warned_of_and_folds_said() -> None:
    report = report_on(collected({"a": 99, "b": 100}))
    assert warned(report, "There are only 199 images")
    assert report.splits["folds"] is True
    assert any("k-fold" in note for note in report.notes)


def test_very_small_images_are_warned_of() -> None:
    pictures = collected({"a": 120, "b": 120})
    pictures[0] = made("a/000.png", "a", 0, size=(31, 400))
    pictures[1] = made("a/001.png", "a", 1, size=(32, 32))
    assert warned(report_on(pictures), "1 image is less than 32 pixels wide or high, too small to show much")


def test_many_skipped_files_are_warned_of_and_few_are_not() -> None:
    pictures = collected({"a": 150, "b": 150})
    skipped = [Skipped(f"{n}.png", "empty file") for n in range(20)]
    assert warned(report_on(pictures, skipped), "20 of 320 images were left out")
    others = [Skipped(f"{n}.txt", "not an image", expected=True) for n in range(200)]
    assert not warned(report_on(pictures, others), "left out")
    assert not warned(report_on(pictures, skipped[:3]), "left out")
    assert warned(report_on(pictures[148:152], skipped[:1]), "1 of 5 images was left out")
    assert report_on(pictures, skipped[:1]).skipped == [{"file": "0.png", "reason": "empty file"}]


def test_duplicates_and_conflicts_are_named() -> None:
    pictures = collected({"a": 120, "b": 120})
    pictures += [
        made("a/copy.png", "a", 3, digest="a/003.png"),
        made("a/twin.png", "a", 4),
        made("b/copy.png", "b", 5, digest="a/005.png"),
        made("b/twin.png", "b", 6),
    ]
    report = report_on(pictures)
    assert report.duplicates["exact"] == {
        "groups": 2,
        "images": 4,
        "largest": 2,
        "files": [["a/003.png", "a/copy.png"], ["a/005.png", "b/copy.png"]],
    }
    assert report.duplicates["near"]["files"] == [["a/004.png", "a/twin.png"], ["a/006.png", "b/twin.png"]]
    assert report.duplicates["conflicts"] == [
        {"kind": "exact", "files": [{"file": "a/005.png", "label": "a"}, {"file": "b/copy.png", "label": "b"}]},
        {"kind": "near", "files": [{"file": "a/006.png", "label": "a"}, {"file": "b/twin.png", "label": "b"}]},
    ]
    assert warned(report, "4 files are copies of one another (2 groups)")
    assert warned(report, "4 images are nearly the same as others (2 groups)")
    assert warned(report, "4 images have a copy or near-duplicate with another label")
    assert warned(report, "'a/005.png' and 'b/copy.png'")


def test_leakage_between_given_parts_is_named() -> None:
    pictures = collected({"a": 120, "b": 120}, TRAIN) + collected({"a": 20, "b": 20}, TEST, first_seed=1000)
    pictures += [
        made("test/a/copy.png", "a", 3, TEST, digest="train/a/003.png"),
        made("test/a/twin.png", "a", 4, TEST),
        made("train/a/twin.png", "a", 5, TRAIN),
    ]
    report = report_on(pictures)
    assert report.leakage == {
        "images": 2,
        "exact": [
            [{"file": "test/a/copy.png", "split": TEST}, {"file": "train/a/003.png", "split": TRAIN}],
        ],
        "near": [
            [{"file": "test/a/twin.png", "split": TEST}, {"file": "train/a/004.png", "split": TRAIN}],
        ],
        "more": 0,
    }
    assert warned(report, "2 images outside train can be found in another part too")
    assert (report.splits["given"], report.splits["reported"], report.splits["test"]) == (True, TEST, 42)


def test_parts_that_are_divided_anew_leak_nothing() -> None:
    pictures = collected({"a": 120, "b": 120}, VALIDATION) + collected({"a": 20, "b": 20}, TEST, first_seed=1000)
    pictures.append(made("test/a/copy.png", "a", 3, TEST, digest="validation/a/003.png"))
    assert report_on(pictures).leakage["images"] == 0


def test_what_the_person_gave_as_validation_is_reported_as_validation() -> None:
    pictures = collected({"a": 150, "b": 150}, TRAIN) + collected({"a": 20, "b": 20}, VALIDATION, first_seed=1000)
    assert report_on(pictures).splits == {
        "train": 255,
        "validation": 45,
        "test": 40,
        "reported": VALIDATION,
        "given": True,
        "folds": False,
    }


def burst(count: int, label: str) -> list[Picture]:
    """Frames that each differ by four grey levels from the one before, so that only neighbours are near-duplicates."""
    noise, change = np.random.default_rng(0).integers(100, 150, 256), np.tile([1, -1], 128)
    greys = [(noise + change * (4 * number - 2 * count)).astype(np.uint8).tobytes() for number in range(count)]
    return [
        Picture(Path(f"{number:03}"), f"{label}/{number:03}", label, None, 100, 80, "RGB", f"{label}{number}", 7, grey)
        for number, grey in enumerate(greys)
    ]


def test_a_series_that_had_to_be_divided_is_warned_of() -> None:
    report = report_on(burst(50, "a") + collected({"b": 170}))
    assert warned(report, "of nearly the same images had to be divided between the parts")
    assert not warned(report_on(burst(12, "a") + collected({"a": 98, "b": 110})), "had to be divided")


def test_every_warning_says_what_to_do() -> None:
    pictures = collected({"a": 120, "b": 9, "c": 1, "d": 5}, TRAIN) + collected({"a": 9, "b": 9}, TEST, first_seed=1000)
    pictures += [made("test/b/twin.png", "b", 4, TEST, size=(9, 9)), made("x", "b", 0, TEST, digest="train/a/000.png")]
    report = report_on(pictures, [Skipped(f"{n}.png", "empty file") for n in range(99)])
    assert len(report.warnings) == 10
    to_do = ("Add ", "Use ", "Read ", "Keep ", "Remove ", "Delete ", "Go by ")
    assert [warning for warning in report.warnings if not any(words in warning for words in to_do)] == []


def test_the_terminal_shows_all_of_a_small_collection() -> None:
    lines = render(report_on(collected({"cat": 120, "日本語": 1000}), [Skipped("cat/x.png", "empty file")]))
    assert lines[0] == "1,120 images in 2 classes, 100 × 80 pixels"
    assert lines[1:3] == ["    120  cat", "  1,000  日本語"]
    assert "split     train 784, validation 168, test 168 (drawn by class); figures from test" in lines
    assert lines[lines.index("left out  1 file") + 1] == "  cat/x.png: empty file"
    assert lines[-1].startswith("strategy  frozen. ")


def test_one_image_is_shown_in_the_singular() -> None:
    assert render(report_on([made("a/1.png", "a", 0)]))[0] == "1 image in 1 class, 100 × 80 pixels"


def test_the_terminal_shows_the_ends_of_a_large_collection() -> None:
    pictures = collected({f"{n}": 2 + n % 3 for n in range(1000)})
    lines = render(report_on(pictures, [Skipped(f"{n}.png", "empty file") for n in range(10_000)]))
    assert len(lines) < 40
    assert "  …  990 classes between" in lines
    assert "  and 9,990 more; --json lists them all" in lines
    assert max(map(len, lines)) < 400


def test_names_cannot_steer_the_terminal_nor_fill_it() -> None:
    label = "\x1b[2J\r" + "x" * 200
    report = report_on(collected({label: 1, "b": 100}), [Skipped("a\nb", "\x1b]0;title\x07")])
    lines = render(report)
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 400
    assert report.classes[label] == 1


def test_one_file_in_two_rows_is_no_copy_to_delete() -> None:
    pictures = collected({"a": 120, "b": 120})
    pictures.append(replace(pictures[0], label="b"))
    report = report_on(pictures)
    assert report.duplicates["exact"]["groups"] == 0
    assert not warned(report, "Keep one of each group")
    assert warned(report, "2 images have a copy or near-duplicate with another label")
    assert warned(report, "or their rows in the table")


def test_many_look_alikes_are_counted_and_not_all_listed() -> None:
    noise = np.random.default_rng(0).integers(0, 3, (1200, 256))
    pictures = collected({"a": 100, "b": 100}, TRAIN)
    pictures += [
        Picture(Path(f"{n}"), f"{n}", "ab"[n % 2], (TRAIN, TEST)[n % 2], 100, 80, "RGB", f"{n}", 7, grey.tobytes())
        for n, grey in enumerate((100 + noise + np.arange(256) % 50).astype(np.uint8))
    ]
    report = report_on(pictures)
    assert len(report.leakage["near"]) == 1000
    assert report.leakage["more"] > 1000
    assert report.leakage["images"] == 600
    assert report.duplicates["conflicting"] == 1200
    assert len(json.dumps(report.to_json())) < 2_000_000


def test_letters_of_every_language_reach_the_terminal() -> None:
    family, persian, japanese = (
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u0645\u06cc\u200c\u062e\u0648",
        "\u732b\u3000\u72ac",
    )
    lines = render(report_on(collected({family: 100, persian: 100, japanese: 50, "\u202eevil": 1})))
    text = "\n".join(lines)
    assert all(label in text for label in (family, persian, japanese))
    assert "\u202e" not in text


def test_data_that_training_refuses_is_told_by_the_check() -> None:
    assert warned(report_on(collected({"a": 1, "b": 1, "c": 1})), "`train` refuses these images")
    assert not warned(report_on(collected({"a": 2, "b": 2})), "`train` refuses these images")
